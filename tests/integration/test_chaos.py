"""`folkmoot testnet chaos`, short: real daemons on shaped links."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from folkmoot.testnet.home import TestnetHome, read_testnet

pytestmark = pytest.mark.integration

LIMIT = 240.0
UP = ("up", "--nodes", "4", "--rounds", "100000", "--links", "shaped", "--example", "breast-cancer")


def folkmoot_testnet(home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "folkmoot.node.cli", "testnet", *words, "--home", str(home)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[TestnetHome]:
    path = tmp_path / "testnet"
    try:
        assert (up := folkmoot_testnet(path, *UP)).returncode == 0, up.stderr
        yield TestnetHome(path)
    finally:
        folkmoot_testnet(path, "down")


def test_it_holds_through_a_short_chaos(home: TestnetHome) -> None:
    done = folkmoot_testnet(home.path, "chaos", "--minutes", "0.7", "--seed", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(home.chaos_report.read_bytes())
    assert report["disturbances"] and report["rounds"] > 0
    assert (report["deaths"], report["disagreement"], report["audit"]["status"]) == ([], [], "PASS")
    assert [node["name"] for node in report["memory"]] == ["alice", "bob", "carol", "dave"]
    assert sorted(one.name for one in read_testnet(home).running) == sorted(
        ["alice", "bob", "carol", "dave", "chain", "relay", "trainers"]
    )


def test_a_death_that_it_did_not_cause_is_told_and_the_node_left_lying(home: TestnetHome) -> None:
    command = [sys.executable, "-u", "-m", "folkmoot.node.cli", "testnet", "chaos", "--minutes", "0.1"]
    with subprocess.Popen([*command, "--home", str(home.path)], stdout=subprocess.PIPE, text=True) as chaos:
        assert chaos.stdout is not None
        try:
            assert chaos.stdout.readline().startswith("disturbing 4 nodes")
            bob = read_testnet(home).process("bob")
            assert bob is not None
            bob.signal(signal.SIGKILL)
            output, _ = chaos.communicate(timeout=LIMIT)
        finally:
            chaos.kill()
    assert chaos.returncode == 1
    assert "bob died and nobody killed it" in output and "it did not hold" in output
    report = json.loads(home.chaos_report.read_bytes())
    assert [death.split()[0] for death in report["deaths"]] == ["bob"]
    assert read_testnet(home).process("bob") is None
