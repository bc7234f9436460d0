"""What can be wrong with a testnet's links: orders that change it, and what follows for each pair of nodes.

A node's line to the network is slow for all that crosses it; a partition is a matter of pairs. No sockets here.
"""

from collections.abc import Collection, Sequence
from typing import TypeAlias

import msgspec

from folkmoot.testnet.processes import TestnetError


class Partition(msgspec.Struct, frozen=True, tag="partition", forbid_unknown_fields=True):
    """Nodes on different sides no longer reach each other; those on none reach all. Takes an earlier one's place.

    `silent`: connections stay open and nothing crosses them, as when packets are dropped; else they are closed.
    """

    sides: tuple[tuple[str, ...], ...]
    silent: bool = False


class Slow(msgspec.Struct, frozen=True, tag="slow", forbid_unknown_fields=True):
    """The line of `node`: seconds added to all that it sends and receives; bytes a second, each way, None for any."""

    node: str
    delay: float = 0.0
    rate: float | None = None


class Heal(msgspec.Struct, frozen=True, tag="heal", forbid_unknown_fields=True):
    """No partition, and no slow line."""


Order: TypeAlias = Partition | Slow | Heal


def parse_sides(text: str, names: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """`alice,bob|carol` as sides; raises `TestnetError` for unknown nodes, overlapping sides, or fewer than two."""
    sides = tuple(
        tuple(name for word in side.split(",") if (name := word.strip())) for side in text.split("|")
    )
    if len(sides) < 2 or not all(sides):
        raise TestnetError(f"{text!r}: write the sides as alice,bob|carol,dave")
    seen: set[str] = set()
    for name in (name for side in sides for name in side):
        if name not in names:
            raise TestnetError(f"{name}: no such node: there are {', '.join(names)}")
        if name in seen:
            raise TestnetError(f"{name} is named twice: a node is on one side, or on none")
        seen.add(name)
    return sides


class Line:
    """One direction of a node's line: what crosses it does so in turn."""

    def __init__(self, rate: float | None = None) -> None:
        self._rate = rate
        self._free_at = 0.0

    def cross(self, size: int, now: float) -> float:
        """When the last of `size` bytes that come at `now` has crossed."""
        if self._rate is None:
            return now
        self._free_at = max(now, self._free_at) + size / self._rate
        return self._free_at


class _Access:
    """A node's line, both ways."""

    def __init__(self, delay: float = 0.0, rate: float | None = None) -> None:
        self.delay = delay
        self.outward, self.inward = Line(rate), Line(rate)


class Conditions:
    """How all links are now. Times are the caller's clock, in seconds."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._access = {name: _Access() for name in names}
        self._partition = Partition(())

    def apply(self, order: Order) -> None:
        """Change what `order` says and nothing else; raises `TestnetError` for a node that is not there."""
        match order:
            case Partition(sides):
                self._check({name for side in sides for name in side})
                self._partition = order
            case Slow(node, delay, rate):
                self._check({node})
                self._access[node] = _Access(delay, rate)
            case Heal():
                self._access = {name: _Access() for name in self._names}
                self._partition = Partition(())

    def is_cut(self, source: str, target: str) -> bool:
        """Whether no connection can be between the two."""
        return self._is_divided(source, target) and not self._partition.silent

    def is_stalled(self, source: str, target: str) -> bool:
        """Whether nothing crosses the connections between the two."""
        return self._is_divided(source, target) and self._partition.silent

    def cross(self, source: str, target: str, size: int, now: float) -> float:
        """When bytes that `source` sends at `now` have crossed both lines, delays left out."""
        outward, inward = self._access[source].outward, self._access[target].inward
        return max(outward.cross(size, now), inward.cross(size, now))

    def delay(self, source: str, target: str) -> float:
        """Seconds that a byte then travels."""
        return self._access[source].delay + self._access[target].delay

    def _is_divided(self, one: str, other: str) -> bool:
        sides = [
            next((side for side in self._partition.sides if name in side), None) for name in (one, other)
        ]
        return None not in sides and sides[0] != sides[1]

    def _check(self, names: Collection[str]) -> None:
        if unknown := sorted(set(names) - set(self._names)):
            raise TestnetError(f"{', '.join(unknown)}: no such node")
