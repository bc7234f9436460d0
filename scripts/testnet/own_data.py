"""A testnet on the user's own file: rows held out for all, the rest dealt to the nodes, a schema proposed from it.

The nodes take the same way as anybody's: each gets a file of its own rows and a query in node.toml, and encodes them
by the charter's schema when it starts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Literal

import numpy as np

from folkmoot.node.data.propose import propose, spelled
from folkmoot.node.data.source import Source, quote_name, quote_text
from folkmoot.protocol.charter_tables import Training
from folkmoot.protocol.schema import DataError, Schema
from folkmoot.testnet.dirichlet import concentration_of
from folkmoot.testnet.dirichlet import deal as deal_classes
from folkmoot.testnet.home import HELD_OUT_ROWS, OWN_ROWS, OwnData

HELD_OUT = 0.2
HIDDEN = (64, 32)
FEW_ROWS = 1000
"""With fewer rows to train on, a model with hidden layers learns them by heart."""

_IID = "iid"
_ROWS, _PARTS = "folkmoot_rows", "folkmoot_parts"


@dataclass(frozen=True)
class OwnTask:
    """What the founding needs: as of an `Example`, but the rows are in files of `folder`, one for each node."""

    name: str
    kind: Literal["mlp", "logistic"]
    layers: tuple[int, ...]
    training: Training
    data: Schema
    folder: Path
    rows: tuple[int, ...]
    notes: tuple[str, ...]
    image: tuple[int, ...] = ()

    def most_rows(self, nodes: int) -> int:
        """Of the node with the most, as they were dealt."""
        return max(self.rows)

    def write_data(self, folders: Sequence[Path]) -> None:
        """Put into `folders` (HOME/data of each node) its rows and the common held-out ones."""
        for number, folder in enumerate(folders):
            folder.mkdir(parents=True, exist_ok=True)
            copyfile(self.folder / f"{number}.parquet", folder / OWN_ROWS)
            copyfile(self.folder / HELD_OUT_ROWS, folder / HELD_OUT_ROWS)


def deal(own: OwnData, nodes: int, folder: Path) -> OwnTask:
    """Split the user's rows into files of `folder` and propose a schema from those to train on; raises `DataError`."""
    file = Path(own.file)
    with Source(file.parent) as source:
        dealer = _Dealer(source, file, nodes)
        dealer.assign(own.split_by, own.target)
        training = f"(SELECT rows.* FROM {_ROWS} rows JOIN {_PARTS} ON rows.rowid = id WHERE node >= 0)"
        schema, notes = propose(
            source, training, own.target, own.task, spelled=spelled(file), leave_out=own.leave_out
        )
        rows = dealer.write(folder)
    hidden = HIDDEN if sum(rows) >= FEW_ROWS else ()
    return OwnTask(
        name=_charter_name(file),
        kind="mlp" if hidden else "logistic",
        layers=(schema.features, *hidden, schema.outputs),
        training=Training(batch=32, lr="0.02"),
        data=schema,
        folder=folder,
        rows=rows,
        notes=(*dealer.notes, *notes),
    )


