"""Which simulated nodes hear each other, and how long that takes: faces of liars, partitions, slow and narrow lines."""

import random
from collections.abc import Collection, Iterator

from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.node import Node


class Links:
    """Every honest member sees one face of a two-faced member, and is not told that there are two."""

    def __init__(self, nodes: list[Node], faults: Faults, rng: random.Random) -> None:
        self._nodes = nodes
        self._faults = faults
        self._random = rng
        self._two_faced = frozenset(faults.two_faced)
        self._cut: frozenset[int] = frozenset()
        self._slowest: dict[tuple[int, int], float] = {}
        self._free_at: dict[tuple[int, int], float] = {}
        people = sorted({node.person for node in nodes})
        self._seen: dict[tuple[int, int], int] = {}
        together = {person: rng.randrange(2) for person in people}
        for liar in faults.two_faced:
            for person in people:
                self._seen[liar, person] = together[person] if faults.coordinated else rng.randrange(2)

    # --- who ------------------------------------------------------------------------------------------------

    def hears(self, node: Node, other: Node) -> bool:
        """Whether `node` hears what `other` says, if both are up. A face hears everybody but its other face.

        They speak with each other only if each is a member, with its keys of that time, under the other's charter. Of
        liars who lie together, the faces for the same members know only each other.
        """
        if node.person == other.person:
            return False
        if self._cut and (node.person in self._cut) != (other.person in self._cut):
            return False
        if node.era is not other.era and not (node.knows(other) and other.knows(node)):
            return False
        if other.person not in self._two_faced:
            return True
        if node.person in self._two_faced:
            return not self._faults.coordinated or node.face == other.face
        return self._seen[other.person, node.person] == other.face

    def cut(self, side: Collection[int]) -> Iterator[tuple[Node, Node, bool]]:
        """From now on the people in `side` hear only each other; yields who hears whom no longer, or again."""
        members = [node for node in self._nodes if node.era is not None]
        pairs = [(one, other) for one in members for other in members]
        before = [self.hears(one, other) for one, other in pairs]
        self._cut = frozenset(side)
        for (one, other), was in zip(pairs, before, strict=True):
            if (now := self.hears(one, other)) != was:
                yield one, other, now

    @property
    def is_cut(self) -> bool:
        """Whether there is a partition."""
        return bool(self._cut)

    # --- how long -------------------------------------------------------------------------------------------

    def latency(self, sender: int, receiver: int) -> float:
        """How long the next small message takes; each direction of each pair has an upper bound of its own."""
        low, high = self._faults.latency
        key = (sender, receiver)
        slowest = self._slowest.get(key)
        if slowest is None:
            slowest = self._slowest[key] = low + (high - low) * self._random.uniform(0.2, 1.0)
        return low + (slowest - low) * self._random.random()

    def transit(self, sender: int, receiver: int, size: int, now: float) -> float:
        """How long `size` bytes take that begin now, behind whatever is on that line already."""
        if not self._faults.bandwidth or now >= self._faults.until:
            return self.latency(sender, receiver)
        begin = max(now, self._free_at.get((sender, receiver), 0.0))
        self._free_at[sender, receiver] = done = begin + size / self._faults.bandwidth
        return done - now + self.latency(sender, receiver)
