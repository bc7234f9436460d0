"""Each lie by itself: it is told, the others finish all the same, and who can be convicted is."""

from collections import Counter

import pytest

from folkmoot.protocol.effects import Blame, Effect
from folkmoot.testnet.simulation.faults import LIES, Faults
from folkmoot.testnet.simulation.federation import Simulation
from folkmoot.testnet.simulation.node import Node

LIAR = 1
LIMIT = 600.0

SECURE_ONLY = {"wrong_sums", "wrong_prints", "bad_shares", "odd_seeds"}
WITH_EVIDENCE = {"contradicting", "flooding", "bad_shares"}
WITH_ACCUSATION = {"wrong_sums", "wrong_prints"}
REFUSED = {"forging"}
"""Lies after which a frame is refused, and counted against the neighbour that brought it."""


class Watched(Simulation):
    """Counts what the honest blame each other for."""

    def __init__(self, seed: int, faults: Faults, secure: bool) -> None:
        super().__init__(seed, 4, 4, faults, secure=secure)
        self.blamed: Counter[int | None] = Counter()

    def _carry_out(self, node: Node, effect: Effect) -> None:
        if isinstance(effect, Blame) and node.member != LIAR:
            self.blamed[effect.member] += 1
        super()._carry_out(node, effect)


@pytest.mark.parametrize("secure", [False, True], ids=["open", "secure"])
@pytest.mark.parametrize("lie", LIES)
def test_a_liar_alone_stops_nobody(lie: str, secure: bool) -> None:
    if lie in SECURE_ONLY and not secure:
        pytest.skip("there are no masks")
    evidence, accused, blamed = set[int](), set[int](), Counter[int | None]()
    for seed in range(12):
        simulation = Watched(seed, Faults(latency=(0.005, 0.2), **{lie: (LIAR,)}), secure)  # type: ignore[arg-type]
        simulation.run(LIMIT)
        evidence |= {one.member for node in simulation.honest for one in node.evidence}
        accused |= {one.member for node in simulation.honest for one in node.accused}
        blamed += simulation.blamed
        told = (
            (evidence or lie not in WITH_EVIDENCE)
            and (accused or lie not in WITH_ACCUSATION)
            and (blamed[LIAR] or lie not in REFUSED)
        )
        if seed >= 2 and told:
            break
    assert told and evidence <= {LIAR} and accused <= {LIAR}


@pytest.mark.parametrize("secure", [False, True], ids=["open", "secure"])
def test_liars_together_stop_nobody(secure: bool) -> None:
    """Two of seven, who tell everything that can be told at once."""
    pairs = {lie: (1, 4) for lie in LIES if secure or lie not in SECURE_ONLY}
    faults = Faults(latency=(0.005, 0.2), coordinated=True, **pairs)  # type: ignore[arg-type]
    simulation = Simulation(0, 7, 2, faults, secure=secure)
    simulation.run(3600.0)
    assert {one.member for node in simulation.honest for one in node.evidence} <= {1, 4}


def test_a_biased_proposer_leaves_out_and_is_outdone() -> None:
    """Member 0 is in every round that another one proposes."""
    simulation = Simulation(1, 4, 8, Faults(biased=(LIAR,)))
    simulation.run(LIMIT)
    chosen = [
        {survivor.member for survivor in record.certificate.survivors.survivors}
        for _, record in sorted(simulation.honest[0].records.items())
    ]
    assert any(0 not in members for members in chosen)
    assert sum(0 in members for members in chosen) >= 4
