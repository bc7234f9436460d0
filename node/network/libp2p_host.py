"""A py-libp2p 0.8.1 host that a hostile peer cannot take down: TCP, Noise and Yamux, for known members only.

py-libp2p ends the whole process on an exception that leaves a stream handler, and on malformed pubsub messages;
`guard` and `libp2p_gossip.py` stand in the way. Strangers are turned away right after the Noise handshake
(`MembersOnly`), before they get a multiplexer, because no later stage limits what a connected peer can make us buffer.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

import trio
from google.protobuf.message import DecodeError
from libp2p import new_host
from libp2p.abc import IMuxedConn, INetConn, INetStream, IRawConnection, ISecureConn, ISecureTransport
from libp2p.connection_types import ConnectionType
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.io.abc import ReadWriteCloser
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.exceptions import SecurityUpgradeFailure
from libp2p.transport.tcp.tcp import TCPListener
from multiaddr import Multiaddr

from folkmoot.node.network.gate import CrowdedOutError, Gate
from folkmoot.node.network.libp2p_muxer import bound_windows, hold_to_window
from folkmoot.node.network.port import NetworkError, Stats
from folkmoot.node.network.refusals import Refusals

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 512
"""Connections at once, of which those in their handshake are few (`gate.py`); below the usual limit of 1024 files."""
ACCEPT_QUEUE = 1024
UPGRADE_SECONDS = 5.0
CLOSE_SECONDS = 2.0
MAX_STREAMS_PER_PEER = 32
READ_AHEAD = 256 * 1024
"""Bytes taken from a socket at once."""


def make_host(
    identity: bytes, is_member: Callable[[ID], bool], stats: Stats, refusals: Refusals
) -> BasicHost:
    """A host with the Ed25519 seed `identity`, not yet listening, that speaks nothing but multistream."""
    # Below this level py-libp2p logs each failed dial and each connection that a peer resets as an error.
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    keys = create_new_key_pair(identity)
    bound_windows()
    noise = Noise(keys, noise_privkey=create_new_x25519_key_pair().private_key)
    host = new_host(
        key_pair=keys,
        # Never the default: it offers plaintext too.
        sec_opt={NOISE: MembersOnly(noise, is_member, stats, refusals)},
        muxer_opt={TProtocol(YAMUX): Yamux},
        connection_config=ConnectionConfig(
            min_connections=0,
            low_watermark=0,
            high_watermark=MAX_CONNECTIONS,
            max_connections=MAX_CONNECTIONS,
            inbound_upgrade_timeout=UPGRADE_SECONDS,
            outbound_upgrade_timeout=UPGRADE_SECONDS,
        ),
    )
    swarm = host.get_network()
    if not isinstance(host, BasicHost) or not isinstance(swarm, Swarm):
        raise NetworkError(
            f"libp2p made a {type(host).__name__}: install the version in scripts/constraints.txt"
        )
    _strip(host, swarm)
    _release_ended_connections(swarm)
    _keep_gate(swarm, refusals)
    _hold_to_windows(swarm, refusals)
    swarm.set_stream_handler(guard(swarm.common_stream_handler, refusals))
    return host


def _strip(host: BasicHost, swarm: Swarm) -> None:
    """Leave out what a closed federation has no use for and a peer could abuse.

    The auto-connector dials everything that it hears of, whatever its configuration; here the links dial.
    """
    for protocol in host.get_mux().get_protocols():
        if protocol is not None:
            host.remove_stream_handler(protocol)
    for notifee in list(swarm.notifees):
        if type(notifee).__module__ == BasicHost.__module__:
            swarm.remove_notifee(notifee)  # asks each new peer to identify itself; we know our members
    # Its circuit breaker shuts everybody out for a minute once one peer was refused five times.
    swarm.set_resource_manager(None)
    swarm.retry_config = RetryConfig(max_retries=0)
    setattr(swarm.auto_connector, "maybe_connect", trio.lowlevel.checkpoint)  # noqa: B010 - as below


def _release_ended_connections(swarm: Swarm) -> None:
    """Give an inbound connection's place back when it ends.

    The swarm keeps it until the whole host stops, so that after MAX_CONNECTIONS reconnects, over any time, nobody
    can connect any more. Its caller closes and releases on an exception, which is what it gets here.
    """
    upgrade = swarm.upgrade_inbound_raw_conn

    async def upgrade_and_wait(raw_conn: IRawConnection, maddr: Multiaddr) -> Any:
        muxed = await upgrade(raw_conn, maddr)
        if isinstance(muxed, Yamux):
            await muxed.event_closed.wait()
            raise SwarmException("the connection has ended")
        return muxed

    setattr(swarm, "upgrade_inbound_raw_conn", upgrade_and_wait)  # noqa: B010 - mypy forbids the assignment


def _keep_gate(swarm: Swarm, refusals: Refusals) -> None:
    """Let few connections stand in their handshake, where libp2p knows only one limit for all: `gate.py`."""
    gate, secure = Gate(), swarm.upgrader.upgrade_security

    async def upgrade(raw_conn: IRawConnection, is_initiator: bool, peer_id: ID | None = None) -> ISecureConn:
        if is_initiator:
            return await secure(raw_conn, is_initiator, peer_id)
        address = (raw_conn.get_remote_address() or ("unknown", 0))[0]
        try:
            with gate.handshake(address):
                await gate.await_turn(address)
                try:
                    return await secure(raw_conn, is_initiator)
                except Exception:
                    gate.failed(address)
                    raise
        except CrowdedOutError as error:
            refusals.count("connection without a handshake", address)
            raise SecurityUpgradeFailure("others needed the place") from error

    setattr(swarm.upgrader, "upgrade_security", upgrade)  # noqa: B010 - as above


def _hold_to_windows(swarm: Swarm, refusals: Refusals) -> None:
    """libp2p makes a plain Yamux of every connection, whatever class it is given: `libp2p_muxer.py` changes it."""
    upgrade = swarm.upgrader.upgrade_connection

    def blame(peer: ID, detail: str) -> None:
        refusals.blame("bytes beyond the window", peer, detail, grave=True)

    async def upgrade_strictly(conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        muxer = await upgrade(conn, peer_id)
        assert isinstance(muxer, Yamux)  # it offers nothing else
        hold_to_window(muxer, blame)
        return muxer

    setattr(swarm.upgrader, "upgrade_connection", upgrade_strictly)  # noqa: B010 - as above


def guard(
    handler: Callable[[INetStream], Awaitable[None]], refusals: Refusals
) -> Callable[[INetStream], Awaitable[None]]:
    """`handler`, which reads what peers wrote, so that nothing it raises gets out; bounds streams per peer too."""
    open_streams: Counter[ID] = Counter()

    async def guarded(stream: INetStream) -> None:
        peer = stream.muxed_conn.peer_id
        if open_streams[peer] >= MAX_STREAMS_PER_PEER:
            refusals.count("more streams than allowed", peer)
            return await _reset(stream)
        open_streams[peer] += 1
        try:
            await handler(stream)
        except Exception as error:  # whatever it is, it must not reach the host's nursery
            tell = refusals.blame if isinstance(error, DecodeError) else refusals.count
            tell("malformed stream", peer, repr(error))
            await _reset(stream)
        finally:
            open_streams[peer] -= 1

    return guarded


async def _reset(stream: INetStream) -> None:
    with trio.move_on_after(2):
        try:
            await stream.reset()
        except Exception as error:
            log.debug("reset failed: %r", error)


async def close_connections(swarm: Swarm, peers: Iterable[ID]) -> None:
    """Close all connections to `peers`, even in a cancelled task.

    libp2p's own shutdown leaves the sockets open, and its `close_peer` forgets those connections that come about while
    it closes the others: they live on, and nobody can use or end them.
    """
    with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
        async with trio.open_nursery() as nursery:
            for connection in [one for peer in list(peers) for one in swarm.get_connections(peer)]:
                nursery.start_soon(_close_connection, swarm, connection)


def lengthen_queues(swarm: Swarm) -> None:
    """Let more connections wait to be accepted than libp2p's 128: whom the kernel drops tries again a second later."""
    for listener in swarm.listeners.values():
        if isinstance(listener, TCPListener):
            for one in listener.listeners:
                one.socket.listen(ACCEPT_QUEUE)


