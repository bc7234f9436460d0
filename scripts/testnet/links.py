"""Which simulated nodes see each other: the faces of liars, and partitions."""

import random
from collections.abc import Collection, Iterator

from folkmoot.protocol.types import MemberId
from folkmoot.testnet.simulated import Node


class Links:
    """Every other member sees one face of a two-faced member, and never finds out that there are two."""

    def __init__(self, nodes: list[Node], two_faced: Collection[MemberId], rng: random.Random) -> None:
        self._nodes = nodes
        self._two_faced = frozenset(two_faced)
        self._cut: frozenset[MemberId] = frozenset()
        members = sorted({node.member for node in nodes})
        self._seen = {(liar, member): rng.randrange(2) for liar in two_faced for member in members}

    def stands(self, one: Node, other: Node) -> bool:
        """Whether the two have a link, if both are up. Faces of one member never meet; liars see each other's all."""
        if one.member == other.member or (one.member in self._cut) != (other.member in self._cut):
            return False
        return all(
            self._seen[seen.member, seer.member] == seen.face
            for seer, seen in ((one, other), (other, one))
            if seen.member in self._two_faced and seer.member not in self._two_faced
        )

    def cut(self, side: Collection[MemberId]) -> Iterator[tuple[Node, Node, bool]]:
        """From now on the members in `side` have links only among themselves; yields which links went or came."""
        pairs = [(one, other) for one in self._nodes for other in self._nodes]
        before = [self.stands(one, other) for one, other in pairs]
        self._cut = frozenset(side)
        for (one, other), was in zip(pairs, before, strict=True):
            if (now := self.stands(one, other)) != was:
                yield one, other, now
