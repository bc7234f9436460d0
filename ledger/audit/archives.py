"""Checks 11 to 23 over all records of all archives. The numbers are those of `checks.py`."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeAlias

from folkmoot.ledger.audit import round_checks, secure_checks
from folkmoot.ledger.audit.equivocation import search_equivocation
from folkmoot.ledger.audit.ledger_checks import LedgerView, statements_of
from folkmoot.ledger.audit.replay import OpenedPayloads, Replay, sealing_secrets
from folkmoot.ledger.audit.report import Status, Tallies, Tally
from folkmoot.ledger.audit.round_checks import Case, Frame
from folkmoot.ledger.audit.secure_checks import UnmaskedSums
from folkmoot.ledger.audit.sources import Convicted, Lacking, NotJudged, Source
from folkmoot.ledger.signing import KeyVerifier
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.messages import Signed
from folkmoot.protocol.record import decode_record
from folkmoot.protocol.typed_data import Domain
from folkmoot.protocol.types import Digest, Round

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

ARCHIVE_CHECKS = (
    *("records", "rosters", "certificates", "openings", "statements", "commitments", "inclusion", "payloads"),
    *SECURE_CHECKS,
    *("replay", "equivocation"),
)
"""The checks that need a charter, and all but the last an archive."""


def read_cases(sources: Sequence[Source], views: Sequence[LedgerView], tally: Tally) -> Iterator[Case]:
    """(11) All records of all archives, ascending by round; those that archives share come once."""
    recorded = set(statements_of(views[0])) if views else set()
    archived = {number for source in sources for number in source.rounds()}
    for number in sorted(recorded | archived):
        seen: set[bytes] = set()
        for source in sources:
            yield from _read_case(number, source, seen, tally)
        if not any(source.has_record(number) for source in sources):
            tally.add(Status.INCONCLUSIVE, f"round {number}: no archive given has a record")


def _read_case(number: Round, source: Source, seen: set[bytes], tally: Tally) -> Iterator[Case]:
    where = f"round {number} in {source.name}"
    try:
        data = source.record(number)
        if data is None or data in seen:
            return
        seen.add(data)
        record = decode_record(data)
    except OSError as error:
        tally.add(Status.INCONCLUSIVE, f"{where}: {error}")
    except RemoteProtocolError as error:
        tally.add(Status.FAIL, f"{where}: {error}")
    else:
        tally.add_pass()
        yield Case(number, where, record)


def check_archives(
    federation: Federation,
    contract: bytes,
    sources: Sequence[Source],
    views: Sequence[LedgerView],
    cases: Sequence[Case],
    tallies: Tallies,
) -> list[str]:
    """(12) to (23) for `cases`, ascending by round; returns remarks that are no verdict."""
    verifier = KeyVerifier(federation, Domain(federation.charter.ledger.chain_id, contract))
    recorded = statements_of(views[0]) if views else {}
    frame = Frame(federation, verifier, sources, recorded, _fingerprints(cases))
    is_secure = federation.charter.is_secure
    replay = _secure_replay(frame, tallies["replay"]) if is_secure else _open_replay(frame, tallies["replay"])
    if not is_secure:
        tallies.skip("open mode has no masks", SECURE_CHECKS)
    for case in cases:
        held = _held_by_ledger(case, views)
        for id_, check, rests_on in _SECURE_MODE if is_secure else _OPEN_MODE:
            _try(id_, case, held, rests_on, partial(check, case, frame), tallies)
        if replay is not None:
            rests_on = _SECURE_REPLAY_RESTS_ON if is_secure else _OPEN_REPLAY_RESTS_ON
            _try("replay", case, held, rests_on, partial(replay.check, case), tallies)
    search_equivocation(frame, views, [case.record for case in cases], tallies["equivocation"])
    return replay.notes if replay is not None else []


def _held_by_ledger(case: Case, views: Sequence[LedgerView]) -> set[str]:
    """Whether the ledger can say anything of the round: it answered, and its events have no gap there."""
    if not views:
        return set()
    is_gap = case.round <= views[0].head.height and case.round not in statements_of(views[0])
    return {"ledger"} if is_gap else {"ledger", "rounds"}


def _open_replay(frame: Frame, tally: Tally) -> Replay | None:
    """(22) None if no home with its keys was given."""
    try:
        secrets = sealing_secrets(frame.sources)
    except (Lacking, OSError) as error:
        tally.add(Status.INCONCLUSIVE, str(error))
        return None
    if not secrets:
        tally.add(Status.SKIPPED, "no home with its sealing key was given")
        return None
    return Replay(frame, OpenedPayloads(frame, secrets))


def _secure_replay(frame: Frame, tally: Tally) -> Replay | None:
    """(22) None if no home with the starting weights was given: nothing else is needed."""
    if not any(source.is_home for source in frame.sources):
        tally.add(Status.SKIPPED, "no home with the starting weights was given")
        return None
    return Replay(frame, UnmaskedSums(frame))


def _fingerprints(cases: Sequence[Case]) -> dict[Digest, list[Signed]]:
    """Those of all records, by the digest of the sums that they are on."""
    found: dict[Digest, list[Signed]] = {}
    for case in cases:
        for sums, signed in secure_checks.fingerprints_in(case):
            found.setdefault(sums, []).append(signed)
    return found


def _try(
    id_: str, case: Case, held: set[str], rests_on: Sequence[str], check: Callable[[], None], tallies: Tallies
) -> None:
    """Run one check on one record; `held` are those that it passed so far."""
    missing = [name for name in rests_on if name not in held]
    if missing:
        tallies[id_].add(Status.SKIPPED, f"{case.where} rests on `{missing[0]}`")
        return
    try:
        check()
    except NotJudged as error:
        tallies[id_].add(Status.SKIPPED, f"{case.where} {error}")
    except (Lacking, OSError) as error:
        tallies[id_].add(Status.INCONCLUSIVE, f"{case.where}: {error}")
    except Convicted as error:
        tallies[id_].add(Status.MISBEHAVIOUR, f"{case.where}: {error}")
    except (RemoteProtocolError, LocalProtocolError) as error:
        tallies[id_].add(Status.FAIL, f"{case.where}: {error}")
    else:
        held.add(id_)
        tallies[id_].add_pass()
