"""Circuits: a member that cannot be called is reached through another one, which passes bytes on and reads none.

    caller  --/folkmoot/relay/1-->  relay  --/folkmoot/relayed/1-->  callee

The caller names the callee, the relay names the caller; each answer is one byte. Then whatever comes on one stream goes
to the other, and the two ends make a connection of it as over TCP: Noise, which shows each the other's identity, and
Yamux. libp2p's own circuits reach 1.4 MB/s, and their reservations do not end (docs/decisions/circuits.md).
"""

from __future__ import annotations

import logging
from collections import Counter

import trio
from libp2p.abc import INetStream
from libp2p.connection_types import ConnectionType
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.io.abc import ReadWriteCloser
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from folkmoot.node.network.libp2p_streams import Libp2pStream
from folkmoot.node.network.refusals import Refusals
from folkmoot.node.network.streams import StreamBroken, read_exactly
from folkmoot.protocol.errors import RemoteProtocolError

log = logging.getLogger(__name__)

RELAY = TProtocol("/folkmoot/relay/1")
RELAYED = TProtocol("/folkmoot/relayed/1")

MAX_CIRCUITS = 64
"""Circuits that a relay carries at once."""
MAX_CIRCUITS_OF_ONE = 16
"""Of these, circuits that one member asked for, and circuits that lead to one.

There each is a stream of the relay's own, of which a peer takes only so many (`libp2p_host.MAX_STREAMS_PER_PEER`).
"""
MAX_CIRCUITS_OF_TWO = 3
"""Of these, circuits from one member to another: few callers cannot use up a callee's."""
ANSWER_SECONDS = 5.0
IDLE_SECONDS = 60.0
"""Seconds without a byte, either way, after which a circuit ends; members say something every second."""

_PIECE = 256 * 1024
_ANSWERS = {
    0: "open",
    1: "it does not relay",
    2: "it is not connected with the member",
    3: "it carries too many",
}
_OPEN, _NO_RELAY, _NOT_CONNECTED, _FULL = _ANSWERS


class Circuits:
    """Carries circuits if this member agreed to, and is an end of others."""

    def __init__(
        self, host: BasicHost, swarm: Swarm, members: frozenset[ID], carries: bool, refusals: Refusals
    ) -> None:
        self._host = host
        self._swarm = swarm
        self._members = members
        self._carries = carries
        self._refusals = refusals
        self._carried: Counter[tuple[ID, ID]] = Counter()
        """Circuits by caller and callee."""

    def listen(self) -> None:
        """Answer members from now on."""
        self._host.set_stream_handler(RELAY, self._carry)
        self._host.set_stream_handler(RELAYED, self._be_called)

    async def dial(self, peer: ID, relay: ID) -> None:
        """Connect with a member through another one. Raises StreamBroken, or what libp2p raises."""
        if not self._swarm.get_connections(relay):
            raise StreamBroken(f"the relay {relay} is not connected")
        stream = Libp2pStream(await self._host.new_stream(relay, [RELAY]))
        try:
            answer = await _ask(stream, peer)
            if answer != _OPEN:
                raise StreamBroken(f"the relay {relay} declines: {_ANSWERS.get(answer, 'for no reason')}")
            await self._swarm.upgrade_outbound_raw_conn(_circuit(stream, relay, is_caller=True), peer)
        except BaseException:
            await stream.reset()
            raise

    async def _be_called(self, asked: INetStream) -> None:
        """Somebody wants to talk with this member: the handshake will show who."""
        relay, stream = asked.muxed_conn.peer_id, Libp2pStream(asked)
        try:
            if relay not in self._members:
                return
            await _read_name(stream)
            await stream.write(bytes([_OPEN]))
            circuit = _circuit(stream, relay, is_caller=False)
            await self._swarm.upgrade_inbound_raw_conn(circuit, Multiaddr(f"/p2p/{relay}/p2p-circuit"))
        except (StreamBroken, SwarmException, RemoteProtocolError, trio.TooSlowError) as error:
            log.debug("a circuit through %s has ended: %s", relay, error)
        finally:
            await stream.reset()

    # --- as the relay -------------------------------------------------------------------------------------------

    async def _carry(self, asked: INetStream) -> None:
        """Between the member that asks and the one that it names, until either end is done."""
        caller, stream = asked.muxed_conn.peer_id, Libp2pStream(asked)
        try:
            with trio.fail_after(ANSWER_SECONDS):
                callee = await _read_name(stream)
                refusal = self._refusal(caller, callee)
                if refusal != _OPEN:
                    await stream.write(bytes([refusal]))
                    return await stream.close()
            self._carried[caller, callee] += 1
            try:
                await self._pass_on(caller, callee, stream)
            finally:
                self._carried[caller, callee] -= 1
        except RemoteProtocolError as error:
            self._refusals.count("circuit", caller, error)
        except (StreamBroken, trio.TooSlowError) as error:
            log.debug("a circuit of %s has ended: %s", caller, error)
        finally:
            await stream.reset()

    def _refusal(self, caller: ID, callee: ID) -> int:
        if not self._carries or caller not in self._members:
            return _NO_RELAY
        if callee not in self._members or callee == caller or not self._swarm.get_connections(callee):
            return _NOT_CONNECTED
        return _FULL if self._is_full(caller, callee) else _OPEN

    def _is_full(self, caller: ID, callee: ID) -> bool:
        """Whether all together, one of the two, or the two with each other have as many circuits as they may."""
        asked = sum(count for (one, _), count in self._carried.items() if one == caller)
        leading = sum(count for (_, one), count in self._carried.items() if one == callee)
        too_many = self._carried.total() >= MAX_CIRCUITS or max(asked, leading) >= MAX_CIRCUITS_OF_ONE
        return too_many or self._carried[caller, callee] >= MAX_CIRCUITS_OF_TWO

    async def _pass_on(self, caller: ID, callee: ID, near: Libp2pStream) -> None:
        far = await self._call(callee, caller)
        if far is None:
            return await near.write(bytes([_NOT_CONNECTED]))
        try:
            await near.write(bytes([_OPEN]))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_copy, near, far, nursery.cancel_scope)
                nursery.start_soon(_copy, far, near, nursery.cancel_scope)
        finally:
            await far.reset()

    async def _call(self, callee: ID, caller: ID) -> Libp2pStream | None:
        with trio.move_on_after(ANSWER_SECONDS):
            try:
                stream = Libp2pStream(await self._host.new_stream(callee, [RELAYED]))
            except Exception as error:  # libp2p documents no closed list
                log.debug("calling %s for %s: %r", callee, caller, error)
                return None
            try:
                if await _ask(stream, caller) == _OPEN:
                    return stream
            except (StreamBroken, trio.TooSlowError) as error:
                log.debug("calling %s for %s: %s", callee, caller, error)
            await stream.reset()
        return None


