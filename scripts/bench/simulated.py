"""How rounds grow with the number of members: `.venv/bin/python scripts/bench/simulated.py FOLDER`.

Simulates three undisturbed rounds of 4 to 256 members, keeps the figures in FOLDER/members.json, draws
FOLDER/members.svg and prints a table for docs/benchmarks.md. What is in the file is not run again. Open mode beyond 32
members counts messages only: no charter allows it, for its sums would not be exact.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from plot import Line, plot

from folkmoot.protocol.charter_tables import MAX_SUMMED
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.federation import Simulation
from folkmoot.testnet.simulation.masked_workshop import MaskedWorkshop

MEMBERS = (4, 8, 16, 32, 64, 128, 256)
SECURE_UP_TO = 64
"""Beyond, one process takes too long over the masks of all nodes."""

ROUNDS = 3
COLOURS = {"open": "#0b6e4f", "secure": "#7a1f5c"}
HEADINGS = (
    "members",
    "mode",
    "seconds a round",
    "messages a node",
    "kB a node",
    "simulated in CPU s",
    "memory MB",
)


def measure(members: int, mode: str, rounds: int = ROUNDS, group_size: int = 0) -> dict[str, Any]:
    """One run: links of 5 to 50 ms, training of 0.1 to 1 s. `models`: what the busiest node sent of shards and sums."""
    began = time.process_time()
    faults, secure = Faults(latency=(0.005, 0.05)), mode == "secure"
    simulation = Simulation(0, members, rounds, faults, secure=secure, group_size=group_size)
    simulation.run()
    node_rounds = members * rounds
    return {
        "members": members,
        "mode": mode,
        "seconds": simulation.now / rounds,
        "messages": simulation.delivered / node_rounds,
        "kilobytes": simulation.bytes_sent / node_rounds / 1000,
        "cpu": time.process_time() - began,
        "models": _models_sent(simulation) / rounds,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _models_sent(simulation: Simulation) -> float:
    """In models of ring values; up to 16 members the model is too small for a figure that means anything."""
    workshop, charter = simulation._workshop, simulation.charter
    if not isinstance(workshop, MaskedWorkshop):
        return 0.0
    return max(workshop.sent.values()) / (charter.model.parameters * charter.secrecy.ring / 8)


def in_a_process(members: int, mode: str) -> dict[str, Any]:
    """The same, so that memory is this run's."""
    command = [sys.executable, __file__, str(members), mode]
    figures: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return figures


def table(rows: list[dict[str, Any]]) -> str:
    """The figures in Markdown."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    for row in rows:
        mode = row["mode"] if row["mode"] == "secure" or row["members"] <= MAX_SUMMED else "messages only"
        lines.append(
            f"| {row['members']} | {mode} | {row['seconds']:.1f} | {row['messages']:.0f} | {row['kilobytes']:.1f} "
            f"| {row['cpu']:.1f} | {row['memory']:.0f} |"
        )
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]]) -> str:
    """Seconds a round, and kilobytes of messages that a node sends in it (dotted)."""
    lines = []
    for mode, colour in COLOURS.items():
        own = [row for row in rows if row["mode"] == mode]
        for key, name in (("seconds", f"{mode}: s"), ("kilobytes", f"{mode}: kB")):
            points = [(row["members"], row[key]) for row in own]
            lines.append(Line(points, colour, name, dotted=key == "kilobytes"))
    ticks = {float(members): str(members) for members in MEMBERS}
    return plot("a simulated round: seconds; kB a node sends (dotted)", "members", lines, ticks=ticks)


def main(folder: Path) -> None:
    """Measure what is missing, then draw and print."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "members.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    for mode in COLOURS:
        for members in MEMBERS:
            possible = mode == "open" or members <= SECURE_UP_TO
            if possible and not any((row["members"], row["mode"]) == (members, mode) for row in rows):
                rows.append(in_a_process(members, mode))
                file.write_text(json.dumps(rows, indent=1) + "\n")
    rows.sort(key=lambda row: (row["mode"], row["members"]))
    (folder / "members.svg").write_text(picture(rows))
    print(table(rows))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps(measure(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))))
    else:
        main(Path(sys.argv[1]))
