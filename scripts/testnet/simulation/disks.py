"""Disks that go back in time: a journal that is lost, a backup that is put back, a chain that undoes what was final.

People do what the daemon asks them for: `folkmoot repair --fix` begins a new journal, `folkmoot ledger accept` takes
the chain as it is.
"""

import random
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from folkmoot.protocol.journal import Began, decode_entry, last_shared
from folkmoot.testnet.simulation.chain import SimulatedLedger
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.keeping_up import KeepingUp
from folkmoot.testnet.simulation.lives import LONGEST_ABSENCE, Lives
from folkmoot.testnet.simulation.node import Node

ON_DISK = (
    "journal",
    "blobs",
    "models",
    "records",
    "amendments",
    "charters",
    "settled",
    "finalised",
    "forks",
    "aside",
)
"""What a backup holds."""

IN_JOURNAL: dict[str, Any] = {"settled": 0, "finalised": 0, "amendments": ()}
"""What is lost with a journal besides its entries."""

RESTORING = 3.0
"""The longest that it takes to put a backup back."""

ACCEPTING = 40.0
"""The longest until an operator accepts a chain that lost what was final."""

Backup = dict[str, Any]


class Surroundings(Protocol):
    """What this needs of the simulation around it."""

    now: float
    faults: Faults
    nodes: list[Node]
    ledger: SimulatedLedger
    lives: Lives
    keeping_up: KeepingUp

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Do that later."""
        ...

    def note(self, node: Node, what: str | None) -> None:
        """A line in the trace."""
        ...


class Disks:
    """Carries out what happens to disks; `Mishaps` draws when."""

    def __init__(self, around: Surroundings, rng: random.Random) -> None:
        self._around, self._random = around, rng
        self._backups: dict[int, dict[Node, Backup]] = {}

    # --- one member's ---------------------------------------------------------------------------------------

    def lose_journal(self, node: Node) -> None:
        """The node ends, and begins again with a new journal that knows that it is new."""
        self._around.lives.end(node)
        self._around.note(node, "LOSES ITS JOURNAL")
        node.journal = []
        for name, value in IN_JOURNAL.items():
            setattr(node, name, value)
        node.is_journal_new = True
        node.lost_journals += 1
        self._begin_anew(node, LONGEST_ABSENCE)

    def keep_copy(self, node: Node, seconds: float) -> None:
        """From now on there is a copy of the disk, which is put back in so many seconds."""
        self._around.at(seconds, partial(self._put_back, node, _copy(node)))

    def _put_back(self, node: Node, backup: Backup) -> None:
        self._around.lives.end(node)
        self._around.note(node, "GETS AN OLD DISK BACK")
        _restore(node, backup)
        self._begin_anew(node, RESTORING)

    def _begin_anew(self, node: Node, latest: float) -> None:
        """In a new process, which asks the ledger as if for the first time."""
        around = self._around
        node.ledger, node.has_recalled = around.ledger.account(node), False
        around.keeping_up.start_over(node, around.now)
        around.at(self._random.uniform(0.0, latest), partial(around.lives.boot, node))

    # --- the chain's ----------------------------------------------------------------------------------------

    def back_up(self) -> None:
        """At every block: what members would go back to that forget what they signed after it."""
        around = self._around
        if around.faults.undone and around.faults.restored:
            forgetful = [node for node in around.nodes if node.person in around.faults.restored]
            self._backups[around.ledger.chain.head().block] = {node: _copy(node) for node in forgetful}

    def undo_final(self) -> None:
        """Some final block, and all after it, are undone; and as much is forgotten, where that is to be."""
        around, head = self._around, self._around.ledger.chain.head()
        if not head.final.number:
            around.at(1.0, self.undo_final)
            return
        last = self._random.randrange(
            max(0, head.final.number - around.faults.finality - 6), head.final.number
        )
        around.ledger.undo(head.block - last)
        for node, backup in self._backups.pop(last, {}).items():
            around.lives.end(node)
            around.note(node, "GOES BACK TO A BACKUP, AND FORGETS")
            _restore(node, backup)
            node.is_forgetful = True
            self._begin_anew(node, RESTORING)
        self._backups = {number: kept for number, kept in self._backups.items() if number < last}

    def stop(self, node: Node) -> None:
        """A chain that lost what was final: the node ends, until its operator accepts it as it is by then."""
        self._around.lives.end(node)
        self._around.note(node, "STOPS: the chain lost a final block")
        self._around.at(self._random.uniform(0.1, ACCEPTING), partial(self._accept, node))

    def _accept(self, node: Node) -> None:
        """As `accept_chain` does."""
        recorded, records = self._around.ledger.recorded, self._around.ledger.chain.records()
        entries = (decode_entry(body) for _, kind, body in node.journal if kind is Began)
        shared = last_shared(entries, {one.statement.round: one.digest for one in records})
        node.settled, node.finalised = min(node.settled, recorded, shared), min(node.finalised, recorded)
        self._around.note(node, f"the chain is accepted, recorded are {recorded} rounds")
        self._begin_anew(node, 0.1)


def _copy(node: Node) -> Backup:
    return {name: _like(getattr(node, name)) for name in ON_DISK}


def _restore(node: Node, backup: Backup) -> None:
    for name, value in backup.items():
        setattr(node, name, _like(value))


def _like(value: Any) -> Any:
    return value.copy() if hasattr(value, "copy") else value
