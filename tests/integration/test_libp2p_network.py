"""The network over real libp2p hosts on loopback: what works, what breaks, and what hostile peers try."""

import os
import random
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from libp2p.abc import INetStream
from libp2p_peers import (
    PEER_IDS,
    SEEDS,
    STRANGER,
    Peer,
    announcement,
    assert_works,
    attacker,
    dial,
    federation,
    garbage,
    malformed_key,
    running,
    until,
)

from folkmoot.node.network import libp2p_host, links
from folkmoot.node.network.bulk import ANSWER_SIZE, REQUEST_SIZE, encode_answer
from folkmoot.node.network.libp2p_gossip import MESH
from folkmoot.node.network.libp2p_transport import PROTOCOLS, Libp2pSettings, open_libp2p
from folkmoot.node.network.port import (
    MAX_ANNOUNCEMENT,
    FetchError,
    NetworkError,
    PeerDown,
    PeerHeard,
    PeerSilent,
    PeerUp,
)
from folkmoot.protocol import blob

pytestmark = pytest.mark.integration

CHILD = """
import random, sys
from pathlib import Path
import trio
from folkmoot.node.network.libp2p_transport import Libp2pSettings, open_libp2p
member, seed, home, *peer_ids = sys.argv[1:]
files = tuple(str(Path(home, str(other))) for other in range(len(peer_ids)))
settings = Libp2pSettings(int(member), bytes.fromhex(seed), dict(enumerate(peer_ids)), bootstrap=files)
held = {bytes.fromhex(path.name): path for path in Path(home, "held").glob("*")}
async def main():
    async with open_libp2p(settings, held.get, lambda *_: None, random.Random(0)) as network:
        Path(home, member).write_text(network.addresses[0])
        async for event in network.events:
            pass
trio.run(main)
"""


async def test_three_peers_exchange_messages_announcements_and_blobs(tmp_path: Path) -> None:
    async with federation(tmp_path, 0, 1, 2) as peers:
        for sender in range(3):
            for target in {0, 1, 2} - {sender}:
                for number in range(50):
                    await peers[sender].network.send(target, b"%d" % number)
        for receiver in range(3):
            for sender in {0, 1, 2} - {receiver}:
                expected = [(sender, b"%d" % number) for number in range(50)]
                await until(partial(_has_received, peers[receiver], sender, expected))
        for sender in range(3):
            await peers[sender].network.publish(b"by %d" % sender)
        await until(
            lambda: all(
                sorted(peers[m].messages("gossip")) == [(s, b"by %d" % s) for s in range(3) if s != m]
                for m in range(3)
            )
        )
        for size in [0, 1, blob.CHUNK, 5 * blob.CHUNK + 7]:
            data = random.Random(size).randbytes(size)
            ref = peers[2].hold(tmp_path / "held", data)
            await peers[0].network.fetch(ref, 2, tmp_path / "got")
            assert (tmp_path / "got").read_bytes() == data
        stats = peers[0].network.stats
        assert stats.bytes_received > 6 * blob.CHUNK
        assert not stats.refused and not stats.dropped


async def test_the_larger_id_is_up_as_soon_as_it_starts_though_the_smaller_one_calls_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "FIRST_DELAY_SECONDS", 60.0)
    monkeypatch.setattr(links, "LAST_DELAY_SECONDS", 60.0)
    async with running(0, tmp_path) as smaller:
        await trio.testing.wait_all_tasks_blocked(0.2)  # it has called, in vain
        async with running(1, tmp_path) as larger:
            await until(lambda: smaller.network.peers() == {1} and larger.network.peers() == {0}, seconds=5)


