"""Is this message of use, useless here and now, or a fault? Accept (return), `Ignore` or `Reject`.

One commented rule per check. Checks that need no state come from `certificates.py`; here are those that depend on
where this node stands (`View`). The network's own validator only bounds sizes, because py-libp2p caches its verdicts.
"""

from dataclasses import dataclass

from folkmoot.protocol.certificates import (
    Federation,
    verify_certificate,
    verify_ready,
    verify_roster,
    verify_survivors,
)
from folkmoot.protocol.codec import codec_named
from folkmoot.protocol.errors import Ignore, Reject
from folkmoot.protocol.exchange import Exchange
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.messages import (
    Commitment,
    Declined,
    Enter,
    Lock,
    Omission,
    Proposal,
    Propose,
    Ready,
    Receipt,
    Roster,
    Signed,
    Statement,
    Vote,
    encode,
)
from folkmoot.protocol.sealing import payload_size
from folkmoot.protocol.secure.dealing import verify_masked_commitment
from folkmoot.protocol.secure.exchange import MaskedExchange
from folkmoot.protocol.signing import Verifier
from folkmoot.protocol.types import Attempt, Digest, MemberId, Round

MAX_ATTEMPTS_AHEAD = 64
"""Ballots of attempts further ahead than this are not kept (they would only fill memory)."""


@dataclass(frozen=True, slots=True)
class View:
    """Where this node stands when a message comes in."""

    federation: Federation
    verifier: Verifier
    round: Round
    base: Digest
    previous: Digest
    attempt: Attempt


def validate_ready(signed: Signed, view: View, known: Signed | None) -> None:
    """READY for the round I work on."""
    assert isinstance(signed.body, Ready)
    # [IGNORE] It is for another round or another base model (the sender, or I, will catch up)
    if (signed.body.round, signed.body.base) != (view.round, view.base):
        raise Ignore("READY of another round or base")
    # [IGNORE] The member's READY is known
    if known is not None:
        raise Ignore("READY already known")
    verify_ready(signed, view.federation, view.verifier)


def validate_declined(signed: Signed, view: View, known: Signed | None) -> None:
    """A member takes no part in the round that I work on."""
    assert isinstance(signed.body, Declined)
    # [IGNORE] It is for another round or another base model
    if (signed.body.round, signed.body.base) != (view.round, view.base):
        raise Ignore("declined another round or base")
    # [IGNORE] It is known that the member declines
    if known is not None:
        raise Ignore("known to decline")
    view.verifier.verify(signed)


def validate_roster(signed: Signed, view: View, known: Exchange | None) -> None:
    """Roster of my attempt."""
    assert isinstance(signed.body, Roster)
    # [IGNORE] It is for another round, base or attempt
    if (signed.body.round, signed.body.base) != (view.round, view.base):
        raise Ignore("roster of another round or base")
    if signed.body.attempt != view.attempt:
        raise Ignore("roster of another attempt")
    # [IGNORE] This attempt has its roster (a second one is evidence, noted by the register)
    if known is not None and known.signed.body == signed.body:
        raise Ignore("roster already known")
    verify_roster(signed, view.federation, view.verifier)


def expected_payload_size(view: View, recipients: int) -> int:
    """Bytes of an open-mode payload: sealed keys for roster and auditors, then the frames of the coded update."""
    charter = view.federation.charter
    plaintext = codec_named(charter.averaging.codec).encoded_size(charter.update_values)
    return payload_size(recipients + len(charter.auditors), plaintext)


def validate_commitment(signed: Signed, view: View, exchange: Exchange) -> None:
    """Commitment for a roster that I accepted."""
    commitment = signed.body
    assert isinstance(commitment, Commitment)
    # [IGNORE] It is known
    if exchange.commitments.get(signed.member) == signed:
        raise Ignore("commitment already known")
    # [REJECT] It is the signer's own, of this federation, and the signer is in the roster
    if commitment.member != signed.member or commitment.federation != view.federation.id:
        raise Reject("commitment in another member's name or of another federation")
    if signed.member not in exchange.members:
        raise Reject("commitment of a member that is not in the roster")
    if view.federation.charter.is_secure:
        assert isinstance(exchange, MaskedExchange)
        verify_masked_commitment(commitment, exchange.circles)
    else:
        _validate_open_commitment(commitment, view, exchange)
    view.verifier.verify(signed)


def _validate_open_commitment(commitment: Commitment, view: View, exchange: Exchange) -> None:
    # [REJECT] The payload has the one size that the codec gives
    if commitment.size != expected_payload_size(view, len(exchange.members)):
        raise Reject(f"commitment to a payload of {commitment.size} bytes, which no update has")
    # [REJECT] It has nothing of secure mode
    if commitment.shards or commitment.shares or commitment.seeds:
        raise Reject("commitment with masked shards in open mode")


