"""What outsiders and members do to one node's sockets: it stops at the edge, and the others do not notice."""

import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.stream_muxer.yamux.yamux import YamuxStream
from libp2p_peers import (
    SEEDS,
    Peer,
    announcement,
    assert_works,
    attacker,
    dial,
    federation,
    garbage,
    running,
    until,
)
from multiaddr import Multiaddr

from folkmoot.node.archive import Archive
from folkmoot.node.network import bulk, gate, libp2p_muxer
from folkmoot.node.network.conduct import FAULTS, Allowance
from folkmoot.node.network.control import QUEUE_BYTES, encode_frame
from folkmoot.node.network.libp2p_gossip import MESH
from folkmoot.node.network.libp2p_transport import PROTOCOLS
from folkmoot.node.network.peer_network import EVENTS
from folkmoot.node.network.port import MAX_MESSAGE
from folkmoot.protocol import blob

pytestmark = pytest.mark.integration

CROWD = """
import resource, socket, sys, time
port, count, greeting = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
held = []
for _ in range(count):
    held.append(socket.create_connection(("127.0.0.1", port)))
    if greeting:
        held[-1].sendall(greeting)
print(len(held), flush=True)
sys.stdin.read()
"""


def port_of(peer: Peer) -> int:
    return int(peer.network.addresses[0].split("/")[4])


@pytest.fixture
def crowd() -> Iterator[Callable[[int, int, bytes], "subprocess.Popen[bytes]"]]:
    """Starts a process that opens connections to a port, says something on each, and holds them."""
    started: list[subprocess.Popen[bytes]] = []

    def gather(port: int, count: int, greeting: bytes) -> "subprocess.Popen[bytes]":
        arguments = [sys.executable, "-c", CROWD, str(port), str(count), greeting.hex()]
        started.append(subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return started[-1]

    yield gather
    for process in started:
        process.kill()
        process.communicate()


async def test_a_member_gets_in_while_a_thousand_connections_stand_at_the_door(
    tmp_path: Path, crowd: Callable[[int, int, bytes], "subprocess.Popen[bytes]"]
) -> None:
    async with running(0, tmp_path) as victim:
        process = crowd(port_of(victim), 1000, b"\x13/multistream/1.0.0\n")
        assert process.stdout is not None
        refused = victim.network.stats.refused
        await until(lambda: refused["connection without a handshake"] > gate.MOST)
        began = time.monotonic()
        async with running(1, tmp_path) as member:
            await until(lambda: victim.network.peers() and member.network.peers())
            assert time.monotonic() - began < 5
            line = await trio.to_thread.run_sync(process.stdout.readline)
            assert line == b"1000\n"
            await assert_works([victim, member], b"unharmed")
            await until(lambda: refused["connection without a handshake"] >= 1000 - 2 * gate.MOST)


async def test_connections_that_drip_or_say_nothing_are_dropped(tmp_path: Path) -> None:
    async with federation(tmp_path, 0, 1) as peers:
        streams = [await trio.open_tcp_stream("127.0.0.1", port_of(peers[0])) for _ in range(3)]
        whole = b"\x13/multistream/1.0.0\n\x07/noise\n" + struct.pack(">H", 32) + bytes(32)
        with trio.move_on_after(15) as waited:
            async with trio.open_nursery() as nursery:
                for stream, data in zip(streams, [b"", b"\xff" * 40, whole], strict=True):
                    nursery.start_soon(_drip, stream, data)
        assert not waited.cancelled_caught
        await assert_works(peers, b"unharmed")


async def _drip(stream: trio.SocketStream, data: bytes) -> None:
    """One byte now and then, until the other side has had enough."""
    async with stream, trio.open_nursery() as nursery:

        async def say() -> None:
            try:
                for byte in data:
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(0.5)
            except trio.BrokenResourceError:
                pass

        nursery.start_soon(say)
        try:
            while await stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        nursery.cancel_scope.cancel()


async def test_random_bytes_harm_nobody(tmp_path: Path) -> None:
    rng = random.Random(5)
    async with federation(tmp_path, 0, 1) as peers:
        for size in [1, 20, 100, 5000, 200_000]:
            with socket.create_connection(("127.0.0.1", port_of(peers[0])), timeout=5) as raw:
                raw.setblocking(False)
                with suppress(OSError):  # its buffer is full, or it has hung up
                    raw.send(b"\x13/multistream/1.0.0\n" * rng.randint(0, 1) + rng.randbytes(size))
                await trio.lowlevel.checkpoint()
        await assert_works(peers, b"unharmed")


async def test_a_member_that_pushes_beyond_its_window_loses_its_connection(tmp_path: Path) -> None:
    async with (
        running(2, tmp_path) as other,
        running(1, tmp_path, listens=False) as victim,
        attacker(SEEDS[0]) as host,
    ):
        target = await dial(host, victim.network)
        stream = await host.new_stream(target, [PROTOCOLS["control"]])
        muxed = stream.muxed_stream  # type: ignore[attr-defined]
        assert isinstance(muxed, YamuxStream)
        muxed.send_window = 1 << 30
        piece, sent = encode_frame(bytes(MAX_MESSAGE)), 0
        with suppress(Exception):  # the connection is gone
            with trio.fail_after(20):
                while True:
                    await stream.write(piece)
                    sent += len(piece)
        assert victim.network.stats.refused["bytes beyond the window"] == 1
        assert sent < EVENTS * MAX_MESSAGE + QUEUE_BYTES + 2 * libp2p_muxer.MAX_WINDOW
        await until(lambda: 2 in victim.network.peers() and 1 in other.network.peers())


async def test_windows_have_a_bound_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libp2p_muxer, "MAX_UNREAD", 600_000)
    async with federation(tmp_path, 1, 2) as peers, attacker(SEEDS[0]) as host:
        ref = peers[0].hold(tmp_path / "held", bytes(4 * blob.CHUNK))
        target = await dial(host, peers[0].network)
        ask = bulk.encode_request(bulk.ChunksRequest(ref.root, 0, 4))

        async def ask_and_push() -> None:
            """Who waits for us to take an answer reads no further requests."""
            stream = await host.new_stream(target, [PROTOCOLS["bulk"]])
            await stream.write(ask)
            await stream.write(bytes(250_000))

        with suppress(Exception):  # the connection is gone
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(ask_and_push)
        await until(lambda: peers[0].network.stats.refused["bytes beyond the window"])
        await assert_works(peers, b"unharmed")


