"""Members whose heartbeats are missing are not waited for: right or wrong, that stops nobody and starves nobody."""

from itertools import pairwise

import pytest

from folkmoot.protocol.effects import Effect, Promote
from folkmoot.protocol.events import PeerHeard, PeerSilent
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.federation import Simulation
from folkmoot.testnet.simulation.node import Node
from folkmoot.testnet.simulation.setting import draw


class Stutters(Simulation):
    """Now and then some are taken for silent, whatever they do, and are heard again a while later."""

    def _run(self, limit: float) -> None:
        self.at(0.5, self._stutter)
        super()._run(limit)

    def _stutter(self) -> None:
        for node in self.random.sample(self.nodes, len(self.nodes) // 2):
            for other in self.listeners(node):
                if self.random.random() < 0.7:
                    self.fall_silent(node, other, self.random.uniform(0.1, 4.0))
        if self.now < self.faults.until:
            self.at(self.random.uniform(0.1, 4.0), self._stutter)

    def fall_silent(self, node: Node, other: Node, seconds: float) -> None:
        member = other.id_of(node)
        self.tell(other, PeerSilent(member), 0.0)
        self.tell(other, PeerHeard(member), seconds)


@pytest.mark.parametrize("first", range(0, 60, 12))
def test_whoever_is_taken_for_silent_every_rule_holds(first: int) -> None:
    for seed in range(first, first + 12):
        Stutters.of(draw(seed)).run()


class SlowMember(Stutters):
    """One member mostly trains longer than the others wait, and its heartbeats stop for half of the time."""

    slow = 2

    def __init__(self, seed: int) -> None:
        super().__init__(seed, members=5, rounds=40, faults=Faults(until=2000.0))
        self.rounds_in = [0]

    def _run(self, limit: float) -> None:
        self.nodes[self.slow].slowness = 12.0
        super()._run(limit)

    def _stutter(self) -> None:
        node, seconds = self.nodes[self.slow], self.random.uniform(0.1, 4.0)
        for other in self.listeners(node):
            self.fall_silent(node, other, seconds)
        self.at(seconds + self.random.uniform(0.1, 4.0), self._stutter)

    def _carry_out(self, node: Node, effect: Effect) -> None:
        super()._carry_out(node, effect)
        if isinstance(effect, Promote) and node is self.nodes[0] and self.slow in effect.participants:
            self.rounds_in.append(effect.round)


@pytest.mark.parametrize("seed", range(6))
def test_who_is_slow_and_taken_for_silent_now_and_then_is_in_about_as_often_as_it_is_owed(seed: int) -> None:
    simulation = SlowMember(seed)
    simulation.run()
    waits = [after - before for before, after in pairwise(simulation.rounds_in)]
    assert max(waits) <= 8, simulation.rounds_in
