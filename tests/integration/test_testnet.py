"""`folkmoot testnet` as its users run it: real daemons, real libp2p, the embedded chain, real data."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from folkmoot.node.charter_files import load_charter
from folkmoot.node.config import load_config
from folkmoot.testnet import learning
from folkmoot.testnet.chains import await_url, start_embedded
from folkmoot.testnet.examples import load
from folkmoot.testnet.found import found, make_homes
from folkmoot.testnet.home import Plan, TestnetHome, open_home, read_testnet
from folkmoot.testnet.processes import stop_children

pytestmark = pytest.mark.integration

NODES = 4
ROUNDS = 3
LIMIT = 240.0


def folkmoot(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "folkmoot.node.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)


def test_a_federation_runs_agrees_and_passes_its_audit(tmp_path: Path) -> None:
    home = tmp_path / "testnet"
    options = ["--nodes", str(NODES), "--rounds", str(ROUNDS), "--example", "digits", "--home", str(home)]
    ran = folkmoot("testnet", "run", *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report = json.loads((home / "report.json").read_text())
    assert report["mode"] == "secure"
    check_nodes(report)
    check_rounds(report)
    assert report["audit"]["status"] == "PASS"
    assert {check["status"] for check in report["audit"]["checks"]} <= {"PASS", "SKIPPED"}
    assert report["cpu_seconds"] > 0
    assert f"round {ROUNDS}/{ROUNDS}" in ran.stdout
    page = (home / "report" / "report.html").read_text()
    for plot in ("comparison", "learning", "calibration", "costs", "participation"):
        assert f'src="{plot}.svg"' in page and (home / "report" / f"{plot}.svg").is_file()
    assert read_testnet(TestnetHome(home)).running == []


def test_an_attacker_among_the_nodes_ruins_a_plain_mean_and_is_reported(tmp_path: Path) -> None:
    home = tmp_path / "testnet"
    options = ["--nodes", "4", "--rounds", "1", "--mode", "open", "--attack", "ipm:1", "--home", str(home)]
    ran = folkmoot("testnet", "run", *options)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "ipm by dave" in ran.stdout
    attack = json.loads((home / "report.json").read_text())["attack"]
    assert (attack["name"], attack["attackers"], attack["backdoor"]) == ("ipm", ["dave"], None)
    assert attack["metrics"]["accuracy"] < 0.5 < attack["without"]["accuracy"]


def check_nodes(report: dict[str, Any]) -> None:
    assert [node["name"] for node in report["nodes"]] == ["alice", "bob", "carol", "dave"]
    assert len({node["peer_id"] for node in report["nodes"]}) == NODES
    assert {node["model_digest"] for node in report["nodes"]} == {report["rounds"][-1]["model_digest"]}
    for node in report["nodes"]:
        assert node["rounds"] == ROUNDS
        assert 0.5 < node["alone_accuracy"] <= 1
        assert node["accuracy"] > 0.8
        assert node["bytes_sent"] > 0 and node["bytes_received"] > 0
        assert 0 < node["peak_rss_mb"] < 200
    assert report["pooled_accuracy"] > 0.9


def check_rounds(report: dict[str, Any]) -> None:
    assert [entry["round"] for entry in report["rounds"]] == list(range(1, ROUNDS + 1))
    for entry in report["rounds"]:
        assert 3 <= len(entry["participants"]) <= NODES
        assert entry["seconds"] > 0 and entry["gas"] > 21_000
        assert len(bytes.fromhex(entry["tx"][2:])) == len(bytes.fromhex(entry["statement"])) == 32


def test_up_status_down(tmp_path: Path) -> None:
    home = str(tmp_path / "testnet")
    try:
        assert (up := folkmoot("testnet", "up", "--rounds", "200", "--home", home)).returncode == 0, up.stderr
        overview = json.loads(folkmoot("testnet", "status", "--home", home, "--json").stdout)
        assert [sorted(node) for node in overview["nodes"]] == [
            ["name", "peer_id", "peers", "phase", "pid", "rounds"]
        ] * NODES
        assert all(node["pid"] for node in overview["nodes"]) and overview["chain"]["pid"]
        doctor = json.loads(folkmoot("doctor", "--home", f"{home}/nodes/alice", "--json").stdout)
        states = {one["check"]: one["state"] for one in doctor["findings"]}
        sure = ("configuration", "charter", "keys", "data", "disk", "ledger", "chain's clock", "funds")
        assert [states[check] for check in sure] == ["ok"] * len(sure)
        again = folkmoot("testnet", "up", "--rounds", "200", "--home", home)
        assert again.returncode == 1 and "still running" in again.stderr
    finally:
        down = folkmoot("testnet", "down", "--home", home)
    assert down.returncode == 0 and "killed" not in down.stdout
    overview = json.loads(folkmoot("testnet", "status", "--home", home, "--json").stdout)
    assert {node["phase"] for node in overview["nodes"]} == {"stopped"}


def test_interrupting_takes_everything_down(tmp_path: Path) -> None:
    home = TestnetHome(tmp_path / "testnet")
    command = [
        sys.executable,
        "-m",
        "folkmoot.node.cli",
        "testnet",
        "run",
        "--rounds",
        "500",
        "--home",
        str(home.path),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        assert run.stdout is not None
        try:
            for line in run.stdout:
                if line.startswith("round 1/"):
                    break
            running = read_testnet(home).running
            run.send_signal(signal.SIGINT)
            output, _ = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 130, output
    assert len(running) == NODES + 3  # supervisor, trainers, chain
    assert [process.name for process in running if process.is_running] == []


def test_founding_makes_homes_that_a_node_can_start_from(tmp_path: Path) -> None:
    home = TestnetHome(tmp_path / "testnet")
    plan = Plan(nodes=2, rounds=5, example="breast-cancer", seed=7)
    open_home(home, plan, fresh=False)
    children = [server := learning.start_server(home)]
    try:
        example = load(plan.example)
        drawing = learning.begin_founding(server, home, example, plan)
        publics = make_homes(home, plan, example)
        children.append(chain := start_embedded(home, [keys.gas_key for keys in publics]))
        testnet = found(
            home, plan, example, publics, learning.founding_tensors(drawing), await_url(home, chain)
        )
    finally:
        assert stop_children(children) == []
    for name in plan.names:
        node = home.node(name)
        charter = load_charter(node)
        assert (charter.schedule.rounds, charter.training.seed) == (5, 7)
        assert load_config(node).ledger.contract == testnet.contract
        assert node.initial_model.is_file() and (node.models / f"{charter.model.initial}.f32").is_file()
        assert node.store.is_file() and (node.path / "data" / "train.safetensors").is_file()
        assert home.passphrase(name).stat().st_mode & 0o077 == 0
