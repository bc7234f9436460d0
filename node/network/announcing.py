"""What this node announces of itself: where it listens, or through whom it is reached; again whenever that changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import trio

from folkmoot.node.network.directory import Directory
from folkmoot.node.network.port import NetworkError
from folkmoot.protocol.addresses import MAX_ADDRESSES, check_address
from folkmoot.protocol.errors import RemoteProtocolError

log = logging.getLogger(__name__)

MAX_RELAYS = 3
"""Relays that a member with `via = "auto"` announces."""
LOOK_SECONDS = 2.0
"""How often it looks who of them is still connected."""


class Announcing:
    """Keeps the own word in the directory true."""

    def __init__(
        self,
        directory: Directory,
        listening: Sequence[str],
        announce: Sequence[str],
        relay: bool,
        via: Literal["auto"] | Sequence[str],
        connected: Callable[[], Sequence[str]],
    ) -> None:
        """`listening`, `announce`: addresses without `/p2p/...`; `via`, `connected()`: peer ids."""
        self._directory = directory
        self._listening = listening
        self._announce = announce
        self._relay = relay
        self._via = via
        self._connected = connected
        self._relays: list[str] = []

    def begin(self) -> None:
        """Say it before anybody asks. Raises NetworkError for an address in `announce` that nobody could dial."""
        for address in self._announce:
            try:
                check_address(address)
            except RemoteProtocolError as error:
                raise NetworkError(f"network.announce: {error}") from error
        if not self._addresses() and not self._via:
            log.warning("others cannot call this node: it listens on all interfaces; set network.announce")
        self._say()

    async def run(self) -> None:
        """Say it anew when relays come and go, for ever."""
        while self._via:
            await trio.sleep(LOOK_SECONDS)
            self._say()
        await trio.sleep_forever()

    def _say(self) -> None:
        self._directory.announce(self._addresses()[:MAX_ADDRESSES], self._relay)

    def _addresses(self) -> list[str]:
        if not self._via:
            return [*(self._announce or filter(_is_usable, self._listening))]
        self._relays = self._choose()
        return [*self._announce, *(f"/p2p/{peer}/p2p-circuit" for peer in self._relays)]

    def _choose(self) -> list[str]:
        """Those that are named; else connected ones that relay, and rather those of before."""
        if self._via != "auto":
            return list(self._via)[:MAX_RELAYS]
        usable = [peer for peer in self._connected() if self._directory.relays(peer)]
        return sorted(usable, key=lambda peer: (peer not in self._relays, peer))[:MAX_RELAYS]


def _is_usable(address: str) -> bool:
    try:
        check_address(address)
    except RemoteProtocolError:
        return False
    return True
