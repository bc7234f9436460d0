"""Members tell each other over libp2p where they can be reached: on every new connection all that is known, then news.

One stream for each telling: `u16be count`, then so many `u16be length || signed addresses`; the listener answers with
one byte when it has taken them. What is not acknowledged is told again.
"""

from __future__ import annotations

import logging
import struct

import trio
from libp2p.abc import INetStream
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.peer.id import ID

from folkmoot.node.network.directory import Directory
from folkmoot.node.network.libp2p_streams import Libp2pStream
from folkmoot.node.network.refusals import Refusals
from folkmoot.node.network.streams import StreamBroken, read_exactly
from folkmoot.protocol.addresses import MAX_SIGNED, SignedAddresses
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import encode

log = logging.getLogger(__name__)

ADDRESSES = TProtocol("/folkmoot/addresses/1")

MAX_TOLD = 512
"""Members of whom a peer may tell at once: a charter's, and those to come."""
TELL_SECONDS = 10.0
"""How long one telling may take."""
PAUSE_SECONDS = 0.5
"""Least time between two tellings of one peer, each way: what a liar can make this node check is bounded."""
RETRY_SECONDS = 5.0

_U16 = struct.Struct(">H")
_TAKEN = b"\x01"


class AddressExchange:
    """Tells peers, and listens to them; `run` it, and say who connected."""

    def __init__(self, host: BasicHost, directory: Directory, refusals: Refusals) -> None:
        self._host = host
        self._directory = directory
        self._refusals = refusals
        self._listening: dict[ID, trio.Lock] = {}
        self._telling: set[ID] = set()
        self._new, self._connected = trio.open_memory_channel[ID](1024)

    def connected(self, peer: ID) -> None:
        """A connection with a peer has come about."""
        if self._directory.knows(str(peer)):
            try:
                self._new.send_nowait(peer)
            except trio.WouldBlock:  # more at once than members: it will connect again
                log.debug("nobody told %s of addresses", peer)

    async def run(self) -> None:
        """Tell everybody who connects, for ever."""
        async with trio.open_nursery() as nursery:
            async for peer in self._connected:
                if peer not in self._telling:
                    self._telling.add(peer)
                    nursery.start_soon(self._keep_told, peer)

    async def hear(self, stream: INetStream) -> None:
        """Take one telling of a peer."""
        peer = stream.muxed_conn.peer_id
        if not self._directory.knows(str(peer)):
            return await stream.reset()
        async with self._listening.setdefault(peer, trio.Lock()):
            try:
                with trio.fail_after(TELL_SECONDS):
                    await self._take_all(str(peer), Libp2pStream(stream))
            except RemoteProtocolError as error:
                self._refusals.count("announced addresses", peer, error)
                await stream.reset()
            except (StreamBroken, trio.TooSlowError):
                await stream.reset()
            await trio.sleep(PAUSE_SECONDS)

    async def _take_all(self, peer: str, stream: Libp2pStream) -> None:
        news = self._directory.take(peer, await _read_frames(stream))
        if news:
            log.info("addresses of %d members learnt from peer %s", news, peer)
        await stream.write(_TAKEN)
        await stream.close()

    async def _keep_told(self, peer: ID) -> None:
        """While the peer is connected."""
        try:
            while self._is_connected(peer):
                changed = self._directory.changed
                words = self._directory.untold(str(peer))[:MAX_TOLD]
                pause = PAUSE_SECONDS
                if not words:
                    await self._await_news(peer, changed)
                elif not await self._tell(peer, words):
                    pause = RETRY_SECONDS
                await trio.sleep(pause)
        finally:
            self._telling.discard(peer)
            self._directory.forget_telling(str(peer))

    async def _await_news(self, peer: ID, changed: trio.Event) -> None:
        """Or the end of the connection; nobody says when that is."""
        while self._is_connected(peer):
            with trio.move_on_after(RETRY_SECONDS):
                return await changed.wait()

    async def _tell(self, peer: ID, words: list[SignedAddresses]) -> bool:
        """Whether the peer has taken them."""
        with trio.move_on_after(TELL_SECONDS):
            try:
                stream = Libp2pStream(await self._host.new_stream(peer, [ADDRESSES]))
            except Exception as error:  # libp2p documents no closed list
                log.debug("telling %s: %r", peer, error)
                return False
            try:
                await stream.write(_encode_frames(words))
                await read_exactly(stream, len(_TAKEN), TELL_SECONDS)
            except (StreamBroken, trio.TooSlowError) as error:
                log.debug("telling %s: %s", peer, error)
                await stream.reset()
            else:
                self._directory.told(str(peer), words)
                await stream.close()
                return True
        return False

    def _is_connected(self, peer: ID) -> bool:
        connections = self._host.get_network().connections.get(peer, [])
        return any(not connection.is_closed for connection in connections)


def _encode_frames(words: list[SignedAddresses]) -> bytes:
    frames = [encode(signed) for signed in words]
    return _U16.pack(len(frames)) + b"".join(_U16.pack(len(frame)) + frame for frame in frames)


async def _read_frames(stream: Libp2pStream) -> list[bytes]:
    """What a peer tells. Raises RemoteProtocolError, StreamBroken, trio.TooSlowError."""
    count = await _read_u16(stream)
    if count > MAX_TOLD:
        raise RemoteProtocolError(f"{count} members' addresses at once, the limit is {MAX_TOLD}")
    frames = []
    for _ in range(count):
        length = await _read_u16(stream)
        if not 0 < length <= MAX_SIGNED:
            raise RemoteProtocolError(f"announced addresses of {length} bytes, the limit is {MAX_SIGNED}")
        frames.append(await read_exactly(stream, length, TELL_SECONDS))
    return frames


async def _read_u16(stream: Libp2pStream) -> int:
    number: int = _U16.unpack(await read_exactly(stream, _U16.size, TELL_SECONDS))[0]
    return number