async def test_a_connection_that_comes_in_ends_a_dial_that_hangs(tmp_path: Path) -> None:
    with socket.socket() as deaf:  # its queue is full: a dial hangs, as to a machine that is still starting
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        crowd = [socket.socket() for _ in range(3)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        place = f"/ip4/127.0.0.1/tcp/{deaf.getsockname()[1]}/p2p/{PEER_IDS[1]}"
        (tmp_path / "1").write_text(place)
        async with running(0, tmp_path) as smaller:
            await trio.testing.wait_all_tasks_blocked(0.2)  # it hangs
            async with running(1, tmp_path) as larger:
                await until(
                    lambda: smaller.network.peers() == {1} and larger.network.peers() == {0}, seconds=3
                )
        for one in crowd:
            one.close()


async def test_a_member_is_found_by_a_name_that_this_system_knows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(1, tmp_path) as callee:
        (tmp_path / "1").write_text(
            "\n".join(
                address.replace("/ip4/127.0.0.1/", f"/dns4/{name}/")
                for name in ("nobody.invalid", "x" * 80, "localhost")
                for address in callee.network.addresses
            )
        )
        async with running(0, tmp_path) as caller:
            await until(lambda: 1 in caller.network.peers())
    told = [record.getMessage() for record in caplog.records]
    complaints = [text for text in told if "cannot be resolved" in text]
    assert ["/dns4/nobody.invalid/" in complaints[0], "/dns4/xxx" in complaints[1]] == [True, True]


def _has_received(peer: Peer, member: int, expected: list[tuple[int, bytes]]) -> bool:
    return [message for message in peer.messages("control") if message[0] == member] == expected


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts member 2 as a process."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        arguments = ["2", SEEDS[2].hex(), str(tmp_path), *PEER_IDS.values()]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        started.append(subprocess.Popen([sys.executable, "-c", CHILD, *arguments], env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


async def test_a_blob_whose_sender_dies_in_the_middle_is_completed_by_another_member(
    tmp_path: Path, child: Callable[[], subprocess.Popen[bytes]]
) -> None:
    data = random.Random(3).randbytes(24 * blob.CHUNK)
    ref = blob.ref_of(data)
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / ref.root.hex()).write_bytes(data)
    async with federation(tmp_path, 0, 1) as (asker, second):
        sender = child()
        await until(lambda: 2 in asker.network.peers())
        kept = 0

        def cut(done: int, _: int) -> None:
            nonlocal kept
            kept = done
            if done >= 8 * blob.CHUNK:
                sender.kill()

        with pytest.raises(FetchError, match="unreachable"):
            await asker.network.fetch(ref, 2, tmp_path / "got", cut)
        second.hold(tmp_path / "second", data)
        before = second.network.stats.bytes_sent
        await asker.network.fetch(ref, 1, tmp_path / "got")
        rest = len(data) - kept
        assert 0 < rest <= second.network.stats.bytes_sent - before < rest + blob.CHUNK
        assert (tmp_path / "got").read_bytes() == data


async def test_a_peer_that_is_killed_or_hangs_is_down_and_comes_back_on_another_port(
    tmp_path: Path, child: Callable[[], subprocess.Popen[bytes]]
) -> None:
    async with federation(tmp_path, 0, 1) as peers:
        first = child()
        await until(lambda: all(2 in peer.network.peers() for peer in peers))
        address = (tmp_path / "2").read_text()
        first.kill()
        first.wait()
        await until(lambda: all(2 not in peer.network.peers() for peer in peers), seconds=2)
        second = child()
        await until(lambda: all(2 in peer.network.peers() for peer in peers))
        assert (tmp_path / "2").read_text() != address
        second.send_signal(signal.SIGSTOP)
        await until(lambda: all(2 not in peer.network.peers() for peer in peers), seconds=8)
        assert [e.reason for e in peers[0].events if e == PeerDown(2, "silent for 5 s")]
        second.send_signal(signal.SIGCONT)
        await until(lambda: all(2 in peer.network.peers() for peer in peers))
        for peer in peers:
            about = [type(event) for event in peer.events if event.member == 2]
            assert PeerSilent in about
            assert [one for one in about if one not in (PeerSilent, PeerHeard)] == [
                PeerUp, PeerDown, PeerUp, PeerDown, PeerUp,
            ]  # fmt: skip
        await assert_works(peers, b"still")


HOSTILE = {
    "garbage on bulk": (PROTOCOLS["bulk"], b"\xff" * 100, "bulk request"),
    "undecodable pubsub frame": (MESH, bytes([50]) + b"\xff" * 50, "malformed stream"),
    "endless pubsub frame": (MESH, b"\xff" * 100, None),  # libp2p resets the stream itself
    "announcement with a malformed key": (MESH, malformed_key(), "announcement"),
    "announcement by a stranger": (MESH, announcement(STRANGER, b"x"), "announcement"),
    "too long an announcement": (MESH, announcement(SEEDS[0], bytes(MAX_ANNOUNCEMENT + 1)), "announcement"),
    # Last, because it alone gets a member shut out.
    "garbage on control": (PROTOCOLS["control"], b"\xff" * 100, "control stream"),
}


def _has_grown(refused: Counter[str], kind: str | None, before: int) -> bool:
    return kind is None or refused[kind] > before


async def test_a_hostile_member_is_counted_and_harms_nobody_else(tmp_path: Path) -> None:
    async with federation(tmp_path, 1, 2) as peers, attacker(SEEDS[0]) as host:
        refused = peers[0].network.stats.refused
        target = await dial(host, peers[0].network)
        for name, (protocol, data, kind) in HOSTILE.items():
            before = refused[kind] if kind else 0
            await garbage(host, target, protocol, data)
            with trio.move_on_after(2):
                await until(partial(_has_grown, refused, kind, before))
            assert kind is None or refused[kind] > before, (name, refused)
        await assert_works(peers, b"unharmed")


async def test_malformed_negotiation_and_floods_of_streams_harm_nobody_else(tmp_path: Path) -> None:
    async with federation(tmp_path, 0, 1) as peers, attacker(SEEDS[2]) as host:
        target = await dial(host, peers[0].network)
        swarm = host.get_network()
        for data in [
            b"\xff" * 64,
            b"\x13/multistream/1.0.0\n\x03\xff\xfe\n",
            b"\x13/multistream/1.0.0\n\x01\n",
        ]:
            stream = await swarm.new_stream(target)
            await stream.write(data)
        for _ in range(3 * libp2p_host.MAX_STREAMS_PER_PEER):
            await swarm.new_stream(target)
        refused = peers[0].network.stats.refused
        await until(lambda: refused["more streams than allowed"] >= libp2p_host.MAX_STREAMS_PER_PEER)
        await assert_works(peers, b"unharmed")