class _Dealer:
    """Gives every row of a file to a node, or to the held-out ones (node -1)."""

    def __init__(self, source: Source, file: Path, nodes: int) -> None:
        self.notes: list[str] = []
        self._source = source
        self._nodes = nodes
        source.ask(f"CREATE TEMP TABLE {_ROWS} AS SELECT * FROM {source.table_of(file)}")
        self._columns = list(source.types(_ROWS))

    def assign(self, split_by: str, target: str) -> None:
        """Hold rows out by their hash, deal the others: evenly, by values of the column `split_by`, or unevenly."""
        is_column = split_by != _IID and not concentration_of(split_by)
        if is_column and split_by not in self._columns:
            raise DataError(
                f"no column {split_by!r} to split by; there are {', '.join(self._columns)}, or {_IID}"
            )
        texts = ", ".join(f"coalesce({quote_name(name)}::VARCHAR, '')" for name in self._columns)
        value = "NULL" if not is_column else f"{quote_name(split_by)}::VARCHAR"
        limit = f"{int(HELD_OUT * 16**15):015x}"
        self._source.ask(
            f"CREATE TEMP TABLE {_PARTS} AS SELECT rowid AS id, {value} AS value, -1 AS node, "
            f"sha256(concat_ws(chr(31), {texts})) AS hash FROM {_ROWS}"
        )
        dealt = f"hash >= {quote_text(limit)}"
        if concentration := concentration_of(split_by):
            self._deal_classes(target, concentration, dealt)
            return
        if split_by == _IID:
            order = f"SELECT id, row_number() OVER (ORDER BY hash, id) AS place FROM {_PARTS} WHERE {dealt}"
            self._source.ask(
                f"UPDATE {_PARTS} SET node = place % {self._nodes} FROM ({order}) AS dealt WHERE dealt.id = {_PARTS}.id"
            )
            return
        for text, node in self._share(split_by, dealt):
            same = "value IS NULL" if text is None else f"value = {quote_text(text)}"
            self._source.ask(f"UPDATE {_PARTS} SET node = {node} WHERE {dealt} AND {same}")

    def _deal_classes(self, target: str, concentration: float, dealt: str) -> None:
        """Shares of each class of the target from a Dirichlet distribution."""
        found = self._source.ask(
            f"SELECT id, coalesce(rows.{quote_name(target)}::VARCHAR, '') FROM {_PARTS} "
            f"JOIN {_ROWS} rows ON rows.rowid = id WHERE {dealt} ORDER BY id"
        )
        _, classes = np.unique([text for _, text in found], return_inverse=True)
        for node, rows in enumerate(deal_classes(classes, self._nodes, concentration, seed=0)):
            ids = ", ".join(str(found[row][0]) for row in rows)
            self._source.ask(f"UPDATE {_PARTS} SET node = {node} WHERE id IN ({ids})")

    def _share(self, split_by: str, dealt: str) -> list[tuple[str | None, int]]:
        """Each value's node: the most frequent value first, always to the node with the fewest rows."""
        counted = self._source.ask(
            f"SELECT value, count(*) AS rows FROM {_PARTS} WHERE {dealt} GROUP BY value ORDER BY rows DESC, value"
        )
        if len(counted) < self._nodes:
            raise DataError(
                f"the column {split_by!r} has {len(counted)} values for {self._nodes} nodes: give --nodes "
                f"{len(counted)} or less, or split by another column"
            )
        sizes, shares = [0] * self._nodes, []
        for value, rows in counted:
            node = sizes.index(min(sizes))
            sizes[node] += rows
            shares.append((value, node))
        if len(counted) <= 4 * self._nodes:
            held = [
                ", ".join(str(value) for value, at in shares if at == node) for node in range(self._nodes)
            ]
            self.notes.append(f"{split_by} by node: " + " | ".join(held))
        return shares

    def write(self, folder: Path) -> tuple[int, ...]:
        """One Parquet file for each node, and one with what is held out; how many rows each node is dealt."""
        folder.mkdir(parents=True, exist_ok=True)
        counts = dict(self._source.ask(f"SELECT node, count(*) FROM {_PARTS} GROUP BY node"))
        for node in range(-1, self._nodes):
            if not counts.get(node):
                whom = f"node {node + 1}" if node >= 0 else "the held-out part"
                raise DataError(f"the file has too few rows: none is left for {whom}")
            name = HELD_OUT_ROWS if node < 0 else f"{node}.parquet"
            rows = f"FROM {_ROWS} rows JOIN {_PARTS} ON rows.rowid = id WHERE node = {node} ORDER BY id"
            target = quote_text(str(folder / name))
            self._source.ask(f"COPY (SELECT {self._present(node)} {rows}) TO {target} (FORMAT parquet)")
        return tuple(counts[node] for node in range(self._nodes))

    def _present(self, node: int) -> str:
        """The columns of which a node has a value: what it never recorded is in no file of its own either."""
        counted = ", ".join(f"count(rows.{quote_name(name)})" for name in self._columns)
        rows = f"FROM {_ROWS} rows JOIN {_PARTS} ON rows.rowid = id WHERE node = {node}"
        (counts,) = self._source.ask(f"SELECT {counted} {rows}")
        present = [name for name, count in zip(self._columns, counts, strict=True) if count or node < 0]
        return ", ".join(f"rows.{quote_name(name)}" for name in present)


def _charter_name(file: Path) -> str:
    """The file's name as a charter's: small letters, digits and hyphens."""
    words = "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in file.stem.lower())
    return "-".join(words.split())[:32].strip("-") or "own-data"
