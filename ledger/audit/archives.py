"""Checks 11 to 20 over all records of all archives. The numbers are those of `checks.py`."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain

from folkmoot.ledger.audit import round_checks
from folkmoot.ledger.audit.ledger_checks import LedgerView, statements_of
from folkmoot.ledger.audit.replay import Replay, sealing_secrets
from folkmoot.ledger.audit.report import Status, Tallies, Tally
from folkmoot.ledger.audit.round_checks import Case, Frame
from folkmoot.ledger.audit.sources import Lacking, NotJudged, Source
from folkmoot.ledger.signing import KeyVerifier
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.equivocation import Register
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.messages import Evidence, Signed, decode_frame
from folkmoot.protocol.record import decode_record
from folkmoot.protocol.typed_data import Domain
from folkmoot.protocol.types import Round

_ROUND_CHECKS: tuple[tuple[str, Callable[[Case, Frame], None], tuple[str, ...]], ...] = (
    ("rosters", round_checks.check_roster, ()),
    ("certificates", round_checks.check_certificate, ()),
    ("openings", round_checks.check_opening, ()),
    ("statements", round_checks.check_statement, ("ledger", "rounds")),
    ("commitments", round_checks.check_commitments, ("rosters",)),
    ("inclusion", round_checks.check_inclusion, ("ledger", "rounds")),
    ("payloads", round_checks.check_payloads, ("commitments",)),
)
"""Name, check, and the checks that it rests on."""

_REPLAY_RESTS_ON = ("rosters", "openings", "statements", "commitments", "payloads")

ARCHIVE_CHECKS = ("records", *(id_ for id_, _, _ in _ROUND_CHECKS), "replay", "equivocation")
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
    """(12) to (20) for `cases`, ascending by round; returns remarks that are no verdict."""
    verifier = KeyVerifier(federation, Domain(federation.charter.ledger.chain_id, contract))
    frame = Frame(federation, verifier, sources, statements_of(views[0]) if views else {})
    replay = _open_replay(frame, tallies["replay"])
    for case in cases:
        held = _held_by_ledger(case, views)
        for id_, check, rests_on in _ROUND_CHECKS:
            _try(id_, case, held, rests_on, partial(check, case, frame), tallies)
        if replay is not None:
            _try("replay", case, held, _REPLAY_RESTS_ON, partial(replay.check, case), tallies)
    _search_equivocation(frame, views, cases, tallies["equivocation"])
    return replay.notes if replay is not None else []


def _held_by_ledger(case: Case, views: Sequence[LedgerView]) -> set[str]:
    """Whether the ledger can say anything of the round: it answered, and its events have no gap there."""
    if not views:
        return set()
    is_gap = case.round <= views[0].head.height and case.round not in statements_of(views[0])
    return {"ledger"} if is_gap else {"ledger", "rounds"}


def _open_replay(frame: Frame, tally: Tally) -> Replay | None:
    """(19) None if no home with its keys was given."""
    try:
        secrets = sealing_secrets(frame.sources)
    except (Lacking, OSError) as error:
        tally.add(Status.INCONCLUSIVE, str(error))
        return None
    if not secrets:
        tally.add(Status.SKIPPED, "no home with its sealing key was given")
        return None
    return Replay(frame, secrets)


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
    except (RemoteProtocolError, LocalProtocolError) as error:
        tallies[id_].add(Status.FAIL, f"{case.where}: {error}")
    else:
        held.add(id_)
        tallies[id_].add_pass()


def _search_equivocation(
    frame: Frame, views: Sequence[LedgerView], cases: Sequence[Case], tally: Tally
) -> None:
    """(20) All signatures that were seen anywhere, against each other."""
    register = Register()
    for signed in _all_signed(frame, views, cases):
        try:
            frame.verifier.verify(signed)
        except RemoteProtocolError:
            continue  # proves nothing against anybody; the check of its place says so
        evidence = register.note(signed)
        if evidence is not None:
            tally.add(Status.MISBEHAVIOUR, _describe(evidence, frame))
        tally.add_pass()


def _all_signed(frame: Frame, views: Sequence[LedgerView], cases: Sequence[Case]) -> Iterator[Signed]:
    """Every signed body of this federation, from all ledgers and archives."""
    for signed in chain(_in_records(cases), _in_evidence(frame.sources), _on_ledgers(frame, views)):
        # An identity key's signature is over the federation's id, which the body then does not repeat.
        if getattr(signed.body, "federation", frame.federation.id) == frame.federation.id:
            yield signed


def _in_records(cases: Sequence[Case]) -> Iterator[Signed]:
    for record in (case.record for case in cases):
        yield record.roster
        yield from record.commitments
        yield from record.certificate.votes
        yield from record.opening.locks
        yield from record.attestations


def _in_evidence(sources: Sequence[Source]) -> Iterator[Signed]:
    """What nodes kept as proof; it convicts by its signatures alone, so bad bytes are no finding."""
    for data in (found for source in sources for found in source.evidence()):
        try:
            frame = decode_frame(data)
        except RemoteProtocolError:
            continue
        if isinstance(frame, Evidence):
            yield from (frame.first, frame.second)


def _on_ledgers(frame: Frame, views: Sequence[LedgerView]) -> Iterator[Signed]:
    members = enumerate(frame.federation.charter.members)
    by_address = {bytes.fromhex(member.audit_key[2:]): place for place, member in members}
    for record in (record for view in views for record in view.records):
        for signature, signer in zip(record.signatures, record.signers, strict=True):
            if signer in by_address:
                yield Signed(by_address[signer], record.statement, signature)


def _describe(evidence: Evidence, frame: Frame) -> str:
    body = evidence.first.body
    name, kind = frame.name(evidence.first.member), type(body).__name__
    # Receipts have no slot, so whatever is evidence has a round.
    return f"{name} signed two different {kind}s for round {body.round}"
