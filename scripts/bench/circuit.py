"""How fast a blob comes from a member that is reached directly, and from one that is reached through a relay.

    .venv/bin/python scripts/bench/circuit.py [MEGABYTES]

Three processes on loopback: a relay, a member that holds a blob, and one that fetches it.
"""

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio
from nacl.signing import SigningKey

from folkmoot.node.keys import peer_id
from folkmoot.node.network.directory import Directory
from folkmoot.node.network.libp2p_transport import Libp2pSettings, open_libp2p
from folkmoot.node.network.peer_network import PeerNetwork
from folkmoot.protocol.blob import BlobRef, ref_of

RELAY, HOLDER, FETCHER = range(3)
KEYS = [SigningKey(bytes([member + 1]) * 32) for member in range(3)]
PEERS = {member: peer_id(bytes(key.verify_key)) for member, key in enumerate(KEYS)}


async def live(member: int, home: Path, circuit: bool, ref: BlobRef) -> None:
    """One process: a member's network, until it is killed or has fetched."""
    identities = {bytes(key.verify_key): PEERS[index] for index, key in enumerate(KEYS)}
    directory = Directory(bytes(32), KEYS[member], identities)
    settings = Libp2pSettings(
        member,
        bytes(KEYS[member]),
        PEERS,
        bootstrap=(str(home / "relay"),),
        directory=directory,
        relay=member == RELAY,
        via=(PEERS[RELAY],) if circuit and member != RELAY else (),
    )
    held = {ref.root: home / "blob"} if member == HOLDER else {}
    async with (
        open_libp2p(settings, held.get, lambda *_: None, random.Random(member)) as network,
        trio.open_nursery() as nursery,
    ):
        if member == RELAY:
            (home / "relay").write_text(network.addresses[0])
        nursery.start_soon(drain, network)
        if member != FETCHER:
            await trio.sleep_forever()
        await fetch(network, ref, home)
        nursery.cancel_scope.cancel()


async def drain(network: PeerNetwork) -> None:
    """Nobody cares for messages here."""
    async for _ in network.events:
        pass


async def fetch(network: PeerNetwork, ref: BlobRef, home: Path) -> None:
    """Three times; prints the speeds in 10^6 bytes a second."""
    with trio.fail_after(60):
        while HOLDER not in network.peers():  # noqa: ASYNC110 - there is no event for it
            await trio.sleep(0.05)
    for attempt in range(3):
        began = time.monotonic()
        await network.fetch(ref, HOLDER, home / f"fetched-{attempt}")
        print(f"{ref.size / 1e6 / (time.monotonic() - began):.1f}", end=" MB/s  ", flush=True)


def measure(circuit: bool, size: int) -> None:
    """One line of figures."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "blob").write_bytes(data := random.Random(0).randbytes(size))
        ref = ref_of(data)
        print("through a relay" if circuit else "directly", end=": ", flush=True)
        command = [sys.executable, __file__, str(home), str(int(circuit)), ref.root.hex(), str(size)]
        others = [subprocess.Popen([*command, str(member)]) for member in (RELAY, HOLDER)]
        try:
            subprocess.run([*command, str(FETCHER)], check=True)
        finally:
            for one in others:
                one.kill()
                one.wait()
        print()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        path, is_circuit, root, length, who = sys.argv[1:]
        trio.run(live, int(who), Path(path), is_circuit == "1", BlobRef(bytes.fromhex(root), int(length)))
    else:
        megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 64
        for is_relayed in (False, True):
            measure(is_relayed, megabytes * 1_000_000)
