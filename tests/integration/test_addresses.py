"""Where members are is handed on: real libp2p hosts, of which each knows one address at most."""

import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID
from nacl.signing import SigningKey

from folkmoot.node.network.directory import Directory
from folkmoot.node.network.libp2p_transport import Libp2pSettings, open_libp2p
from folkmoot.node.network.mdns import LocalPeers
from folkmoot.node.network.peer_network import PeerNetwork
from folkmoot.node.network.port import Trouble
from folkmoot.protocol import blob

pytestmark = pytest.mark.integration

FEDERATION = b"\xfe" * 32
KEYS = [SigningKey(bytes([mark + 1]) * 32) for mark in range(4)]
PEERS = [str(ID.from_pubkey(create_new_key_pair(bytes(key)).public_key)) for key in KEYS]
NEWCOMER = 3


def identities(*members: int) -> dict[bytes, str]:
    return {bytes(KEYS[member].verify_key): PEERS[member] for member in members}


@asynccontextmanager
async def node(
    member: int,
    home: Path,
    bootstrap: tuple[str, ...] = (),
    members: int = 3,
    known: int = 3,
    *,
    relay: bool = False,
    via: Literal["auto"] | tuple[str, ...] = (),
    mdns: bool = False,
    blobs: dict[bytes, Path] | None = None,
) -> AsyncIterator[tuple[PeerNetwork, Directory]]:
    """The member's network, under a charter with `members` members; `known`: with those that are to come."""
    directory = Directory(FEDERATION, KEYS[member], identities(*range(known)), home / str(member))
    peers = dict(enumerate(PEERS[:members]))
    settings = Libp2pSettings(
        member,
        bytes(KEYS[member]),
        peers,
        bootstrap=bootstrap,
        directory=directory,
        relay=relay,
        via=via,
        mdns=mdns,
    )
    opened = open_libp2p(settings, (blobs or {}).get, lambda *_: None, random.Random(member))
    async with opened as network, trio.open_nursery() as nursery:
        nursery.start_soon(drain, network)
        yield network, directory
        nursery.cancel_scope.cancel()


async def drain(network: PeerNetwork) -> None:
    async for _ in network.events:
        pass


async def until(condition: object, seconds: float = 20.0) -> None:
    assert callable(condition)
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - the networks have no events for this
            await trio.sleep(0.02)