async def close_listeners(swarm: Swarm) -> None:
    """Stop listening, even in a cancelled task: the next network of this process may want the port.

    Sockets that were accepted and are in no connection yet are the listener's, and close with it.
    """
    with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
        for listener in list(swarm.listeners.values()):
            sockets: list[trio.SocketListener] = []
            if isinstance(listener, TCPListener):
                # Gossip still asks them for our addresses, and must not meet a closed one.
                sockets, listener.listeners = listener.listeners, []
            try:
                await listener.close()
            except Exception as error:  # as above
                log.debug("closing a listener: %r", error)
            finally:
                for one in sockets:
                    await one.aclose()  # closes even if there is no time left


async def _close_connection(swarm: Swarm, connection: INetConn) -> None:
    muxer = connection.muxed_conn
    try:
        await connection.close()
    except Exception as error:  # it is to be gone, however
        log.debug("closing the connection to %s: %r", muxer.peer_id, error)
    finally:
        if (
            isinstance(muxer, Yamux) and not muxer.is_closed
        ):  # its good-bye found no room: nobody reads any more
            with trio.CancelScope(shield=True), suppress(Exception):
                await muxer.secured_conn.close()
            muxer.event_closed.set()
            assert isinstance(connection, SwarmConn)  # there is no other
            swarm.remove_conn(connection)


