"""`folkmoot doctor`, check by check: what it calls well, what not, and what it says to do."""

import json
import socket
import time
from pathlib import Path
from typing import Any, cast

import pytest
from audited_federation import AuditedFederation
from click.testing import CliRunner
from msgspec.structs import replace

from folkmoot.ledger.development import DEVELOPMENT_CHAINS
from folkmoot.ledger.rpc import RpcClient
from folkmoot.node.cli.doctor import doctor
from folkmoot.node.config import Home, LedgerConfig, NetworkConfig, NodeConfig
from folkmoot.node.doctor.chain import check_block_time, check_funds, round_gas
from folkmoot.node.doctor.finding import Case
from folkmoot.node.doctor.house import check_disk, check_keys
from folkmoot.node.doctor.network import check_bootstrap, check_clock, check_peers, check_port, check_reach
from folkmoot.node.keys import create_keys
from folkmoot.node.status_file import MissingPeer, NodeStatus, PeerView
from folkmoot.protocol.errors import FolkmootError

NOW = 1_800_000_000.0
HERE = "/ip4/192.0.2.7/tcp/4001"


def view(member: str, *reached: str, offset: float = 0.1) -> PeerView:
    return PeerView(member=member, at=NOW, seen_as="203.0.113.9", reached=list(reached), clock_offset=offset)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A home with its own keys in the charter, and no running node."""
    home = Home(tmp_path)
    keys = create_keys(home.keys, "secret", cheap=True)
    charter = AuditedFederation().charter
    first = replace(
        charter.members[0],
        peer_id=keys.peer_id,
        identity_key=keys.identity_key,
        sealing_key=keys.sealing_key,
        audit_key=keys.audit_key,
    )
    config = NodeConfig(
        name=first.name, ledger=LedgerConfig(rpc=("http://127.0.0.1:1",), contract="0x" + 40 * "0")
    )
    return Case(home, config, replace(charter, members=(first, *charter.members[1:])), None, NOW)


def running(case: Case, network: NetworkConfig | None = None, **fields: Any) -> Case:
    status = NodeStatus(name=case.config.name, pid=1, peer_id="", member=0, **fields)
    config = replace(case.config, network=network or case.config.network)
    return Case(case.home, config, case.charter, status, NOW)


def test_keys_that_others_can_read_are_a_problem(case: Case) -> None:
    assert check_keys(case).state == "ok"
    copy = case.home.keys / "copy-of-identity.key"
    copy.write_text("")
    copy.chmod(0o644)
    found = check_keys(case)
    assert found.state == "problem" and "chmod 600" in found.advice
    (case.home.keys / "identity.key").chmod(0o640)
    with pytest.raises(FolkmootError, match="chmod 600"):
        check_keys(case)


def test_room_is_counted_in_rounds(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk(free: float) -> object:
        return type("Usage", (), {"free": int(free)})

    rounds = case.home.archive / "rounds"
    rounds.mkdir(parents=True)
    for number in range(4):
        (rounds / f"{number}.record").write_bytes(bytes(1_000_000))
    for free, state in ((100e9, "ok"), (0.4e9, "warning"), (5e6, "problem")):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: disk(free))
        assert check_disk(case).state == state
    monkeypatch.setattr("shutil.disk_usage", lambda _: disk(100e9))
    assert "100,000 rounds of 1.00 MB" in check_disk(case).detail


def test_a_bootstrap_file_that_is_not_there_is_told(case: Case) -> None:
    network = replace(case.config.network, bootstrap=("/ip4/192.0.2.7/tcp/4001/p2p/Qm", "gone", __file__))
    stopped = Case(case.home, replace(case.config, network=network), case.charter, None, NOW)
    (found,) = check_bootstrap(stopped)
    assert found.state == "warning" and str(case.home.resolve("gone")) in found.detail


def test_a_port_is_free_or_taken(case: Case) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        listen = NetworkConfig(listen=f"/ip4/127.0.0.1/tcp/{port}")
        stopped = Case(case.home, replace(case.config, network=listen), case.charter, None, NOW)
        assert check_port(stopped).state == "problem"
        case.home.address.write_text(f"/ip4/127.0.0.1/tcp/{port}/p2p/X\n")
        assert check_port(running(case)).state == "ok"
    assert check_port(running(case)).state == "problem"
    assert check_port(stopped).state == "ok"


def test_who_is_missing_is_named_with_what_to_do(case: Case) -> None:
    (stopped,) = check_peers(case)
    assert stopped.state == "warning" and "folkmoot run" in stopped.advice
    missing = [MissingPeer(member="bob", since=NOW - 60, tried=NOW, error="no address known")]
    first, second = check_peers(running(case, peers=["carol"], missing=missing))
    assert first.state == "ok" and second.state == "warning" and "bootstrap" in second.advice
    assert next(iter(check_peers(running(case, missing=missing)))).state == "problem"


def test_reach_is_what_the_others_say(case: Case) -> None:
    assert check_reach(running(case)).state == "warning"
    said = running(case, announced=[HERE], views=[view("bob", HERE), view("carol", HERE)])
    assert check_reach(said).state == "ok"
    half = check_reach(running(case, announced=[HERE], views=[view("bob", HERE), view("carol")]))
    assert half.state == "warning" and "carol cannot call it" in half.detail
    none = check_reach(running(case, announced=[HERE], views=[view("bob"), view("carol")]))
    assert none.state == "problem" and HERE in none.detail and "203.0.113.9" in none.detail
    behind = NetworkConfig(via="auto")
    assert check_reach(running(case, behind, views=[view("bob")])).state == "problem"
    circuit = ["/p2p/X/p2p-circuit"]
    assert check_reach(running(case, behind, announced=circuit, views=[view("bob")])).state == "ok"


def test_one_peer_with_a_wrong_clock_does_not_count() -> None:
    good = [view("bob"), view("carol")]
    assert check_clock([*good, view("dave", offset=-3600)]).state == "ok"
    found = check_clock([view("bob", offset=30), view("carol", offset=31)])
    assert found.state == "warning" and "behind" in found.detail
    assert check_clock([]).state == "warning"


def rpc(**answers: object) -> RpcClient:
    class Fake:
        def call(self, method: str, *params: object) -> object:
            return answers[method]

    return cast(RpcClient, Fake())


@pytest.mark.parametrize(("ahead", "state"), [(-86_400, "ok"), (2, "ok"), (60, "warning")])
def test_blocks_from_the_future_show_a_slow_clock(ahead: int, state: str) -> None:
    block = {"timestamp": hex(int(NOW) + ahead)}
    assert check_block_time(rpc(eth_getBlockByNumber=block), NOW, 1).state == state


def test_a_development_chain_may_go_ahead_of_the_clock() -> None:
    block = {"timestamp": hex(int(NOW) + 60)}
    found = check_block_time(rpc(eth_getBlockByNumber=block), NOW, min(DEVELOPMENT_CHAINS))
    assert found.state == "ok" and "development chain" in found.detail


def test_funds_are_counted_in_rounds(case: Case) -> None:
    gas, price = round_gas(len(case.charter.attesters)), 10**9
    for rounds, state in ((1000, "ok"), (3, "warning"), (0, "warning")):
        found = check_funds(rpc(eth_getBalance=hex(rounds * gas * price), eth_gasPrice=hex(price)), case)
        assert found.state == state and f"{rounds:,} rounds" in found.detail


@pytest.mark.parametrize(("attesters", "measured"), [(4, 65_600), (19, 140_700), (31, 188_600)])
def test_the_price_of_a_round_is_about_what_was_measured(attesters: int, measured: int) -> None:
    assert abs(round_gas(attesters) - measured) < 0.1 * measured


def test_an_empty_home_is_a_problem_and_json_says_so(tmp_path: Path) -> None:
    began = time.monotonic()
    result = CliRunner().invoke(doctor, ["--home", str(tmp_path), "--json"])
    report = json.loads(result.output)
    assert result.exit_code == 1 and report["problems"] == 1 and time.monotonic() - began < 30
    assert report["findings"][0]["check"] == "configuration"
    shown = CliRunner().invoke(doctor, ["--home", str(tmp_path)])
    assert shown.exit_code == 1 and "node.toml" in shown.output
