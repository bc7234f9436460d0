"""Which circuits a relay carries."""

from typing import Any, cast

import pytest
from libp2p.peer.id import ID

from folkmoot.node.network.libp2p_host import MAX_STREAMS_PER_PEER
from folkmoot.node.network.libp2p_relay import MAX_CIRCUITS_OF_ONE, MAX_CIRCUITS_OF_TWO, Circuits
from folkmoot.node.network.port import Stats
from folkmoot.node.network.refusals import Refusals

MEMBERS = [ID(bytes([0, 1, number])) for number in range(64)]
FULL = 3


class Swarm:
    """Connected with everybody."""

    def get_connections(self, peer: ID) -> list[ID]:
        return [peer]


@pytest.fixture
def circuits() -> Circuits:
    anything = cast("Any", Swarm())
    return Circuits(anything, anything, frozenset(MEMBERS), carries=True, refusals=Refusals(Stats()))


def fill(circuits: Circuits, caller: ID, callee: ID) -> int:
    """As many circuits as the relay lets them have; how many those are."""
    before = circuits._carried.total()
    while not circuits._refusal(caller, callee):
        circuits._carried[caller, callee] += 1
    assert circuits._refusal(caller, callee) == FULL
    return circuits._carried.total() - before


def test_few_callers_cannot_use_up_the_streams_that_a_callee_takes_from_the_relay(circuits: Circuits) -> None:
    callee, liar, another, honest = MEMBERS[:4]
    assert fill(circuits, liar, callee) == fill(circuits, another, callee) == MAX_CIRCUITS_OF_TWO
    assert fill(circuits, honest, callee) == MAX_CIRCUITS_OF_TWO
    assert sum(fill(circuits, caller, callee) for caller in MEMBERS[4:]) + 3 * MAX_CIRCUITS_OF_TWO == (
        MAX_CIRCUITS_OF_ONE
    )
    assert MAX_CIRCUITS_OF_ONE <= MAX_STREAMS_PER_PEER // 2, "the rest is for the relay itself"


def test_one_caller_has_its_share_and_no_more(circuits: Circuits) -> None:
    assert sum(fill(circuits, MEMBERS[0], callee) for callee in MEMBERS[1:]) == MAX_CIRCUITS_OF_ONE
    assert fill(circuits, MEMBERS[1], MEMBERS[0]) == MAX_CIRCUITS_OF_TWO
