"""The network over libp2p: streams and gossip for `PeerNetwork`, and `open_libp2p`, which runs it all."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

from folkmoot.node.network.addresses import AddressBook
from folkmoot.node.network.announcing import Announcing
from folkmoot.node.network.directory import Directory
from folkmoot.node.network.libp2p_addresses import ADDRESSES, AddressExchange
from folkmoot.node.network.libp2p_dialling import Dialler, dial_the_moved
from folkmoot.node.network.libp2p_gossip import TOPIC, make_pubsub
from folkmoot.node.network.libp2p_host import (
    check_port_is_free,
    close_connections,
    close_listeners,
    lengthen_queues,
    make_host,
)
from folkmoot.node.network.libp2p_muxer import widen
from folkmoot.node.network.libp2p_relay import Circuits
from folkmoot.node.network.libp2p_streams import Libp2pStream, mapped
from folkmoot.node.network.libp2p_versions import SPOKEN, VERSIONS, VersionExchange, protocols
from folkmoot.node.network.libp2p_views import Views
from folkmoot.node.network.mdns import LocalPeers, local_discovery, spelled_out
from folkmoot.node.network.peer_network import PeerNetwork
from folkmoot.node.network.port import Locate, NetworkError, OnServed, Stats, Trouble, View
from folkmoot.node.network.refusals import Refusals
from folkmoot.node.network.streams import ByteStream, Incoming, Purpose, StreamBroken
from folkmoot.protocol.addresses import is_loopback
from folkmoot.protocol.types import MemberId

log = logging.getLogger(__name__)

PURPOSES: tuple[Purpose, ...] = ("control", "bulk")
PROTOCOLS = {purpose: protocols(purpose, SPOKEN)[0] for purpose in PURPOSES}
"""The newest version of each."""
OPEN_SECONDS = 5.0

MAX_COMPLAINTS = 64
"""Members that speak otherwise are logged so often at most."""


@dataclass(frozen=True, slots=True)
class Libp2pSettings:
    """What a node needs to meet its peers."""

    me: MemberId
    identity: bytes
    """The seed (32 bytes) of the Ed25519 identity key. Secret."""
    peer_ids: Mapping[MemberId, str]
    """Of all members, this one included, as in the charter."""
    listen: str = "/ip4/127.0.0.1/tcp/0"
    """Multiaddr to listen on; port 0 takes a free one."""
    announce: tuple[str, ...] = ()
    """Multiaddrs (without `/p2p/`) under which others reach us, where they differ from what we listen on."""
    bootstrap: tuple[str, ...] = ()
    """See `AddressBook`."""
    directory: Directory | None = None
    """Where members say they are, this one included; without it nobody is told."""
    versions: tuple[int, ...] = SPOKEN
    """Of the protocols, newest first. Only a test says anything else than what this program speaks."""
    relay: bool = False
    """Whether members may reach each other through this one."""
    via: Literal["auto"] | tuple[str, ...] = ()
    """Peer ids of the members through which this one is to be reached; "auto": any that relay."""
    mdns: bool = False
    """Whether to find members on the local network, and be found there."""

    def __repr__(self) -> str:
        return f"Libp2pSettings(me={self.me}, listen={self.listen!r})"


@asynccontextmanager
async def open_libp2p(
    settings: Libp2pSettings, locate: Locate, on_served: OnServed, rng: random.Random
) -> AsyncIterator[PeerNetwork]:
    """Listen, and keep the links to all members, while the block runs.

    Raises NetworkError if the address cannot be listened on or the identity is not that of the charter's member.
    """
    stats = Stats()
    refusals = Refusals(stats)
    listen = _listen_address(settings.listen)
    transport = Libp2pTransport(settings, stats, refusals)
    check_port_is_free(listen)
    network = PeerNetwork(settings.me, settings.peer_ids, transport, stats, refusals, locate, on_served, rng)
    async with transport.running(network, listen), trio.open_nursery() as nursery:
        nursery.start_soon(network.run)
        try:
            yield network
        finally:
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_to_fetch(settings: Libp2pSettings, rng: random.Random) -> AsyncIterator[PeerNetwork]:
    """A network for `fetch` only, while the block runs: it links itself with nobody and has nothing to serve.

    Raises as `open_libp2p`.
    """
    stats = Stats()
    refusals = Refusals(stats)
    transport = Libp2pTransport(settings, stats, refusals)
    network = PeerNetwork(
        settings.me,
        settings.peer_ids,
        transport,
        stats,
        refusals,
        lambda root: None,
        lambda root, member: None,
        rng,
    )
    async with transport.running(network, _listen_address(settings.listen)):
        yield network


class Libp2pTransport:
    """See `streams.Transport`."""

    def __init__(self, settings: Libp2pSettings, stats: Stats, refusals: Refusals) -> None:
        """Raises NetworkError."""
        self._ids = {member: ID.from_string(peer_id) for member, peer_id in settings.peer_ids.items()}
        self._members = {peer_id: member for member, peer_id in self._ids.items() if member != settings.me}
        self._directory = settings.directory
        self._nearby = LocalPeers(settings.peer_ids.values())
        self._book = AddressBook(
            settings.peer_ids,
            settings.bootstrap,
            self._said,
            same_host=is_loopback(settings.listen),
        )
        self._settings = settings
        self._refusals = refusals
        refusals.members = dict(self._members)
        self._host = make_host(settings.identity, self._is_welcome, stats, refusals)
        if self._host.get_id() != self._ids[settings.me]:
            raise NetworkError(
                f"the identity key belongs to peer {self._host.get_id()}, but the charter says that member "
                f"{settings.me} is {self._ids[settings.me]}: use that member's key or its charter"
            )
        self._pubsub, self._router = make_pubsub(
            self._host, frozenset(self._ids.values()).__contains__, refusals
        )
        self._exchange = AddressExchange(self._host, self._directory, refusals) if self._directory else None
        self._circuits = Circuits(self._host, self._swarm, frozenset(self._members), settings.relay, refusals)
        self._views = (
            Views(self._host, self._swarm, self._members, self._directory, is_loopback(settings.listen))
            if self._directory is not None
            else None
        )
        self._versions = settings.versions
        self._version_exchange = VersionExchange(self._host, self._versions, self._speaks_otherwise)
        self._foreign: set[tuple[MemberId, str]] = set()
        self._dialler = Dialler(self._swarm, self._ids, self._book, self._circuits, self._is_connected)

    @property
    def addresses(self) -> tuple[str, ...]:
        bare = self._settings.announce or [str(address) for address in self._host.get_transport_addrs()]
        return tuple(f"{address.split('/p2p/')[0]}/p2p/{self._host.get_id()}" for address in bare)

    @property
    def announced(self) -> tuple[str, ...]:
        return self._directory.addresses(str(self._host.get_id())) if self._directory is not None else ()

    @property
    def views(self) -> Mapping[MemberId, View]:
        return self._views.latest if self._views is not None else {}

    def _said(self, peer: str) -> list[str]:
        """Where a member was heard on the local network, and where it says it is."""
        announced = self._directory.addresses(peer) if self._directory is not None else ()
        return [*self._nearby.addresses(peer), *announced]

    @asynccontextmanager
    async def _found_nearby(self) -> AsyncIterator[None]:
        """Be found on the local network while the block runs, if that is wanted."""
        if not self._settings.mdns:
            yield
            return
        listening = [str(address) for address in self._host.get_transport_addrs()]
        me, port = self._host.get_id(), int(listening[0].split("/")[4])
        own = [f"{address.split('/p2p/')[0]}/p2p/{me}" for address in spelled_out(listening)]
        async with local_discovery(self._nearby, own, port):
            yield

    def _is_known(self, peer: ID) -> bool:
        """A member, or one to be: it is told where the others are, and may do nothing else yet."""
        return peer in self._members or (self._directory is not None and self._directory.knows(str(peer)))

    @asynccontextmanager
    async def running(self, incoming: Incoming, listen: Multiaddr) -> AsyncIterator[None]:
        """Listen and gossip while the block runs. Raises NetworkError."""
        self._swarm.register_notifee(
            _Connections(lambda peer: self._connected(peer, incoming), self._pubsub.connection_ended)
        )
        for purpose in PURPOSES:
            for protocol in protocols(purpose, self._versions):
                self._host.set_stream_handler(protocol, self._handler(purpose, incoming))
        self._host.set_stream_handler(VERSIONS, self._version_exchange.answer)
        if self._exchange is not None:
            self._host.set_stream_handler(ADDRESSES, self._exchange.hear)
        self._circuits.listen()
        if self._views is not None:
            self._views.listen()
        self._pubsub.deliver = lambda message: self._hear(message, incoming)
        self._pubsub.may_announce = lambda peer: self._may_announce(peer, incoming)
        async with (
            self._host.run(listen_addrs=[listen]),
            background_trio_service(self._pubsub),
            background_trio_service(self._router),
            trio.open_nursery() as dialling,
        ):
            if not self._swarm.listeners:
                raise NetworkError(
                    f"cannot listen on {listen}: choose an address of this host and a free port"
                )
            lengthen_queues(self._swarm)
            await dialling.start(self._dialler.run)
            await self._pubsub.wait_until_ready()
            await self._pubsub.subscribe(TOPIC)
            try:
                async with self._found_nearby(), self._telling(incoming):
                    yield
            finally:
                dialling.cancel_scope.cancel()
                await close_listeners(self._swarm)
                await close_connections(self._swarm, self._swarm.connections)

    @asynccontextmanager
    async def _telling(self, incoming: Incoming) -> AsyncIterator[None]:
        """Tell members where we are and what we know of others while the block runs. Raises NetworkError."""
        if self._directory is None or self._exchange is None or self._views is None:
            yield
            return
        announcing = Announcing(
            self._directory,
            [address.rpartition("/p2p/")[0] for address in self.addresses],
            self._settings.announce,
            self._settings.relay,
            self._settings.via,
            lambda: [str(peer) for peer in self._members if self._is_peer_connected(peer)],
        )
        announcing.begin()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._exchange.run)
            nursery.start_soon(dial_the_moved, self._members, self._directory, incoming.connected)
            nursery.start_soon(announcing.run)
            nursery.start_soon(self._views.run, self._is_peer_connected)
            yield
            nursery.cancel_scope.cancel()

    def _connected(self, peer: ID, incoming: Incoming) -> None:
        member = self._members.get(peer)
        if member is not None:
            self._dialler.reached(member)
            incoming.connected(member)
        else:
            self._pubsub.add_to_blacklist(peer)
        if self._exchange is not None:
            self._exchange.connected(peer)

    @property
    def troubles(self) -> Mapping[MemberId, Trouble]:
        return self._dialler.troubles

    async def connect(self, member: MemberId) -> None:
        await self._dialler.connect(member)

    async def open(self, member: MemberId, purpose: Purpose) -> ByteStream:
        await self.connect(member)
        try:
            with trio.move_on_after(OPEN_SECONDS), mapped():
                stream = await self._host.new_stream(self._ids[member], protocols(purpose, self._versions))
                if purpose == "bulk":
                    await widen(stream)
                return Libp2pStream(stream)
        except StreamBroken:
            if purpose == "control" and self._is_connected(member):
                await self._version_exchange.ask(self._ids[member])
            raise
        # A connection that is dead but still listed: without this it would be tried until TCP gives up.
        await self.disconnect(member)
        raise StreamBroken(f"member {member} is connected but does not answer")

    def _speaks_otherwise(self, peer: ID, reason: str) -> None:
        member = self._members.get(peer)
        if member is None:
            return
        self._dialler.troubles[member] = Trouble(time.time(), reason)
        if (member, reason) not in self._foreign and len(self._foreign) < MAX_COMPLAINTS:
            self._foreign.add((member, reason))
            log.warning("no protocol in common with member %d (peer %s): %s", member, peer, reason)

    async def disconnect(self, member: MemberId) -> None:
        await close_connections(self._swarm, [self._ids[member]])

    async def publish(self, data: bytes) -> None:
        await self._pubsub.wait_for_room()
        await self._pubsub.publish(TOPIC, data)

    def _is_welcome(self, peer: ID) -> bool:
        return self._is_known(peer) and not self._refusals.is_shut_out(peer)

    def _may_announce(self, peer: ID, incoming: Incoming) -> bool:
        member = self._members.get(peer)
        return member is None or incoming.may_announce(member)  # we may say what we like

    def _hear(self, message: rpc_pb2.Message, incoming: Incoming) -> None:
        member = self._members.get(ID(message.from_id))
        if member is not None:  # else it is our own
            incoming.heard(member, message.data)

    @property
    def _swarm(self) -> Swarm:
        swarm = self._host.get_network()
        assert isinstance(swarm, Swarm)  # make_host has checked it
        return swarm

    def _is_connected(self, member: MemberId) -> bool:
        return self._is_peer_connected(self._ids[member])

    def _is_peer_connected(self, peer: ID) -> bool:
        return any(not connection.is_closed for connection in self._swarm.get_connections(peer))

    def _handler(self, purpose: Purpose, incoming: Incoming) -> Callable[[INetStream], Awaitable[None]]:
        async def handle(stream: INetStream) -> None:
            member = self._members.get(stream.muxed_conn.peer_id)
            if member is None:  # a member to be, before its first round
                return await stream.reset()
            try:
                await incoming.accept(member, purpose, Libp2pStream(stream))
            except Exception:  # our own bug: seen, but not the end of the node
                log.exception("a %s stream of member %s failed", purpose, member)
                await stream.reset()

        return handle


class _Connections(INotifee):
    """Tells of connections that begin, and that have ended."""

    def __init__(self, begun: Callable[[ID], None], ended: Callable[[ID], None]) -> None:
        self._begun = begun
        self._ended = ended

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        self._begun(conn.muxed_conn.peer_id)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        self._ended(conn.muxed_conn.peer_id)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        """Of no interest."""

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        """Of no interest."""

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Of no interest."""

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        """Of no interest."""


def _listen_address(text: str) -> Multiaddr:
    try:
        address = Multiaddr(text)
        names = [protocol.name for protocol in address.protocols()]
    except Exception as error:  # multiaddr raises many kinds
        raise NetworkError(
            f"listen address {text!r} is no multiaddr ({error}): write /ip4/HOST/tcp/PORT"
        ) from error
    if names not in (["ip4", "tcp"], ["ip6", "tcp"]):
        raise NetworkError(f"listen address {text!r}: write /ip4/HOST/tcp/PORT or /ip6/HOST/tcp/PORT")
    return address
