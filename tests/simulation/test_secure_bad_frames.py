"""Frames of secure mode that are wrong in one place: refused, counted against who brought them, and without effect.

A run in which every such frame that reaches member 0 is preceded by spoilt copies of it. The simulation itself checks
that the rounds end, exactly, as if nothing had been.
"""

from collections import Counter
from collections.abc import Callable, Iterator

import msgspec
import pytest

from folkmoot.protocol.effects import Blame, Effect
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.events import FrameReceived
from folkmoot.protocol.messages import (
    Commitment,
    Fingerprint,
    Frame,
    Seeds,
    Share,
    Shares,
    Signed,
    Sum,
    decode_frame,
    encode,
)
from folkmoot.protocol.signing import FakeSigner
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.federation import Letter, Simulation
from folkmoot.testnet.simulation.invariants import Invariants
from folkmoot.testnet.simulation.node import Node

SEEDS = range(1, 11)
VICTIM = 0
OTHER = b"\x77" * 32

Spoil = Callable[[Frame], Frame | None]


def resigned(signed: Signed, **changes: object) -> Signed:
    """What its member would say if it lied."""
    body = msgspec.structs.replace(signed.body, **changes)
    return Signed(signed.member, body, FakeSigner(signed.member).sign(body))


def body_of(frame: Frame, kind: type) -> bool:
    return isinstance(frame, Signed) and isinstance(frame.body, kind)


def share_off_the_polynomial(frame: Frame) -> Frame | None:
    return resigned(frame, value=bytes([1]) * 31 + b"\0") if body_of(frame, Share) else None  # type: ignore[arg-type]


def share_for_another(frame: Frame) -> Frame | None:
    return resigned(frame, recipient=2) if body_of(frame, Share) else None  # type: ignore[arg-type]


def sum_of_no_shard(frame: Frame) -> Frame | None:
    return resigned(frame, shard=99) if body_of(frame, Sum) else None  # type: ignore[arg-type]


def sum_of_another_size(frame: Frame) -> Frame | None:
    return resigned(frame, size=frame.body.size + 1) if body_of(frame, Sum) else None  # type: ignore


def sum_of_another_federation(frame: Frame) -> Frame | None:
    return resigned(frame, federation=OTHER) if body_of(frame, Sum) else None  # type: ignore[arg-type]


def sum_by_nobody(frame: Frame) -> Frame | None:
    return msgspec.structs.replace(frame, member=99) if body_of(frame, Sum) else None


def sum_with_a_bad_signature(frame: Frame) -> Frame | None:
    return msgspec.structs.replace(frame, signature=bytes(64)) if body_of(frame, Sum) else None


def fingerprint_of_another_length(frame: Frame) -> Frame | None:
    return resigned(frame, values=bytes(24)) if body_of(frame, Fingerprint) else None  # type: ignore[arg-type]


def seeds_of_others(frame: Frame) -> Frame | None:
    if not isinstance(frame, Seeds):
        return None
    return msgspec.structs.replace(frame, seeds=((frame.member, bytes(16)),))


def wrong_seeds(frame: Frame) -> Frame | None:
    if not isinstance(frame, Seeds):
        return None
    return msgspec.structs.replace(frame, seeds=tuple((member, bytes(16)) for member, _ in frame.seeds))


def seeds_of_one_left_out(frame: Frame) -> Frame | None:
    if not isinstance(frame, Seeds):
        return None
    return msgspec.structs.replace(frame, member=frame.seeds[0][0])


def wrong_shares(frame: Frame) -> Frame | None:
    if not isinstance(frame, Shares):
        return None
    return msgspec.structs.replace(frame, shares=tuple((member, bytes(32)) for member, _ in frame.shares))


def shares_twice(frame: Frame) -> Frame | None:
    return msgspec.structs.replace(frame, shares=frame.shares * 2) if isinstance(frame, Shares) else None


