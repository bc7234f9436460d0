"""Time the digits federation as a whole: `.venv/bin/python scripts/bench/digits.py [RUNS] [NODES] [MODE]`.

Each run is `folkmoot testnet run` in a fresh home, its audit and baselines included. Beside it, in the same run, a
plain loop that does the same training and averaging in one process: the floor. Prints one line a run and the medians.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 10
LOOP = """
from folkmoot.node.train import local, models
from folkmoot.testnet import baselines, examples
local.limit_threads(1)
names = [f"node-{{index}}" for index in range({nodes})]
example = examples.load("digits")
start = models.initial_vector(example.kind, example.layers, 0)
list(baselines.central_fedavg(example, names, {rounds}, example.training, start))
"""


def timed(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds (children included) of one command; raises if it fails."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu


def main(runs: int, nodes: int, mode: str) -> None:
    """Run, print, summarise."""
    rows = []
    for number in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder) / "home"
            command = [sys.executable, "-m", "folkmoot.node.cli", "testnet", "run", "--example", "digits"]
            terms = ["--nodes", str(nodes), "--rounds", str(ROUNDS), "--mode", mode, "--home", str(home)]
            wall, _ = timed([*command, *terms])
            report = json.loads((home / "report.json").read_text())
        _, floor = timed([sys.executable, "-c", LOOP.format(nodes=nodes, rounds=ROUNDS)])
        rows.append(
            {
                "median_round_s": statistics.median(row["seconds"] for row in report["rounds"][1:]),
                "wall_s": wall,
                "cpu_s": report["cpu_seconds"],
                "cpu_over_plain_loop": report["cpu_seconds"] / floor,
                "daemon_mb": max(node["peak_rss_mb"] for node in report["nodes"]),
                "trainer_mb": max(node["trainer_peak_rss_mb"] for node in report["nodes"]),
                "sent_mb_per_node": statistics.mean(node["bytes_sent"] for node in report["nodes"]) / 1e6,
                "accuracy": report["nodes"][0]["accuracy"],
            }
        )
        print(f"run {number + 1}: " + show(rows[-1]), flush=True)
    print("median: " + show({key: statistics.median(row[key] for row in rows) for key in rows[0]}))


def show(row: dict[str, float]) -> str:
    """One line of figures."""
    return ", ".join(f"{key} {value:.3g}" for key, value in row.items())


if __name__ == "__main__":
    given = dict(enumerate(sys.argv))
    main(int(given.get(1, 3)), int(given.get(2, 4)), given.get(3, "secure"))