async def test_who_breaks_rules_is_let_in_no_more_for_a_while(tmp_path: Path) -> None:
    async with federation(tmp_path, 1, 2) as peers, attacker(SEEDS[0]) as host:
        victim = peers[0].network
        target = await dial(host, victim)
        for _ in range(FAULTS + 1):
            await garbage(host, target, PROTOCOLS["bulk"], b"\xff" * 100)
        await until(lambda: [one.member for one in victim.shut_out()] == [0])
        swarm = host.get_network()
        await until(lambda: not swarm.connections)
        with suppress(Exception):  # where the dialler notices is up to timing
            await host.new_stream(await dial(host, victim), [PROTOCOLS["bulk"]])
            pytest.fail("a member that is shut out got a stream")
        await until(lambda: victim.stats.refused["member that is shut out"])
        await assert_works(peers, b"unharmed")


async def test_a_flood_of_ten_thousand_announcements_stops_at_the_first_node(tmp_path: Path) -> None:
    async with federation(tmp_path, 1, 2) as peers, attacker(SEEDS[0]) as host:
        target = await dial(host, peers[0].network)
        flood = b"".join(announcement(SEEDS[0], b"news", number) for number in range(2000)) * 5
        stream = await host.new_stream(target, [MESH])
        with suppress(Exception):  # reset, as it should be
            await stream.write(flood)
        await until(lambda: peers[0].network.shut_out())
        assert peers[0].network.shut_out()[0].reason == "flood of announcements"
        await assert_works(peers, b"unharmed")
        allowed = Allowance().announcements
        for peer in peers:
            assert len(peer.messages("gossip")) < allowed.burst + 30 * allowed.rate


async def test_a_member_that_takes_nothing_is_let_go_and_costs_a_queue(tmp_path: Path) -> None:
    async with federation(tmp_path, 1, 2) as peers, attacker(SEEDS[0]) as host:
        target = await dial(host, peers[0].network)
        stream = await host.new_stream(target, [PROTOCOLS["control"]])
        await stream.write(encode_frame(b""))
        await until(lambda: 0 in peers[0].network.peers())
        for _ in range(40):
            await peers[0].network.send(0, bytes(MAX_MESSAGE))
        await until(lambda: 0 not in peers[0].network.peers())
        assert peers[0].network.shut_out() == []  # its link may be to blame
        await assert_works(peers, b"unharmed")


async def test_only_blobs_are_served_whatever_a_root_spells(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "home" / "archive")
    held = archive.add_bytes(b"a blob")
    secret = tmp_path / "home" / "keys" / "identity.key"
    secret.parent.mkdir()
    secret.write_bytes(b"secret")
    roots = [
        blob.ref_of(b"secret").root,
        b"../../keys/identity.key".ljust(32, b"\0"),
        b"/etc/passwd".ljust(32, b"\0"),
        bytes(32),
    ]
    async with running(0, tmp_path, archive.path), attacker(SEEDS[1]) as host:
        address = (tmp_path / "0").read_text().rpartition("/p2p/")
        swarm = host.get_network()
        assert isinstance(swarm, Swarm)
        await swarm.dial_addr(Multiaddr(address[0]), ID.from_string(address[2]))
        stream = await host.new_stream(ID.from_string(address[2]), [PROTOCOLS["bulk"]])
        for root in [*roots, held.root]:
            await stream.write(bulk.encode_request(bulk.ChunksRequest(root, 0, 1)))
        answers = b""
        wanted = bulk.encode_answer(bulk.NOT_HELD) * len(roots) + bulk.encode_answer(6) + b"a blob"
        with trio.fail_after(5):
            while len(answers) < len(wanted):
                answers += await stream.read(100)
        assert answers == wanted
