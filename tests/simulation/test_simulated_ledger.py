"""The ledger of a simulation is the contract on a chain with faults: what is undone is recorded again, by somebody."""

from functools import partial
from itertools import pairwise

from folkmoot.protocol.types import Round
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.federation import Simulation

ROUNDS = 6


class Watched(Simulation):
    """Notes how far the record goes, at every block."""

    def __init__(self, seed: int, faults: Faults, max_ahead: int = 50) -> None:
        super().__init__(seed, 4, ROUNDS, faults, max_ahead)
        self.heights: list[Round] = []
        self.largest_lead = 0

    def note_progress(self) -> None:
        """Called whenever a round is done, or recorded."""
        super().note_progress()
        head = self.ledger.chain.head()
        self.heights.append(head.height)
        done = max((node.machine.completed for node in self.nodes if node.machine), default=0)
        self.largest_lead = max(self.largest_lead, done - head.finalized_height)

    def set_rpc(self, *, down: bool) -> None:
        """Every node's way to the chain."""
        for node in self.nodes:
            assert node.ledger is not None
            node.ledger.down = down


def test_blocks_that_are_undone_come_again() -> None:
    shrunk = 0
    for seed in range(12):
        simulation = Watched(seed, Faults(until=30, ledger=1.0, finality=4, reorgs=5))
        simulation.run(600.0)
        shrunk += any(later < earlier for earlier, later in pairwise(simulation.heights))
    assert shrunk >= 4


def test_rounds_go_on_while_no_ledger_answers_but_not_beyond_what_the_charter_allows() -> None:
    leads = {}
    for max_ahead in (2, 50):
        simulation = Watched(1, Faults(), max_ahead)
        simulation.set_rpc(down=True)
        simulation.at(30.0, partial(simulation.set_rpc, down=False))
        simulation.run(600.0)
        leads[max_ahead] = simulation.largest_lead
    assert leads == {2: 2, 50: ROUNDS}


def test_every_attester_hands_in_when_it_is_its_turn() -> None:
    """The others' transactions would be reverted: nobody sends one for what is recorded already."""
    simulation = Watched(3, Faults())
    simulation.run(600.0)
    records = simulation.ledger.chain.records()
    assert len(records) == ROUNDS
    assert len({record.submitter for record in records}) >= 3
