"""What libp2p leaves of a slow line: `.venv/bin/python scripts/bench/link.py [MB] [DELAY_MS] [MBIT] [TIMES]`.

Two processes pull a blob of MB (10^6 bytes) from each other, as nodes do in a round; then as many bytes cross over
plain TCP. Both go through the testnet's relay, which adds DELAY_MS to each way between the two and gives each MBIT.
"""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio

from folkmoot.node.charter_files import load_member, write_member
from folkmoot.node.keys import IDENTITY, create_keys
from folkmoot.node.network.libp2p_transport import Libp2pSettings, open_libp2p
from folkmoot.node.passphrase import create_passphrase_file
from folkmoot.protocol import blob
from folkmoot.protocol.charter_tables import Member
from folkmoot.testnet import bench_links, bench_tcp
from folkmoot.testnet.bench_links import Lines
from folkmoot.testnet.home import TestnetHome
from folkmoot.testnet.processes import stop_children

NAMES = ["one", "two"]


def content(member: int, size: int) -> bytes:
    """The blob that a member has."""
    return random.Random(member).randbytes(size)


async def serve_and_pull(member: int, home: TestnetHome, size: int) -> None:
    """One of the processes: say when connected, pull when told, say how long it took."""
    other, place = 1 - member, home.node(NAMES[member])
    held, got = place.path / "held", place.path / "got"
    mine, wanted = (blob.ref_of(content(one, size)) for one in (member, other))
    held.write_bytes(content(member, size))
    peer_ids = {index: load_member(home.node(name)).peer_id for index, name in enumerate(NAMES)}
    seed = bytes.fromhex((place.keys / IDENTITY).read_text())
    settings = Libp2pSettings(member, seed, peer_ids, bootstrap=(str(home.relay_addresses(NAMES[member])),))
    blobs = {mine.root: held}
    async with open_libp2p(settings, blobs.get, lambda *_: None, random.Random(member)) as network:
        place.address.write_text(network.addresses[0])
        while other not in network.peers():  # noqa: ASYNC110 - the network has no such event
            await trio.sleep(0.05)
        print("ready", flush=True)
        while await trio.to_thread.run_sync(sys.stdin.readline):
            got.unlink(missing_ok=True)
            began = time.monotonic()
            await network.fetch(wanted, other, got)
            print(time.monotonic() - began, flush=True)


def found(home: TestnetHome, name: str) -> None:
    """As much of a node's home as its address needs."""
    node = home.node(name)
    node.path.mkdir(parents=True)
    keys = create_keys(node.keys, create_passphrase_file(home.passphrase(name)), cheap=True)
    member = Member(
        name=name,
        peer_id=keys.peer_id,
        identity_key=keys.identity_key,
        sealing_key=keys.sealing_key,
        audit_key=keys.audit_key,
        attester=False,
    )
    write_member(node, member)


def pull(workers: "list[subprocess.Popen[str]]") -> float:
    """Both at once; the seconds of the slower one."""
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return max(float(worker.stdout.readline()) for worker in workers if worker.stdout is not None)


def main(size: int, lines: Lines, times: int) -> None:
    """Start, take turns, print, stop."""
    with tempfile.TemporaryDirectory() as folder:
        home = TestnetHome(Path(folder))
        home.logs.mkdir()
        for name in NAMES:
            found(home, name)
        relay = bench_links.start(home, NAMES, lines)
        command = [sys.executable, __file__, "node", folder, str(size)]
        workers = [
            subprocess.Popen([*command, str(index)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for index in range(2)
        ]
        try:
            for worker in workers:
                assert worker.stdout is not None
                worker.stdout.readline()
            ours, tcp = [], []
            for _ in range(times):
                ours.append(pull(workers))
                tcp.append(bench_tcp.measure(2, size, lambda ports: bench_links.reroute(home, NAMES, ports)))
                print(f"{ours[-1]:.2f} s, plain TCP {tcp[-1]:.2f} s", flush=True)
            share = statistics.median(tcp) / statistics.median(ours)
            print(
                f"median {statistics.median(ours):.2f} s, plain TCP {statistics.median(tcp):.2f} s: {share:.0%}"
            )
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
            stop_children([relay])


if __name__ == "__main__":
    if sys.argv[1:2] == ["node"]:
        os.umask(0o077)
        trio.run(serve_and_pull, int(sys.argv[4]), TestnetHome(Path(sys.argv[2])), int(sys.argv[3]))
    else:
        words = sys.argv[1:] + ["100", "100", "100", "3"][len(sys.argv) - 1 :]
        mb, delay, mbit, times = map(float, words)
        main(int(mb * 1e6), Lines(delay=delay / 2000, rate=mbit * 1e6 / 8), int(times))
