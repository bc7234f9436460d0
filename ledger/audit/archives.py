"""Checks 11 to 23 and 29 on one round: every record of it, in every archive. The numbers are those of `checks.py`."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeAlias

from folkmoot.ledger.audit import round_checks, secure_checks
from folkmoot.ledger.audit.participation import Faults, State
from folkmoot.ledger.audit.replay import OpenedPayloads, Replay, sealing_secrets
from folkmoot.ledger.audit.report import Status, Tallies, Tally
from folkmoot.ledger.audit.round_checks import Case, Frame
from folkmoot.ledger.audit.secure_checks import UnmaskedSums
from folkmoot.ledger.audit.sources import Convicted, Damaged, Lacking, NotJudged, Source
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.record import decode_record
from folkmoot.protocol.types import MemberId, Round

_RoundCheck: TypeAlias = tuple[str, Callable[[Case, Frame], None], tuple[str, ...]]
"""Name, check, and the checks that it rests on."""

_BOTH_MODES: tuple[_RoundCheck, ...] = (
    ("rosters", round_checks.check_roster, ()),
    ("certificates", round_checks.check_certificate, ()),
    ("openings", round_checks.check_opening, ()),
    ("statements", round_checks.check_statement, ("ledger", "rounds")),
    ("inclusion", round_checks.check_inclusion, ("ledger", "rounds")),
)
_OPEN_MODE: tuple[_RoundCheck, ...] = (
    *_BOTH_MODES,
    ("commitments", round_checks.check_commitments, ("rosters",)),
    ("payloads", round_checks.check_payloads, ("commitments",)),
)
_SECURE_MODE: tuple[_RoundCheck, ...] = (
    *_BOTH_MODES,
    ("commitments", secure_checks.check_commitments, ("rosters", "openings")),
    ("payloads", secure_checks.check_shards, ("commitments",)),
    ("sums", secure_checks.check_sums, ("commitments",)),
    ("fingerprints", secure_checks.check_fingerprints, ("sums",)),
    ("releases", secure_checks.check_releases, ("commitments",)),
)
_REPLAY_RESTS_ON = ("rosters", "openings", "statements", "commitments")
_OPEN_REPLAY_RESTS_ON = (*_REPLAY_RESTS_ON, "payloads")
_SECURE_REPLAY_RESTS_ON = (*_REPLAY_RESTS_ON, "sums", "releases")

SECURE_CHECKS = ("sums", "fingerprints", "releases")
"""The checks that only secure mode has."""

RECORD_CHECKS = (
    *("records", "rosters", "certificates", "openings", "statements", "commitments", "inclusion", "payloads"),
    *SECURE_CHECKS,
)
"""The checks that need a charter and an archive, and look at each record by itself."""

SETTLED = ("rosters", "openings")
"""What a record must have passed for its roster and survivors to be believed."""


def read_round(number: Round, sources: Sequence[Source], tally: Tally) -> Iterator[Case]:
    """(11) All records of a round; those that archives share come once."""
    seen: set[bytes] = set()
    for source in sources:
        yield from _read_case(number, source, seen, tally)
    if not any(source.has_record(number) for source in sources):
        tally.add(Status.INCONCLUSIVE, f"round {number}: no archive given has a record", round_=number)


def _read_case(number: Round, source: Source, seen: set[bytes], tally: Tally) -> Iterator[Case]:
    where = f"round {number} in {source.name}"
    try:
        data = source.record(number)
        if data is None or data in seen:
            return
        seen.add(data)
        record = decode_record(data)
    except OSError as error:
        tally.add(Status.INCONCLUSIVE, f"{where}: {error}", round_=number, where=source.name)
    except RemoteProtocolError as error:
        tally.add(Status.FAIL, f"{where}: {error}", round_=number, where=source.name)
    else:
        tally.add_pass()
        yield Case(number, where, record)


class CaseAudit:
    """Runs the checks of its charter's mode on records, and replays them in ascending order."""

    def __init__(self, frame: Frame, tallies: Tallies, after: Replay | None = None) -> None:
        """`after`: the replay of the rounds before, under another charter."""
        self._frame = frame
        self._tallies = tallies
        self._is_secure = frame.federation.charter.is_secure
        make_replay = _secure_replay if self._is_secure else _open_replay
        self.replay: Replay | None = make_replay(frame, tallies["replay"], after)
        if not self._is_secure:
            tallies.skip("open mode has no masks", SECURE_CHECKS)

    def check(self, case: Case, held: set[str]) -> Faults:
        """(12) to (22). `held` are the checks that already hold of the round; those that the record passes are added.

        Returns what was found of members.
        """
        faults: dict[MemberId, tuple[State, str]] = {}
        for id_, check, rests_on in _SECURE_MODE if self._is_secure else _OPEN_MODE:
            faults |= self._try(id_, case, held, rests_on, partial(check, case, self._frame))
        if self.replay is not None:
            rests_on = _SECURE_REPLAY_RESTS_ON if self._is_secure else _OPEN_REPLAY_RESTS_ON
            faults |= self._try("replay", case, held, rests_on, partial(self.replay.check, case))
            why = "its payload is ill-formed and counted as zero"
            faults |= dict.fromkeys(self.replay.ill_formed.get(case.round, ()), (State.INVALID, why))
        return faults

    def _try(
        self, id_: str, case: Case, held: set[str], rests_on: Sequence[str], check: Callable[[], None]
    ) -> Faults:
        """Run one check on one record; returns what it found of members."""
        missing = [name for name in rests_on if name not in held]
        if missing:
            self._tell(id_, Status.SKIPPED, case, f"{case.where} rests on `{missing[0]}`")
            return {}
        try:
            check()
        except NotJudged as error:
            self._tell(id_, Status.SKIPPED, case, f"{case.where} {error}")
        except (Lacking, OSError) as error:
            self._tell(id_, Status.INCONCLUSIVE, case, f"{case.where}: {error}")
            members = error.members if isinstance(error, Lacking) else ()
            return dict.fromkeys(members, (State.WITHHELD, "no archive given has its payload"))
        except Convicted as error:
            self._tell(id_, Status.MISBEHAVIOUR, case, f"{case.where}: {error}")
        except (RemoteProtocolError, LocalProtocolError) as error:
            member = self._frame.name(error.member) if isinstance(error, Damaged) else None
            self._tell(id_, Status.FAIL, case, f"{case.where}: {error}", member)
            if isinstance(error, Damaged):
                return {error.member: (State.INVALID, str(error))}
        else:
            held.add(id_)
            self._tallies[id_].add_pass()
        return {}

    def _tell(self, id_: str, status: Status, case: Case, problem: str, member: str | None = None) -> None:
        self._tallies[id_].add(status, problem, round_=case.round, member=member, where=case.where)


def _open_replay(frame: Frame, tally: Tally, after: Replay | None) -> Replay | None:
    """(22) None if no home with its keys was given."""
    try:
        secrets = sealing_secrets(frame.sources)
    except (Lacking, OSError) as error:
        tally.add(Status.INCONCLUSIVE, str(error))
        return None
    if not secrets:
        tally.add(Status.SKIPPED, "no home with its sealing key was given")
        return None
    return Replay(frame, OpenedPayloads(frame, secrets), after)


def _secure_replay(frame: Frame, tally: Tally, after: Replay | None) -> Replay | None:
    """(22) None if the starting weights were not given: nothing else is needed."""
    charter = frame.federation.charter
    initial = bytes.fromhex(charter.model.initial)
    if not any(source.is_home or source.blob(initial) for source in frame.sources):
        tally.add(Status.SKIPPED, "no home with the starting weights was given")
        return None
    return Replay(frame, UnmaskedSums(frame), after)
