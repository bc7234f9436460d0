"""Streams of libp2p as `ByteStream`s: whole writes, and one kind of error."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio
from libp2p.abc import INetStream
from libp2p.network.stream.exceptions import StreamEOF

from folkmoot.node.network.libp2p_host import CLOSE_SECONDS
from folkmoot.node.network.streams import StreamBroken

log = logging.getLogger(__name__)

PIECE = 65535 - 16 - 12
"""Bytes written at once: one Yamux frame (12 bytes of header) in one Noise message (at most 65535 bytes with its tag).
Left to itself Yamux fills frames of 65536 bytes, and Noise makes a second message of the last 17."""


class Libp2pStream:
    """See `streams.ByteStream`."""

    def __init__(self, stream: INetStream) -> None:
        self._stream = stream

    async def read(self, limit: int) -> bytes:
        with mapped():
            try:
                return await self._stream.read(limit)
            except StreamEOF:
                return b""

    async def write(self, data: bytes) -> None:
        with mapped():
            for at in range(0, len(data), PIECE):
                await self._stream.write(data[at : at + PIECE])

    async def close(self) -> None:
        await self._end(self._stream.close)

    async def reset(self) -> None:
        await self._end(self._stream.reset)

    async def _end(self, how: Callable[[], Awaitable[None]]) -> None:
        with trio.move_on_after(CLOSE_SECONDS):
            try:
                await how()
            except Exception as error:  # already gone
                log.debug("closing a stream: %r", error)


@contextmanager
def mapped() -> Iterator[None]:
    """Errors of libp2p as StreamBroken: above these files there is one kind of broken stream."""
    try:
        yield
    except Exception as error:  # libp2p documents no closed list
        raise StreamBroken(str(error) or type(error).__name__) from error
