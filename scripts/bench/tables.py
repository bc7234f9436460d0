"""Real tables for measurements, as the rows of the members that they are divided between.

UCI heart disease comes from four hospitals; of IBM's customer churn every kind of contract is a member's. Neither is
part of this project. Rows are encoded by a schema that is proposed from a file, as `charter new` does.
"""

import csv
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from folkmoot.node.data.propose import propose_schema
from folkmoot.node.data.source import Source
from folkmoot.protocol.rows import encode
from folkmoot.protocol.schema import Schema
from folkmoot.testnet.examples import Rows

HOSPITALS = {
    "Cleveland": "cleveland",
    "Hungary": "hungarian",
    "Switzerland": "switzerland",
    "Long Beach": "va",
}
HEART = (
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope"),
    *("ca", "thal"),
)
CODES = ("cp", "restecg", "slope", "thal")

Table = list[dict[str, str]]


def read_hearts(folder: Path) -> dict[str, Table]:
    """Rows of each hospital as text; a cholesterol of 0 is none."""
    found = {}
    for hospital, name in HOSPITALS.items():
        table = []
        for line in (folder / f"processed.{name}.data").read_text().split():
            *values, sick = line.split(",")
            row = {key: value for key, value in zip(HEART, values, strict=True) if value != "?"}
            if float(row.get("chol", 1)) == 0:
                del row["chol"]
            table.append({**row, "disease": "yes" if float(sick) else "no"})
        found[hospital] = table
    return found


def read_churn(file: Path) -> dict[str, Table]:
    """Rows of each kind of contract as text, without it and the customer's number."""
    found: dict[str, Table] = {}
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            member = row.pop("Contract")
            del row["customerID"]
            found.setdefault(member, []).append({key: value for key, value in row.items() if value.strip()})
    return found


def encode_tables(
    tables: Mapping[str, Table], like: Sequence[str], target: str
) -> tuple[Schema, dict[str, Rows]]:
    """Every member's rows, by a schema proposed from the rows of the members in `like`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for member, table in tables.items():
            _write(folder / f"{member}.csv", table)
        _write(folder / "like.csv", [row for member in like for row in tables[member]])
        codes = [code for code in CODES if code in tables[like[0]][0]]
        schema, _ = propose_schema(folder / "like.csv", target, allow_missing=True, categories=codes)
        with Source(folder) as source:
            return schema, {member: _encoded(source, schema, f"{member}.csv") for member in tables}


def _write(file: Path, table: Table) -> None:
    names = list(dict.fromkeys(name for row in table for name in row))
    with file.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, names)
        writer.writeheader()
        writer.writerows(table)


def _encoded(source: Source, schema: Schema, file: str) -> Rows:
    pieces = [encode(schema, batch.columns) for batch in source.batches(f"SELECT * FROM '{file}'", file)]
    x, y = np.concatenate([piece.x for piece in pieces]), np.concatenate([piece.y for piece in pieces])
    return Rows(x, y.astype(np.int64))
