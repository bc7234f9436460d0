"""The relay as a process of its own, between plain sockets that stand for nodes."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from folkmoot.node.charter_files import write_member
from folkmoot.protocol.charter_tables import Member
from folkmoot.testnet import relay_link
from folkmoot.testnet.home import Plan, Testnet, TestnetHome, write_testnet
from folkmoot.testnet.processes import TestnetError, stop_children
from folkmoot.testnet.shaping import Heal, Partition, Slow

pytestmark = pytest.mark.integration

NAMES = ("alice", "bob", "carol")
LIMIT = 20.0
SILENCE = 0.3
"""Seconds without a byte that pass for silence."""


class Street:
    """Three houses whose doors are plain listening sockets, and the relay between them."""

    def __init__(self, home: TestnetHome) -> None:
        self.home = home
        self.doors = {name: socket.create_server(("127.0.0.1", 0)) for name in NAMES}
        for name, door in self.doors.items():
            door.settimeout(LIMIT)
            node = home.node(name)
            node.path.mkdir(parents=True)
            key = "ab" * 32
            write_member(
                node,
                Member(
                    name=name,
                    peer_id=f"peer-{name}",
                    identity_key=key,
                    sealing_key=key,
                    audit_key="0x" + "ab" * 20,
                ),
            )
            port = door.getsockname()[1]
            node.address.write_text(f"/ip4/127.0.0.1/tcp/{port}/p2p/peer-{name}\n")
        plan = Plan(nodes=len(NAMES), rounds=1, example="digits", links="shaped")
        write_testnet(home, Testnet(plan=plan))
        self.relay = relay_link.start_relay(home, plan.names)
        write_testnet(home, Testnet(plan=plan, processes=(self.relay.ref,)))
        relay_link.await_relay(home, self.relay)

    def close(self) -> None:
        assert stop_children([self.relay]) == []
        for door in self.doors.values():
            door.close()

    def call(self, source: str, target: str) -> socket.socket:
        """What `source` has in hand when it calls the address that it knows of `target`."""
        for line in self.home.relay_addresses(source).read_text().split():
            _, _, host, _, port, _, peer = line.split("/")
            if peer == f"peer-{target}":
                return socket.create_connection((host, int(port)), LIMIT)
        raise AssertionError(f"{source} knows no address of {target}")

    @contextmanager
    def connected(self, source: str, target: str) -> Iterator[tuple[socket.socket, socket.socket]]:
        with self.call(source, target) as near:
            far, _ = self.doors[target].accept()
            far.settimeout(LIMIT)
            with far:
                yield near, far

    def give(self, order: Heal | Partition | Slow) -> None:
        relay_link.give(self.home, order)


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    street = Street(TestnetHome(tmp_path / "testnet"))
    yield street
    street.close()


def read(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := end.recv(size - len(data))):
        data += piece
    return data


def is_silent(end: socket.socket) -> bool:
    end.settimeout(SILENCE)
    try:
        end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(LIMIT)
    return False


def is_closed(end: socket.socket) -> bool:
    """Whether the other side ends the connection (waits for it)."""
    try:
        return end.recv(1) == b""
    except ConnectionResetError:
        return True


def test_bytes_cross_both_ways_and_the_end_of_one_is_the_end_of_both(street: Street) -> None:
    data = bytes(range(256)) * 4096
    with street.connected("alice", "bob") as (near, far):
        near.sendall(data)
        assert read(far, len(data)) == data
        far.sendall(b"answer")
        assert read(near, 6) == b"answer"
        near.sendall(b"last")
        near.shutdown(socket.SHUT_WR)
        assert read(far, 4) == b"last" and is_closed(far)


def test_who_calls_a_node_that_is_away_is_hung_up_on(street: Street) -> None:
    street.home.node("bob").address.unlink()
    with street.call("alice", "bob") as near:
        assert is_closed(near)


def test_a_cut_closes_what_crosses_it_refuses_new_calls_and_leaves_the_others(street: Street) -> None:
    with (
        street.connected("alice", "bob") as (near, far),
        street.connected("carol", "alice") as (other, other_far),
    ):
        street.give(Partition((("alice",), ("bob",))))
        assert is_closed(near) and is_closed(far)
        with street.call("bob", "alice") as refused:
            assert is_closed(refused)
        other.sendall(b"hello")
        assert read(other_far, 5) == b"hello"
    street.give(Heal())
    with street.connected("bob", "alice") as (near, far):
        near.sendall(b"again")
        assert read(far, 5) == b"again"


def test_a_silent_partition_keeps_connections_and_holds_back_what_they_carry(street: Street) -> None:
    with street.connected("alice", "bob") as (near, far):
        street.give(Partition((("alice",), ("bob",)), silent=True))
        near.sendall(b"are you there?")
        assert is_silent(far)
        with street.call("alice", "bob") as second:
            second.sendall(b"hello?")
            assert is_silent(second)
            street.give(Heal())
            assert read(far, 14) == b"are you there?"
            answering, _ = street.doors["bob"].accept()
            with answering:
                assert read(answering, 6) == b"hello?"


def test_a_slow_line_delays_each_way(street: Street) -> None:
    street.give(Slow("bob", delay=0.2))
    with street.connected("alice", "bob") as (near, far):
        began = time.monotonic()
        near.sendall(b"ping")
        far.sendall(read(far, 4))
        assert read(near, 4) == b"ping"
        assert 0.4 <= time.monotonic() - began < LIMIT


def test_a_narrow_line_lets_through_what_its_rate_says(street: Street) -> None:
    street.give(Slow("alice", rate=1e6))
    data = bytes(500_000)
    with street.connected("alice", "bob") as (near, far):
        began = time.monotonic()
        near.sendall(data)
        assert read(far, len(data)) == data
        assert 0.45 <= time.monotonic() - began < LIMIT


def test_an_order_that_makes_no_sense_is_refused_and_the_relay_lives(street: Street) -> None:
    with pytest.raises(TestnetError, match="relay: mallory: no such node"):
        street.give(Slow("mallory"))
    with pytest.raises(TestnetError, match="relay: "):
        street.give("nonsense")  # type: ignore[arg-type]
    street.give(Heal())
    assert street.relay.poll() is None


def test_without_a_relay_that_runs_orders_say_so(street: Street) -> None:
    stop_children([street.relay])
    with pytest.raises(TestnetError, match="the testnet is down"):
        street.give(Heal())
