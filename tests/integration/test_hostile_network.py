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
from libp2p.stream_muxer.yamux.yamux import YamuxStream
from libp2p_peers import (
    SEEDS,
    Peer,
    assert_works,
    attacker,
    dial,
    federation,
    running,
    until,
)

from folkmoot.node.network import bulk, gate, libp2p_muxer
from folkmoot.node.network.control import QUEUE_BYTES, encode_frame
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


@pytest.mark.parametrize("greeting", [b"", b"\x13/multistream/1.0.0\n"])
async def test_a_member_gets_in_while_a_thousand_connections_stand_at_the_door(
    tmp_path: Path, crowd: Callable[[int, int, bytes], "subprocess.Popen[bytes]"], greeting: bytes
) -> None:
    async with running(0, tmp_path) as victim:
        process = crowd(port_of(victim), 1000, greeting)
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
        assert refused["connection without a handshake"] >= 1000 - 2 * gate.MOST


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
