"""SIGINT and SIGTERM end a daemon cleanly, in whatever it is doing: exit code 0, soon, and nothing left behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemons import Daemons, founded

from folkmoot.node.config import Home
from folkmoot.testnet.home import Plan
from folkmoot.testnet.processes import Child, last_lines, start_mark

pytestmark = pytest.mark.integration

STOP_SECONDS = 5.0
"""What an operator, or a system that shuts down, waits at most."""


def patience() -> float:
    """`STOP_SECONDS`, or more where the machine has more to do than it has cores."""
    return STOP_SECONDS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    plan = Plan(nodes=4, rounds=20, example="breast-cancer")
    with founded(tmp_path_factory.mktemp("signals") / "testnet", plan) as daemons:
        yield daemons


def stop(child: Child, home: Home, number: signal.Signals) -> None:
    """Send the signal, and see that the daemon ends as it should."""
    trainers = {pid: start_mark(pid) for pid in children_of(child.ref.pid)}
    child.ref.signal(number)
    assert child.wait(patience()) == 0, last_lines(Path(child.ref.log), 8)
    assert json.loads(home.status.read_bytes())["phase"] in ("stopped", "done")
    assert not home.address.exists()
    # Equal marks mean the same process: a pid alone may be a stranger's by now.
    assert [pid for pid, mark in trainers.items() if start_mark(pid) == mark] == []
    assert not [line for line in last_lines(Path(child.ref.log), 50) if "Traceback" in line]


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in listed.stdout.split()]


def set_config(home: Home, key: str, value: str) -> str:
    """Replace the line of a key in node.toml; returns the text as it was."""
    before = home.config.read_text()
    home.config.write_text(re.sub(rf"(?m)^{key} = .*$", lambda _: f"{key} = {value}", before))
    return before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_the_ledger_is_awaited(daemons: Daemons, number: signal.Signals) -> None:
    """Its RPC takes the connection and says nothing."""
    home = daemons.node("alice")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        before = set_config(home, "rpc", f'["http://127.0.0.1:{silent.getsockname()[1]}"]')
        try:
            child = daemons.start("alice")
            connection, _ = silent.accept()
            stop(child, home, number)
            connection.close()
        finally:
            home.config.write_text(before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_peers_are_awaited_and_the_trainer_hears_nothing(
    daemons: Daemons, number: signal.Signals
) -> None:
    home = daemons.node("bob")
    before = set_config(home, "command", '["sleep", "86400"]')
    try:
        child = daemons.start("bob")
        daemons.wait(lambda: (status := daemons.status("bob")) is not None and status.phase == "recalling")
        assert children_of(child.ref.pid)
        stop(child, home, number)
    finally:
        home.config.write_text(before)


def test_in_the_middle_of_rounds_at_the_end_and_without_the_chain(daemons: Daemons) -> None:
    """One after the other, whatever each is doing; each goes on where it stopped; in the end without an RPC."""
    plan = daemons.plan
    running = {name: daemons.start(name) for name in plan.names}
    numbers = (signal.SIGTERM, signal.SIGINT)
    for turn, name in enumerate(plan.names):
        rounds = 2 * (turn + 1)
        daemons.wait(lambda rounds=rounds: least_rounds(daemons) >= rounds)  # type: ignore[misc]
        time.sleep(0.05 * turn)  # not always at the same point of a round
        stop(running[name], daemons.node(name), numbers[turn % 2])
        running[name] = daemons.start(name)
    daemons.wait(daemons.are_done)
    stop(running["alice"], daemons.node("alice"), signal.SIGTERM)
    assert json.loads(daemons.node("alice").status.read_bytes())["phase"] == "done"
    daemons.chain.ref.signal(signal.SIGKILL)
    for name in plan.names[1:]:
        stop(running[name], daemons.node(name), signal.SIGTERM)


def least_rounds(daemons: Daemons) -> int:
    statuses = [daemons.status(name) for name in daemons.plan.names]
    return min(status.rounds if status is not None else 0 for status in statuses)


def test_with_rounds_that_could_not_be_recorded(tmp_path: Path) -> None:
    plan = Plan(nodes=2, rounds=40, example="breast-cancer")
    with founded(tmp_path / "testnet", plan) as daemons:
        running = {name: daemons.start(name) for name in plan.names}
        daemons.wait(lambda: least_rounds(daemons) >= 2)
        daemons.chain.ref.signal(signal.SIGKILL)
        daemons.wait(lambda: backlog(daemons) >= 2)
        for name, child in running.items():
            stop(child, daemons.node(name), signal.SIGTERM)


def backlog(daemons: Daemons) -> int:
    status = daemons.status("alice")
    return status.ledger.backlog if status is not None else 0


HELD_UP = """
import subprocess, sys
from pathlib import Path
from folkmoot.node import opening
from folkmoot.node.cli import main

def hold_up(home):
    print("child", flush=True)
    subprocess.run([sys.executable, "-c", "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"])

opening.open_home = hold_up
main(["run", "--home", sys.argv[1]])
"""
"""A start in which a child, as those that unlock keys or read data, takes its time."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_it_has_begun_it_ends_by_the_signal_and_so_do_its_children(
    daemons: Daemons, number: signal.Signals
) -> None:
    home = daemons.node("bob")
    before = home.status.read_bytes() if home.status.exists() else None  # of an earlier life
    command = [sys.executable, "-c", HELD_UP, str(home.path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "child\n"
        child = int(process.stdout.readline())
        mark = start_mark(child)
        process.send_signal(number)
        _, errors = process.communicate(timeout=patience())
        assert process.returncode == 128 + number and "Traceback" not in errors, errors
        assert start_mark(child) != mark
    assert not home.address.exists()
    assert (home.status.read_bytes() if home.status.exists() else None) == before
