"""The `Network` port over any transport: links, announcements, bulk transfer and one channel of events."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from pathlib import Path

import trio

from folkmoot.node.network.blocking import RunBlocking, in_thread
from folkmoot.node.network.conduct import Allowance, ShutOut
from folkmoot.node.network.fetching import Fetch
from folkmoot.node.network.links import Links
from folkmoot.node.network.port import (
    MAX_ANNOUNCEMENT,
    MAX_MESSAGE,
    FetchError,
    Inbound,
    Locate,
    NetworkEvent,
    OnServed,
    Progress,
    Stats,
    Trouble,
    View,
)
from folkmoot.node.network.queues import BoundedQueue
from folkmoot.node.network.refusals import Refusals
from folkmoot.node.network.serving import BlobServer
from folkmoot.node.network.streams import ByteStream, Purpose, Transport
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.types import MemberId

EVENTS = 256
"""Events that may wait for the engine. Then control streams wait too, and old announcements are dropped."""

GOSSIP_BYTES = 4 << 20
"""Bytes of announcements that may wait."""


class PeerNetwork:
    """See `port.Network`. Made and run by a transport's opening function, such as `open_libp2p`."""

    def __init__(
        self,
        me: MemberId,
        members: Iterable[MemberId],
        transport: Transport,
        stats: Stats,
        refusals: Refusals,
        locate: Locate,
        on_served: OnServed,
        rng: random.Random,
        run_blocking: RunBlocking = in_thread,
    ) -> None:
        self._others = frozenset(members) - {me}
        self._transport = transport
        self._stats = stats
        self._run_blocking = run_blocking
        self._refusals = refusals
        self._allowances = {member: Allowance() for member in self._others}
        self._server = BlobServer(locate, on_served, refusals, self._allowances, run_blocking)
        self._links = Links(me, sorted(self._others), transport, self._emit, refusals, self._allowances, rng)
        refusals.on_shut_out = self._links.shut_out
        self._gossip = BoundedQueue[Inbound](GOSSIP_BYTES, lambda event: len(event.data))
        self._events_in, self._events = trio.open_memory_channel[NetworkEvent](EVENTS)

    @property
    def events(self) -> trio.MemoryReceiveChannel[NetworkEvent]:
        return self._events

    @property
    def stats(self) -> Stats:
        return self._stats

    @property
    def addresses(self) -> tuple[str, ...]:
        return self._transport.addresses

    def peers(self) -> frozenset[MemberId]:
        return self._links.up()

    def troubles(self) -> Mapping[MemberId, Trouble]:
        up = self.peers()
        return {member: one for member, one in self._transport.troubles.items() if member not in up}

    def shut_out(self) -> list[ShutOut]:
        return self._refusals.shut_out()

    def may_ask(self, member: MemberId) -> bool:
        if self._allowances[member].questions.take(1, trio.current_time()):
            return True
        self._refusals.count("question beyond the allowance", member)
        return False

    def blame(self, member: MemberId, reason: str) -> None:
        self._refusals.mark(member, reason)

    def announced(self) -> tuple[str, ...]:
        return self._transport.announced

    def views(self) -> Mapping[MemberId, View]:
        return self._transport.views

    async def send(self, member: MemberId, data: bytes) -> None:
        _check_size(data, MAX_MESSAGE, "message")
        if member not in self._others:
            raise LocalProtocolError(f"member {member} is not another member of this federation")
        if not self._links.offer(member, data):
            self._stats.dropped["message to a peer that is down or too slow"] += 1
        await trio.lowlevel.checkpoint()

    async def publish(self, data: bytes) -> None:
        _check_size(data, MAX_ANNOUNCEMENT, "announcement")
        await self._transport.publish(data)

    async def fetch(
        self, ref: BlobRef, member: MemberId, destination: Path, on_progress: Progress | None = None
    ) -> None:
        if member not in self._others:
            raise LocalProtocolError(f"member {member} is not another member of this federation")
        if self._refusals.is_shut_out(member):
            raise FetchError(ref, member, "unreachable", "it is shut out, because it broke rules")
        fetch = Fetch(ref, member, destination, on_progress, self._run_blocking)
        await fetch.run(lambda: self._transport.open(member, "bulk"))

    async def run(self) -> None:
        """Keep the links and pass announcements on, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._links.run)
            nursery.start_soon(self._pass_gossip)

    def connected(self, member: MemberId) -> None:
        """See `streams.Incoming`."""
        self._links.connected(member)

    async def accept(self, member: MemberId, purpose: Purpose, stream: ByteStream) -> None:
        """See `streams.Incoming`."""
        match purpose:
            case "control":
                await self._links.accept(member, stream)
            case "bulk":
                await self._server.serve(member, stream)

    def may_announce(self, member: MemberId) -> bool:
        """See `streams.Incoming`."""
        if self._allowances[member].announcements.take(1, trio.current_time()):
            return True
        self._refusals.count("announcement beyond the allowance", member)
        return False

    def heard(self, member: MemberId, data: bytes) -> None:
        """See `streams.Incoming`."""
        if 0 < len(data) <= MAX_ANNOUNCEMENT:
            dropped = self._gossip.force(Inbound(member, data, "gossip"))
            if dropped:
                self._stats.dropped["announcement"] += dropped

    async def _pass_gossip(self) -> None:
        while await self._gossip.wait():
            event = self._gossip.take()
            if event is not None:
                await self._emit(event)

    async def _emit(self, event: NetworkEvent) -> None:
        await self._events_in.send(event)


def _check_size(data: bytes, limit: int, what: str) -> None:
    if not 0 < len(data) <= limit:
        raise LocalProtocolError(
            f"{what} of {len(data)} bytes: it must have 1 to {limit}; send a blob's reference"
        )
