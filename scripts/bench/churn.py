"""Rounds with some nodes always away: `.venv/bin/python scripts/bench/churn.py [NODES] [AWAY] [PAIRS] [SECONDS] [HOW]`.

One testnet of real daemons (digits, 50,826 parameters, open mode), and windows of SECONDS that take turns: nobody is
away, then AWAY nodes are, PAIRS times each, so that other work on the machine troubles both alike. In a window with
nodes away they leave at its beginning, come back at its middle, and others leave in their place, in turn through all
of them. HOW they are away: `kill` (SIGKILL, started again from the journal), `freeze` (SIGSTOP), or `both` in turn.
Prints rounds per window, the share that is kept, and at the end whether all nodes hold the same models.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from faults import Federation, wait

from folkmoot.testnet import control
from folkmoot.testnet.home import TestnetHome


class Way(NamedTuple):
    """A way to be away, and to come back."""

    leave: Callable[[TestnetHome, str], object]
    come_back: Callable[[TestnetHome, str], object]


WAYS = {"kill": Way(control.kill, control.restart), "freeze": Way(control.pause, control.resume)}


@contextmanager
def away(federation: Federation, names: list[str], way: Way) -> Iterator[None]:
    """These nodes are away while the block runs."""
    for name in names:
        way.leave(federation.home, name)
    yield
    for name in names:
        way.come_back(federation.home, name)


def count(federation: Federation, length: float) -> int:
    """Rounds completed by the node that is furthest in so many seconds from now."""
    began = time.time()
    wait(lambda: time.time() >= began + length)
    return federation.furthest(began + length) - federation.furthest(began)


def disturbed(federation: Federation, turns: Iterator[list[str]], way: Way, length: float) -> int:
    """Rounds of one window with nodes away."""
    rounds = 0
    for _ in range(2):
        with away(federation, next(turns), way):
            rounds += count(federation, length / 2)
    return rounds


def in_turn(names: list[str], size: int) -> Iterator[list[str]]:
    """Groups of `size`, through all names again and again."""
    turn = cycle(names)
    while True:
        yield [next(turn) for _ in range(size)]


def check_agreement(federation: Federation) -> str:
    """Whether any two nodes called different models the outcome of one round."""
    models: dict[int, set[str]] = {}
    for name in federation.names:
        for event in federation.events(name):
            if event["event"] == "round done":
                models.setdefault(event["round"], set()).add(event["model"])
    split = [round_ for round_, found in models.items() if len(found) > 1]
    return f"DIFFERENT MODELS in rounds {split}" if split else f"one model in each of {len(models)} rounds"


def measure(federation: Federation, size: int, pairs: int, length: float, how: str) -> None:
    """Take turns and print."""
    turns = in_turn(federation.names, size)
    ways = cycle(WAYS.values() if how == "both" else [WAYS[how]])
    whole, broken = list[int](), list[int]()
    for _ in range(pairs):
        federation.settle()
        whole.append(count(federation, length))
        broken.append(disturbed(federation, turns, next(ways), length))
        print(f"nobody away {whole[-1]} rounds, {size} away {broken[-1]}", flush=True)
    shares = [after / before for before, after in zip(whole, broken, strict=True)]
    print(
        f"{size} of {len(federation.names)} away ({how}): {sum(broken)} rounds, {sum(whole)} with nobody away: "
        f"{sum(broken) / sum(whole):.0%} (single pairs {min(shares):.0%} to {max(shares):.0%}, "
        f"median {statistics.median(shares):.0%})"
    )
    federation.settle()
    print(check_agreement(federation))


def main(nodes: int, size: int, pairs: int, length: float, how: str) -> None:
    """Start, measure, stop."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        testnet = [sys.executable, "-m", "folkmoot.node.cli", "testnet"]
        options = ["--nodes", str(nodes), "--rounds", "100000", "--mode", "open", "--home", str(home)]
        try:
            subprocess.run([*testnet, "up", *options], check=True, stdout=subprocess.DEVNULL)
            measure(Federation(TestnetHome(home)), size, pairs, length, how)
        finally:
            subprocess.run([*testnet, "down", "--home", str(home)], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    words = sys.argv[1:] + ["10", "1", "6", "30", "both"][len(sys.argv) - 1 :]
    main(int(words[0]), int(words[1]), int(words[2]), float(words[3]), words[4])
