"""Two histories: what a node gives up for the final record, what it keeps of both, and what then still holds.

PROTOCOL section 2, rule 11. It takes more members than may be faulty; with fewer, asking for the record is a violation.
"""

from typing import Protocol

from folkmoot.protocol.certificates import compute_statement
from folkmoot.protocol.charter import quorum
from folkmoot.protocol.effects import RollBack
from folkmoot.protocol.fork import Fork
from folkmoot.protocol.record import RoundRecord
from folkmoot.protocol.typed_data import struct_hash
from folkmoot.protocol.types import Digest
from folkmoot.testnet.simulation.chain import SimulatedLedger
from folkmoot.testnet.simulation.charters import Charters
from folkmoot.testnet.simulation.invariants import Broken
from folkmoot.testnet.simulation.keeping_up import KeepingUp
from folkmoot.testnet.simulation.node import Node
from folkmoot.testnet.simulation.setting import Setting


class Surroundings(Protocol):
    """What this needs of the simulation around it."""

    now: float
    setting: Setting
    charters: Charters
    keeping_up: KeepingUp
    ledger: SimulatedLedger
    honest: list[Node]


class Histories:
    """Raises `Broken`."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._rolled_back: set[int] = set()

    @property
    def are_one(self) -> bool:
        """Whether nobody holds another model of a round than is recorded."""
        models = [record.statement.model for record in self._around.ledger.chain.records()]
        return all(
            models[round_ - 1 : round_] == [model]
            for node in self._around.honest
            for round_, model in node.models.items()
        )

    @property
    def may_stand(self) -> bool:
        """Whether so many rolled back that nobody can decide the rounds in which they sit out."""
        members = self._around.setting.members
        return len(self._rolled_back) > members - quorum(members)

    def check_reading(self, node: Node) -> None:
        """A node reads the record: because it skips rounds, or because the record contradicts it."""
        if node.machine is not None and node.machine.contradicted and not self._around.setting.may_fork:
            raise Broken(f"{node.name} holds another history than the ledger, with no more than f at fault")

    def roll_back(self, node: Node, effect: RollBack) -> None:
        """Give up the rounds from the fork on, and keep the proof and the records: as `Engine` does."""
        fork, lost = effect.fork, effect.statements
        if fork not in node.forks:
            node.forks.append(fork)
        for round_ in [one for one, record in node.records.items() if _digest(record) in lost]:
            node.aside.append(node.records.pop(round_))
        node.models = {round_: model for round_, model in node.models.items() if round_ < fork.round}
        node.outbox = {round_: one for round_, one in node.outbox.items() if one.digest not in lost}
        self._around.keeping_up.start_over(node, self._around.now)
        self._rolled_back.add(node.person)

    def check_proofs(self, node: Node, recorded: list[Digest]) -> None:
        """At the end: both histories can be shown, and the one that was given up is no history any more."""
        for fork in node.forks:
            statement = fork.recorded.statement
            if recorded[statement.round - 1 :][:1] != [struct_hash(statement)] or fork.held in recorded:
                raise Broken(f"{node.name} gave up round {fork.round} for what is not recorded in the end")
            if fork.record is not None and self._statement(fork) != fork.held:
                raise Broken(
                    f"{node.name}'s proof of round {fork.round} shows another statement than it held"
                )
        for record in node.aside:
            if _digest(record) in recorded:
                raise Broken(f"{node.name} set a record aside that is in the ledger's history")

    def _statement(self, fork: Fork) -> Digest:
        assert fork.record is not None
        survivors = fork.record.certificate.survivors
        federation = self._around.charters.at(survivors.round).federation
        return struct_hash(compute_statement(federation, survivors, fork.record.model.root))


def _digest(record: RoundRecord) -> Digest:
    return struct_hash(record.attestations[0].body)
