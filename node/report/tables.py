"""The figures of a report as CSV: rounds, nodes and calibration, one line each, for any spreadsheet."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from folkmoot.node.report.story import LABELS, Story

Row: TypeAlias = Sequence[object]


def write_tables(folder: Path, story: Story) -> list[Path]:
    """Write `rounds.csv`, `nodes.csv` and, where there is calibration, `calibration.csv`; raises `OSError`."""
    tables: dict[str, tuple[Row, Iterable[Row]]] = {
        "rounds.csv": (
            ("round", "node", "took_part", "participants", "seconds", "bytes", *_measures(story), "model"),
            _rounds(story),
        ),
        "nodes.csv": (("node", "model", *_measures(story)), _nodes(story)),
    }
    if any(part.calibration for part in story.parts):
        tables["calibration.csv"] = (("node", "rows", "mean_chance", "frequency"), _calibration(story))
    for name, (heading, rows) in tables.items():
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([heading, *rows])
    return [folder / name for name in tables]


def _measures(story: Story) -> list[str]:
    return [*(name for name in LABELS if name in story.measures), "examples"]


def _rounds(story: Story) -> Iterator[Row]:
    """A line for each round and node."""
    for number in story.rounds:
        for part in story.parts:
            for row in part.rounds:
                if row.round == number:
                    took_part = int(part.name in row.participants)
                    measured = [row.metrics.get(name, "") for name in _measures(story)]
                    yield (
                        *(
                            number,
                            part.name,
                            took_part,
                            len(row.participants),
                            f"{row.seconds:.3f}",
                            row.bytes,
                        ),
                        *(*measured, row.model_digest),
                    )


def _nodes(story: Story) -> Iterator[Row]:
    """A line for each node and kind of model, and one for the pooled model."""
    for part in story.parts:
        for name, measured in part.models.items():
            yield (part.name, name, *(measured.get(measure, "") for measure in _measures(story)))
    if story.pooled:
        yield ("", "pooled", *(story.pooled.get(measure, "") for measure in _measures(story)))


def _calibration(story: Story) -> Iterator[Row]:
    for part in story.parts:
        for step in part.calibration:
            if step.rows:
                yield (part.name, int(step.rows), step.chances / step.rows, step.hits / step.rows)
