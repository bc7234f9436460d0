"""Attack a node of a live federation, and count rounds: `python scripts/bench/hostile.py [SECONDS [TRAITOR]]`.

Five members, of which the TRAITOR's (erin's) daemon is killed; the other four are all needed. Outsiders know bob's
address, and the traitor's keys serve for what only a member can try. Each attack is kept up for SECONDS; between any
two nobody attacks for as long. Before each row bob is killed and started again: he knows nothing of what the traitor
did earlier, and the row shows this attack, and not what shutting out leaves of it. Prints a table: bob's memory before,
at most and after (RssAnon + RssShmem, MB), the rounds completed, and what he refused.
"""

import contextlib
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio
from churn import count
from faults import Federation, wait
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils.varint import encode_varint_prefixed
from multiaddr import Multiaddr

from folkmoot.node.keys import load_keys
from folkmoot.node.network.control import encode_frame
from folkmoot.node.network.libp2p_gossip import MESH, TOPIC
from folkmoot.node.network.libp2p_host import close_connections, make_host
from folkmoot.node.network.libp2p_transport import PROTOCOLS
from folkmoot.node.network.port import MAX_MESSAGE, Stats
from folkmoot.node.network.refusals import Refusals
from folkmoot.node.status_file import read_status, rss_mb
from folkmoot.protocol.messages import Hello, encode
from folkmoot.testnet import control
from folkmoot.testnet.home import TestnetHome

VICTIM = "bob"
MULTISTREAM = b"\x13/multistream/1.0.0\n"
OVERLONG = struct.pack(">I", 2**32 - 1) + bytes(1000)


class Target:
    """Where the victim listens, and the keys of the member that has turned."""

    def __init__(self, federation: Federation, traitor: str) -> None:
        home = federation.home
        address, _, peer = home.node(VICTIM).address.read_text().split()[0].rpartition("/p2p/")
        self.address, self.peer = Multiaddr(address), ID.from_string(peer)
        self.port = int(address.split("/")[4])
        passphrase = home.passphrase(traitor).read_text().strip()
        self.identity = bytes(load_keys(home.node(traitor).keys, passphrase).identity)
        status = read_status(home.node(VICTIM).status)
        assert status is not None
        self.pid = status.pid

    @asynccontextmanager
    async def connected(self, identity: bytes) -> AsyncIterator[BasicHost]:
        """A bare host, under any identity, with a connection to the victim if it gets one."""
        stats = Stats()
        host = make_host(identity, lambda _: True, stats, Refusals(stats))
        async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
            swarm = host.get_network()
            assert isinstance(swarm, Swarm)
            try:
                with contextlib.suppress(Exception):
                    await swarm.dial_addr(self.address, self.peer)
                yield host
            finally:
                await close_connections(swarm, swarm.connections)


Attack = Callable[[Target], Awaitable[None]]


# --- outsiders --------------------------------------------------------------------------------------------------------


async def idle_crowd(target: Target) -> None:
    """1,000 connections, opened again when they are closed."""
    await _crowd(target, 1000, b"")


async def dripping_crowd(target: Target) -> None:
    """200 connections that say a byte of their greeting each second."""
    await _crowd(target, 200, MULTISTREAM + b"\x07/noise\n")


async def _crowd(target: Target, size: int, greeting: bytes) -> None:
    async def one() -> None:
        while True:
            with contextlib.suppress(OSError, trio.BrokenResourceError):
                async with await trio.open_tcp_stream("127.0.0.1", target.port) as stream:
                    for at in range(len(greeting)):
                        await stream.send_all(greeting[at : at + 1])
                        await trio.sleep(1)
                    while await stream.receive_some():
                        pass
            await trio.sleep(0.5)

    async with trio.open_nursery() as nursery:
        for _ in range(size):
            nursery.start_soon(one)


async def random_bytes(target: Target) -> None:
    """5 kB of noise on one connection after the other, every second one after a right greeting."""
    rng = random.Random(0)
    while True:
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            async with await trio.open_tcp_stream("127.0.0.1", target.port) as stream:
                await stream.send_all(MULTISTREAM * rng.randint(0, 1) + rng.randbytes(5000))
        await trio.sleep(0.01)


async def strangers(target: Target) -> None:
    """Whole handshakes by identities that are not in the charter, one after the other."""
    for number in range(1, 1 << 20):
        async with target.connected(struct.pack(">I", number) * 8):
            pass


# --- a member ---------------------------------------------------------------------------------------------------------


def by_member(say: Callable[[BasicHost, Target], Awaitable[None]]) -> Attack:
    """Again and again, with a new connection each time."""

    async def attack(target: Target) -> None:
        while True:
            async with target.connected(target.identity) as host:
                with contextlib.suppress(Exception):  # reset, or not let in at all
                    await say(host, target)
            await trio.sleep(0.2)

    attack.__doc__ = say.__doc__
    return attack


async def _open(host: BasicHost, target: Target, protocol: TProtocol) -> INetStream:
    return await host.new_stream(target.peer, [protocol])


async def garbage(host: BasicHost, target: Target) -> None:
    """Undecodable frames on control, bulk and gossip streams."""
    for protocol in (PROTOCOLS["bulk"], MESH, PROTOCOLS["control"]):
        stream = await _open(host, target, protocol)
        for _ in range(100):
            await stream.write(
                encode_frame(b"\xff" * 50) if protocol == PROTOCOLS["control"] else b"\xff" * 51
            )


async def overlong(host: BasicHost, target: Target) -> None:
    """A control frame that claims 4 GiB."""
    await (await _open(host, target, PROTOCOLS["control"])).write(OVERLONG)
    await trio.sleep(1)


