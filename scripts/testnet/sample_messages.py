"""One of every message with fixed contents: for the test vectors, and for tests that need something well-formed.

They fit together (one roster, its commitments, a set of its survivors, votes and locks on it), but the signatures are
only bytes: what keys sign is in the vectors of typed data.
"""

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.messages import (
    Certificate,
    Commitment,
    Declined,
    Enter,
    Evidence,
    Final,
    Fingerprint,
    Frame,
    Hello,
    KeyShared,
    KeyWanted,
    Lock,
    Omission,
    Opening,
    Proposal,
    Propose,
    Ready,
    Recall,
    Recalled,
    Receipt,
    Roster,
    Seeds,
    Share,
    Shares,
    Signed,
    Statement,
    Sum,
    Survivor,
    SurvivorSet,
    Vote,
    body_digest,
    roster_digest,
)
from folkmoot.protocol.validation import omitted_digest

FEDERATION = b"\xfe" * 32
PROPOSER = 1


def mark(number: int) -> bytes:
    """A digest of one repeated byte."""
    return bytes([number]) * 32


READIES = (
    Ready(2, mark(1), bytes([0, 3]), mark(2), mark(3), mark(4), 120),
    Ready(
        2, mark(1), bytes([2, 255]), mark(5), mark(6), mark(7), 77, (("accuracy", 0.75), ("examples", 16.0))
    ),
    Ready(2, mark(1), bytes([1, 128]), mark(8), mark(9), mark(10), 2**40),
)


def signed(member: int, body: object) -> Signed:
    """By that member, if one believes it."""
    return Signed(member, body, bytes([0x50 + member]) * 64)  # type: ignore[arg-type]


ROSTER = Roster(
    2, 1, mark(1), tuple(signed(member, body) for member, body in enumerate(READIES)), bytes([1, 0])
)
ROSTER_DIGEST = roster_digest(PROPOSER, ROSTER)
COMMITMENTS = tuple(
    Commitment(FEDERATION, 2, ROSTER_DIGEST, member, mark(20 + member), 4096, mark(30 + member))
    for member in range(3)
)
SURVIVORS = SurvivorSet(
    2,
    mark(1),
    mark(11),
    mark(12),
    ROSTER_DIGEST,
    tuple(Survivor(member, body_digest(COMMITMENTS[member])) for member in range(2)),
)
OMITTED = (Omission(2, 1),)
VOTE = Vote(FEDERATION, 2, 1, SURVIVORS.digest)
LOCK = Lock(FEDERATION, 2, 1, SURVIVORS.digest, mark(13))
PROPOSAL = Proposal(FEDERATION, 2, 1, SURVIVORS.digest, omitted_digest(OMITTED))
MASKED_READY = Ready(2, mark(1), bytes([0, 3]), mark(2), mark(3), mark(4), 0, (), mark(18))
MASKED_COMMITMENT = Commitment(
    federation=FEDERATION,
    round=2,
    roster=ROSTER_DIGEST,
    member=0,
    root=mark(20),
    size=4096,
    key=bytes(32),
    shards=(mark(40), mark(41), mark(42)),
    shares=(mark(43), mark(44)),
    seeds=(bytes(32), mark(45), mark(46)),
)
SUM = Sum(FEDERATION, 2, SURVIVORS.digest, 1, mark(47), 1536)
FINGERPRINT = Fingerprint(FEDERATION, 2, 1, SURVIVORS.digest, mark(48), bytes(range(48)))
STATEMENT = Statement(FEDERATION, 2, mark(11), mark(12), mark(1), SURVIVORS.digest, mark(14), mark(15))
CERTIFICATE = Certificate(SURVIVORS, (signed(0, VOTE), signed(1, VOTE)))

SAMPLES: dict[str, Frame] = {
    "ready": signed(0, READIES[0]),
    "ready with metrics": signed(1, READIES[1]),
    "roster": signed(PROPOSER, ROSTER),
    "commitment": signed(0, COMMITMENTS[0]),
    "receipt": signed(2, Receipt(2, 1, ROSTER_DIGEST, tuple(body_digest(one) for one in COMMITMENTS[:2]))),
    "vote": signed(0, VOTE),
    "lock": signed(0, LOCK),
    "attestation": signed(0, STATEMENT),
    "enter": signed(2, Enter(2, 1)),
    "declined": signed(2, Declined(2, mark(1), "its privacy budget is spent")),
    "proposal": Propose(signed(PROPOSER, PROPOSAL), SURVIVORS, OMITTED, None),
    "proposal with a certificate": Propose(signed(PROPOSER, PROPOSAL), SURVIVORS, (), CERTIFICATE),
    "certificate": CERTIFICATE,
    "opening": Opening(SURVIVORS, (signed(0, LOCK), signed(1, LOCK))),
    "masked ready": signed(0, MASKED_READY),
    "masked commitment": signed(0, MASKED_COMMITMENT),
    "share": signed(0, Share(2, ROSTER_DIGEST, 1, mark(49))),
    "sum": signed(1, SUM),
    "fingerprint": signed(0, FINGERPRINT),
    "seeds": Seeds(2, SURVIVORS.digest, 0, ((2, bytes(range(16))),)),
    "shares": Shares(2, SURVIVORS.digest, 1, ((0, mark(50)), (1, mark(51)))),
    "final": Final((signed(0, STATEMENT), signed(1, STATEMENT)), BlobRef(mark(14), 32)),
    "hello": Hello(2, 1, 1),
    "recall": Recall(),
    "recalled": Recalled(1, (signed(0, VOTE),)),
    "evidence": Evidence(signed(2, VOTE), signed(2, Vote(FEDERATION, 2, 1, mark(16)))),
    "key wanted": KeyWanted(body_digest(COMMITMENTS[0])),
    "key shared": KeyShared(body_digest(COMMITMENTS[0]), mark(17)),
}
"""Every kind of frame, and every kind of body in one."""
