"""Nodes that start, end, freeze and lose each other, and what their peers notice of it."""

import random
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Protocol

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.events import Event, FrameReceived, HeadAdvanced, PeerDown, PeerSilent, PeerUp, Started
from folkmoot.protocol.journal import Attested
from folkmoot.protocol.round import RoundMachine
from folkmoot.protocol.signing import Signer
from folkmoot.protocol.types import Round
from folkmoot.testnet.simulation.chain import SimulatedLedger
from folkmoot.testnet.simulation.charters import Charters
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.governing import Governing
from folkmoot.testnet.simulation.keeping_up import KeepingUp
from folkmoot.testnet.simulation.links import Links
from folkmoot.testnet.simulation.node import Node

SILENCE = 2.0
"""Seconds until the others notice that a node says nothing."""
HEARTBEAT = 5.0
"""Seconds until the others take it for gone."""

LONGEST_ABSENCE = 20.0


class Surroundings(Protocol):
    """What lives need of the simulation that they are lived in."""

    now: float
    charters: Charters
    faults: Faults
    random: random.Random
    links: Links
    ledger: SimulatedLedger
    governing: Governing
    keeping_up: KeepingUp

    def signer(self, node: Node) -> Signer:
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
        if node.gone or node.machine is not None:
            return
        node.machine = self.make_machine(node)
        node.life += 1
        node.doomed = node.frozen = False
        node.looked = 0
        node.ended_at = 0
        node.outbox.clear()
        around.keeping_up.disturb(node, around.now)
        if node.is_journal_new:
            node.machine.replace_journal()
        if node.is_forgetful:
            node.machine.forget_what_was_signed()
        elif node.has_recalled:
            node.machine.skip_recall()
        node.machine.restore(node.read(), node.clock(around.now))
        begin: list[Event] = [HeadAdvanced(node.finalised), Started(), *_archived(node)]
        for event in begin:
            around.handle(node, event)
        for other in around.neighbours(node):
            around.tell(node, PeerUp(node.id_of(other)), 0.01)
        for other in around.listeners(node):
            around.tell(other, PeerUp(other.id_of(node)), 0.01)
        around.ledger.hand_in_again(node)
        around.while_alive(node, 0.01, lambda: around.ledger.look(node))
        around.governing.begin(node)
        around.note_progress()

    def make_machine(self, node: Node) -> RoundMachine:
        """For the charter that the node works under, as far as it knows what follows."""
        era, around = node.era, self._around
        assert era is not None
        model0 = BlobRef(bytes(32), 4 * era.federation.charter.snapshot_values)
        terms = around.charters.terms(node)
        signer = around.signer(node)
        return RoundMachine(
            era.federation, node.member, signer, era.verifier, model0, first=era.first, terms=terms
        )

    def change(self, node: Node, first: Round, delay: float) -> None:
        """One charter's machine ends, and a while later the next one's begins: as a restart, in the same process.

        A doomed node crashes in between: before or after it has noted where it goes on.
        """
        around = self._around
        assert node.machine is not None
        recalled, doomed = node.machine.has_recalled, node.doomed
        noted = not doomed or around.random.random() < 0.5
        self._close(node, 0.1)
        if noted:
            node.work_under(around.charters.era_from(node, first))
            around.note(
                node, f"CHARTER from round {first}, member {node.member} of {len(node.charter.members)}"
            )
        node.has_recalled = recalled and not doomed
        around.at(
            delay if not doomed else around.random.uniform(0.1, LONGEST_ABSENCE), lambda: self.boot(node)
        )

    def leave(self, node: Node) -> None:
        """A node's life as a member ends."""
        self._close(node, 0.1)
        node.gone = node.left = True
        self._around.note(node, "LEAVES")
        self._around.note_progress()

    def crash(self, node: Node) -> None:
        """End a node and start it again after a while."""
        self.end(node)
        self._around.at(self._around.random.uniform(0.1, LONGEST_ABSENCE), lambda: self.boot(node))

    def end(self, node: Node) -> None:
        """End a node."""
        if node.machine is None:
            return
        self._close(node, None)
        node.has_recalled = False
        self._around.note(node, "CRASH")

    def _close(self, node: Node, noticed: float | None) -> None:
        """No machine any more; the others notice after so many seconds, None for at once or by its silence."""
        around = self._around
        for other in around.listeners(node):
            delay = around.random.choice((0.1, HEARTBEAT)) if noticed is None else noticed
            self._notice_absence(node, other, delay)
        node.machine, node.frozen = None, False
        node.waiting.clear()

    def _notice_absence(self, gone: Node, other: Node, delay: float) -> None:
        around, life, member, era = self._around, gone.life, other.id_of(gone), other.era

        def notice(event: Event) -> None:
            if gone.life == life and other.era is era:
                around.handle(other, event)

        if delay >= HEARTBEAT:
            around.at(SILENCE, lambda: notice(PeerSilent(member)))
        around.at(delay, lambda: notice(PeerDown(member)))

    # --- frost ----------------------------------------------------------------------------------------------

    def freeze(self, node: Node, seconds: float) -> None:
        """Stop a node without its knowing; the others take it for lost after a while, and it takes them."""
        around = self._around
        around.note(node, f"FREEZES for {seconds:.1f} s")
        node.frozen = True
        for other in around.listeners(node):
            if seconds > SILENCE:
                around.tell(other, PeerSilent(other.id_of(node)), SILENCE)
            if seconds > HEARTBEAT:
                around.tell(other, PeerDown(other.id_of(node)), HEARTBEAT)
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
                around.tell(one, PeerDown(one.id_of(peer)), 0.0)
                around.tell(one, PeerUp(one.id_of(peer)), 0.1)

    # --- lines ----------------------------------------------------------------------------------------------

    def cut(self, side: Collection[int]) -> None:
        """Let the people in `side` hear only each other; nobody: let all hear all."""
        around = self._around
        for node, other, stands in around.links.cut(side):
            around.keeping_up.disturb(node, around.now)
            if not stands:
                noticed = around.random.choice((0.1, HEARTBEAT))
                if noticed >= HEARTBEAT:
                    around.tell(node, PeerSilent(node.id_of(other)), SILENCE)
                around.tell(node, PeerDown(node.id_of(other)), noticed)
            elif other.machine is not None:
                around.tell(node, PeerUp(node.id_of(other)), HEARTBEAT + 0.1)


def _archived(node: Node) -> Iterable[FrameReceived]:
    """The quorums under statements that the journal has: peers forget them after some rounds."""
    attested = (entry.opening.survivors.round for entry in node.read() if isinstance(entry, Attested))
    records = (node.records[round_] for round_ in attested if round_ in node.records)
    return (FrameReceived(None, signed) for record in records for signed in record.attestations)
