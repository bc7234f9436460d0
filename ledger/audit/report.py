"""What an audit says: one status per check, one for the whole, and the exit code that scripts look at.

Besides, for people who want to see where: the findings one by one, a row for each round and one for each member.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Any, Literal

import msgspec

from folkmoot.ledger.audit.grouping import group
from folkmoot.protocol.types import Round

_SHOWN = 5
"""Kinds of problems that are named in a check's detail; of the rest only the number is given."""

MAX_FINDINGS = 1000
"""Findings of one check that are kept: who breaks everything must not fill the auditor's memory."""


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
    """The outcome of one check. `id` and `number` are stable: scripts may rely on them."""

    id: str
    status: Status
    detail: str
    number: int = 0


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be, and where its evidence lies.

    `id` is the same in every audit that finds it. `proof` holds what convicts, in hex, where signatures do.
    """

    id: str
    check: str
    status: Status
    what: str
    round: int | None = None
    member: str | None = None
    where: str = ""
    proof: dict[str, Any] | None = None


class RoundRow(msgspec.Struct, frozen=True, kw_only=True):
    """One round at a glance; numbers are None where nothing given tells them. Digests in hex.

    `status` is the worst of the checks that looked at the round.
    """

    round: int
    status: Status
    recorded: bool
    block: int | None = None
    signatures: int | None = None
    named: int | None = None
    survivors: int | None = None
    attempt: int | None = None
    digest: str | None = None
    model: str | None = None


class MemberRound(msgspec.Struct, frozen=True):
    """What became of a member's contribution to one round, if it did not simply count. `state` is a `State`."""

    round: int
    state: str
    why: str


COUNTED = (
    "attested: rounds whose record it signed for the ledger; contributed: rounds whose model holds its update"
)
"""What the columns of the members' table count."""


class MemberRow(msgspec.Struct, frozen=True, kw_only=True):
    """A member's part: rounds that it contributed to, what became of the others, statements that it attested.

    `spans` are the first and last rounds of each time as a member, as far as their records were given.
    """

    name: str
    role: str
    attested: int = 0
    contributed: int = 0
    others: dict[str, int] = {}
    rounds: tuple[MemberRound, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What was audited: which federation on which ledger, and how far. Digests and addresses in hex."""

    federation: str = ""
    name: str = ""
    chain_id: int | None = None
    contract: str = ""
    height: int | None = None
    head: str = ""
    block: int | None = None
    block_hash: str = ""
    block_time: int | None = None


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """All checks in their order, and remarks that are no verdict. Fields may be added, none will be taken away."""

    format: Literal["folkmoot/v1/audit"] = "folkmoot/v1/audit"
    status: Status
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()
    subject: Subject = Subject()
    findings: tuple[Finding, ...] = ()
    rounds: tuple[RoundRow, ...] = ()
    members: tuple[MemberRow, ...] = ()

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
        self._found: dict[Status, dict[str, Finding]] = {}
        self._count: dict[Status, int] = {}
        self._remarks: list[str] = []
        self.worst_by_round: dict[Round, Status] = {}

    def add_pass(self, count: int = 1) -> None:
        """One round (or whatever the check counts) is as it should be."""
        self._passed += count

    def remark(self, text: str) -> None:
        """Something worth telling if all is well."""
        if text not in self._remarks:
            self._remarks.append(text)

    def add(
        self,
        status: Status,
        problem: str,
        *,
        round_: Round | None = None,
        member: str | None = None,
        where: str = "",
        proof: dict[str, Any] | None = None,
    ) -> None:
        """A problem, told in words that name the place; the rest is for those who read findings by program."""
        found = self._found.setdefault(status, {})
        if problem in found:
            return
        self._count[status] = self._count.get(status, 0) + 1
        if round_ is not None:
            before = self.worst_by_round.get(round_, Status.PASS)
            self.worst_by_round[round_] = worst(before, status)
        if len(found) < MAX_FINDINGS:
            found[problem] = Finding(
                id=_finding_id(self.id, status, problem),
                check=self.id,
                status=status,
                what=_printable(problem),
                round=round_,
                member=member,
                where=_printable(where),
                proof=proof,
            )

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong or missing so far."""
        return not self._found

    @property
    def gravest(self) -> Status:
        """The worst so far; PASS if nothing is wrong or missing."""
        return next((status for status in _GRAVITY if status in self._found), Status.PASS)

    @property
    def findings(self) -> list[Finding]:
        """All that is wrong or missing, worst first; what was skipped is not among it."""
        return [one for status in _GRAVITY for one in self._found.get(status, {}).values()]

    def close(self, passed: str, number: int = 0) -> Check:
        """The outcome; `passed` says what was checked, with `{}` for how many."""
        gravest = self.gravest
        told = "; ".join([passed.format(self._passed), *self._remarks])
        if gravest is not Status.PASS:
            return Check(self.id, gravest, _printable(self._join(gravest)), number)
        skipped = self._join(Status.SKIPPED) if Status.SKIPPED in self._found else ""
        if self._passed == 0 and skipped:
            return Check(self.id, Status.SKIPPED, _printable(skipped), number)
        detail = f"{told}; not checked: {skipped}" if skipped else told
        return Check(self.id, Status.PASS, _printable(detail), number)

    def _join(self, status: Status) -> str:
        groups = group(self._found[status].values())[:_SHOWN]
        more = self._count[status] - sum(len(one.findings) for one in groups)
        return "; ".join(one.told for one in groups) + (f"; and {more} more" if more > 0 else "")


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
        numbered = enumerate(self._tallies.items(), start=1)
        return [tally.close(self._passed[id_], number) for number, (id_, tally) in numbered]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Those of all checks, worst first."""
        found = [one for tally in self._tallies.values() for one in tally.findings]
        return tuple(sorted(found, key=lambda one: _GRAVITY.index(one.status)))

    def worst_of_round(self, number: Round) -> Status:
        """The worst that any check found in a round."""
        found = Status.PASS
        for tally in self._tallies.values():
            found = worst(found, tally.worst_by_round.get(number, Status.PASS))
        return found


def worst(one: Status, other: Status) -> Status:
    """The graver of the two; PASS and SKIPPED weigh nothing."""
    return next((status for status in _GRAVITY if status in (one, other)), Status.PASS)


def worst_of(checks: Iterable[Check]) -> Status:
    """The status of the whole; what was skipped does not count against it."""
    found = {check.status for check in checks}
    return next((status for status in _GRAVITY if status in found), Status.PASS)


def exit_code_of(status: Status) -> int:
    """What scripts look at."""
    return _EXIT_CODES.get(status, 0)


def printable_notes(notes: Iterable[str]) -> tuple[str, ...]:
    """Remarks as they may be shown: what archives hold may come from anybody."""
    return tuple(map(_printable, notes))


def _finding_id(check: str, status: Status, problem: str) -> str:
    return sha256(f"{check}\n{status}\n{problem}".encode()).hexdigest()[:12]


def _printable(text: str) -> str:
    """Without control characters: details quote archives, which may come from anybody."""
    return "".join(char if char.isprintable() else "?" for char in text)
