"""One control stream between two members: length-prefixed frames, and a heartbeat that shows when the peer is gone.

Frame: length (u32, big endian), then as many bytes. Length 0 is the heartbeat: each side sends one whenever it has
been silent for a second, so five silent seconds mean that the peer, or the way to it, is lost. A TCP connection
alone would show that only after minutes. Two silent seconds are told too: a peer that may be gone is not waited for.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import trio

from folkmoot.node.network.conduct import Allowance
from folkmoot.node.network.port import MAX_MESSAGE
from folkmoot.node.network.queues import BoundedQueue
from folkmoot.node.network.streams import ByteStream, StreamBroken
from folkmoot.protocol.errors import RemoteProtocolError

HEARTBEAT_SECONDS = 1.0
SILENT_AFTER_SECONDS = 2.0
LOST_AFTER_SECONDS = 5.0
QUEUE_BYTES = 4 << 20
"""Bytes waiting for one peer, and from one peer."""
MESSAGE_BYTES = 128
"""What a message takes in memory besides its own bytes: 4 MiB of the shortest ones were 30 MB."""

Deliver: TypeAlias = Callable[[bytes], Awaitable[None]]

OnSilence: TypeAlias = Callable[[bool], Awaitable[None]]
"""Told when a peer falls silent (True), and when it is heard again."""

_LENGTH = struct.Struct(">I")
_HEARTBEAT = _LENGTH.pack(0)
_READ_BYTES = 64 * 1024
_WRITE_BYTES = 256 * 1024


def encode_frame(data: bytes) -> bytes:
    """`data` with its length before it."""
    return _LENGTH.pack(len(data)) + data


def _memory(message: bytes) -> int:
    return len(message) + MESSAGE_BYTES


class FrameDecoder:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages completed by `data`, heartbeats left out. Raises RemoteProtocolError for an oversized frame."""
        self._buffer += data
        messages = []
        at = 0
        while len(self._buffer) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, at)
            if length > MAX_MESSAGE:
                raise RemoteProtocolError(
                    f"control frame of {length} bytes, at most {MAX_MESSAGE} are allowed"
                )
            end = at + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            if length:
                messages.append(bytes(self._buffer[at + _LENGTH.size : end]))
            at = end
        del self._buffer[:at]
        return messages


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """Why a session is over; `faulty` if the peer broke a rule."""

    reason: str
    faulty: bool = False


class ControlSession:
    """The life of one control stream: `run` it, `offer` messages to it."""

    def __init__(self, stream: ByteStream, allowance: Allowance) -> None:
        """`allowance`: the peer's, beyond which it waits."""
        self._stream = stream
        self._allowance = allowance
        self._outbox = BoundedQueue[bytes](QUEUE_BYTES, _memory)
        self._inbox = BoundedQueue[bytes](QUEUE_BYTES, _memory)
        self._has_spoken = False
        self._listening_since = math.inf
        """When the read under way began; infinity while nothing is read, and the peer cannot be heard."""
        self._heard = trio.Event()
        self._end: SessionEnd | None = None
        self._scope = trio.CancelScope()

    def offer(self, data: bytes) -> bool:
        """Queue a message. False if the peer is so slow that the queue is full; the session then ends."""
        if self._outbox.offer(encode_frame(data)):
            return True
        self.stop("too slow: its queue is full")
        return False

    def stop(self, reason: str) -> None:
        """End the session."""
        self._finish(SessionEnd(reason))

    async def run(
        self, on_up: Callable[[], Awaitable[None]], deliver: Deliver, on_silence: OnSilence
    ) -> SessionEnd:
        """Talk until the stream ends. `on_up` is awaited once the peer has spoken, before its first message.

        What had been received when the stream ended is still delivered. The stream is not closed here.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliver, on_up, deliver)
            with self._scope:
                async with trio.open_nursery() as streams:
                    streams.start_soon(self._read)
                    streams.start_soon(self._write)
                    streams.start_soon(self._watch, on_silence)
            self._inbox.close()
        assert self._end is not None  # _read and _write only return through _finish
        return self._end

    def _finish(self, end: SessionEnd) -> None:
        if self._end is None:
            self._end = end
        self._scope.cancel()

    async def _read(self) -> None:
        decoder = FrameDecoder()
        try:
            while True:
                data = await self._listen()
                if not data:
                    return self._finish(SessionEnd("closed by the peer"))
                await trio.sleep(self._allowance.bytes.owe(len(data), trio.current_time()))
                await self._receive(decoder.feed(data))
        except RemoteProtocolError as error:
            self._finish(SessionEnd(str(error), faulty=True))
        except trio.TooSlowError:
            self._finish(SessionEnd(f"silent for {LOST_AFTER_SECONDS:g} s"))
        except StreamBroken as error:
            self._finish(SessionEnd(f"connection lost: {error}"))

    async def _listen(self) -> bytes:
        self._listening_since = trio.current_time()
        with trio.fail_after(LOST_AFTER_SECONDS):
            data = await self._stream.read(_READ_BYTES)
        self._listening_since = math.inf
        self._heard.set()
        self._heard = trio.Event()
        return data

    async def _watch(self, on_silence: OnSilence) -> None:
        while True:
            since = min(self._listening_since, trio.current_time())
            await trio.sleep_until(since + SILENT_AFTER_SECONDS)
            if trio.current_time() >= self._listening_since + SILENT_AFTER_SECONDS:
                heard = self._heard
                await on_silence(True)
                await heard.wait()
                await on_silence(False)

    async def _receive(self, messages: list[bytes]) -> None:
        if not self._has_spoken:
            self._has_spoken = True
            await self._inbox.put(b"")  # makes `_deliver` say that the peer is up
        for message in messages:
            await self._inbox.put(message)

    async def _write(self) -> None:
        try:
            while True:
                await self._stream.write(self._next_frames() or _HEARTBEAT)
                with trio.move_on_after(HEARTBEAT_SECONDS):
                    await self._outbox.wait()
        except StreamBroken as error:
            self._finish(SessionEnd(f"connection lost: {error}"))

    def _next_frames(self) -> bytes:
        """Everything that waits, up to one write's worth: many small writes cost far more than one large."""
        frames = bytearray()
        while len(frames) < _WRITE_BYTES and (frame := self._outbox.take()) is not None:
            frames += frame
        return bytes(frames)

    async def _deliver(self, on_up: Callable[[], Awaitable[None]], deliver: Deliver) -> None:
        is_up = False
        while await self._inbox.wait():
            message = self._inbox.take()
            if not is_up:
                is_up = True
                await on_up()
            if message:
                await trio.sleep(self._allowance.messages.owe(1, trio.current_time()))
                await deliver(message)
