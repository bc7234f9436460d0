"""Two members behind NAT, two that can be called: real daemons in network namespaces, and a relay between them."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import nat
import pytest
from daemons import Daemons, founded

from folkmoot.node.charter_files import load_member
from folkmoot.node.config import load_config, render_config
from folkmoot.testnet.home import Plan
from folkmoot.testnet.processes import Child

pytestmark = [
    pytest.mark.integration,
    pytest.mark.nightly,
    pytest.mark.skipif(bool(nat.problem()), reason=nat.problem()),
]

PUBLIC, PRIVATE = ("alice", "dave"), ("bob", "carol")


def set_network(federation: Daemons, name: str, address: str, bootstrap: tuple[str, ...]) -> None:
    home = federation.node(name)
    config = load_config(home)
    network = msgspec.structs.replace(
        config.network,
        listen=f"/ip4/{address}/tcp/4001",
        bootstrap=bootstrap,
        relay=name == "alice",
        via="auto" if name in PRIVATE else (),
    )
    home.config.write_text(render_config(msgspec.structs.replace(config, network=network)))


def start(federation: Daemons, name: str, space: str) -> None:
    home = federation.node(name)
    command = [sys.executable, "-m", "folkmoot.node.cli", "run", "--home", str(home.path)]
    child = Child.start(
        name,
        nat.within(space, command),
        home.logs / "output.log",
        environment=federation.environment(name),
    )
    federation.adopt(child)
    federation._nodes[name] = child


def peers(federation: Daemons, name: str) -> set[str]:
    status = federation.status(name)
    return set(status.peers) if status is not None else set()


def took_part(federation: Daemons, name: str, after: int) -> set[str]:
    """In the largest round after that one."""
    status = federation.status(name)
    rows = status.history if status is not None else []
    return max((set(row.participants) for row in rows if row.round > after), key=len, default=set())


def offer_chain(federation: Daemons, path: Path, spaces: list[str]) -> None:
    """The chain's loopback port, in every namespace."""
    port = urlsplit(federation.testnet.rpc).port
    assert port is not None
    for number, space in enumerate([None, *spaces]):
        command = nat.forwarders(space, str(path / "chain"), port)
        federation.adopt(Child.start(f"forward-{number}", command, path / f"forward-{number}.log"))
    federation.wait((path / "chain").exists)


def test_members_behind_nat_meet_through_a_relay_and_take_part(tmp_path: Path) -> None:
    plan = Plan(nodes=4, rounds=200, example="digits", mode="secure", max_ahead=20)
    with founded(tmp_path / "testnet", plan) as federation, nat.hosts(PUBLIC, PRIVATE) as hosts:
        offer_chain(federation, tmp_path, [space for space, _ in hosts.values()])
        peer = load_member(federation.node("alice")).peer_id
        relay = f"/ip4/{hosts['alice'][1]}/tcp/4001/p2p/{peer}"
        for name, (space, address) in hosts.items():
            set_network(federation, name, address, () if name == "alice" else (relay,))
            start(federation, name, space)
        everybody = set(plan.names)
        federation.wait(lambda: all(peers(federation, name) == everybody - {name} for name in plan.names))
        done = federation.rounds("bob")
        federation.wait(lambda: took_part(federation, "bob", done) == everybody)
        knock = "import socket; socket.create_connection(('198.51.100.3', 4001), 2)"
        refused = subprocess.run(
            nat.within(hosts["alice"][0], [sys.executable, "-c", knock]), capture_output=True, check=False
        )
        assert refused.returncode != 0  # nobody can call bob