async def _copy(source: Libp2pStream, target: Libp2pStream, both: trio.CancelScope) -> None:
    """Until the source ends, or nothing comes, or the target is gone: then the whole circuit is over."""
    try:
        while True:
            with trio.fail_after(IDLE_SECONDS):
                data = await source.read(_PIECE)
            if not data:
                break
            await target.write(data)
    except (StreamBroken, trio.TooSlowError) as error:
        log.debug("one way of a circuit: %s", error)
    both.cancel()


async def _ask(stream: Libp2pStream, peer: ID) -> int:
    """Name a member; the one-byte answer."""
    name = str(peer).encode()
    await stream.write(bytes([len(name)]) + name)
    return (await read_exactly(stream, 1, 2 * ANSWER_SECONDS))[0]


async def _read_name(stream: Libp2pStream) -> ID:
    """Raises RemoteProtocolError for what is no peer id."""
    (length,) = await read_exactly(stream, 1, ANSWER_SECONDS)
    name = await read_exactly(stream, length, ANSWER_SECONDS)
    try:
        return ID.from_string(name.decode("ascii"))
    except ValueError as error:
        raise RemoteProtocolError(f"{name[:64]!r} is no peer id") from error


def _circuit(stream: Libp2pStream, relay: ID, *, is_caller: bool) -> RawConnection:
    way = [Multiaddr(f"/p2p/{relay}/p2p-circuit")]
    return RawConnection(_Pipe(stream), is_caller, ConnectionType.RELAYED, way)


class _Pipe(ReadWriteCloser):
    """A stream through a relay in the place of a TCP stream."""

    def __init__(self, stream: Libp2pStream) -> None:
        self._stream = stream

    async def read(self, n: int | None = None) -> bytes:
        try:
            return await self._stream.read(_PIECE if n is None else n)
        except StreamBroken as error:
            raise ConnectionResetError(str(error)) from error

    async def write(self, data: bytes) -> None:
        try:
            await self._stream.write(data)
        except StreamBroken as error:
            raise ConnectionResetError(str(error)) from error

    async def close(self) -> None:
        await self._stream.reset()

    def get_remote_address(self) -> tuple[str, int] | None:
        return None
