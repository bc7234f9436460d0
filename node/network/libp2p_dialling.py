"""Dialling members over libp2p: one address after the other until there is a connection, whoever makes it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from folkmoot.node.network.addresses import AddressBook, resolve
from folkmoot.node.network.conduct import Bucket
from folkmoot.node.network.directory import Directory
from folkmoot.node.network.libp2p_relay import Circuits
from folkmoot.node.network.port import Trouble
from folkmoot.node.network.streams import StreamBroken
from folkmoot.protocol.addresses import relay_of
from folkmoot.protocol.types import MemberId

log = logging.getLogger(__name__)

RESOLVE_SECONDS = 5.0
DIAL_SECONDS = 5.0
MOVES = (1 / 60, 5)
"""How often a member's new addresses are dialled at once: each second, and after a rest. Else a little later."""

MAX_COMPLAINTS = 64
"""Addresses whose names are logged as unknown, once each: members announce what they like."""


@dataclass(slots=True)
class _Dial:
    """A member is being dialled; over when nothing is left to try, or a connection stands."""

    addresses: int = 0
    over: trio.Event = field(default_factory=trio.Event)


class Dialler:
    """Dials; `run` it, and tell it of connections that came about."""

    def __init__(
        self,
        swarm: Swarm,
        ids: Mapping[MemberId, ID],
        book: AddressBook,
        circuits: Circuits,
        is_connected: Callable[[MemberId], bool],
    ) -> None:
        self._swarm = swarm
        self._ids = ids
        self._book = book
        self._circuits = circuits
        self._is_connected = is_connected
        self.troubles: dict[MemberId, Trouble] = {}
        """What the last tries came to, where they failed."""
        self._nameless: set[str] = set()
        self._dials: dict[MemberId, _Dial] = {}

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dial for whoever asks, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def reached(self, member: MemberId) -> None:
        """A connection stands: what is being dialled in vain need not be waited for."""
        self.troubles.pop(member, None)
        if member in self._dials:
            self._dials[member].over.set()

    async def connect(self, member: MemberId) -> None:
        """Make sure that there is a connection. Raises StreamBroken."""
        if self._is_connected(member):
            return
        if member not in self._dials:
            self._dials[member] = _Dial()
            self._nursery.start_soon(self._dial_all, member)
        # A machine that is still starting lets a dial hang for seconds; once it is up it dials us, and we go on.
        dial = self._dials[member]
        await dial.over.wait()
        if not self._is_connected(member):
            raise StreamBroken(f"member {member} answers at none of its {dial.addresses} known addresses")

    async def _dial_all(self, member: MemberId) -> None:
        """Dial one address after the other until there is a connection."""
        addresses = await trio.to_thread.run_sync(self._book.addresses, member)
        self._dials[member].addresses = len(addresses)
        if not addresses:
            self.troubles[member] = Trouble(time.time(), "no address known")
        for address in addresses:
            for place in await self._resolve(address):
                if not self._is_connected(member):
                    await self._dial(member, place)
        self._dials.pop(member).over.set()

    async def _resolve(self, address: str) -> list[str]:
        try:
            with trio.fail_after(RESOLVE_SECONDS):
                found = await resolve(address)
                return [place for place in found if self._book.believes(address, place)]
        except (OSError, UnicodeError, trio.TooSlowError) as error:
            if address not in self._nameless and len(self._nameless) < MAX_COMPLAINTS:
                self._nameless.add(address)
                log.warning("the name in %s cannot be resolved: %s", address, error or "no answer")
            return []

    async def _dial(self, member: MemberId, address: str) -> None:
        # Not host.connect: it waits 0.25 s for nothing, tries old addresses first and shuns a peer for a minute
        # after one failure.
        try:
            with trio.fail_after(DIAL_SECONDS):
                await self._dial_way(self._ids[member], address)
        except Exception as error:  # libp2p documents no closed list
            log.debug("dialling %s: %r", address, error)
            self.troubles[member] = Trouble(
                time.time(), f"{address.rpartition('/p2p/')[0]}: {_reason(error)}"
            )

    async def _dial_way(self, peer: ID, address: str) -> None:
        relay = relay_of(address.removesuffix(f"/p2p/{peer}"))
        if relay is None:
            await self._swarm.dial_addr(Multiaddr(address), peer)
        else:
            await self._circuits.dial(peer, ID.from_string(relay))


async def dial_the_moved(
    members: Mapping[ID, MemberId], directory: Directory, dial: Callable[[MemberId], None]
) -> None:
    """Who has just said where it is need not be waited for; unless it moves all the time."""
    before: dict[MemberId, tuple[str, ...]] = {}
    moves = {member: Bucket(*MOVES) for member in members.values()}
    while True:
        changed = directory.changed
        for peer, member in members.items():
            addresses = directory.addresses(str(peer))
            if before.get(member, ()) != addresses:
                before[member] = addresses
                if moves[member].take(1, trio.current_time()):
                    dial(member)
        await changed.wait()


def _reason(error: BaseException) -> str:
    """The innermost words of a failed dial: libp2p wraps them in ones of its own."""
    if isinstance(error, trio.TooSlowError):
        return f"no answer in {DIAL_SECONDS:g} s"
    while (
        inner := error.__cause__
        or error.__context__
        or (error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None)
    ):
        error = inner
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
