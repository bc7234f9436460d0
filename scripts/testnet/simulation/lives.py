"""Nodes that start, end, freeze and lose each other, and what their peers notice of it."""

import random
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Protocol

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.events import Event, FrameReceived, HeadAdvanced, PeerDown, PeerUp, Started
from folkmoot.protocol.round import RoundMachine
from folkmoot.protocol.signing import Signer, Verifier
from folkmoot.protocol.types import MemberId
from folkmoot.testnet.simulation.chain import SimulatedLedger
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.keeping_up import KeepingUp
from folkmoot.testnet.simulation.links import Links
from folkmoot.testnet.simulation.node import Node

HEARTBEAT = 5.0
"""Seconds until the others notice that a node is gone."""

LONGEST_ABSENCE = 20.0


class Surroundings(Protocol):
    """What lives need of the simulation that they are lived in."""

    now: float
    federation: Federation
    verifier: Verifier
    faults: Faults
    random: random.Random
    links: Links
    ledger: SimulatedLedger
    keeping_up: KeepingUp

    def signer(self, member: MemberId) -> Signer:
        """A member's own."""
        ...

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Do that later."""
        ...

    def while_alive(self, node: Node, delay: float, action: Callable[[], None]) -> None:
        """Do that later, unless the node is gone or has begun anew."""
        ...

    def tell(self, node: Node, event: Event, delay: float) -> None:
        """Let the node know later, unless it is gone by then."""
        ...

    def handle(self, node: Node, event: Event) -> None:
        """Let the node know now."""
        ...

    def neighbours(self, node: Node) -> Iterator[Node]:
        """The nodes whom this one hears."""
        ...

    def listeners(self, node: Node) -> Iterator[Node]:
        """The nodes that hear this one."""
        ...

    def note(self, node: Node, what: str) -> None:
        """A line in the trace."""
        ...

    def note_progress(self) -> None:
        """Something was finished somewhere."""
        ...


class Lives:
    """Carries out what happens to nodes and lines; `Mishaps` draws when."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    # --- beginning and end ----------------------------------------------------------------------------------

    def boot(self, node: Node) -> None:
        """Start a node, from its journal and archive, as `Engine.run` does."""
        around = self._around
        model0 = BlobRef(bytes(32), 4 * around.federation.charter.snapshot_values)
        signer = around.signer(node.member)
        node.machine = RoundMachine(around.federation, node.member, signer, around.verifier, model0)
        node.life += 1
        node.doomed = node.frozen = False
        node.outbox.clear()
        around.keeping_up.disturb(node, around.now)
        if node.member in around.faults.liars:
            node.machine.forget_what_was_signed()
        node.machine.restore(node.read(), node.clock(around.now))
        begin: list[Event] = [HeadAdvanced(node.finalised), Started(), *_archived(node)]
        for event in begin:
            around.handle(node, event)
        for other in around.neighbours(node):
            around.tell(node, PeerUp(other.member), 0.01)
        for other in around.listeners(node):
            around.tell(other, PeerUp(node.member), 0.01)
        around.while_alive(node, 0.01, lambda: around.ledger.look(node))
        around.note_progress()

    def crash(self, node: Node) -> None:
        """End a node and start it again after a while."""
        self.end(node)
        self._around.at(self._around.random.uniform(0.1, LONGEST_ABSENCE), lambda: self.boot(node))

    def end(self, node: Node) -> None:
        """End a node."""
        for other in self._around.listeners(node):
            self._notice_absence(node, other)
        node.machine, node.frozen = None, False
        node.waiting.clear()
        self._around.note(node, "CRASH")

    def _notice_absence(self, gone: Node, other: Node) -> None:
        around, life = self._around, gone.life

        def notice() -> None:
            if gone.life == life:
                around.handle(other, PeerDown(gone.member))

        around.at(around.random.choice((0.1, HEARTBEAT)), notice)

    # --- frost ----------------------------------------------------------------------------------------------

    def freeze(self, node: Node, seconds: float) -> None:
        """Stop a node without its knowing; the others take it for lost after a while, and it takes them."""
        around = self._around
        around.note(node, f"FREEZES for {seconds:.1f} s")
        node.frozen = True
        if seconds > HEARTBEAT:
            for other in around.listeners(node):
                around.tell(other, PeerDown(node.member), HEARTBEAT)
        around.while_alive(node, seconds, lambda: self._thaw(node))

    def _thaw(self, node: Node) -> None:
        around = self._around
        around.note(node, "goes on")
        around.keeping_up.disturb(node, around.now)
        node.frozen = False
        waiting, node.waiting = node.waiting, []
        for event in waiting:
            around.handle(node, event)
        for other in around.listeners(node):
            for one, peer in ((node, other), (other, node)):
                around.tell(one, PeerDown(peer.member), 0.0)
                around.tell(one, PeerUp(peer.member), 0.1)

    # --- lines ----------------------------------------------------------------------------------------------

    def cut(self, side: Collection[MemberId]) -> None:
        """Let the members in `side` hear only each other; nobody: let all hear all."""
        around = self._around
        for node, other, stands in around.links.cut(side):
            around.keeping_up.disturb(node, around.now)
            if not stands:
                around.tell(node, PeerDown(other.member), around.random.choice((0.1, HEARTBEAT)))
            elif other.machine is not None:
                around.tell(node, PeerUp(other.member), HEARTBEAT + 0.1)


def _archived(node: Node) -> Iterable[FrameReceived]:
    """The quorums under statements that may not be recorded yet: peers forget them after some rounds."""
    unsettled = (record for round_, record in sorted(node.records.items()) if round_ > node.settled)
    return (FrameReceived(None, signed) for record in unsettled for signed in record.attestations)