async def announcements(host: BasicHost, target: Target) -> None:
    """10,000 announcements, each signed, at once."""
    keys = create_new_key_pair(target.identity)
    stream = await _open(host, target, MESH)
    for number in range(10_000):
        message = rpc_pb2.Message(data=os.urandom(100), topicIDs=[TOPIC], seqno=number.to_bytes(8, "big"))
        message.from_id = ID.from_pubkey(keys.public_key).to_bytes()
        message.signature = keys.private_key.sign(b"libp2p-pubsub:" + message.SerializeToString())
        await stream.write(encode_varint_prefixed(rpc_pb2.RPC(publish=[message]).SerializeToString()))


async def messages(host: BasicHost, target: Target) -> None:
    """HELLOs without end, each of which asks for all that the asker lacks."""
    stream = await _open(host, target, PROTOCOLS["control"])
    piece = encode_frame(encode(Hello(1, 0, 0))) * 1000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read_all, stream)
        while True:
            await stream.write(piece)


async def _read_all(stream: INetStream) -> None:
    while await stream.read(1 << 16):
        pass


async def beyond_the_window(host: BasicHost, target: Target) -> None:
    """Largest control messages, whatever the window."""
    stream = await _open(host, target, PROTOCOLS["control"])
    stream.muxed_stream.send_window = 1 << 40  # type: ignore[attr-defined]
    while True:
        await stream.write(encode_frame(bytes(MAX_MESSAGE)))


async def takes_nothing(host: BasicHost, target: Target) -> None:
    """32 bulk streams that ask and do not read, and a control stream that is not read either."""
    for _ in range(32):
        await (await _open(host, target, PROTOCOLS["bulk"])).write(bytes(41) * 1000)
    control_stream = await _open(host, target, PROTOCOLS["control"])
    while True:
        await control_stream.write(encode_frame(b""))
        await trio.sleep(1)


ATTACKS: dict[str, Attack] = {
    "1,000 idle connections": idle_crowd,
    "200 connections, a byte a second": dripping_crowd,
    "random bytes, a connection each 10 ms": random_bytes,
    "strangers' handshakes": strangers,
    "member: undecodable frames": by_member(garbage),
    "member: frames that claim 4 GiB": by_member(overlong),
    "member: 10,000 announcements": by_member(announcements),
    "member: HELLOs without end": by_member(messages),
    "member: beyond its window": by_member(beyond_the_window),
    "member: asks and takes nothing": by_member(takes_nothing),
}


# --- measuring --------------------------------------------------------------------------------------------------------


@contextmanager
def peak(pid: int) -> Iterator[list[float]]:
    """Samples of a process's memory while the block runs."""
    samples, done = [rss_mb(pid)], threading.Event()

    def sample() -> None:
        while not done.wait(0.05):
            samples.append(rss_mb(pid))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def attacked(federation: Federation, target: Target, attack: Attack, seconds: float) -> int:
    """Rounds completed in so many seconds under attack."""

    async def main() -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(attack, target)
            rounds = await trio.to_thread.run_sync(count, federation, seconds)
            nursery.cancel_scope.cancel()
        return rounds

    return trio.run(main)


def renewed(federation: Federation, traitor: str) -> Target:
    """The victim, started again and taking part in rounds with the others."""
    control.kill(federation.home, VICTIM)
    control.restart(federation.home, VICTIM)
    others = set(federation.names) - {traitor}
    goal = federation.furthest() + 3

    def goes_on() -> bool:
        last = federation.done(VICTIM)[-1]
        return last.round >= goal and last.participants >= others

    wait(goes_on, poll=0.5)
    return Target(federation, traitor)


def refusals(federation: Federation) -> str:
    """What the victim counted, and whom it shuts out now."""
    status = read_status(federation.home.node(VICTIM).status)
    assert status is not None
    counted = ", ".join(f"{count} x {kind}" for kind, count in status.refused.items())
    shut_out = "".join(f"; shut out: {one}" for one in status.shut_out)
    return f"{counted or 'nothing'}{shut_out}"


def main(seconds: float, traitor: str) -> None:
    """Start, attack, print, stop."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        testnet = [sys.executable, "-m", "folkmoot.node.cli", "testnet"]
        options = ["--nodes", "5", "--rounds", "100000", "--mode", "open", "--home", str(home)]
        try:
            subprocess.run([*testnet, "up", *options], check=True, stdout=subprocess.DEVNULL)
            federation = Federation(TestnetHome(home))
            federation.settle()
            control.kill(federation.home, traitor)
            time.sleep(5)
            columns = (
                f"MB before | at most | 10 s after | rounds in {seconds:.0f} s | undisturbed, just before"
            )
            print(f"| tried on {VICTIM} | {columns} | refused |")
            print("|---|---|---|---|---|---|---|", flush=True)
            for name, attack in ATTACKS.items():
                target = renewed(federation, traitor)
                undisturbed = count(federation, seconds)
                before = rss_mb(target.pid)
                with peak(target.pid) as samples:
                    rounds = attacked(federation, target, attack, seconds)
                time.sleep(10)
                after = rss_mb(target.pid)
                memory = f"{before:.0f} | {max(samples):.0f} | {after:.0f}"
                print(
                    f"| {name} | {memory} | {rounds} | {undisturbed} | {refusals(federation)} |", flush=True
                )
        finally:
            subprocess.run([*testnet, "down", "--home", str(home)], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    words = sys.argv[1:] + ["15", "erin"][len(sys.argv) - 1 :]
    main(float(words[0]), words[1])
