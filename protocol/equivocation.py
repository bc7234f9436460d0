"""Who said what: the register that notices a member contradicting itself.

Every signed body that must be unique has a *slot*; two different bodies of one member in one slot are evidence.
The same register answers a restarted member that asks what it signed (PROTOCOL section 2, rule 10).
"""

from folkmoot.protocol.errors import Reject
from folkmoot.protocol.messages import (
    Body,
    Commitment,
    Evidence,
    Fingerprint,
    Lock,
    Proposal,
    Roster,
    Share,
    Signed,
    Statement,
    Sum,
    Vote,
)
from folkmoot.protocol.secure.dealing import is_good_share
from folkmoot.protocol.signing import Verifier
from folkmoot.protocol.types import MemberId, Round

Slot = tuple[str, Round, int | bytes]


def compute_slot(body: Body) -> Slot | None:
    """Where this body must be its member's only one; None where a member may say several things."""
    match body:
        case Vote() | Lock() | Proposal() | Roster() | Fingerprint():
            return type(body).__name__, body.round, body.attempt
        case Commitment():
            return "Commitment", body.round, body.roster
        case Sum():
            return "Sum", body.round, body.survivors + body.shard.to_bytes(4, "big")
        case Statement():
            return "Statement", body.round, 0
        case _:
            return None


def verify_evidence(evidence: Evidence, verifier: Verifier) -> MemberId:
    """The member that two bodies convict; raises `Reject` if they do not."""
    first, second = evidence.first, evidence.second
    if isinstance(second.body, Share):
        return _verify_bad_share(first, second, verifier)
    slot = compute_slot(first.body)
    if first.member != second.member or slot is None or slot != compute_slot(second.body):
        raise Reject("evidence: the two bodies are not of one member and one slot")
    if first.body == second.body:
        raise Reject("evidence: the two bodies are the same")
    verifier.verify(first)
    verifier.verify(second)
    return first.member


def _verify_bad_share(first: Signed, second: Signed, verifier: Verifier) -> MemberId:
    """A commitment, and a share of the same polynomial that does not lie on it."""
    commitment, share = first.body, second.body
    if not isinstance(commitment, Commitment) or not isinstance(share, Share):
        raise Reject("evidence: not a commitment and a share")
    same = (first.member, commitment.round, commitment.roster) == (second.member, share.round, share.roster)
    if not same or is_good_share(commitment, share.recipient, share.value):
        raise Reject("evidence: the share is that of another commitment, or good")
    verifier.verify(first)
    verifier.verify(second)
    return first.member


class Register:
    """The first body of every member and slot, for the rounds still of interest."""

    def __init__(self) -> None:
        self._first: dict[tuple[MemberId, Slot], Signed] = {}

    def note(self, signed: Signed) -> Evidence | None:
        """Remember a verified body; evidence if its member said otherwise before."""
        slot = compute_slot(signed.body)
        if slot is None:
            return None
        first = self._first.setdefault((signed.member, slot), signed)
        return None if first.body == signed.body else Evidence(first, signed)

    def knows(self, signed: Signed) -> bool:
        """Whether this very body was noted, or need not be its member's only one."""
        slot = compute_slot(signed.body)
        first = None if slot is None else self._first.get((signed.member, slot))
        return slot is None or (first is not None and first.body == signed.body)

    def said_by(self, member: MemberId) -> tuple[Signed, ...]:
        """What `member` signed, as far as it is remembered."""
        return tuple(signed for (who, _), signed in self._first.items() if who == member)

    def forget_before(self, round_: Round) -> None:
        """Drop rounds below `round_`."""
        self._first = {key: signed for key, signed in self._first.items() if key[1][1] >= round_}