async def test_one_address_is_enough_and_a_move_is_learnt_by_all(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        hub, _ = await stack.enter_async_context(node(0, tmp_path))
        first, known = await stack.enter_async_context(node(1, tmp_path, hub.addresses))
        async with node(2, tmp_path, hub.addresses) as (second, _):
            await until(lambda: first.peers() == {0, 2} and second.peers() == {0, 1})
            before = known.addresses(PEERS[2])
        async with node(2, tmp_path) as (second, _):  # on another port, and it has no bootstrap any more
            await until(lambda: known.addresses(PEERS[2]) != before)
            await until(
                lambda: second.peers() == {0, 1} and hub.peers() == {1, 2} and first.peers() == {0, 2}
            )
            assert second.troubles() == {}


async def test_a_member_to_be_learns_of_all_before_it_may_speak(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        hub, _ = await stack.enter_async_context(node(0, tmp_path, known=4))
        others = [
            await stack.enter_async_context(node(member, tmp_path, hub.addresses, known=4))
            for member in (1, 2)
        ]
        newcomer, learnt = await stack.enter_async_context(node(NEWCOMER, tmp_path, hub.addresses, 4, 4))
        await until(lambda: all(directory.addresses(PEERS[NEWCOMER]) for _, directory in others))
        await until(lambda: all(learnt.addresses(peer) for peer in PEERS[:3]))
        assert newcomer.peers() == frozenset()
        assert hub.stats.refused == {}


async def test_who_is_not_known_is_told_nothing(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        hub, directory = await stack.enter_async_context(node(0, tmp_path))
        stranger, learnt = await stack.enter_async_context(node(NEWCOMER, tmp_path, hub.addresses, 4, 4))
        await until(lambda: hub.stats.refused["stranger"] >= 1)
        assert learnt.addresses(PEERS[0]) == () and directory.addresses(PEERS[NEWCOMER]) == ()
        assert stranger.peers() == frozenset()


async def test_why_a_member_is_not_connected_is_told(tmp_path: Path) -> None:
    nobody = f"/ip4/127.0.0.1/tcp/9/p2p/{PEERS[1]}"
    async with node(0, tmp_path, (nobody,)) as (network, _):
        await until(lambda: set(network.troubles()) == {1, 2})
        assert "refused" in network.troubles()[1].error and "tcp/9" in network.troubles()[1].error
        assert network.troubles()[2].error == "no address known"


async def test_members_that_cannot_be_called_meet_through_a_relay(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3 << 20)
    (tmp_path / "blob").write_bytes(data)
    ref = blob.ref_of(data)
    async with AsyncExitStack() as stack:
        hub, _ = await stack.enter_async_context(node(0, tmp_path, relay=True))
        one, _ = await stack.enter_async_context(
            node(1, tmp_path, hub.addresses, via="auto", blobs={ref.root: tmp_path / "blob"})
        )
        two, known = await stack.enter_async_context(node(2, tmp_path, hub.addresses, via=(PEERS[0],)))
        await until(lambda: one.peers() == {0, 2} and two.peers() == {0, 1})
        await until(lambda: known.addresses(PEERS[1]) == (f"/p2p/{PEERS[0]}/p2p-circuit",))
        assert known.addresses(PEERS[2]) == (f"/p2p/{PEERS[0]}/p2p-circuit",)
        await two.fetch(ref, 1, tmp_path / "fetched")
        assert (tmp_path / "fetched").read_bytes() == data
        assert hub.stats.bytes_sent > len(data)  # through the relay
        assert sum(hub.stats.refused.values()) == 0


async def test_who_did_not_agree_relays_nothing(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        hub, _ = await stack.enter_async_context(node(0, tmp_path))
        await stack.enter_async_context(node(1, tmp_path, hub.addresses, via=(PEERS[0],)))
        two, known = await stack.enter_async_context(node(2, tmp_path, hub.addresses, via="auto"))
        await until(lambda: "declines" in two.troubles().get(1, Trouble(0.0, "")).error)
        assert "it does not relay" in two.troubles()[1].error
        assert known.addresses(PEERS[2]) == ()  # nobody relays
        assert two.peers() == {0}


async def test_members_tell_each_other_how_they_see_them(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        hub, _ = await stack.enter_async_context(node(0, tmp_path, relay=True))
        one, _ = await stack.enter_async_context(node(1, tmp_path, hub.addresses))
        two, _ = await stack.enter_async_context(node(2, tmp_path, hub.addresses, via=(PEERS[0],)))
        await until(lambda: {0, 2} <= one.views().keys() and {0, 1} <= two.views().keys())
        assert one.views()[0].answered and one.views()[0].reached == one.announced() != ()
        assert one.views()[0].seen_as == "127.0.0.1" and abs(one.views()[0].clock_offset) < 5
        assert two.views()[0].answered and two.views()[0].reached == ()  # only through a relay
        assert one.peers() == {0, 2} and hub.stats.refused == {}


async def test_members_find_each_other_on_the_local_network(tmp_path: Path) -> None:
    if not multicast_works():
        pytest.skip("this machine passes no multicast on")
    async with AsyncExitStack() as stack:
        one, _ = await stack.enter_async_context(node(0, tmp_path, mdns=True))
        two, _ = await stack.enter_async_context(node(1, tmp_path, mdns=True))
        await until(lambda: one.peers() == {1} and two.peers() == {0})


def multicast_works() -> bool:
    """Whether what is sent to a multicast group comes back to this machine."""
    group = "224.0.0.251"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as heard:
        heard.bind(("", 0))
        heard.settimeout(1.0)
        try:
            heard.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + bytes(4))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as said:
                said.sendto(b"?", (group, heard.getsockname()[1]))
            return heard.recv(1) == b"?"
        except OSError:
            return False


@pytest.mark.parametrize(
    ("text", "is_kept"),
    [
        (f"/ip4/192.168.1.7/tcp/4001/p2p/{PEERS[1]}", True),
        (f"/ip4/8.8.8.8/tcp/4001/p2p/{PEERS[1]}", False),
        (f"/ip4/192.168.1.7/tcp/4001/p2p/{PEERS[NEWCOMER]}", False),
        (f"/ip4/192.168.1.7/tcp/0/p2p/{PEERS[1]}", False),
        (f"/dns4/router.lan/tcp/80/p2p/{PEERS[1]}", False),
        ("nonsense", False),
    ],
)
def test_only_members_local_addresses_are_taken_from_the_local_network(text: str, is_kept: bool) -> None:
    found = LocalPeers(PEERS[:3])
    found.hear(text)
    assert bool(found.addresses(PEERS[1])) is is_kept
