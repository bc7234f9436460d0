"""A member's rows for its trainer: query, encode by the charter's schema, split, write.

`python -m folkmoot.node.data.prepare --home HOME` writes the two safetensors files that node.toml names (`x` float32
(rows, features), `y` int64 or float32 (rows,)) and HOME/data/summary.json. A process of its own, so that the daemon
never holds the rows. On a fault it prints one line and exits with 2; a query's fault in DuckDB's own words.
"""

import argparse
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors.numpy

from folkmoot.node.charter_files import read_charter
from folkmoot.node.config import DataConfig, Home, load_config
from folkmoot.node.data.source import Source
from folkmoot.node.data.summary import Part, Summary
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.rows import Encoded, Floats, Targets, encode
from folkmoot.protocol.schema import DataError, Schema


class Rows(NamedTuple):
    """Encoded rows: inputs and targets, one for one."""

    x: Floats
    y: Targets


class Prepared(NamedTuple):
    """What the trainer is to get, and what to say of it."""

    train: Rows
    test: Rows
    summary: Summary


def prepare(home: Home) -> Summary:
    """Read, encode and write the rows of `home`; raises `FolkmootError`, having written nothing."""
    data = load_config(home).data
    prepared = read(home)
    _write(home.resolve(data.train), prepared.train)
    _write(home.resolve(data.test), prepared.test)
    text = msgspec.json.format(msgspec.json.encode(prepared.summary), indent=1)
    _replace(home.data_summary, text + b"\n")
    return prepared.summary


def read(home: Home) -> Prepared:
    """Read and encode the rows of `home`; raises `DataError` where they do not fit the charter's schema."""
    schema, data = read_charter(home).data, load_config(home).data
    if schema is None:
        raise DataError(f"{home.charter}: declares no data schema: the node reads {data.train} as it is")
    if data.query is None:
        raise DataError(f"{home.config}: has no data.query: write the query that reads your rows")
    with Source(home.path) as source:
        reading = _Reading(source, schema)
        rows = reading.rows(data.query, "data.query")
        if data.test_query is None:
            train, test = _split(rows, data.holdout)
        else:
            train, test = rows, _Reading(source, schema).rows(data.test_query, "data.test_query")
    if not len(train.y):
        raise DataError(f"data.query: gives no rows to train on (holdout = {data.holdout:g})")
    return Prepared(train, test, reading.summary(train, test, data))


def held_out(rows: Rows, share: float) -> npt.NDArray[np.bool_]:
    """Which rows belong to the held-out `share`: by what is in them, whatever stands before or after.

    SHA-256 over the encoded row; equal rows are on one side, so none is trained on and measured with.
    """
    limit = int(share * 2**64)
    hashes = (sha256(x.tobytes() + y.tobytes()).digest() for x, y in zip(rows.x, rows.y, strict=True))
    return np.fromiter(
        (int.from_bytes(digest[:8], "big") < limit for digest in hashes), dtype=np.bool_, count=len(rows.y)
    )


def _split(rows: Rows, share: float) -> tuple[Rows, Rows]:
    out = held_out(rows, share)
    return Rows(rows.x[~out], rows.y[~out]), Rows(rows.x[out], rows.y[out])


class _Reading:
    """Encodes the rows of queries, and counts what they lack."""

    def __init__(self, source: Source, schema: Schema) -> None:
        self._source = source
        self._schema = schema
        self._missing = dict.fromkeys((column.name for column in schema.columns), 0)
        self._columns: set[str] = set()
        self._without_target = 0
        self._rows = 0

    def rows(self, query: str, what: str) -> Rows:
        """All rows of `query` that have a target; `what` names it in messages."""
        pieces = list(self._encoded(query, what))
        if not pieces:
            raise DataError(f"{what}: gives no rows")
        return Rows(
            np.concatenate([piece.x for piece in pieces]), np.concatenate([piece.y for piece in pieces])
        )

    def _encoded(self, query: str, what: str) -> Iterator[Encoded]:
        for batch in self._source.batches(query, what):
            self._columns |= set(batch.columns)
            try:
                piece = encode(self._schema, batch.columns, batch.first_row)
            except DataError as error:
                raise DataError(f"{what}: {error}") from error
            for name, count in piece.missing.items():
                self._missing[name] += count
            self._without_target += piece.without_target
            self._rows += len(piece.y) + piece.without_target
            yield piece

    def summary(self, train: Rows, test: Rows, data: DataConfig) -> Summary:
        """What to say of the rows that were read, and of how they are used."""
        wanted = {self._schema.target, *self._missing}
        absent = tuple(name for name in self._missing if name not in self._columns)
        return Summary(
            task=self._schema.task,
            target=self._schema.target,
            features=self._schema.features,
            train=self._part(train),
            test=self._part(test),
            rows=self._rows,
            without_target=self._without_target,
            missing=self._missing,
            absent=absent,
            ignored=tuple(sorted(self._columns - wanted)),
            warnings=tuple(self._warnings(train, test, data, absent)),
        )

    def _part(self, rows: Rows) -> Part:
        counts = np.bincount(rows.y, minlength=len(self._schema.classes)) if self._schema.classes else ()
        return Part(rows=len(rows.y), classes=dict(zip(self._schema.classes, map(int, counts), strict=True)))

    def _warnings(self, train: Rows, test: Rows, data: DataConfig, absent: tuple[str, ...]) -> Iterator[str]:
        at = 0
        for column in self._schema.columns:
            place = train.x[:, at : at + column.width]
            at += column.width
            if column.name in absent:
                yield f"column {column.name!r} is not there: it counts as missing in every row"
            elif self._missing[column.name] == self._rows:
                yield f"column {column.name!r} has no value in any row"
            elif len(place) > 1 and (place == place[0]).all():
                yield f"column {column.name!r} has the same value in every row"
        if len(train.y) > 1 and (train.y == train.y[0]).all():
            name = self._schema.classes[train.y[0]] if self._schema.classes else f"{train.y[0]:g}"
            yield f"the target {self._schema.target!r} is {name} in every row to train on"
        if not len(test.y) and (data.holdout or data.test_query):
            yield "no row is held out: nothing will be measured on this node"


def _write(path: Path, rows: Rows) -> None:
    """Replace the file at `path`, whole; without rows there is none."""
    if not len(rows.y):
        path.unlink(missing_ok=True)
        return
    tensors = {"x": np.ascontiguousarray(rows.x), "y": np.ascontiguousarray(rows.y)}
    _replace(path, safetensors.numpy.save(tensors))


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch(mode=0o600)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error


def main(arguments: list[str]) -> int:
    """Run with the words after the program's name; the exit status."""
    parser = argparse.ArgumentParser(prog="prepare", description="Prepare a node's rows for its trainer.")
    parser.add_argument("--home", type=Path, required=True, help="the node's directory")
    try:
        prepare(Home(parser.parse_args(arguments).home.resolve()))
    except FolkmootError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
