"""One frame of each kind, really signed: the examples of the specification."""

from folkmoot.ledger.signing import KeySigner
from folkmoot.protocol import messages
from folkmoot.protocol.blob import BlobRef


def sample_frames(
    federation: bytes, signer: KeySigner
) -> tuple[dict[str, messages.Body], dict[str, messages.Frame]]:
    """A body of each kind, all of round 1 and member 0, and a frame of each kind."""
    base, config, root, key = (bytes([value]) * 32 for value in (0x22, 0x11, 0x33, 0x44))

    def sign(body: messages.Body) -> messages.Signed:
        return messages.Signed(0, body, signer.sign(body))

    salted = (b"\x55" * 32, b"\x66" * 32, b"\x77" * 32)
    metrics = (("accuracy", 0.5), ("examples", 20.0))
    ready = messages.Ready(1, base, bytes([0, 0xFE]), *salted, num_examples=100, metrics=metrics)
    roster = messages.Roster(1, 0, base, (sign(ready),), ready.exponents)
    roster_name = messages.roster_digest(0, roster)
    commitment = messages.Commitment(federation, 1, roster_name, 0, root, 200, key)
    named = messages.body_digest(commitment)
    survivors = messages.SurvivorSet(1, base, federation, config, roster_name, (messages.Survivor(0, named),))
    masked = messages.Commitment(
        federation,
        1,
        roster_name,
        0,
        b"\x34" * 32,
        256,
        bytes(32),
        (b"\x35" * 32,),
        (b"\x36" * 32,),
        (bytes(32),),
    )
    bodies: dict[str, messages.Body] = {
        "ready": ready,
        "ready in secure mode": messages.Ready(1, base, ready.exponents, *salted, 0, mask_key=b"\x78" * 32),
        "roster": roster,
        "commitment": commitment,
        "commitment in secure mode": masked,
        "receipt": messages.Receipt(1, 0, roster_name, (named,)),
        "proposal": messages.Proposal(federation, 1, 0, survivors.digest, b"\x88" * 32),
        "vote": messages.Vote(federation, 1, 0, survivors.digest),
        "lock": messages.Lock(federation, 1, 0, survivors.digest, b"\x99" * 32),
        "statement": messages.Statement(
            federation, 1, federation, config, base, survivors.digest, b"\xaa" * 32, b"\xbb" * 32
        ),
        "share": messages.Share(1, roster_name, 0, b"\xa1" * 32),
        "sum": messages.Sum(federation, 1, survivors.digest, 0, b"\xa2" * 32, 288),
        "fingerprint": messages.Fingerprint(
            federation, 1, 0, survivors.digest, b"\xa3" * 32, bytes(range(16))
        ),
        "enter": messages.Enter(1, 1),
        "declined": messages.Declined(1, base, "its privacy budget is spent"),
    }
    signed = {name: sign(body) for name, body in bodies.items()}
    certificate = messages.Certificate(survivors, (signed["vote"],))
    other = sign(messages.Vote(federation, 1, 0, b"\xcc" * 32))
    frames: dict[str, messages.Frame] = {
        **signed,
        "certificate": certificate,
        "opening": messages.Opening(survivors, (signed["lock"],)),
        "propose": messages.Propose(signed["proposal"], survivors, (messages.Omission(1, 0),), None),
        "seeds": messages.Seeds(1, survivors.digest, 0, ((1, bytes(range(16))),)),
        "shares": messages.Shares(1, survivors.digest, 0, ((0, b"\xa1" * 32),)),
        "final": messages.Final((signed["statement"],), BlobRef(b"\xaa" * 32, 8)),
        "hello": messages.Hello(2, 0, 1),
        "recall": messages.Recall(),
        "recalled": messages.Recalled(1, (signed["vote"],)),
        "evidence": messages.Evidence(signed["vote"], other),
        "key-wanted": messages.KeyWanted(named),
        "key-shared": messages.KeyShared(named, b"\xdd" * 32),
    }
    return bodies, frames
