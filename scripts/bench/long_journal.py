"""How a node starts whose journal tells of many rounds, and how much it takes, before and after it was pruned.

    .venv/bin/python scripts/bench/long_journal.py [ROUNDS]

A testnet of four runs for a few rounds; then the rows of one of them are written into one node's journal again and
again, as rounds before the first. That node is started alone and without a ledger, three times in each state.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from folkmoot.node.config import Home
from folkmoot.node.status_file import rss_mb
from folkmoot.node.store import Journal, JournalEntry

STARTS = 3


def main(rounds: int) -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as folder:
        testnet = Path(folder) / "testnet"
        command = ["testnet", "run", "--nodes", "4", "--rounds", "6", "--home", str(testnet)]
        subprocess.run([sys.executable, "-m", "folkmoot.node.cli", *command], check=True, capture_output=True)
        home = Home(testnet / "nodes" / "bob")
        print("| journal | size (MB) | start (s) | memory (MB) |\n|---|---|---|---|")
        print(row("6 rounds", home))
        lengthen(home, rounds)
        print(row(f"{rounds:,} rounds more", home))
        began = time.monotonic()
        with Journal.open(home.store) as journal:
            floor = None
            while floor != journal.pruned_before:
                floor = journal.pruned_before
                journal.prune(-1000)
        print(row(f"the same, pruned in {time.monotonic() - began:.0f} s", home))


def lengthen(home: Home, rounds: int) -> None:
    """Write one round's rows again, as rounds before the first."""
    with Journal.open(home.store) as journal:
        rows = [(kind, body) for _, round_, kind, body in journal.entries() if round_ == 3]
        for first in range(-rounds, 0, 500):
            entries: list[JournalEntry] = [
                (round_, kind, body) for round_ in range(first, min(first + 500, 0)) for kind, body in rows
            ]
            journal.append(entries)


def row(name: str, home: Home) -> str:
    """A line of the table."""
    starts = [start(home) for _ in range(STARTS)]
    size = sum(path.stat().st_size for path in home.path.glob("store.sqlite*"))
    seconds, memory = (median(values) for values in zip(*starts, strict=True))
    return f"| {name} | {size / 1e6:.1f} | {seconds:.2f} | {memory:.0f} |"


def start(home: Home) -> tuple[float, float]:
    """Seconds until the node listens and has read its journal, and its memory then."""
    environment = {**os.environ, "FOLKMOOT_PASSPHRASE_FILE": str(home.path / "passphrase")}
    home.status.unlink(missing_ok=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "folkmoot.node.cli", "run", "--home", str(home.path)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            while not is_up(home):
                assert process.poll() is None, "the node ended"
                time.sleep(0.02)
            return time.monotonic() - began, rss_mb(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)


def is_up(home: Home) -> bool:
    """Whether the node works with what its journal says."""
    try:
        return bool(json.loads(home.status.read_bytes())["round"] > 1)
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
