"""Disks and chains that go back in time: nobody says two things, and what the record has is what everybody holds.

`Simulation` raises if a node that sits out signs what it may have signed before, if it does not find back into the
rounds, or if, where there were two histories, somebody keeps the one that lost for its history, or loses the proof.
"""

import pytest

from folkmoot.protocol.history import History
from folkmoot.protocol.journal import RolledBack, SatOut, decode_entry
from folkmoot.protocol.recall import SIT_OUT
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.federation import Simulation, Violation
from folkmoot.testnet.simulation.node import Node

BOTH = pytest.mark.parametrize("secure", [False, True], ids=["open", "secure"])


def with_two_histories(seed: int, secure: bool = False) -> Simulation:
    """Three of four go back to a backup with the chain, and sign anew."""
    faults = Faults(until=8.0, ledger=0.2, finality=1, undone=1, restored=(0, 1, 2))
    simulation = Simulation(seed, 4, 6, faults, secure=secure)
    simulation.run(600.0)
    return simulation


@BOTH
def test_of_two_histories_the_recorded_one_is_followed_and_both_are_kept(secure: bool) -> None:
    forks: list[Node] = []
    for seed in range(40):
        forks += [node for node in with_two_histories(seed, secure).nodes if node.forks]
        if len(forks) == 2:
            break
    assert len(forks) == 2
    assert {node.person for node in forks} == {3}, "who went back holds what it recorded anew"
    assert all(node.aside for node in forks)


def wrote(node: Node, kind: type) -> bool:
    return any(one is kind for _, one, _ in node.journal)


@BOTH
def test_final_blocks_that_are_undone_come_again(secure: bool) -> None:
    """Everybody stops, and hands in again what was lost once that is accepted: nobody gives anything up."""
    for seed in range(3):
        simulation = Simulation(seed, 4, 5, Faults(until=8.0, finality=3, undone=1), secure=secure)
        simulation.run(600.0)
        assert not any(wrote(node, RolledBack) for node in simulation.nodes)


@BOTH
@pytest.mark.parametrize("fault", ["emptied", "outdated"])
def test_who_has_lost_what_it_signed_sits_out_and_is_in_the_rounds_again(fault: str, secure: bool) -> None:
    sat_out = back = 0
    for seed in range(4):
        faults = Faults(until=8.0, latency=(0.005, 0.2), crashes=1, **{fault: (2,)})  # type: ignore[arg-type]
        simulation = Simulation(seed, 4, 10, faults, secure=secure)
        simulation.run(600.0)
        sat_out += wrote(simulation.nodes[2], SatOut)
        last = max(simulation.nodes[0].records.items())[1]
        back += 2 in last.certificate.survivors.members
    assert sat_out >= 2 and back >= 3


@pytest.mark.parametrize("fault", ["emptied", "outdated"])
def test_a_liar_makes_nobody_sit_out_for_long(fault: str) -> None:
    """It says that it is further than all, by 2^40 rounds too. One of seven lies, another one has lost its journal."""
    for seed in range(3):
        faults = Faults(until=8.0, boasting=(1,), **{fault: (2,)})  # type: ignore[arg-type]
        simulation = Simulation(seed, 7, 8, faults, max_ahead=3)
        simulation.run(600.0)
        entries = map(decode_entry, (body for _, kind, body in simulation.nodes[2].journal if kind is SatOut))
        assert all(one.through <= 8 + 3 + SIT_OUT for one in entries if isinstance(one, SatOut))


# --- each rule is needed (sitting out, too: `test_traces.py`) ---------------------------------------------------------


def takes_what_continues_something_else(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(History, "is_continued_by", lambda self, statement: True)


def skips_rounds_without_asking(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(History, "asks_ledger", lambda self, again: False)


@pytest.mark.parametrize(
    "mutate",
    [takes_what_continues_something_else, skips_rounds_without_asking],
)
def test_two_histories_find_the_machine_that(mutate: object, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)  # type: ignore[operator]
    with pytest.raises(Violation):
        for seed in range(400):
            with_two_histories(seed)
