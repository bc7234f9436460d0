"""How a round grows with the model: `.venv/bin/python scripts/bench/rounds.py FOLDER [CODEC...]`.

Runs `folkmoot bench round` with 4 nodes for 1, 10, 25 and 100 million parameters, keeps every figure in
FOLDER/rounds.json, draws FOLDER/rounds.svg, and prints a table for docs/benchmarks.md. Sizes that the JSON file has are
not run again: remove it to measure anew. 100 million float32 parameters take 10 GB of disk for each round.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from plot import COLOURS, Line, plot

NODES = 4
ROUNDS = 2
SIZES = (1_000_000, 10_000_000, 25_000_000, 100_000_000)
CODECS = ("int4", "f32")
CODEC_COLOURS = dict(zip(("int4", "f32", "int8"), COLOURS, strict=False))
HEADINGS = ("parameters", "codec", "seconds", "CPU s", "plain TCP s", "sent MB per node", "memory MB")


def measure(parameters: int, codec: str) -> dict[str, Any]:
    """One measurement, in a process of its own."""
    words = [
        "bench",
        "round",
        "--nodes",
        NODES,
        "--params",
        parameters,
        "--rounds",
        ROUNDS,
        "--codec",
        codec,
        "--json",
    ]
    command = [sys.executable, "-m", "folkmoot.node.cli", *map(str, words)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def table(rows: list[dict[str, Any]]) -> str:
    """The figures in Markdown."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    for row in rows:
        cpu = sum(one["cpu_s"] for one in row["rounds"]) / len(row["rounds"])
        values = (
            f"{row['params']:,}",
            row["codec"],
            f"{row['median_seconds']:.2f}",
            f"{cpu:.1f}",
            f"{row['trio_tcp_seconds']:.2g}",
            f"{row['sent_mb_per_node']:.1f}",
            f"{row['peak_rss_mb']:.0f}",
        )
        lines.append("| " + " | ".join(values) + " |")
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]]) -> str:
    """Seconds a round over parameters, both logarithmic, as SVG; dotted: as many bytes over plain TCP."""
    lines = []
    for codec in dict.fromkeys(row["codec"] for row in rows):
        own = [row for row in rows if row["codec"] == codec]
        for key, name in (("median_seconds", codec), ("trio_tcp_seconds", "")):
            points = [(row["params"], row[key]) for row in own]
            lines.append(Line(points, CODEC_COLOURS[codec], name, dotted=not name))
    ticks = {float(size): f"{size // 1_000_000} M" for size in SIZES}
    return plot(f"seconds a round, {NODES} nodes (dotted: plain TCP)", "parameters", lines, ticks=ticks)


def main(folder: Path, codecs: tuple[str, ...]) -> None:
    """Measure what is missing, then draw and print."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "rounds.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    for codec in codecs:
        for size in SIZES:
            if not any((row["params"], row["codec"]) == (size, codec) for row in rows):
                rows.append(measure(size, codec))
                file.write_text(json.dumps(rows, indent=1) + "\n")
    rows.sort(key=lambda row: (row["codec"] != "int4", row["params"]))
    (folder / "rounds.svg").write_text(picture(rows))
    print(table(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(sys.argv[2:]) or CODECS)
