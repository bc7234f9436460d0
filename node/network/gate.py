"""Who may stand at the door: few connections in their handshake at once, the newest in place of the oldest.

An idle connection costs nothing to open, so a plain limit lets anybody lock the members out: whoever fills it first
keeps it. An honest handshake takes a tenth of a second. So nobody is turned away for being late; the oldest who stands
there goes, of the address that has the most of them.

A handshake that fails has cost this node as much as one that does not. Whoever makes up identities, or sends garbage,
may do so at some rate for each address; then the next handshakes from there wait their turn. Members' do not count.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from folkmoot.node.network.conduct import Bucket

MOST = 64
"""Connections in their handshake at once."""
FAILURES = (5.0, 50.0)
"""Handshakes from one address that may fail: each second, and at once after a rest."""
REMEMBERED = 1024
"""Addresses of which failures are remembered; those that failed longest ago are forgotten first."""


class CrowdedOutError(Exception):
    """The place was needed for somebody else."""


class Gate:
    """Holds at most `most` handshakes."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._waiting: dict[str, OrderedDict[int, trio.CancelScope]] = {}
        self._knocks = 0
        self._failures: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    @contextmanager
    def handshake(self, address: str) -> Iterator[None]:
        """The block is one handshake with somebody at `address`.

        When another needs the place it is cancelled, and `CrowdedOutError` raised.
        """
        self._knocks += 1
        knock = self._knocks
        with trio.CancelScope() as scope:
            self._waiting.setdefault(address, OrderedDict())[knock] = scope
            if len(self) > self._most:
                self._push_out()
            try:
                yield
            finally:
                self._leave(address, knock)
        if scope.cancelled_caught:
            raise CrowdedOutError

    async def await_turn(self, address: str) -> None:
        """Wait, within a handshake, as long as too many from that address have failed."""
        bucket = self._failures.get(_site(address))
        if bucket is not None:
            await trio.sleep(bucket.owe(0, trio.current_time()))

    def failed(self, address: str) -> None:
        """A handshake with somebody there came to nothing."""
        site = _site(address)
        bucket = self._failures.pop(site, None) or Bucket(*FAILURES)
        bucket.owe(1, trio.current_time())
        self._failures[site] = bucket
        if len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)

    def _push_out(self) -> None:
        """The one who has stood there longest, of the address with the most."""
        crowded = max(
            self._waiting, key=lambda address: (len(self._waiting[address]), -self._oldest(address))
        )
        oldest = self._oldest(crowded)
        scope = self._waiting[crowded][oldest]
        self._leave(crowded, oldest)
        scope.cancel()

    def _oldest(self, address: str) -> int:
        return next(iter(self._waiting[address]))

    def _leave(self, address: str, knock: int) -> None:
        standing = self._waiting.get(address, OrderedDict())
        standing.pop(knock, None)
        if not standing:
            self._waiting.pop(address, None)


def _site(address: str) -> str:
    """The address, or the network of 2^64 ones that an IPv6 address is of: whoever has one of those has all."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address
