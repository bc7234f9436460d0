"""A testnet that is broken on purpose with its own commands, and mends: real daemons, links, SIGKILL and SIGSTOP."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

LIMIT = 90.0


class Broken:
    """A running testnet and its command line."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *words: str) -> str:
        command = [sys.executable, "-m", "folkmoot.node.cli", "testnet", *words, "--home", str(self.home)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.home / "nodes" / name / "status.json").read_bytes())
        except FileNotFoundError:
            return {"rounds": 0, "peers": [], "phase": "starting"}
        return found

    def rounds(self, name: str) -> int:
        return int(self.status(name)["rounds"])

    def peers(self, name: str) -> set[str]:
        return set(self.status(name)["peers"])

    def wait(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < deadline, self("logs", "-n", "40")
            time.sleep(0.05)

    def goes_on(self, *names: str) -> None:
        """Wait until each of these has completed two more rounds."""
        goal = {name: self.rounds(name) + 2 for name in names}
        self.wait(lambda: all(self.rounds(name) >= goal[name] for name in names))


@pytest.fixture
def testnet(tmp_path: Path) -> Iterator[Broken]:
    broken = Broken(tmp_path / "testnet")
    try:
        broken("up", "--nodes", "4", "--rounds", "100000", "--links", "shaped", "--example", "breast-cancer")
        yield broken
    finally:
        broken("down")


def test_it_goes_on_without_one_and_mends(testnet: Broken) -> None:
    everybody = ("alice", "bob", "carol", "dave")
    testnet.goes_on(*everybody)

    testnet("kill", "dave")
    testnet.goes_on("alice", "bob", "carol")
    assert "started dave" in testnet("restart", "dave")
    testnet.goes_on(*everybody)

    testnet("pause", "carol")
    testnet.goes_on("alice", "bob", "dave")
    testnet("resume", "carol")
    testnet.goes_on(*everybody)

    # Two against two: nobody has a quorum, and nobody finds a way around the relay.
    testnet("partition", "alice,bob|carol,dave")
    testnet.wait(lambda: testnet.peers("alice") == {"bob"} and testnet.peers("dave") == {"carol"})
    stuck = testnet.rounds("alice")
    assert "dave is as fast" in testnet("slow", "dave")
    assert testnet.rounds("alice") <= stuck + 1  # one may have been decided before the cut
    testnet("heal")
    testnet("slow", "bob", "--delay", "20ms", "--rate", "100mbit")
    testnet.goes_on(*everybody)

    history = {
        name: {row["round"]: row["model_digest"] for row in testnet.status(name)["history"]}
        for name in everybody
    }
    common = set.intersection(*(set(models) for models in history.values()))
    assert common and all(len({models[number] for models in history.values()}) == 1 for number in common)
    assert "round done" in testnet("logs", "dave")


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Broken]:
    broken = Broken(tmp_path / "testnet")
    try:
        broken("up", "--nodes", "4", "--rounds", "100000", "--max-ahead", "3", "--example", "breast-cancer")
        yield broken
    finally:
        broken("down")


def test_a_testnet_grows_and_shrinks(growing: Broken) -> None:
    growing.wait(lambda: growing.rounds("alice") >= 2)
    assert "started zoe" in growing("join", "zoe")
    growing.wait(lambda: {"alice", "bob", "carol", "dave"} <= growing.peers("zoe"))
    growing.goes_on("alice", "zoe")
    assert "bob belongs to the federation up to round" in growing("leave", "bob")
    growing.wait(lambda: growing.status("bob")["phase"] == "no longer a member")
    growing.goes_on("alice", "zoe")
    assert growing.peers("zoe") == {"alice", "carol", "dave"}
    assert "zoe" in growing("status")