async def test_strangers_get_no_further_than_the_handshake(tmp_path: Path) -> None:
    async with federation(tmp_path, 0, 1) as peers, attacker(STRANGER) as host:
        for _ in range(3):
            try:
                target = await dial(host, peers[0].network)
                await host.new_stream(target, [PROTOCOLS["bulk"]])
            except Exception:  # where the dialler notices is up to timing
                continue
            pytest.fail("a stranger got a stream")
        await until(lambda: peers[0].network.stats.refused["stranger"] == 3)
        port = int(peers[0].network.addresses[0].split("/")[4])
        for data in [b"GET / HTTP/1.1\r\n\r\n", random.Random(1).randbytes(5000), b""]:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
                raw.sendall(data)
        await assert_works(peers, b"unharmed")


async def test_a_member_may_reconnect_more_often_than_there_are_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libp2p_host, "MAX_CONNECTIONS", 4)
    async with running(0, tmp_path) as peer, attacker(SEEDS[1]) as host:
        for _ in range(12):
            target = await dial(host, peer.network)
            await host.disconnect(target)
        target = await dial(host, peer.network)
        await host.new_stream(target, [PROTOCOLS["bulk"]])


async def test_an_error_of_our_own_while_serving_does_not_end_the_node(tmp_path: Path) -> None:
    def broken(root: bytes) -> Path | None:
        raise RuntimeError("a bug")

    async with running(0, tmp_path) as asker, running(1, tmp_path, broken) as server:
        await until(lambda: asker.network.peers() and server.network.peers())
        with pytest.raises(FetchError, match="unreachable"):
            await asker.network.fetch(blob.ref_of(b"x"), 1, tmp_path / "got")
        await assert_works([asker, server], b"unharmed")


Answer = Callable[[INetStream], Awaitable[None]]


async def _wrong_bytes(stream: INetStream) -> None:
    await stream.write(encode_answer(1000) + bytes(1000))


async def _short(stream: INetStream) -> None:
    await stream.write(encode_answer(1000) + bytes(10))
    await stream.close()


async def _wrong_length(stream: INetStream) -> None:
    await stream.write(encode_answer(2**40) + bytes(100_000))


async def _reset(stream: INetStream) -> None:
    await stream.reset()


@pytest.mark.parametrize(
    ("answer", "reason", "blame"),
    [
        (_wrong_bytes, "faulty", 2),
        (_wrong_length, "faulty", 2),
        (_short, "unreachable", None),
        (_reset, "unreachable", None),
    ],
)
async def test_what_a_lying_server_sends_is_never_kept(
    tmp_path: Path, answer: Answer, reason: str, blame: int | None
) -> None:
    async def serve(stream: INetStream) -> None:
        request = b""
        while len(request) < REQUEST_SIZE:
            request += await stream.read(REQUEST_SIZE - len(request))
        await answer(stream)

    data = random.Random(1).randbytes(1000)
    async with federation(tmp_path, 0, 1) as peers, attacker(SEEDS[2]) as host:
        host.set_stream_handler(PROTOCOLS["bulk"], serve)
        await dial(host, peers[0].network)
        with pytest.raises(FetchError) as caught:
            await peers[0].network.fetch(blob.ref_of(data), 2, tmp_path / "got")
        assert (caught.value.reason, caught.value.blame) == (reason, blame)
        assert not (tmp_path / "got").exists()
        assert ANSWER_SIZE == 8
        ref = peers[1].hold(tmp_path / "held", data)
        await peers[0].network.fetch(ref, 1, tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == data


async def test_a_port_in_use_a_foreign_key_and_a_bad_address_say_what_to_do(tmp_path: Path) -> None:
    async def start(**changes: object) -> None:
        settings = {"me": 0, "identity": SEEDS[0], "peer_ids": PEER_IDS} | changes
        async with open_libp2p(Libp2pSettings(**settings), lambda _: None, lambda *_: None, random.Random(0)):  # type: ignore[arg-type]
            pass

    async with running(1, tmp_path) as peer:
        port = peer.network.addresses[0].split("/")[4]
        with pytest.raises(NetworkError, match=f"port {port} on 127.0.0.1 is in use: stop"):
            await start(listen=f"/ip4/127.0.0.1/tcp/{port}")
    with pytest.raises(NetworkError, match="charter says that member 1"):
        await start(me=1)
    with pytest.raises(NetworkError, match="cannot listen on"):
        await start(listen="/ip4/192.0.2.1/tcp/0")
    for listen in ["localhost:80", "/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1"]:
        with pytest.raises(NetworkError, match="write /ip4/HOST/tcp/PORT"):
            await start(listen=listen)
