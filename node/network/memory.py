"""The network without sockets, for tests and simulation: latency, loss, duplicates, reordering, partitions.

It runs the same links, framing and bulk transfer as the real one over pipes that the hub delays and cuts, on trio's
clock, so that a test under the autojump clock takes no real time. Control and bulk streams behave like TCP: in
order, complete, or broken. Announcements behave like gossip: late, doubled, out of order or lost.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from folkmoot.node.network.blocking import in_place
from folkmoot.node.network.peer_network import PeerNetwork
from folkmoot.node.network.port import Locate, OnServed, Stats, Trouble, View
from folkmoot.node.network.refusals import Refusals
from folkmoot.node.network.streams import ByteStream, Incoming, Purpose, StreamBroken
from folkmoot.protocol.types import MemberId

PIPE_BYTES = 1 << 20
"""Bytes under way in one direction of a stream before its writer waits."""


@dataclass(slots=True)
class Faults:
    """How bad the network is. May be changed while it runs."""

    latency: tuple[float, float] = (0.001, 0.005)
    """Seconds that bytes take, drawn evenly from this range; announcements overtake each other accordingly."""
    bytes_per_second: float = float("inf")
    """Speed of each direction of each stream."""
    stream_break: float = 0.0
    """Chance that a write on a control or bulk stream breaks it instead."""
    gossip_loss: float = 0.0
    gossip_duplicate: float = 0.0


class MemoryHub:
    """The wires between the members of one simulated federation."""

    def __init__(self, members: int, seed: int, faults: Faults | None = None) -> None:
        self.members = range(members)
        self.faults = faults or Faults()
        self.rng = random.Random(seed)
        self.changed = trio.Event()
        self._nodes: dict[MemberId, MemoryTransport] = {}
        self._cut: set[frozenset[MemberId]] = set()

    @asynccontextmanager
    async def open(self, me: MemberId, locate: Locate, on_served: OnServed) -> AsyncIterator[PeerNetwork]:
        """Run member `me`'s network; leaving the block is a crash as its peers see it."""
        stats = Stats()
        async with trio.open_nursery() as nursery:
            transport = MemoryTransport(self, me, stats, nursery)
            rng = random.Random(self.rng.random())
            network = PeerNetwork(
                me, self.members, transport, stats, Refusals(stats), locate, on_served, rng, in_place
            )
            transport.incoming = network
            self._nodes[me] = transport
            nursery.start_soon(network.run)
            try:
                yield network
            finally:
                del self._nodes[me]
                transport.crash()
                nursery.cancel_scope.cancel()

    def partition(self, *groups: set[MemberId]) -> None:
        """Let only members of the same group reach each other (streams stall, they are not told); no group heals."""
        self._cut = {
            frozenset((a, b))
            for a in self.members
            for b in self.members
            if a < b and not _together(a, b, groups)
        }
        self.changed.set()
        self.changed = trio.Event()

    def reachable(self, a: MemberId, b: MemberId) -> bool:
        """Whether bytes pass between two members."""
        return frozenset((a, b)) not in self._cut

    def node(self, member: MemberId) -> MemoryTransport | None:
        """The transport of a member that is running."""
        return self._nodes.get(member)

    def others(self, me: MemberId) -> list[MemoryTransport]:
        """The transports of all other members that are running."""
        return [node for member, node in self._nodes.items() if member != me]

    def latency(self) -> float:
        """One delay, drawn."""
        return self.rng.uniform(*self.faults.latency)


