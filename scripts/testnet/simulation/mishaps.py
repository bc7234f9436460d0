"""What happens to nodes, lines and the ledger in the course of a run, as far as it is no message's fate."""

import random
from collections.abc import Callable
from functools import partial
from typing import Protocol

from folkmoot.protocol.charter import max_faults
from folkmoot.testnet.simulation.assembly import Assembly
from folkmoot.testnet.simulation.chain import SimulatedLedger
from folkmoot.testnet.simulation.charters import Charters
from folkmoot.testnet.simulation.disks import Disks
from folkmoot.testnet.simulation.faults import CHANGES, Faults
from folkmoot.testnet.simulation.lives import Lives
from folkmoot.testnet.simulation.node import Node

FAR_OFF = 1e6
"""Seconds by which a clock may be wrong from the start."""

SLOWNESS = 20.0
"""How many times as long everything takes slow members."""


class Surroundings(Protocol):
    """What mishaps need of the simulation that they happen to."""

    charters: Charters
    faults: Faults
    nodes: list[Node]
    ledger: SimulatedLedger
    honest: list[Node]
    lives: Lives
    assembly: Assembly
    disks: Disks

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Do that later."""
        ...


class Mishaps:
    """Draws what happens when. At most f members are down, frozen or lying at once."""

    def __init__(self, around: Surroundings, rng: random.Random) -> None:
        self._around, self._lives = around, around.lives
        self._random = rng

    def arrange(self) -> None:
        """Everything that is to happen, each at its moment."""
        around, faults = self._around, self._around.faults
        for node in around.nodes:
            self._set_up(node)
            if node.era is not None:
                around.at(self._random.uniform(0, 0.5), partial(self._lives.boot, node))
            if node.person in faults.dead:
                around.at(self._random.uniform(0.5, faults.until / 4), partial(self._die, node))
        for number, happen in (
            (faults.crashes, self._crash),
            (faults.broken_off, self._doom),
            (faults.freezes, self._freeze),
            (faults.partitions, self._partition),
            (faults.outages, self._outage),
            (faults.reorgs, self._reorganise),
            (faults.undone, around.disks.undo_final),
        ):
            for _ in range(number):
                around.at(self._random.uniform(0, faults.until), happen)
        for kind in CHANGES:
            for _ in range(getattr(faults, kind)):
                around.at(self._random.uniform(0, faults.until / 4), partial(around.assembly.agree, kind))
        for node in around.nodes:
            self._draw_loss(node)
        around.at(faults.until, self._mend)

    def _set_up(self, node: Node) -> None:
        faults = self._around.faults
        if node.person in faults.slow:
            node.slowness = SLOWNESS
        if faults.skew:
            node.clock_rate = 1 + self._random.uniform(-faults.skew, faults.skew)
            node.clock_offset = self._random.uniform(0, FAR_OFF)

    def _draw_loss(self, node: Node) -> None:
        """When a disk goes back in time, and how far."""
        around, faults = self._around, self._around.faults
        if node.person in faults.emptied:
            around.at(self._random.uniform(0, faults.until), partial(around.disks.lose_journal, node))
        if node.person in faults.outdated:
            age = self._random.uniform(0.1, faults.until / 2)
            around.at(self._random.uniform(0, faults.until - age), partial(around.disks.keep_copy, node, age))

    def _mend(self) -> None:
        self._lives.cut(())
        self._set_rpc(self._around.nodes, down=False)
        for node in self._around.nodes:
            node.slowness = 1.0

    # --- nodes ----------------------------------------------------------------------------------------------

    def _die(self, node: Node) -> None:
        node.gone = True
        self._lives.end(node)

    def _victim(self) -> Node | None:
        """Somebody who may go down: of no charter's members more than f (of few members one) are away or lie."""
        around = self._around
        alive = [node for node in around.honest if node.hears and not node.doomed]
        eras = {node.era: None for node in alive if node.era is not None} | {around.charters.newest: None}
        for era in eras:
            size = len(era.people)
            if sum(map(era.has, alive)) <= size - max(1, max_faults(size)):
                return None
        return self._random.choice(alive)

    def _crash(self) -> None:
        if (node := self._victim()) is not None:
            self._lives.crash(node)

    def _doom(self) -> None:
        if (node := self._victim()) is not None:
            node.doomed = True

    def _freeze(self) -> None:
        if (node := self._victim()) is not None:
            self._lives.freeze(node, self._random.uniform(0.5, 20.0))

    # --- lines and ledger -----------------------------------------------------------------------------------

    def _partition(self) -> None:
        people = sorted({node.person for node in self._around.nodes})
        self._lives.cut(tuple(self._random.sample(people, self._random.randrange(len(people)))))
        self._around.at(self._random.uniform(1.0, 30.0), lambda: self._lives.cut(()))

    def _outage(self) -> None:
        nodes = self._around.nodes
        without = nodes if self._random.random() < 0.5 else [self._random.choice(nodes)]
        self._set_rpc(without, down=True)
        self._around.at(self._random.uniform(1.0, 30.0), lambda: self._set_rpc(without, down=False))

    def _set_rpc(self, nodes: list[Node], *, down: bool) -> None:
        for node in nodes:
            if node.ledger is not None:
                node.ledger.down = down

    def _reorganise(self) -> None:
        self._around.ledger.reorganise(self._random.randint(1, max(1, self._around.faults.finality)))
