"""What an audit says: one status per check, one for the whole, and the exit code that scripts look at."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Literal

import msgspec

_SHOWN = 5
"""Problems that are named one by one; of the rest only the number is given."""


class Status(StrEnum):
    """How a check, or the whole audit, came out."""

    PASS = "PASS"
    SKIPPED = "SKIPPED"
    """Not asked for (no charter, archive or key was given), or resting on a check that did not pass."""
    INCONCLUSIVE = "INCONCLUSIVE"
    """Something that the check needs is missing: neither good nor bad is shown."""
    UNREACHABLE = "UNREACHABLE"
    """The ledger did not answer."""
    FAIL = "FAIL"
    MISBEHAVIOUR = "MISBEHAVIOUR"
    """There is proof, by their own signatures, that a member broke the rules."""


_GRAVITY = (Status.MISBEHAVIOUR, Status.FAIL, Status.UNREACHABLE, Status.INCONCLUSIVE)
"""Where several apply, the first of these counts."""

_EXIT_CODES = {Status.MISBEHAVIOUR: 4, Status.FAIL: 1, Status.UNREACHABLE: 5, Status.INCONCLUSIVE: 3}


class Check(msgspec.Struct, frozen=True):
    """The outcome of one check. `id` is stable: scripts may rely on it."""

    id: str
    status: Status
    detail: str


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """All checks in their order, and remarks that are no verdict."""

    format: Literal["folkmoot/v1/audit"] = "folkmoot/v1/audit"
    status: Status
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 inconclusive, 4 misbehaviour, 5 ledger unreachable (2 is the command line's)."""
        return exit_code_of(self.status)

    def check(self, id_: str) -> Check:
        """The check called `id_`; raises `KeyError`."""
        for check in self.checks:
            if check.id == id_:
                return check
        raise KeyError(id_)


class Tally:
    """What one check has found so far; most checks look at many rounds."""

    def __init__(self, id_: str) -> None:
        self.id = id_
        self._passed = 0
        self._found: dict[Status, list[str]] = {}

    def add_pass(self, count: int = 1) -> None:
        """One round (or whatever the check counts) is as it should be."""
        self._passed += count

    def add(self, status: Status, problem: str) -> None:
        """A problem, told in words that name the place."""
        problems = self._found.setdefault(status, [])
        if problem not in problems:
            problems.append(problem)

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong or missing so far."""
        return not self._found

    def close(self, passed: str) -> Check:
        """The outcome; `passed` says what was checked, with `{}` for how many."""
        worst = next((status for status in _GRAVITY if status in self._found), None)
        skipped = self._found.get(Status.SKIPPED, [])
        told = passed.format(self._passed)
        if worst is not None:
            return Check(self.id, worst, _printable(_join(self._found[worst])))
        if self._passed == 0 and skipped:
            return Check(self.id, Status.SKIPPED, _printable(_join(skipped)))
        detail = f"{told}; not checked: {_join(skipped)}" if skipped else told
        return Check(self.id, Status.PASS, _printable(detail))


class Tallies:
    """The tallies of all checks, in the order of the list."""

    def __init__(self, passed: Mapping[str, str]) -> None:
        """`passed`: every check's id, and what it says when all is well; see `Tally.close`."""
        self._passed = passed
        self._tallies = {id_: Tally(id_) for id_ in passed}

    def __getitem__(self, id_: str) -> Tally:
        return self._tallies[id_]

    def skip(self, why: str, ids: Iterable[str]) -> None:
        """None of these checks is made."""
        for id_ in ids:
            self._tallies[id_].add(Status.SKIPPED, why)

    def close(self) -> list[Check]:
        """All outcomes."""
        return [tally.close(self._passed[id_]) for id_, tally in self._tallies.items()]


def compose_report(checks: list[Check], notes: list[str]) -> AuditReport:
    """The report over `checks`."""
    return AuditReport(status=worst_of(checks), checks=tuple(checks), notes=tuple(map(_printable, notes)))


def worst_of(checks: Iterable[Check]) -> Status:
    """The status of the whole; what was skipped does not count against it."""
    found = {check.status for check in checks}
    return next((status for status in _GRAVITY if status in found), Status.PASS)


def exit_code_of(status: Status) -> int:
    """What scripts look at."""
    return _EXIT_CODES.get(status, 0)


def _join(problems: list[str]) -> str:
    more = len(problems) - _SHOWN
    return "; ".join(problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _printable(text: str) -> str:
    """Without control characters: details quote archives, which may come from anybody."""
    return "".join(char if char.isprintable() else "?" for char in text)