class MemoryTransport:
    """One member's end of the hub."""

    incoming: Incoming

    def __init__(self, hub: MemoryHub, me: MemberId, stats: Stats, nursery: trio.Nursery) -> None:
        self.me = me
        self.stats = stats
        self.nursery = nursery
        self.troubles: dict[MemberId, Trouble] = {}
        """None: members of a hub find each other without addresses."""
        self.announced: tuple[str, ...] = ()
        self.views: dict[MemberId, View] = {}
        self._hub = hub
        self._streams: set[MemoryStream] = set()

    @property
    def addresses(self) -> tuple[str, ...]:
        return (f"/memory/{self.me}",)

    async def connect(self, member: MemberId) -> None:
        await trio.sleep(2 * self._hub.latency())
        self._peer(member).incoming.connected(self.me)
        self.incoming.connected(member)

    async def open(self, member: MemberId, purpose: Purpose) -> ByteStream:
        await trio.sleep(2 * self._hub.latency())
        peer = self._peer(member)
        there, back = _Pipe(self._hub, self.me, member), _Pipe(self._hub, member, self.me)
        mine, its = MemoryStream(self, member, back, there), MemoryStream(peer, self.me, there, back)
        peer.nursery.start_soon(peer.incoming.accept, self.me, purpose, its)
        return mine

    async def disconnect(self, member: MemberId) -> None:
        for stream in [stream for stream in self._streams if stream.peer == member]:
            await stream.reset()

    async def publish(self, data: bytes) -> None:
        faults, rng = self._hub.faults, self._hub.rng
        for peer in self._hub.others(self.me):
            copies = 0 if rng.random() < faults.gossip_loss else 1 + (rng.random() < faults.gossip_duplicate)
            for _ in range(copies if self._hub.reachable(self.me, peer.me) else 0):
                self.stats.bytes_sent += len(data)
                peer.nursery.start_soon(peer.hear, self.me, data, self._hub.latency())
        await trio.lowlevel.checkpoint()

    async def hear(self, member: MemberId, data: bytes, delay: float) -> None:
        """Take an announcement in after its delay."""
        await trio.sleep(delay)
        self.stats.bytes_received += len(data)
        if self.incoming.may_announce(member):
            self.incoming.heard(member, data)

    def crash(self) -> None:
        """Break every stream, as the operating system does for a process that died."""
        for stream in list(self._streams):
            stream.cut()

    def add(self, stream: MemoryStream) -> None:
        """Remember a stream for `disconnect` and `crash`."""
        self._streams.add(stream)

    def remove(self, stream: MemoryStream) -> None:
        """Forget a stream."""
        self._streams.discard(stream)

    def _peer(self, member: MemberId) -> MemoryTransport:
        peer = self._hub.node(member)
        if peer is None or not self._hub.reachable(self.me, member):
            raise StreamBroken(f"member {member} does not answer")
        return peer


class _Pipe:
    """One direction of a stream: bytes with the time at which they arrive."""

    def __init__(self, hub: MemoryHub, source: MemberId, target: MemberId) -> None:
        self._hub = hub
        self._ends = (source, target)
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._under_way = 0
        self._last_arrival = 0.0
        self._changed = trio.Event()
        self._ended = False
        self._broken = False

    async def write(self, data: bytes) -> None:
        while self._under_way >= PIPE_BYTES and not self._broken:
            await self._changed.wait()
        if self._hub.rng.random() < self._hub.faults.stream_break:
            self.cut()
        if self._broken or self._ended:
            raise StreamBroken("the stream is broken")
        now = trio.current_time()
        sent = max(self._last_arrival, now + self._hub.latency())
        self._last_arrival = sent + len(data) / self._hub.faults.bytes_per_second
        self._pieces.append((self._last_arrival, data))
        self._under_way += len(data)
        self._notify()

    async def read(self, limit: int) -> bytes:
        await self._wait_for_bytes()
        if not self._pieces:
            return b""
        arrival, data = self._pieces.popleft()
        if len(data) > limit:
            self._pieces.appendleft((arrival, data[limit:]))
        self._under_way -= min(len(data), limit)
        self._notify()
        return data[:limit]

    async def _wait_for_bytes(self) -> None:
        while True:
            if self._broken:
                raise StreamBroken("the stream is broken")
            if not self._hub.reachable(*self._ends):
                await self._hub.changed.wait()
            elif self._pieces and self._pieces[0][0] > trio.current_time():
                await trio.sleep_until(self._pieces[0][0])
            elif self._pieces or self._ended:
                return await trio.lowlevel.checkpoint()
            else:
                await self._changed.wait()

    def end(self) -> None:
        self._ended = True
        self._notify()

    def cut(self) -> None:
        self._broken = True
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class MemoryStream:
    """One end of a stream; see `streams.ByteStream`."""

    def __init__(self, owner: MemoryTransport, peer: MemberId, inward: _Pipe, outward: _Pipe) -> None:
        self.peer = peer
        self._owner = owner
        self._inward = inward
        self._outward = outward
        owner.add(self)

    async def read(self, limit: int) -> bytes:
        data = await self._inward.read(limit)
        self._owner.stats.bytes_received += len(data)
        return data

    async def write(self, data: bytes) -> None:
        await self._outward.write(data)
        self._owner.stats.bytes_sent += len(data)
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        self._outward.end()
        self._owner.remove(self)
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        self.cut()
        await trio.lowlevel.checkpoint()

    def cut(self) -> None:
        """Break both directions at once."""
        self._inward.cut()
        self._outward.cut()
        self._owner.remove(self)


def _together(a: MemberId, b: MemberId, groups: tuple[set[MemberId], ...]) -> bool:
    return not groups or any(a in group and b in group for group in groups)
