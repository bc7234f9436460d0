"""Secure mode in groups: as exact and as private as in one, with few bytes however many members there are."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from folkmoot.protocol.effects import SumParts
from folkmoot.protocol.events import PartsSummed
from folkmoot.protocol.groups import Groups
from folkmoot.protocol.messages import Commitment
from folkmoot.protocol.secure.dealing import shard_layout
from folkmoot.protocol.secure.stream import sum_crowds
from folkmoot.protocol.types import MemberId
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.federation import Simulation, Violation
from folkmoot.testnet.simulation.masked_workshop import MaskedWorkshop
from folkmoot.testnet.simulation.node import Node

LIMIT = 1200.0
USUAL = (0.005, 0.3)


def one_of_each(seed: int) -> tuple[MemberId, ...]:
    """Of each of two groups of four a member: as many as each of them, and both together, can do without."""
    groups = Simulation(seed, 8, 3, secure=True, group_size=4).federation.groups(1)
    return tuple(group.members[(seed // (1 + 3 * number)) % 4] for number, group in enumerate(groups))


def liars(first: str, second: str, seed: int) -> Faults:
    """One in each group."""
    one, other = one_of_each(seed)
    return Faults(latency=USUAL, **{first: (one,), second: (other,)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("members", "size", "seeds", "faults"),
    [
        (8, 4, 6, lambda seed: Faults(latency=USUAL, loss=0.05, crashes=4)),
        (8, 4, 8, lambda seed: Faults(latency=USUAL, dead=one_of_each(seed))),
        (9, 3, 12, lambda seed: Faults(latency=USUAL, dead=(seed % 9,))),  # its whole group sits out
        (8, 4, 8, lambda seed: liars("wrong_sums", "odd_seeds", seed)),
        (8, 4, 8, lambda seed: liars("bad_shares", "withholding", seed)),
        (8, 4, 8, lambda seed: Faults(latency=USUAL, two_faced=(seed % 8,), partitions=2)),
        (17, 0, 1, lambda seed: Faults(latency=USUAL, crashes=4, dead=(seed % 17,))),
    ],
    ids=["losses", "two-dead", "a-group-away", "liars", "bad-shares", "two-faced", "seventeen"],
)
def test_every_round_is_exact_and_gives_nobody_away(
    members: int, size: int, seeds: int, faults: Callable[[int], Faults]
) -> None:
    for seed in range(seeds):
        simulation = Simulation(seed, members, 3, faults(seed), secure=True, group_size=size)
        assert len(simulation.federation.groups(1).groups) > 1
        simulation.run(LIMIT)
        assert simulation.transcript.released


ACROSS_GROUPS: dict[str, tuple[int, int, Faults]] = {
    "losses": (12, 3, Faults(latency=USUAL, loss=0.05, crashes=3)),
    "a-group-away": (9, 3, Faults(latency=USUAL, dead=(5,))),
    "liars": (12, 4, Faults(latency=USUAL, wrong_sums=(3,), wrong_prints=(8,))),
    "two-faced": (9, 3, Faults(latency=USUAL, two_faced=(2,), partitions=1)),
    "changes": (13, 4, Faults(latency=USUAL, leaves=1, new_terms=1)),
}


@pytest.mark.parametrize("name", ACROSS_GROUPS)
def test_a_robust_rule_across_groups_is_exact_and_gives_nobody_away(name: str) -> None:
    """Each group that is opened is whole; the model is the rule's on groups' plain means (`masked_workshop.py`)."""
    members, size, faults = ACROSS_GROUPS[name]
    rounds = 6 if faults.leaves else 2
    simulation = Simulation(1, members, rounds, faults, 2, secure=True, group_size=size, robust="nnm")
    assert simulation.charter.sums_by_group
    simulation.run(LIMIT)
    assert simulation.transcript.released


class Shifting(MaskedWorkshop):
    """Whoever is said to make wrong sums moves a unit from one group's sum to another's: all members' is right."""

    def _sum_parts(self, node: Node, effect: SumParts) -> None:
        liars = self._around.faults.wrong_sums
        if node.person not in liars:
            super()._sum_parts(node, effect)
            return
        layout = shard_layout(node.charter)
        sources = [
            [self._opener(one.body.shards[effect.shard]) for one in crowd if isinstance(one.body, Commitment)]
            for crowd in effect.crowds
        ]
        total = bytearray(b"".join(map(bytes, sum_crowds(layout, effect.shard, sources))))
        for offset, by in ((0, -1), (layout.sum_bytes(effect.shard), 1)) if total else ():
            np.frombuffer(total, dtype="<i2", count=1, offset=offset)[0] += by
        ref = self._keep(node, bytes(total))
        answer = PartsSummed(effect.survivors.round, effect.survivors.digest, effect.shard, ref)
        self._around.tell(node, answer, 0.02)


def test_who_moves_something_between_groups_is_found_out() -> None:
    """Fingerprints are held to each group's sum, not to the sum of all."""
    faults = Faults(latency=USUAL, wrong_sums=(4,))
    # Of twelve shards most are empty here; in some round the liar has one that is not.
    simulation = Simulation(2, 12, 6, faults, secure=True, group_size=3, robust="nnm")
    simulation._workshop = Shifting(simulation)
    simulation.run(LIMIT)
    accused = {(one.member, one.kind) for node in simulation.honest for one in node.accused}
    assert accused == {(4, "wrong sum")}


def test_sixty_four_members_in_groups_of_eight_send_little() -> None:
    """At most three models' worth of ring values each (2.4: nearly one of shards, and 22 bits for 16 of sums)."""
    simulation = Simulation(1, 64, 1, secure=True, group_size=8)
    assert [len(group.members) for group in simulation.federation.groups(1)] == [8] * 8
    simulation.run(LIMIT)
    workshop, charter = simulation._workshop, simulation.charter
    assert isinstance(workshop, MaskedWorkshop)
    model = charter.model.parameters * charter.secrecy.ring // 8
    assert len(workshop.sent) == 64 and max(workshop.sent.values()) <= 3.0 * model


# --- each rule is needed ------------------------------------------------------------------------------------------


def quorum_of_the_whole_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Groups, "lacking", lambda self, voters, survivors: [])


def crowds_of_the_whole_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Groups, "whole", lambda self, members: set(members))
    patch.setattr("folkmoot.protocol.certificates._check_crowds", lambda members, groups: None)


@pytest.mark.parametrize(
    ("mutate", "size", "until", "found"),
    [
        (quorum_of_the_whole_alone, 4, 12.0, "without a certificate"),
        (crowds_of_the_whole_alone, 3, 60.0, "a crowd of 2"),
    ],
)
def test_the_transcript_gives_away(
    mutate: Callable[[pytest.MonkeyPatch], None],
    size: int,
    until: float,
    found: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of three groups one loses more than it can do without, and another one member."""
    members = 3 * size
    first, second, _ = Simulation(0, members, 2, secure=True, group_size=size).federation.groups(1)
    dead = (*first.members[: size - 2], second.members[0])
    mutate(monkeypatch)
    assert any(found in violation for violation in violations(members, size, until, dead))


def violations(members: int, size: int, until: float, dead: tuple[MemberId, ...]) -> Iterator[str]:
    for seed in range(60):
        faults = Faults(latency=USUAL, until=until, dead=dead, loss=0.1)
        try:
            Simulation(seed, members, 2, faults, secure=True, group_size=size).run(20.0)
        except Violation as error:
            yield str(error)
