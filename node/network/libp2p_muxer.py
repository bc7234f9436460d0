"""Yamux that holds its peers to what they were promised room for.

py-libp2p 0.8.1 only logs when a peer sends more than the window that it was given, and keeps all of it: a member pushes
hundreds of megabytes into a stream that nobody reads. Here such a connection ends, as Yamux's specification has it, and
the windows of all streams of a connection have a bound together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import trio
from libp2p.abc import INetStream
from libp2p.network.stream.net_stream import NetStream
from libp2p.peer.id import ID
from libp2p.stream_muxer.yamux import yamux
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream

MAX_WINDOW = 4 << 20
"""Bytes that a stream may owe its reader; libp2p would let windows grow to 16 MiB."""
MAX_UNREAD = 32 << 20
"""Bytes that all streams of a connection may owe their readers: more than all of an honest member's downloads."""


class TooMuchError(trio.TooSlowError):
    """More bytes than there was room for. What Yamux takes for a stalled peer ends the connection, and nothing else."""


def hold_to_window(muxer: Yamux, blame: Callable[[ID, str], None]) -> None:
    """Have a connection that has not begun end as soon as its peer sends more than it may, and `blame` told of it."""
    muxer.stream_buffers = _Buffers(muxer, blame)


class _Buffers(dict[int, bytearray]):
    """A connection's unread bytes by stream: each stream's ask for room before they grow."""

    def __init__(self, muxer: Yamux, blame: Callable[[ID, str], None]) -> None:
        super().__init__()
        self._muxer = muxer
        self._blame = blame

    def __setitem__(self, stream_id: int, unread: bytearray) -> None:
        super().__setitem__(stream_id, _Unread(unread, lambda size: self._check_room(stream_id, size)))

    def _check_room(self, stream_id: int, size: int) -> None:
        window = self._muxer.streams[stream_id].recv_window
        if size > window:
            self._refuse(f"{size} bytes where {window} were free")
        unread = sum(map(len, self.values()))
        if unread + size > MAX_UNREAD:
            self._refuse(f"{unread + size} bytes unread on {len(self)} streams")

    def _refuse(self, detail: str) -> None:
        self._blame(self._muxer.peer_id, detail)
        raise TooMuchError(detail)


class _Unread(bytearray):
    """What a stream's reader has not taken yet."""

    def __init__(self, unread: bytearray, check_room: Callable[[int], None]) -> None:
        super().__init__(unread)
        self._check_room = check_room

    def extend(self, data: Any, /) -> None:
        self._check_room(len(data))
        super().extend(data)


def bound_windows() -> None:
    """Let no window grow beyond `MAX_WINDOW`; libp2p's limit is a constant of its module."""
    setattr(yamux, "MAX_WINDOW_SIZE", MAX_WINDOW)  # noqa: B010 - mypy forbids the assignment


async def widen(stream: INetStream) -> None:
    """Let the peer send `MAX_WINDOW` bytes on a stream before it has to wait for us.

    Yamux begins with 256 KiB, a fiftieth of a second at 100 Mbit/s, and widens the window while it is read: too late
    for a blob on a long line.
    """
    assert isinstance(stream, NetStream) and isinstance(
        stream.muxed_stream, YamuxStream
    )  # all that there is here
    muxed = stream.muxed_stream
    more = MAX_WINDOW - muxed.target_recv_window
    if more > 0:
        muxed.target_recv_window += more
        muxed.recv_window += more
        await muxed.send_window_update(more)
