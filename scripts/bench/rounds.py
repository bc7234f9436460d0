"""How a round grows with the model: `.venv/bin/python scripts/bench/rounds.py FOLDER [CODEC...]`.

Runs `folkmoot bench round` with 4 nodes for 1, 10, 25 and 100 million parameters, keeps every figure in
FOLDER/rounds.json, draws FOLDER/rounds.svg, and prints a table for docs/benchmarks.md. Sizes that the JSON file has are
not run again: remove it to measure anew. 100 million float32 parameters take 10 GB of disk for each round.
"""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

NODES = 4
ROUNDS = 2
SIZES = (1_000_000, 10_000_000, 25_000_000, 100_000_000)
CODECS = ("int4", "f32")
COLOURS = {"int4": "#0b6e4f", "int8": "#8a6d00", "f32": "#7a1f5c"}
WIDTH, HEIGHT, MARGIN = 560, 340, 60
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


def plot(rows: list[dict[str, Any]]) -> str:
    """Seconds a round over parameters, both logarithmic, as SVG; dotted: as many bytes over plain TCP."""
    seconds = [value for row in rows for value in (row["median_seconds"], row["trio_tcp_seconds"])]
    low, high = math.floor(math.log10(min(seconds))), math.ceil(math.log10(max(seconds)))
    left, right = math.log10(SIZES[0]), math.log10(SIZES[-1])

    def at(parameters: float, value: float) -> tuple[float, float]:
        x = MARGIN + (math.log10(parameters) - left) / (right - left) * (WIDTH - 2 * MARGIN)
        y = HEIGHT - MARGIN - (math.log10(value) - low) / (high - low) * (HEIGHT - 2 * MARGIN)
        return round(x, 1), round(y, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{MARGIN}" y="24">seconds a round, {NODES} nodes (dotted: plain TCP)</text>',
    ]
    for power in range(low, high + 1):
        x, y = at(SIZES[0], 10.0**power)
        parts.append(f'<path d="M{x} {y}H{WIDTH - MARGIN}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{10.0**power:g}</text>')
    for size in SIZES:
        x, y = at(size, 10.0**low)
        parts.append(f'<text x="{x}" y="{y + 20}" text-anchor="middle">{size // 1_000_000} M</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 14}" text-anchor="middle">parameters</text>')
    for codec in dict.fromkeys(row["codec"] for row in rows):
        own = [row for row in rows if row["codec"] == codec]
        for key, dash in (("median_seconds", ""), ("trio_tcp_seconds", ' stroke-dasharray="2 4"')):
            points = [at(row["params"], row[key]) for row in own]
            line = " ".join(f"{x},{y}" for x, y in points)
            parts.append(
                f'<polyline points="{line}" fill="none" stroke="{COLOURS[codec]}" stroke-width="2"{dash}/>'
            )
            parts += [f'<circle cx="{x}" cy="{y}" r="2.5" fill="{COLOURS[codec]}"/>' for x, y in points]
        x, y = at(own[-1]["params"], own[-1]["median_seconds"])
        parts.append(f'<text x="{x + 6}" y="{y + 4}" fill="{COLOURS[codec]}">{codec}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


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
    (folder / "rounds.svg").write_text(plot(rows))
    print(table(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(sys.argv[2:]) or CODECS)