def validate_receipt(signed: Signed, view: View, exchange: Exchange) -> None:
    """Receipt for the roster in work."""
    assert isinstance(signed.body, Receipt)
    # [REJECT] Only roster members hold payloads
    if signed.member not in exchange.members:
        raise Reject("receipt of a member that is not in the roster")
    # [REJECT] Nobody holds more payloads than there are
    if len(signed.body.held) > len(exchange.members):
        raise Reject(f"receipt for {len(signed.body.held)} payloads, the roster has {len(exchange.members)}")
    view.verifier.verify(signed)


def omitted_digest(omitted: tuple[Omission, ...]) -> Digest:
    """What a proposal signs of its omissions."""
    return digest("folkmoot/v1/omitted", *(encode(omission) for omission in omitted))


def validate_propose(frame: Propose, view: View, exchange: Exchange | None) -> None:
    """Proposal of my attempt, with everything that it names. `exchange` is that of the roster it rests on."""
    proposal, survivors = frame.proposal.body, frame.survivors
    # [REJECT] It is a proposal of this federation
    if not isinstance(proposal, Proposal) or proposal.federation != view.federation.id:
        raise Reject("proposal of another kind or federation")
    # [IGNORE] It is for another round or attempt
    if (proposal.round, proposal.attempt) != (view.round, view.attempt):
        raise Ignore("proposal of another round or attempt")
    # [IGNORE] It builds on another base or statement (one of us is behind)
    if (survivors.round, survivors.base, survivors.previous) != (view.round, view.base, view.previous):
        raise Ignore("proposal on another base or previous statement")
    # [REJECT] It comes from the proposer of the attempt
    if frame.proposal.member != view.federation.proposer(view.round, view.base, view.attempt):
        raise Reject("proposal from a member that is not the proposer")
    # [REJECT] What it shows is what it signs
    if (survivors.digest, omitted_digest(frame.omitted)) != (proposal.survivors, proposal.omitted):
        raise Reject("proposal does not sign what it shows")
    view.verifier.verify(frame.proposal)
    # [REJECT] Its certificate, if any, is one, and for this set
    if frame.certificate is not None:
        verify_certificate(frame.certificate, view.federation, view.verifier)
        if frame.certificate.survivors != survivors:
            raise Reject("proposal rests on a certificate for another set")
    # [IGNORE] I do not know its roster (yet), and no certificate stands in for it
    if exchange is None:
        if frame.certificate is None:
            raise Ignore("proposal on a roster that is not known here")
        return
    verify_survivors(survivors, exchange.signed, view.federation)
    # [REJECT] Omitted are exactly the roster members that do not survive
    left_out = set(exchange.members) - set(survivors.members)
    if [omission.member for omission in frame.omitted] != sorted(left_out):
        # [IGNORE] With a certificate: who does not know the roster cannot see it, and passes it on in good faith
        fault = Reject if frame.certificate is None else Ignore
        raise fault("proposal does not name each omitted member once")


def validate_ballot(signed: Signed, view: View) -> None:
    """Vote or lock for the round I work on, of any attempt."""
    body = signed.body
    assert isinstance(body, Vote | Lock)
    # [REJECT] It is of this federation
    if body.federation != view.federation.id:
        raise Reject(f"{type(body).__name__} of another federation")
    # [IGNORE] It is for another round, or absurdly far ahead
    if body.round != view.round:
        raise Ignore(f"{type(body).__name__} of another round")
    if body.attempt > view.attempt + MAX_ATTEMPTS_AHEAD:
        raise Ignore(f"{type(body).__name__} too far ahead")
    view.verifier.verify(signed)


def validate_attestation(signed: Signed, view: View, oldest: Round) -> None:
    """Attestation of a statement: recent, or of a round that I have yet to finish."""
    body = signed.body
    assert isinstance(body, Statement)
    # [REJECT] It is of this federation, by an attester
    if body.federation != view.federation.id:
        raise Reject("attestation of another federation")
    if signed.member not in view.federation.charter.attesters:
        raise Reject("attestation by a member that is no attester")
    # [IGNORE] It is older than what is kept, or beyond the next round
    if not oldest <= body.round <= view.round:
        raise Ignore("attestation of a round that is not kept")
    view.verifier.verify(signed)


def validate_enter(signed: Signed, view: View, known: Attempt) -> None:
    """A member has gone on to a later attempt of my round."""
    assert isinstance(signed.body, Enter)
    # [IGNORE] It is for another round, or no news
    if signed.body.round != view.round or signed.body.attempt <= known:
        raise Ignore("no news of attempts")
    view.verifier.verify(signed)


def validate_sender(member: MemberId, members: int) -> None:
    """Raise `Reject` for a member index that the charter does not have."""
    # [REJECT] The member exists
    if member >= members:
        raise Reject(f"signed by member {member}, the charter has {members}")
