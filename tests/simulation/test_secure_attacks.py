"""A single liar that tries to keep the others from ever finishing a round. Each of these attacks once worked.

Member 3 lies where the others cannot prove it: by what it does not say, by frames that nobody signs, in others' names.
"""

from collections.abc import Callable

import pytest

from folkmoot.protocol.blob import ref_of
from folkmoot.protocol.effects import Effect, Encode
from folkmoot.protocol.events import FrameReceived
from folkmoot.protocol.messages import Fingerprint, Frame, Propose, Seeds, Shares, Signed
from folkmoot.protocol.secure.circles import Circles
from folkmoot.protocol.secure.masks import Mask
from folkmoot.protocol.types import Digest, MemberId
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.federation import Letter, Simulation
from folkmoot.testnet.simulation.masked_workshop import MaskedWorkshop
from folkmoot.testnet.simulation.node import Node

LIAR = 3
LIMIT = 150.0


class LyingFaults(Faults):
    """The others must not take the liar for honest."""

    __slots__ = ()

    @property
    def liars(self) -> frozenset[MemberId]:
        return frozenset({LIAR})


class Attack(Simulation):
    """Four members, one of them the liar."""

    place: type[MaskedWorkshop] = MaskedWorkshop

    def __init__(self, seed: int, **faults: object) -> None:
        super().__init__(seed, 4, 3, LyingFaults(until=5.0, **faults), secure=True)  # type: ignore[arg-type]
        self._workshop = self.place(self)

    def whisper(self, receiver: Node, frame: Frame) -> None:
        """The liar brings a frame, when the receiver knows the set that it is about."""
        self.tell(receiver, FrameReceived(LIAR, frame), 0.1)


class EmptyShares(Attack):
    """Empty releases of shares, in everybody's name, as soon as a set is proposed."""

    def _deliver(self, receiver: Node, letter: Letter) -> None:
        super()._deliver(receiver, letter)
        if isinstance(frame := letter.frame, Propose) and receiver.member != LIAR:
            for name in range(4):
                self.whisper(receiver, Shares(frame.survivors.round, frame.survivors.digest, name, ()))


class EmptySeeds(Attack):
    """Seeds though nobody was left out: honest records would be refused by their auditor."""

    def _deliver(self, receiver: Node, letter: Letter) -> None:
        super()._deliver(receiver, letter)
        if isinstance(frame := letter.frame, Propose) and receiver.member != LIAR:
            self.whisper(receiver, Seeds(frame.survivors.round, frame.survivors.digest, 0, ()))

    def _carry_out(self, node: Node, effect: Effect) -> None:
        unmasking = getattr(getattr(effect, "record", None), "unmasking", None)
        assert unmasking is None or unmasking.seeds == ()
        super()._carry_out(node, effect)


class WithheldSeeds(MaskedWorkshop):
    """Commits to another pair seed than the member last in beacon order, which is then left out."""

    def _pair_seed(self, node: Node, circles: Circles, ready: Signed) -> bytes:
        seed = super()._pair_seed(node, circles, ready)
        roster = circles.roster
        order = node.federation.proposers(roster.round, roster.base)
        last = [member for member in order if member in circles.members][-1]
        return bytes(15) + b"\7" if node.member == LIAR and ready.member == last != LIAR else seed


class SilentAboutSeeds(Attack):
    """And never gives that seed out, which nobody else knows."""

    place = WithheldSeeds

    def _deliver(self, receiver: Node, letter: Letter) -> None:
        if not (isinstance(letter.frame, Seeds) and letter.frame.member == LIAR):
            super()._deliver(receiver, letter)


class WithheldPart(MaskedWorkshop):
    """Gives nobody its own part of its own shard, which nobody else has."""

    own: frozenset[Digest] = frozenset()

    def _mask(self, node: Node, effect: Encode, masks: list[Mask]) -> list[bytes]:
        shards = super()._mask(node, effect, masks)
        if node.member == LIAR:
            order = node.federation.proposers(effect.round, effect.terms.base)
            present = [member for member in order if member in effect.recipients]
            mine = (data for shard, data in enumerate(shards) if present[shard % len(present)] == LIAR)
            self.own |= {ref_of(data).root for data in mine if data}
        return shards

    def _holder(self, node: Node, root: Digest, sources: tuple[MemberId, ...]) -> Node | None:
        holder = super()._holder(node, root, sources)
        withheld = root in self.own and holder is not node
        return None if withheld and holder is not None and holder.member == LIAR else holder


class SilentAfterTheVote(Attack):
    """And gives no fingerprint."""

    place = WithheldPart

    def _deliver(self, receiver: Node, letter: Letter) -> None:
        frame = letter.frame
        body = frame.body if isinstance(frame, Signed) and frame.member == LIAR else None
        if not isinstance(body, Fingerprint):
            super()._deliver(receiver, letter)


class WrongSumOfAWithheldPart(Attack):
    """And signs a wrong sum of that shard, which nobody can make anew."""

    place = WithheldPart

    def __init__(self, seed: int) -> None:
        super().__init__(seed, wrong_sums=(LIAR,))


@pytest.mark.parametrize(
    "attack", [EmptyShares, EmptySeeds, SilentAboutSeeds, SilentAfterTheVote, WrongSumOfAWithheldPart]
)
def test_the_others_finish_in_a_few_attempts(attack: Callable[[int], Attack]) -> None:
    for seed in range(1, 5):
        attack(seed).run(LIMIT)
