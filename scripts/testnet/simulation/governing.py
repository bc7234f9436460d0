"""How a node follows its charters: what it learns from the ledger, and how it changes from one to the next.

The daemon's `Governance` needs trio and files; this does the same without. Reads, crashes and missing charters happen
at any moment of it.
"""

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from folkmoot.ledger.port import LedgerHead
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.events import Event, TermsKnown
from folkmoot.protocol.governance import Amendment, Role
from folkmoot.protocol.timeline import Span
from folkmoot.protocol.types import Round
from folkmoot.testnet.simulation.charters import Charters, me
from folkmoot.testnet.simulation.keys import address_of
from folkmoot.testnet.simulation.node import Node

RETRY = 2.0
"""Seconds between two tries to get a charter that is not here."""

TRIES = 15
"""Tries after which the operator puts the file there, as the log asks for."""

LONGEST_CHANGE = 2.5
"""Seconds from the end of one charter's machine to the next one's."""


class Surroundings(Protocol):
    """What this needs of the simulation around it."""

    random: random.Random
    charters: Charters

    def while_alive(self, node: Node, delay: float, action: Callable[[], None]) -> None:
        """Do that later, unless the node is gone or has begun anew."""
        ...

    def tell(self, node: Node, event: Event, delay: float) -> None:
        """Let the node know later."""
        ...

    def neighbours(self, node: Node) -> Iterator[Node]:
        """The nodes whom this one hears."""
        ...

    def note(self, node: Node, what: str | None) -> None:
        """A line in the trace."""
        ...

    def restart(self, node: Node, first: Round, delay: float) -> None:
        """End the node's machine, and begin with one for the charter in force from that round on."""
        ...

    def leave(self, node: Node) -> None:
        """End a node that is no member any more."""
        ...


class Governing:
    """For all nodes. What a node knows is in the node."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    # --- what the ledger says -------------------------------------------------------------------------------

    def learn(self, node: Node, final: tuple[Amendment, ...]) -> None:
        """Final amendments, before the node hears how far the record is: they are journalled."""
        if len(final) > len(node.amendments):
            node.amendments = final
            self._tell(node)
            self._complete(node)

    def looked(self, node: Node, head: LedgerHead) -> None:
        """The node has seen how far the record is: it may have gone on without it."""
        node.looked = head.finalized_height + 1
        span = self._around.charters.known_to(node).span_at(head.finalized_height + 1)
        assert node.era is not None
        if (
            span.first > node.era.first
            and span.charter is not None
            and not _is_same_member(node, span.charter)
        ):
            node.ended_at = node.ended_at or span.first
        self.go_on(node)

    def _tell(self, node: Node) -> None:
        self._around.tell(node, TermsKnown(self._around.charters.terms(node)), 0.0)

    # --- charters that are not here -------------------------------------------------------------------------

    def begin(self, node: Node) -> None:
        """A life begins."""
        self._complete(node)

    def _complete(self, node: Node, tries: int = TRIES) -> None:
        """Fetch what is missing from peers; if they have all gone on under keys unknown here, people bring it."""
        for amendment in self._around.charters.known_to(node).missing:
            holders = (one for one in self._around.neighbours(node) if amendment.charter in one.charters)
            if tries and next(holders, None) is None:
                self._around.while_alive(node, RETRY, partial(self._complete, node, tries - 1))
                return
            delay = self._around.random.uniform(0.05, 0.5)
            self._around.while_alive(node, delay, partial(self._take, node, amendment))

    def _take(self, node: Node, amendment: Amendment) -> None:
        node.charters[amendment.charter] = self._around.charters.drafted[amendment.charter]
        self._tell(node)
        self.go_on(node)

    # --- from one to the next -------------------------------------------------------------------------------

    def term_ended(self, node: Node, following: Round) -> None:
        """The machine has brought its last round to its end."""
        node.ended_at = following
        self.go_on(node)

    def go_on(self, node: Node) -> None:
        """If its term has ended, and what follows is known: change."""
        if not node.ended_at or node.machine is None or (span := self._following(node)) is None:
            return
        if not self._is_member(node, span):
            if node.looked >= node.ended_at:  # who leaves serves until its last round is final
                self._around.leave(node)
            return
        self._around.restart(node, span.first, self._around.random.uniform(0.1, LONGEST_CHANGE))

    def _following(self, node: Node) -> Span | None:
        """`Governance._following`: the span to go on with; None as long as that is not known."""
        timeline = self._around.charters.known_to(node)
        span = timeline.span_at(node.ended_at)
        if span.charter is not None and not self._is_member(node, span):
            if not node.looked:
                return None
            later = (one for one in timeline.spans if one.first > span.first)
            span = next((one for one in later if self._is_member(node, one)), span)
        return span if span.charter is not None else None

    def _is_member(self, node: Node, span: Span) -> bool:
        if span.charter is not None:
            return me(span.charter, node) is not None
        own = address_of(node.charter, node.member)
        role = self._around.charters.known_to(node).role_of(own, span)
        return role is None or role >= Role.MEMBER


def _is_same_member(node: Node, charter: Charter) -> bool:
    index = me(charter, node)
    own = node.charter.members[node.member]
    return index is not None and charter.members[index].identity_key == own.identity_key
