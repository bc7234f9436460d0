"""Time what a dead node costs: `.venv/bin/python scripts/bench/faults.py [NODES] [KILLS] [BEHIND]`.

A testnet of real daemons (digits, 50,826 parameters) is left running, and its nodes' logs say when rounds were done.
KILLS times one of its nodes, each in turn, is killed with SIGKILL at a random moment and started again; then one is
started again when the others are BEHIND rounds further (0 leaves that out). Prints what it found.
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from folkmoot.testnet import control
from folkmoot.testnet.home import TestnetHome, read_testnet

LIMIT = 120.0
SETTLED_ROUNDS = 4
"""Rounds that all complete, all taking part, before anything is measured."""


class Done(NamedTuple):
    """A round that a node completed, at a Unix time."""

    at: float
    round: int
    participants: frozenset[str]


class Federation:
    """A testnet that runs."""

    def __init__(self, home: TestnetHome) -> None:
        self.home = home
        self.names = read_testnet(home).plan.names

    def events(self, name: str) -> Iterator[dict[str, Any]]:
        """A node's log, older part first."""
        logs = self.home.node(name).logs
        for path in (*sorted(logs.glob("node.log.*"), reverse=True), logs / "node.log"):
            for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
                if line.endswith("\n"):  # else it is being written
                    yield json.loads(line)

    def done(self, name: str) -> list[Done]:
        """The rounds that a node has completed, in order."""
        return [
            Done(seconds(event), event["round"], frozenset(event["participants"]))
            for event in self.events(name)
            if event["event"] == "round done"
        ]

    def furthest(self, before: float = float("inf")) -> int:
        """The highest round that any node had completed then."""
        rounds = (one.round for name in self.names for one in self.done(name) if one.at <= before)
        return max(rounds, default=0)

    def others(self, victim: str) -> list[str]:
        """All but one."""
        return [name for name in self.names if name != victim]

    def settle(self) -> None:
        """Wait until all have taken part in some rounds in a row."""
        goal = self.furthest() + 1

        def settled() -> bool:
            last = [self.done(name)[-SETTLED_ROUNDS:] for name in self.names]
            return all(
                len(rounds) == SETTLED_ROUNDS
                and rounds[0].round >= goal
                and all(len(one.participants) == len(self.names) for one in rounds)
                for rounds in last
            )

        wait(settled, poll=0.5)


def seconds(event: dict[str, Any]) -> float:
    """When a line was logged, as Unix time."""
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def wait(condition: Callable[[], bool], poll: float = 0.1, limit: float = LIMIT) -> None:
    """Poll until `condition` holds."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing came of it within {limit:.0f} s")
        time.sleep(poll)


def first(rounds: list[Done], condition: Callable[[Done], bool]) -> Done | None:
    """The first of them for which it holds."""
    return next(filter(condition, rounds), None)


def kill_and_restart(federation: Federation, victim: str) -> dict[str, float]:
    """Kill, wait for rounds without the victim, start it again, wait for a round with it."""
    others = federation.others(victim)
    killed = time.time()
    control.kill(federation.home, victim)
    goal = federation.furthest(killed) + 1

    def completions(condition: Callable[[Done], bool]) -> list[Done]:
        found = (first(federation.done(name), condition) for name in others)
        return [one for one in found if one is not None]

    def without(one: Done) -> bool:
        return one.at > killed and victim not in one.participants

    wait(lambda: len(completions(without)) == len(others))
    row = {
        "next_round_s": max(one.at for one in completions(lambda one: one.round >= goal)) - killed,
        "round_without_it_s": max(one.at for one in completions(without)) - killed,
    }
    started = time.time()
    control.restart(federation.home, victim)

    def with_it(one: Done) -> bool:
        return one.at > started and victim in one.participants

    wait(lambda: len(completions(with_it)) == len(others))
    listening = max(seconds(event) for event in federation.events(victim) if event["event"] == "listening")
    back = min(completions(with_it))
    return row | {
        "start_s": listening - started,
        "back_s": back.at - listening,
        "rounds_until_back": back.round - federation.furthest(listening),
    }


def fall_behind(federation: Federation, victim: str, rounds: int) -> None:
    """Kill, wait until the others are that many rounds further, start it again, wait for a round with it."""
    control.kill(federation.home, victim)
    goal = federation.furthest() + rounds
    wait(lambda: federation.furthest() >= goal, poll=0.5, limit=rounds * LIMIT)
    had, before = len(federation.done(victim)), federation.done(victim)[-1].round
    control.restart(federation.home, victim)

    def since() -> list[Done]:
        return federation.done(victim)[had:]

    wait(lambda: first(since(), lambda one: victim in one.participants and one.round > before) is not None)
    back = first(since(), lambda one: victim in one.participants and one.round > before)
    assert back is not None
    listening = max(seconds(event) for event in federation.events(victim) if event["event"] == "listening")
    fetched = [one for one in since() if not one.participants]
    print(
        f"{back.round - before} rounds behind: took part again {back.at - listening:.2f} s after it was listening; "
        f"models fetched on the way: {len(fetched)}",
        flush=True,
    )


def main(nodes: int, kills: int, behind: int) -> None:
    """Start, measure, print, stop."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        testnet = [sys.executable, "-m", "folkmoot.node.cli", "testnet"]
        options = ["--nodes", str(nodes), "--rounds", "100000", "--mode", "open", "--home", str(home)]
        try:
            subprocess.run([*testnet, "up", *options], check=True, stdout=subprocess.DEVNULL)
            federation, rng, rows = Federation(TestnetHome(home)), random.Random(0), []
            for number in range(kills):
                federation.settle()
                time.sleep(rng.random())  # anywhere in a round
                rows.append(kill_and_restart(federation, federation.names[number % nodes]))
                print(f"kill {number + 1}: " + show(rows[-1]), flush=True)
            if rows:
                print(
                    "median: " + show({key: statistics.median(row[key] for row in rows) for key in rows[0]})
                )
                print("worst: " + show({key: max(row[key] for row in rows) for key in rows[0]}), flush=True)
            federation.settle()
            spaces = [
                after.at - before.at for before, after in pairwise(federation.done(federation.names[0])[-20:])
            ]
            print(f"an undisturbed round: {statistics.median(spaces):.2f} s")
            if behind:
                fall_behind(federation, federation.names[-1], behind)
        finally:
            subprocess.run([*testnet, "down", "--home", str(home)], check=True, stdout=subprocess.DEVNULL)


def show(row: dict[str, float]) -> str:
    """One line of figures."""
    return ", ".join(f"{key} {value:.3g}" for key, value in row.items())


if __name__ == "__main__":
    words = sys.argv[1:] + ["4", "6", "50"][len(sys.argv) - 1 :]
    main(*map(int, words))
