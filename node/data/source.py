"""DuckDB, in this file only: CSV, Parquet, JSON and SQLite files as tables of one SQL query.

Relative paths in a query start at the folder of the source. Nothing is downloaded: DuckDB fetches extensions from the
network by itself unless that is switched off. Its SQLite reader is such an extension, so a SQLite file that a query
names is copied into memory with Python's own module: FROM 'shop.sqlite' where it holds one table, else
FROM "shop.sqlite".orders.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, closing
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import duckdb
import numpy as np
import numpy.typing as npt

from folkmoot.protocol.schema import DataError

BATCH = 65_536
"""Rows that are in Python's hands at a time."""

_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_SQLITE = (".sqlite", ".sqlite3", ".db")
_QUOTED = re.compile(r"'((?:[^']|'')+)'|\"((?:[^\"]|\"\")+)\"")


class Batch(NamedTuple):
    """Consecutive rows of a query: values by column; `first_row` counts from 1."""

    columns: dict[str, list[object]]
    first_row: int


class Source:
    """A DuckDB in memory, looking at the files of `folder`, which is the working directory within the `with` block.

    Every error of it is a `DataError`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inside = chdir(
            folder
        )  # DuckDB's own search path comes second to where the process happens to be
        self._connection = duckdb.connect(config=_SETTINGS)

    def __enter__(self) -> Self:
        self._inside.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside.__exit__(kind, error, trace)
        self._connection.close()

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of a query of our own."""
        try:
            return self._connection.execute(query).fetchall()
        except duckdb.Error as error:
            raise DataError(_explain(error)) from error

    def register(self, name: str, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """Make arrays of one length the columns of a table of our own."""
        self._connection.register(name, dict(columns))

    def types(self, relation: str) -> dict[str, str]:
        """Columns of `relation` (what may stand after FROM) and their SQL types."""
        return {name: kind for name, kind, *_ in self.ask(f"DESCRIBE SELECT * FROM {relation}")}

    def batches(self, query: str, what: str) -> Iterator[Batch]:
        """The rows of the operator's `query`, one SELECT; `what` names it in messages."""
        try:
            self._load_sqlite(query)
            self._check_single(query, what)
            names = self._start(query, what)
            first = 1
            while rows := self._connection.fetchmany(BATCH):
                yield Batch(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)), first)
                first += len(rows)
        except duckdb.Error as error:
            raise DataError(f"{what}: {_explain(error)}") from error

    def _start(self, query: str, what: str) -> list[str]:
        """Begin the query; the names of its columns."""
        self._connection.execute(query)
        names = [column[0] for column in self._connection.description]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"{what}: two columns are called {twice[0]!r}: rename one (AS)")
        return names

    def _check_single(self, query: str, what: str) -> None:
        statements = self._connection.extract_statements(query)
        if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
            raise DataError(f"{what}: it must be one SELECT statement")

    def table_of(self, file: Path) -> str:
        """What to write after FROM to read `file`."""
        if not file.is_file():
            raise DataError(f"{file}: no such file")
        name = quote_text(str(file))
        self._load_sqlite(name)
        return name

    def _load_sqlite(self, query: str) -> None:
        for found in _QUOTED.finditer(query):
            name = (found[1] or found[2]).replace("''", "'").replace('""', '"')
            if name.lower().endswith(_SQLITE) and (path := self._folder / name).is_file():
                self._copy_sqlite(name, path)

    def _copy_sqlite(self, name: str, path: Path) -> None:
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
                tables = [
                    row[0]
                    for row in database.execute(
                        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
                    )
                ]
                self.ask(f"CREATE SCHEMA IF NOT EXISTS {quote_name(name)}")
                for table in tables:
                    self._copy_table(database, table, f"{quote_name(name)}.{quote_name(table)}")
        except sqlite3.Error as error:
            raise DataError(f"{path}: cannot be read as SQLite: {error}") from error
        if len(tables) == 1:
            inner = f"{quote_name(name)}.{quote_name(tables[0])}"
            self.ask(f"CREATE OR REPLACE VIEW {quote_name(name)} AS SELECT * FROM {inner}")

    def _copy_table(self, database: sqlite3.Connection, table: str, target: str) -> None:
        cursor = database.execute(f"SELECT * FROM {quote_name(table)}")
        names = [column[0] for column in cursor.description]
        rows = cursor.fetchall()
        columns = {name: _typed([row[at] for row in rows]) for at, name in enumerate(names)}
        self._connection.register("folkmoot_copy", columns)
        self.ask(f"CREATE OR REPLACE TABLE {target} AS SELECT * FROM folkmoot_copy")
        self._connection.unregister("folkmoot_copy")


def quote_name(name: str) -> str:
    """`name` as SQL writes an identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """`text` as SQL writes a string."""
    return "'" + text.replace("'", "''") + "'"


def _typed(values: Sequence[object]) -> np.ma.MaskedArray[Any, Any]:
    """SQLite's types are those of single values: integers, else floats, where all are; else text."""
    kinds = {type(value) for value in values} - {type(None)}
    kind: Any = np.int64 if kinds == {int} else np.float64 if kinds and kinds <= {int, float} else object
    empty = "" if kind is object else 0
    filled = [empty if value is None else value for value in values]
    data = np.array([str(value) for value in filled] if kind is object else filled, dtype=kind)
    return np.ma.MaskedArray(data, mask=[value is None for value in values])


def _explain(error: duckdb.Error) -> str:
    """DuckDB's own message, which names the place in the query."""
    return str(error).strip()
