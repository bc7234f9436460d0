"""Networks of a small federation on real sockets, and a bare host that a test plays under any identity."""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils.varint import encode_varint_prefixed
from multiaddr import Multiaddr

from folkmoot.node.network.libp2p_gossip import TOPIC
from folkmoot.node.network.libp2p_host import close_connections, make_host
from folkmoot.node.network.libp2p_transport import Libp2pSettings, open_libp2p
from folkmoot.node.network.libp2p_versions import SPOKEN
from folkmoot.node.network.peer_network import PeerNetwork
from folkmoot.node.network.port import Inbound, NetworkEvent, Stats
from folkmoot.node.network.refusals import Refusals
from folkmoot.protocol import blob
from folkmoot.protocol.blob import BlobRef

SEEDS = [bytes([member + 1]) * 32 for member in range(4)]
STRANGER = bytes([99]) * 32


def peer_id(seed: bytes) -> str:
    return str(ID.from_pubkey(create_new_key_pair(seed).public_key))


PEER_IDS = {member: peer_id(seed) for member, seed in enumerate(SEEDS)}


class Peer:
    """A running network that notes its events."""

    def __init__(self, member: int, network: PeerNetwork, blobs: dict[bytes, Path]) -> None:
        self.member = member
        self.network = network
        self.blobs = blobs
        self.events: list[NetworkEvent] = []

    async def note(self) -> None:
        async for event in self.network.events:
            self.events.append(event)

    def messages(self, via: str) -> list[tuple[int, bytes]]:
        return [
            (event.member, event.data)
            for event in self.events
            if isinstance(event, Inbound) and event.via == via
        ]

    def hold(self, path: Path, data: bytes) -> BlobRef:
        path.write_bytes(data)
        ref = blob.ref_of(data)
        self.blobs[ref.root] = path
        return ref


@asynccontextmanager
async def running(
    member: int,
    home: Path,
    locate: Callable[[bytes], Path | None] | None = None,
    *,
    listens: bool = True,
    versions: tuple[int, ...] = SPOKEN,
) -> AsyncIterator[Peer]:
    """A member's network in this process; addresses are found through files in `home`.

    Unless it `listens`, nobody takes its events.
    """
    files = tuple(str(home / str(other)) for other in PEER_IDS)
    settings = Libp2pSettings(member, SEEDS[member], PEER_IDS, bootstrap=files, versions=versions)
    blobs: dict[bytes, Path] = {}
    async with open_libp2p(settings, locate or blobs.get, lambda *_: None, random.Random(member)) as network:
        (home / str(member)).write_text(network.addresses[0])
        peer = Peer(member, network, blobs)
        async with trio.open_nursery() as nursery:
            if listens:
                nursery.start_soon(peer.note)
            yield peer
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def federation(home: Path, *members: int) -> AsyncIterator[list[Peer]]:
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(running(member, home)) for member in members]
        await until(lambda: all(peer.network.peers() >= set(members) - {peer.member} for peer in peers))
        yield peers


@asynccontextmanager
async def attacker(seed: bytes) -> AsyncIterator[BasicHost]:
    """A bare host, under a member's or a stranger's identity, that the test plays."""
    stats = Stats()
    host = make_host(seed, lambda _: True, stats, Refusals(stats))
    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        swarm = host.get_network()
        assert isinstance(swarm, Swarm)
        try:
            yield host
        finally:
            await close_connections(swarm, swarm.connections)


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - any condition, of processes too
            await trio.sleep(0.01)


async def dial(host: BasicHost, target: PeerNetwork) -> ID:
    address, _, target_id = target.addresses[0].rpartition("/p2p/")
    swarm = host.get_network()
    assert isinstance(swarm, Swarm)
    await swarm.dial_addr(Multiaddr(address), ID.from_string(target_id))
    return ID.from_string(target_id)


async def assert_works(peers: list[Peer], word: bytes) -> None:
    """Messages, announcements and blobs still go between the first two."""
    one, two = peers[:2]
    await one.network.send(two.member, word)
    await two.network.send(one.member, word)
    await one.network.publish(b"news " + word)
    await until(lambda: (two.member, word) in one.messages("control"))
    await until(lambda: (one.member, word) in two.messages("control"))
    await until(lambda: (one.member, b"news " + word) in two.messages("gossip"))


async def garbage(host: BasicHost, target: ID, protocol: TProtocol, data: bytes) -> None:
    try:
        stream = await host.new_stream(target, [protocol])
        await stream.write(data)
        with trio.move_on_after(1):
            while await stream.read(65536):
                pass
    except Exception:  # reset, as it should be
        return


def malformed_key() -> bytes:
    message = rpc_pb2.Message(data=b"x", topicIDs=[TOPIC], seqno=b"1", signature=b"s", key=b"\xff\xff")
    message.from_id = b"\x12\x20" + bytes(32)
    return encode_varint_prefixed(rpc_pb2.RPC(publish=[message]).SerializeToString())


def announcement(seed: bytes, data: bytes, number: int = 0) -> bytes:
    keys = create_new_key_pair(seed)
    message = rpc_pb2.Message(data=data, topicIDs=[TOPIC], seqno=number.to_bytes(8, "big"))
    message.from_id = ID.from_pubkey(keys.public_key).to_bytes()
    message.signature = keys.private_key.sign(b"libp2p-pubsub:" + message.SerializeToString())
    return encode_varint_prefixed(rpc_pb2.RPC(publish=[message]).SerializeToString())
