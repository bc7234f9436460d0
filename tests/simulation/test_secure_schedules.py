"""Secure mode in seeded schedules: exact, private, and no liar gets away with it.

Every run masks real vectors with real masks. `MaskedWorkshop` raises if a round opens to anything but the plain integer
sum, `Transcript` if what left the nodes gives a member away, `Invariants` if a rule is broken or an honest
member blamed. Together these are 5,000 rounds and more.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
from _pytest.mark import ParameterSet

from folkmoot.protocol.effects import Effect, Promote
from folkmoot.protocol.messages import Commitment, Share
from folkmoot.protocol.types import MemberId
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.federation import Simulation
from folkmoot.testnet.simulation.lives import HEARTBEAT
from folkmoot.testnet.simulation.node import Node

LIMIT = 1200.0
ROUNDS = 5
USUAL = (0.005, 0.3)


@dataclass(frozen=True)
class Family:
    name: str
    members: int
    seeds: int
    faults: Callable[[int], Faults]


FAMILIES = [
    Family("plain", 4, 60, lambda seed: Faults()),
    Family("losses", 4, 60, lambda seed: Faults(loss=0.1, duplicate=0.2, latency=(0.005, 1.0))),
    Family("replays", 4, 60, lambda seed: Faults(replay=0.2, latency=USUAL, crashes=2)),
    Family("crashes", 4, 100, lambda seed: Faults(duplicate=0.1, latency=USUAL, crashes=5)),
    Family("broken-off", 4, 100, lambda seed: Faults(until=30, loss=0.02, latency=USUAL, broken_off=10)),
    Family("partitions", 4, 100, lambda seed: Faults(latency=USUAL, partitions=4, fit_failure=0.2)),
    Family("two-faced", 4, 80, lambda seed: Faults(latency=USUAL, two_faced=(seed % 4,))),
    Family("dead", 4, 100, lambda seed: Faults(loss=0.02, latency=USUAL, dead=(seed % 4,))),
    Family("wrong-sums", 4, 80, lambda seed: Faults(latency=USUAL, wrong_sums=(seed % 4,), crashes=1)),
    Family("wrong-prints", 4, 80, lambda seed: Faults(latency=USUAL, wrong_prints=(seed % 4,))),
    Family("bad-shares", 4, 80, lambda seed: Faults(latency=USUAL, bad_shares=(seed % 4,))),
    Family("withholding", 4, 60, lambda seed: Faults(latency=USUAL, withholding=(seed % 4,))),
    Family("odd-seeds", 4, 80, lambda seed: Faults(latency=USUAL, odd_seeds=(seed % 4,))),
    Family("three", 3, 80, lambda seed: Faults(latency=USUAL, crashes=3, broken_off=3)),
    Family("five", 5, 30, lambda seed: Faults(latency=USUAL, crashes=3, partitions=2)),
    Family("seven", 7, 6, lambda seed: Faults(latency=USUAL, crashes=4, two_faced=(seed % 7,))),
    Family("eight", 8, 6, lambda seed: Faults(latency=USUAL, dead=(seed % 8, (seed + 3) % 8))),
    Family(
        "eight-two-liars",
        8,
        4,
        lambda seed: Faults(latency=USUAL, wrong_sums=(seed % 8,), wrong_prints=((seed + 3) % 8,)),
    ),
]
SLICE = 10


def slices() -> Iterator[ParameterSet]:
    """Each family in pieces, so that they spread over the machine's cores.

    The first one in every run, beside some 600 drawn federations in secure mode that mix these faults; all at night.
    """
    for family in FAMILIES:
        for first in range(0, family.seeds, SLICE):
            marks = [pytest.mark.nightly] if first else []
            yield pytest.param(family, first, marks=marks, id=f"{family.name}-{first}")


def test_there_are_enough_rounds() -> None:
    assert sum(family.seeds for family in FAMILIES) * ROUNDS >= 5_000


@pytest.mark.parametrize(("family", "first"), list(slices()))
def test_every_round_is_exact_and_gives_nobody_away(family: Family, first: int) -> None:
    for seed in range(first, min(first + SLICE, family.seeds)):
        simulation = Simulation(seed, family.members, ROUNDS, family.faults(seed), secure=True)
        simulation.run(LIMIT)
        assert simulation.transcript.released


@pytest.mark.parametrize(
    ("fault", "kind"), [("wrong_sums", "wrong sum"), ("wrong_prints", "wrong fingerprint")]
)
def test_who_signs_a_wrong_sum_or_fingerprint_is_named(fault: str, kind: str) -> None:
    """By a quorum's honest part at least; who is shown the opening first need not look for liars any more."""
    for liar in range(4):
        simulation = Simulation(liar, 4, 2, Faults(**{fault: (liar,)}), secure=True)  # type: ignore[arg-type]
        simulation.run(LIMIT)
        found = [{(one.member, one.kind) for one in node.accused} for node in simulation.honest]
        assert set().union(*found) == {(liar, kind)}
        assert sum(map(bool, found)) >= 2


def test_a_bad_share_is_evidence_that_convinces_everybody() -> None:
    simulation = Simulation(1, 4, 2, Faults(bad_shares=(2,)), secure=True)
    simulation.run(LIMIT)
    for node in simulation.honest:
        bodies = [(type(one.evidence.first.body), type(one.evidence.second.body)) for one in node.evidence]
        assert (Commitment, Share) in bodies
        assert {one.member for one in node.evidence} == {2}


def test_of_two_members_with_different_pair_seeds_one_is_left_out() -> None:
    """Nobody can tell who lies; the sum is right whoever stays."""
    simulation = Simulation(3, 4, 6, Faults(odd_seeds=(1,)), secure=True)
    simulation.run(LIMIT)
    assert not any(node.accused or node.evidence for node in simulation.honest)


class Timed(Simulation):
    """Keeps when each node finished each round."""

    def _carry_out(self, node: Node, effect: Effect) -> None:
        if isinstance(effect, Promote):
            self.times[node.member].append(self.now)
        super()._carry_out(node, effect)

    def longest_round(self) -> float:
        """Of any honest node, in seconds."""
        self.times: dict[MemberId, list[float]] = {node.member: [0.0] for node in self.nodes}
        self.run(LIMIT)
        honest = {node.member for node in self.honest}
        return max(later - before for member in honest for before, later in pairwise(self.times[member]))


@pytest.mark.parametrize(("members", "deaths", "seeds"), [(4, 1, 30), (8, 2, 6)])
def test_a_death_at_any_moment_costs_the_heartbeat_and_one_more_exchange(
    members: int, deaths: int, seeds: int
) -> None:
    """As many as may die; with these links a round without deaths takes at most 3 s, most of it training and grace."""
    for seed in range(seeds):
        dead = tuple((seed + 3 * number) % members for number in range(deaths))
        faults = Faults(until=16, latency=(0.002, 0.02), dead=dead)
        assert Timed(seed, members, 6, faults, secure=True).longest_round() < HEARTBEAT + 3.0