class MembersOnly(ISecureTransport):
    """Noise that ends the connection as soon as the handshake shows a stranger, and counts bytes on the wire."""

    def __init__(
        self, noise: Noise, is_member: Callable[[ID], bool], stats: Stats, refusals: Refusals
    ) -> None:
        self._noise = noise
        self._is_member = is_member
        self._stats = stats
        self._refusals = refusals

    async def secure_inbound(self, conn: IRawConnection) -> ISecureConn:
        """Raises HandshakeFailure for a stranger."""
        secured = await self._noise.secure_inbound(self._counted(conn))
        peer = secured.get_remote_peer()
        if not self._is_member(peer):
            known = peer in self._refusals.members
            self._refusals.count("member that is shut out" if known else "stranger", peer)
            await secured.close()
            raise HandshakeFailure(f"{peer} is not welcome")
        return secured

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> ISecureConn:
        """The dialler compares the peer's identity with the one it wanted. Raises HandshakeFailure as above."""
        if not self._is_member(peer_id):
            raise HandshakeFailure(f"{peer_id} is not welcome")
        return await self._noise.secure_outbound(self._counted(conn), peer_id)

    def _counted(self, conn: IRawConnection) -> IRawConnection:
        if isinstance(conn, RawConnection):
            # What goes through a relay is counted as bytes of the connection to the relay.
            is_relayed = conn.get_connection_type() is ConnectionType.RELAYED
            conn.stream = _CountedStream(conn.stream, Stats() if is_relayed else self._stats)
        return conn


class _CountedStream(ReadWriteCloser):
    """Counts what crosses the socket, and reads ahead.

    For each message of at most 64 KiB Noise asks for two bytes and then for the rest; reading ahead saves most of those
    system calls and trips through the scheduler (a tenth of a transfer's CPU time, measured).
    """

    def __init__(self, stream: ReadWriteCloser, stats: Stats) -> None:
        self._stream = stream
        self._stats = stats
        self._ahead = memoryview(b"")

    async def read(self, n: int | None = None) -> bytes:
        if not self._ahead:
            data = await self._stream.read(READ_AHEAD)
            self._stats.bytes_received += len(data)
            self._ahead = memoryview(data)
        piece = bytes(self._ahead[:n])
        self._ahead = self._ahead[len(piece) :]
        return piece

    async def write(self, data: bytes) -> None:
        await self._stream.write(data)
        self._stats.bytes_sent += len(data)

    async def close(self) -> None:
        await self._stream.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self._stream.get_remote_address()


def check_port_is_free(listen: Multiaddr) -> None:
    """Raise NetworkError if the TCP address cannot be listened on.

    libp2p would not notice: it shares ports (SO_REUSEPORT) with any other process of the same user.
    """
    host = listen.value_for_protocol("ip6" if "/ip6/" in str(listen) else "ip4")
    port = int(listen.value_for_protocol("tcp") or 0)
    family = socket.AF_INET6 if ":" in str(host) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise NetworkError(
                    f"port {port} on {host} is in use: stop what listens there or listen on another port"
                ) from error
            raise NetworkError(
                f"cannot listen on {listen}: {error.strerror}; choose an address of this host"
            ) from error
