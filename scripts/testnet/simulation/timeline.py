"""Virtual time: what is to happen, in order."""

import heapq
import itertools
from collections.abc import Callable

from folkmoot.testnet.simulation.node import Node


class Timeline:
    """Its moments are seconds since the start; what falls on one moment happens in the order of its planning."""

    def __init__(self) -> None:
        self.now = 0.0
        self._planned: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Do that later."""
        heapq.heappush(self._planned, (self.now + delay, next(self._order), action))

    def while_alive(self, node: Node, delay: float, action: Callable[[], None]) -> None:
        """Do that later, unless the node is gone or has begun anew."""
        life = node.life

        def happen() -> None:
            if node.life == life and node.machine is not None:
                action()

        self.at(delay, happen)

    def go_on(self) -> Callable[[], None] | None:
        """Move to the next moment; what is due then, or None if nothing is left to happen."""
        if not self._planned:
            return None
        self.now, _, action = heapq.heappop(self._planned)
        return action
