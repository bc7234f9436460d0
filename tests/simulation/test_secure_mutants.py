"""Each rule that keeps updates secret is needed: without it, the transcript of some schedule gives a member away."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from folkmoot.protocol import groups
from folkmoot.protocol.ballot import Ballot
from folkmoot.protocol.context import Context
from folkmoot.protocol.effects import Gossip, Send
from folkmoot.protocol.groups import Groups
from folkmoot.protocol.messages import Frame, Share, Signed
from folkmoot.protocol.secure.circles import Circles
from folkmoot.protocol.secure.masks import MaskContext
from folkmoot.protocol.secure.mode import SecureMode
from folkmoot.protocol.types import MemberId
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.federation import Simulation, Violation

SEEDS = 60
USUAL = (0.005, 0.3)

Patch = Callable[[pytest.MonkeyPatch], None]


def lowered(known: Groups) -> Groups:
    """Every quorum one less."""
    less = tuple(replace(group, quorum=group.quorum - 1) for group in known)
    return Groups(less, known.quorum - 1)


def quorum_over_the_roster(patch: pytest.MonkeyPatch) -> None:
    original = Ballot.__init__

    def init(self: Ballot, me: int, known: Groups) -> None:
        original(self, me, lowered(known))  # that of a roster of one or two less

    patch.setattr(Ballot, "__init__", init)


def shares_before_the_lock(patch: pytest.MonkeyPatch) -> None:
    original = SecureMode._release_seeds

    def release(self: SecureMode, gathering: object) -> None:
        original(self, gathering)  # type: ignore[arg-type]
        self._release_shares(gathering)  # type: ignore[arg-type]

    patch.setattr(SecureMode, "_release_seeds", release)


def masks_of_the_round(patch: pytest.MonkeyPatch) -> None:
    original = Circles.context

    def context(self: Circles, member: MemberId) -> MaskContext:
        return msgspec.structs.replace(original(self, member), roster=bytes(32))

    patch.setattr(Circles, "context", context)


def seeds_before_the_certificate(patch: pytest.MonkeyPatch) -> None:
    original = SecureMode.advance

    def advance(self: SecureMode) -> None:
        for digest in self._ballot.known_sets():
            if (gathering := self._gathering(digest)) is not None:
                self._release_seeds(gathering)
        original(self)

    patch.setattr(SecureMode, "advance", advance)


def shares_for_everybody(patch: pytest.MonkeyPatch) -> None:
    def send(self: Context, member: MemberId, frame: Frame) -> None:
        if isinstance(frame, Signed) and isinstance(frame.body, Share):
            self.broadcast(frame)
        elif member in self.up:
            self.emit(Send((member,), frame))

    patch.setattr(Context, "send", send)


def any_crowd_will_do(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(groups, "crowd", lambda members, k_min: 0)
    patch.setattr(groups, "_draw", groups._draw.__wrapped__)


def shares_by_gossip(patch: pytest.MonkeyPatch) -> None:
    def send(self: Context, member: MemberId, frame: Frame) -> None:
        if isinstance(frame, Signed) and isinstance(frame.body, Share):
            self.emit(Gossip(frame))
        elif member in self.up:
            self.emit(Send((member,), frame))

    patch.setattr(Context, "send", send)


@pytest.mark.parametrize(
    ("mutate", "members", "faults"),
    [
        (quorum_over_the_roster, 4, Faults(latency=USUAL, loss=0.1)),
        (shares_before_the_lock, 4, Faults(latency=USUAL)),
        (masks_of_the_round, 4, Faults(latency=USUAL, loss=0.1, crashes=6)),
        (seeds_before_the_certificate, 4, Faults(latency=USUAL, loss=0.1, crashes=4)),
        (shares_for_everybody, 4, Faults()),
        (shares_by_gossip, 4, Faults()),
        (any_crowd_will_do, 3, Faults(latency=USUAL, dead=(1,))),
    ],
)
def test_the_transcript_gives_away(
    mutate: Patch, members: int, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    with pytest.raises(Violation) as caught:
        for seed in range(SEEDS):
            Simulation(seed, members, 3, faults, secure=True).run(300.0)
    assert "not finished" not in str(caught.value), caught.value