def shares_by_nobody(frame: Frame) -> Frame | None:
    return msgspec.structs.replace(frame, member=99) if isinstance(frame, Shares) else None


class SpoiltSimulation(Simulation):
    """Before a frame reaches the victim, its neighbour brings the spoilt copy."""

    def __init__(self, spoil: Spoil, seed: int) -> None:
        # Lost messages, so that somebody is left out and seeds are released.
        super().__init__(seed, 4, 3, Faults(until=20.0, loss=0.2, latency=(0.005, 0.5)), secure=True)
        # Their signatures are forged here, so evidence against them is no fault of member 0.
        self._invariants = Invariants(self.charters, {1, 2, 3})
        self._spoil = spoil
        self.blamed: Counter[str] = Counter()
        self.spoilt = 0

    def _deliver(self, receiver: Node, letter: Letter) -> None:
        if receiver.member == VICTIM and receiver.machine is not None and not letter.gossip:
            for spoilt in self._copies(letter.frame):
                self.spoilt += 1
                for effect in receiver.machine.handle(FrameReceived(letter.sender, spoilt), self.now):
                    self._carry_out(receiver, effect)
        super()._deliver(receiver, letter)

    def _copies(self, frame: Frame) -> Iterator[Frame]:
        spoilt = self._spoil(frame)
        if spoilt is not None:
            yield decode_frame(encode(spoilt))

    def _carry_out(self, node: Node, effect: Effect) -> None:
        if node.member == VICTIM and isinstance(effect, Blame):
            self.blamed[effect.reason] += 1
        super()._carry_out(node, effect)


def run_until_spoilt(spoil: Spoil) -> SpoiltSimulation:
    """The first schedule in which there was such a frame."""
    for seed in SEEDS:
        simulation = SpoiltSimulation(spoil, seed)
        simulation.run(600.0)
        if simulation.spoilt:
            return simulation
    raise AssertionError("no schedule has such a frame")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (share_off_the_polynomial, "does not fit its dealer's commitment"),
        (share_for_another, "share for member 2"),
        (sum_of_no_shard, "sum of shard 99"),
        (sum_of_another_size, "bytes, that of shard"),
        (sum_of_another_federation, "of another federation"),
        (sum_by_nobody, "signed by member 99"),
        (sum_with_a_bad_signature, "bad signature"),
        (fingerprint_of_another_length, "fingerprint of 24 bytes"),
        (seeds_of_others, "seeds of other members"),
        (wrong_seeds, "is not the one that"),
        (seeds_of_one_left_out, "does not survive"),
        (wrong_shares, "does not fit its commitment"),
        (shares_twice, "not of distinct survivors"),
        (shares_by_nobody, "signed by member 99"),
    ],
)
def test_a_spoilt_frame_is_refused_and_changes_nothing(spoil: Spoil, reason: str) -> None:
    simulation = run_until_spoilt(spoil)
    assert any(reason in one for one in simulation.blamed), simulation.blamed


def test_a_bad_share_is_kept_as_evidence() -> None:
    simulation = run_until_spoilt(share_off_the_polynomial)
    assert any(isinstance(one.evidence.second.body, Share) for one in simulation.nodes[VICTIM].evidence)


@pytest.mark.parametrize(
    "frame",
    [
        Signed(0, Share(1, OTHER, 1, bytes(31)), bytes(64)),
        Signed(0, Sum(OTHER, 1, OTHER, 0, bytes(33), 9), bytes(64)),
        Seeds(1, OTHER, 0, ((1, bytes(15)),)),
        Shares(1, OTHER, 0, ((1, bytes(33)),)),
        Signed(0, Commitment(OTHER, 1, OTHER, 0, OTHER, 9, OTHER, (bytes(31),)), bytes(64)),
        Signed(0, Fingerprint(OTHER, 1, 0, OTHER, OTHER, bytes(4097)), bytes(64)),
    ],
)
def test_secrets_of_wrong_length_do_not_decode(frame: Frame) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_frame(encode(frame))
