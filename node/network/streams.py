"""What the rest of this package asks of a transport: byte streams to members, and gossip.

Everything above these protocols (links, framing, fetching) is the same over libp2p and in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, TypeAlias

import trio

from folkmoot.node.network.port import Trouble, View
from folkmoot.protocol.types import MemberId

Purpose: TypeAlias = Literal["control", "bulk"]


class StreamBroken(Exception):
    """The stream, the connection or the way to the peer is gone; nobody is to blame."""


class ByteStream(Protocol):
    """A two-way stream of bytes to one authenticated member."""

    async def read(self, limit: int) -> bytes:
        """At least one and at most `limit` bytes; b"" at the end. Raises StreamBroken."""

    async def write(self, data: bytes) -> None:
        """Write all of `data`, waiting for room. Raises StreamBroken."""

    async def close(self) -> None:
        """End the stream in good order. Never raises."""

    async def reset(self) -> None:
        """Throw the stream away. Never raises."""


class Transport(Protocol):
    """How streams to members are made. Incoming ones go to the `Incoming` that it is run with."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs under which others can reach this node."""

    @property
    def troubles(self) -> Mapping[MemberId, Trouble]:
        """What the last tries to reach members came to, where they failed."""

    @property
    def announced(self) -> tuple[str, ...]:
        """The addresses that others are told."""

    @property
    def views(self) -> Mapping[MemberId, View]:
        """How members see this node."""

    async def connect(self, member: MemberId) -> None:
        """Make sure that there is a connection. Raises StreamBroken."""

    async def open(self, member: MemberId, purpose: Purpose) -> ByteStream:
        """A new stream, over a new connection if there is none. Raises StreamBroken."""

    async def disconnect(self, member: MemberId) -> None:
        """Drop all connections to a member. Never raises."""

    async def publish(self, data: bytes) -> None:
        """Spread an announcement under our name."""


class Incoming(Protocol):
    """Whom a transport tells about what peers begin."""

    def connected(self, member: MemberId) -> None:
        """A connection with a member has come about, whoever dialled."""

    async def accept(self, member: MemberId, purpose: Purpose, stream: ByteStream) -> None:
        """Use an incoming stream; it is done when this returns."""

    def may_announce(self, member: MemberId) -> bool:
        """Whether one more announcement of a member is to be taken in and passed on. Asked once for each."""

    def heard(self, member: MemberId, data: bytes) -> None:
        """An announcement whose origin's signature has been checked."""


async def read_exactly(stream: ByteStream, count: int, idle: float) -> bytes:
    """`count` bytes of a stream. Raises StreamBroken at its end, trio.TooSlowError after `idle` s without a byte."""
    buffer = bytearray()
    with trio.fail_after(idle) as scope:
        while len(buffer) < count:
            data = await stream.read(count - len(buffer))
            if not data:
                raise StreamBroken(f"the stream ended {count - len(buffer)} bytes early")
            buffer += data
            scope.deadline = trio.current_time() + idle
    return bytes(buffer)
