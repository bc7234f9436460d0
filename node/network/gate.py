"""Who may stand at the door: few connections in their handshake at once, the newest in place of the oldest.

An idle connection costs nothing to open, so a plain limit lets anybody lock the members out: whoever fills it first
keeps it. An honest handshake takes a tenth of a second. So nobody is turned away for being late; the oldest who stands
there goes, of the address that has the most of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import trio

MOST = 64
"""Connections in their handshake at once."""


class CrowdedOutError(Exception):
    """The place was needed for somebody else."""


class Gate:
    """Holds at most `most` handshakes."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._waiting: dict[str, OrderedDict[int, trio.CancelScope]] = {}
        self._knocks = 0

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
