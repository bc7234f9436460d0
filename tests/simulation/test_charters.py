"""Members come, go, change their keys and their terms while rounds go on, with everything else that goes wrong.

`Simulation` raises if anybody signs under a charter that is not in force, speaks with who is no member any more, or if
who joins does not hold the recorded model at the end.
"""

import pytest

from folkmoot.protocol.types import Round
from folkmoot.testnet.simulation.faults import CHANGES, Faults
from folkmoot.testnet.simulation.federation import Simulation

LIMIT = 900.0
USUAL = (0.005, 0.1)


@pytest.mark.parametrize("secure", [False, True], ids=["open", "secure"])
@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_alone_comes_into_force(kind: str, secure: bool) -> None:
    for seed in range(2):
        faults = Faults(until=12.0, latency=USUAL, crashes=seed, **{kind: 1})  # type: ignore[arg-type]
        simulation = Simulation(seed, 5, 7, faults, max_ahead=1, secure=secure)
        simulation.run(LIMIT)
        assert simulation.charters.are_amended


@pytest.mark.parametrize("secure", [False, True], ids=["open", "secure"])
def test_all_of_them_at_once(secure: bool) -> None:
    eras = 0
    for seed in range(4):
        faults = Faults(
            until=20.0,
            latency=USUAL,
            joins=2,
            leaves=1,
            suspensions=1,
            rotations=1,
            new_terms=1,
            broken_off=3,
        )
        simulation = Simulation(seed, 6, 9, faults, max_ahead=1 + seed % 3, secure=secure)
        simulation.run(LIMIT)
        eras += len(simulation.charters.timeline.spans) - 1
    assert eras >= 8


@pytest.mark.parametrize("secure", [False, True], ids=["open", "secure"])
def test_who_joins_and_lies_from_its_first_word_on_stops_nobody(secure: bool) -> None:
    """About where it is, what it holds and what it signed; and it asks for everything again and again."""
    lies = (("boasting", "begging", "stale"), ("two_faced",), ("contradicting", "flooding", "forging"))
    for seed, several in enumerate(lies):
        told = dict.fromkeys(several, (5,))
        faults = Faults(until=12.0, latency=USUAL, crashes=1, joins=1, **told)  # type: ignore[arg-type]
        simulation = Simulation(seed, 5, 7, faults, max_ahead=1, secure=secure)
        simulation.run(LIMIT)
        assert simulation.charters.newest.has(simulation.nodes[-1])
        assert simulation.nodes[-1].machine is not None


def test_groups_are_drawn_anew_with_the_members() -> None:
    """Masks, shares and sums are of the groups of their round's charter."""
    for seed, kind in enumerate(("joins", "leaves")):
        faults = Faults(until=10.0, latency=USUAL, dead=(seed,), **{kind: 1})  # type: ignore[arg-type]
        simulation = Simulation(seed, 9, 5, faults, max_ahead=1, secure=True, group_size=4)
        simulation.run(LIMIT)
        newest = simulation.charters.newest
        assert newest.first > 1
        assert len(newest.federation.groups(newest.first).groups) > 1
        assert simulation.transcript.released


def rounds_with(simulation: Simulation, person: int) -> set[Round]:
    """Those that this person's update is in, as anybody has them in the archive."""
    records = {round_: one for node in simulation.honest for round_, one in node.records.items()}
    members = {round_: one.certificate.survivors.members for round_, one in records.items()}
    return {
        round_
        for round_, survivors in members.items()
        if simulation.charters.at(round_).ids.get(person) in survivors
    }


@pytest.mark.parametrize("secure", [False, True], ids=["open", "secure"])
def test_who_joins_takes_part_from_its_first_round_or_the_next_one_on(secure: bool) -> None:
    """Unless its node starts late; and who leaves takes part no more."""
    on_time = 0
    for seed in range(3):
        faults = Faults(until=8.0, latency=(0.005, 0.05), joins=1, leaves=seed % 2)
        simulation = Simulation(seed, 5, 8, faults, max_ahead=1, secure=secure)
        simulation.run(LIMIT)
        (newcomer,) = (node for node in simulation.nodes if node.person == 5)
        assert newcomer.era is not None
        first = next(era.first for era in simulation.charters.eras if era.has(newcomer))
        joined = min(rounds_with(simulation, 5))
        assert joined >= first
        on_time += joined <= first + 1
        for node in simulation.nodes:
            if node.left:
                assert max(rounds_with(simulation, node.person)) < next(
                    era.first for era in reversed(simulation.charters.eras) if not era.has(node)
                )
    assert on_time >= 2
