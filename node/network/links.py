"""Keeps one control stream per pair of members alive.

The member with the smaller id opens the stream, so two never cross; both dial, because only one of them may know
the other's address or be reachable. The larger one leaves dialling to the smaller one, but for the time when it has
just started: the smaller one, which has called in vain for hours perhaps, calls seldom by then. Whoever dials, the
connection that comes about makes the smaller one open its stream at once. A stream that comes in while an older one
is open replaces it: its opener has given up the old one, and only it can know.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping

import trio

from folkmoot.node.network.conduct import Allowance
from folkmoot.node.network.control import ControlSession, SessionEnd
from folkmoot.node.network.port import Inbound, NetworkEvent, PeerDown, PeerHeard, PeerSilent, PeerUp
from folkmoot.node.network.refusals import Refusals
from folkmoot.node.network.streams import ByteStream, StreamBroken, Transport
from folkmoot.protocol.types import MemberId

FIRST_DELAY_SECONDS = 0.2
LAST_DELAY_SECONDS = 5.0
START_GRACE_SECONDS = 0.1
OPENER_GRACE_SECONDS = 2.0
"""How long the larger id leaves dialling to the smaller one, which would otherwise cross it; less when it starts."""


class _Link:
    """What we know about one other member. `changed` is replaced whenever something here changes."""

    def __init__(self, member: MemberId) -> None:
        self.member = member
        self.session: ControlSession | None = None
        self.is_up = False
        self.failures = 0
        self.changed = trio.Event()

    def is_held(self) -> bool:
        """Whether a session is under way, be the peer up yet or not."""
        return self.session is not None

    def notify(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


class Links:
    """The control streams to all other members."""

    def __init__(
        self,
        me: MemberId,
        others: Iterable[MemberId],
        transport: Transport,
        emit: Callable[[NetworkEvent], Awaitable[None]],
        refusals: Refusals,
        allowances: Mapping[MemberId, Allowance],
        rng: random.Random,
    ) -> None:
        self._me = me
        self._links = {member: _Link(member) for member in others}
        self._transport = transport
        self._emit = emit
        self._refusals = refusals
        self._allowances = allowances
        self._rng = rng
        self._leaving, self._left = trio.open_memory_channel[MemberId](math.inf)

    def up(self) -> frozenset[MemberId]:
        """The members that are up."""
        return frozenset(member for member, link in self._links.items() if link.is_up)

    def offer(self, member: MemberId, data: bytes) -> bool:
        """Queue a message for a member; False if it is down or too slow to take it."""
        link = self._links[member]
        return link.is_up and link.session is not None and link.session.offer(data)

    async def run(self) -> None:
        """Keep every link, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._part)
            for link in self._links.values():
                nursery.start_soon(self._keep_open if self._opens(link) else self._keep_reachable, link)

    def connected(self, member: MemberId) -> None:
        """A connection came about: no reason to wait any longer, nor soon again if it does not last."""
        self._links[member].failures = 0
        self._links[member].notify()

    def shut_out(self, member: MemberId) -> None:
        """End what a member has open; how long nothing new is let in or made, the refusals know."""
        session = self._links[member].session
        if session is not None:
            session.stop("shut out: it broke rules")
        self._leaving.send_nowait(member)

    async def _part(self) -> None:
        async for member in self._left:
            await self._transport.disconnect(member)

    async def accept(self, member: MemberId, stream: ByteStream) -> None:
        """Hold a control stream that a member has opened, until it ends."""
        link = self._links[member]
        if self._opens(link):
            self._refusals.count("control stream opened by the larger member id", member)
            return await stream.reset()
        if self._refusals.is_shut_out(member):
            return await stream.reset()
        while (old := link.session) is not None:
            old.stop("replaced by a new stream")
            await link.changed.wait()
        await self._hold(link, stream)

    def _opens(self, link: _Link) -> bool:
        return self._me < link.member

    async def _keep_open(self, link: _Link) -> None:
        while True:
            await self._until_welcome(link)
            try:
                stream = await self._transport.open(link.member, "control")
            except StreamBroken:
                link.failures += 1
            else:
                await self._hold(link, stream)
            await self._pause(link, self._delay(link))

    async def _keep_reachable(self, link: _Link) -> None:
        patience = START_GRACE_SECONDS
        while True:
            while link.is_held():
                await link.changed.wait()
            await self._pause(link, patience)
            await self._until_welcome(link)
            if not link.is_held():
                await self._call(link)
            patience = OPENER_GRACE_SECONDS + self._delay(link)

    async def _until_welcome(self, link: _Link) -> None:
        await trio.sleep_until(max(trio.current_time(), self._refusals.shut_out_until(link.member)))

    async def _call(self, link: _Link) -> None:
        try:
            await self._transport.connect(link.member)
        except StreamBroken:
            link.failures += 1

    async def _pause(self, link: _Link, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await link.changed.wait()

    def _delay(self, link: _Link) -> float:
        """Exponential back-off with jitter, so that nodes that lost each other do not redial in step."""
        delay = min(FIRST_DELAY_SECONDS * 2.0 ** min(link.failures, 10), LAST_DELAY_SECONDS)
        return delay * self._rng.uniform(0.5, 1.0)

    async def _hold(self, link: _Link, stream: ByteStream) -> None:
        """Run a session on a stream from beginning to end."""
        session = ControlSession(stream, self._allowances[link.member])
        link.session = session
        try:
            end = await session.run(
                lambda: self._went_up(link),
                lambda data: self._deliver(link, data),
                lambda is_silent: self._tell_silence(link, is_silent),
            )
            await self._went_down(link, end)
        finally:
            link.session = None
            link.is_up = False
            link.notify()
            with trio.move_on_after(1, shield=True):
                await stream.reset()

    async def _went_up(self, link: _Link) -> None:
        link.is_up = True
        link.failures = 0
        await self._emit(PeerUp(link.member))

    async def _tell_silence(self, link: _Link, is_silent: bool) -> None:
        if link.is_up:
            await self._emit(PeerSilent(link.member) if is_silent else PeerHeard(link.member))

    async def _deliver(self, link: _Link, data: bytes) -> None:
        await self._emit(Inbound(link.member, data, "control"))

    async def _went_down(self, link: _Link, end: SessionEnd) -> None:
        if end.faulty:
            self._refusals.blame("control stream", link.member, end.reason, grave=True)
        if link.is_up:
            link.is_up = False
            await self._emit(PeerDown(link.member, end.reason))
        else:
            link.failures += 1
        if end.reason.startswith("silent"):
            # A half-open connection stays listed for minutes and would be used again.
            await self._transport.disconnect(link.member)
