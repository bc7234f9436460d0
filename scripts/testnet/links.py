"""Which simulated nodes hear each other: the faces of liars, and partitions."""

import random
from collections.abc import Collection, Iterator

from folkmoot.protocol.types import MemberId
from folkmoot.testnet.simulated import Node


class Links:
    """Every honest member sees one face of a two-faced member, and is not told that there are two."""

    def __init__(self, nodes: list[Node], two_faced: Collection[MemberId], rng: random.Random) -> None:
        self._nodes = nodes
        self._two_faced = frozenset(two_faced)
        self._cut: frozenset[MemberId] = frozenset()
        members = sorted({node.member for node in nodes})
        self._seen = {(liar, member): rng.randrange(2) for liar in two_faced for member in members}

    def hears(self, node: Node, other: Node) -> bool:
        """Whether `node` hears what `other` says, if both are up. A face hears everybody but its other face."""
        if node.member == other.member or (node.member in self._cut) != (other.member in self._cut):
            return False
        if node.member in self._two_faced or other.member not in self._two_faced:
            return True
        return self._seen[other.member, node.member] == other.face

    def cut(self, side: Collection[MemberId]) -> Iterator[tuple[Node, Node, bool]]:
        """From now on the members in `side` hear only each other; yields who hears whom no longer, or again."""
        pairs = [(one, other) for one in self._nodes for other in self._nodes]
        before = [self.hears(one, other) for one, other in pairs]
        self._cut = frozenset(side)
        for (one, other), was in zip(pairs, before, strict=True):
            if (now := self.hears(one, other)) != was:
                yield one, other, now
