"""Check 23: all signatures that were seen anywhere, against each other."""

from collections.abc import Iterator, Sequence
from itertools import chain

from folkmoot.ledger.audit.ledger_checks import LedgerView
from folkmoot.ledger.audit.report import Status, Tally
from folkmoot.ledger.audit.round_checks import Frame
from folkmoot.ledger.audit.sources import Source
from folkmoot.protocol.equivocation import Register, verify_evidence
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Commitment, Evidence, Share, Signed, decode_frame
from folkmoot.protocol.record import RoundRecord


def search_equivocation(
    frame: Frame, views: Sequence[LedgerView], records: Sequence[RoundRecord], tally: Tally
) -> None:
    """Tell of everybody who signed two things of which an honest member signs one, or dealt a share that is none."""
    register = Register()
    kept = list(_kept_evidence(frame.sources))
    contradictions = (signed for evidence in kept for signed in (evidence.first, evidence.second))
    for signed in chain(_in_records(records), contradictions, _on_ledgers(frame, views)):
        if _is_of(frame, signed) and _is_good(frame, signed):
            evidence = register.note(signed)
            if evidence is not None:
                tally.add(Status.MISBEHAVIOUR, _describe(evidence, frame))
            tally.add_pass()
    for evidence in kept:
        _check_share(evidence, frame, tally)


def _is_of(frame: Frame, signed: Signed) -> bool:
    """An identity key's signature is over the federation's id, which the body then does not repeat."""
    return getattr(signed.body, "federation", frame.federation.id) == frame.federation.id


def _is_good(frame: Frame, signed: Signed) -> bool:
    """A bad signature proves nothing against anybody; the check of its place says so."""
    try:
        frame.verifier.verify(signed)
    except RemoteProtocolError:
        return False
    return True


def _check_share(evidence: Evidence, frame: Frame, tally: Tally) -> None:
    """A share that was dealt is no contradiction by itself: it is held against the commitment kept with it."""
    commitment, share = evidence.first, evidence.second.body
    if not isinstance(commitment.body, Commitment) or not isinstance(share, Share):
        return
    try:
        member = verify_evidence(evidence, frame.verifier)
    except RemoteProtocolError:
        return
    if _is_of(frame, commitment):
        tally.add(
            Status.MISBEHAVIOUR,
            f"{frame.name(member)} dealt a share that does not fit its commitment for round {share.round}",
        )


def _in_records(records: Sequence[RoundRecord]) -> Iterator[Signed]:
    for record in records:
        yield record.roster
        yield from record.commitments
        yield from record.certificate.votes
        yield from record.opening.locks
        yield from record.attestations
        if record.unmasking is not None:
            yield from record.unmasking.sums
            yield from record.unmasking.fingerprints


def _kept_evidence(sources: Sequence[Source]) -> Iterator[Evidence]:
    """What nodes kept as proof; it convicts by its signatures alone, so bad bytes are no finding."""
    for data in (found for source in sources for found in source.evidence()):
        try:
            frame = decode_frame(data)
        except RemoteProtocolError:
            continue
        if isinstance(frame, Evidence):
            yield frame


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
