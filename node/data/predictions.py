"""Rows of a file with a model's predictions beside them, in the file's own order."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

from folkmoot.node.data.propose import spelled
from folkmoot.node.data.source import Source, quote_name, quote_text
from folkmoot.protocol.rows import Floats, encode_inputs
from folkmoot.protocol.schema import DataError, Schema

Predict: TypeAlias = Callable[[Floats], Mapping[str, npt.NDArray[Any]]]
"""Columns (n,) by name for inputs float32 (n, features)."""

FORMATS = {".csv": "csv", ".parquet": "parquet"}

_PREDICTIONS = "folkmoot_predictions"


def predict_rows(data: Path, out: Path, schema: Schema, predict: Predict) -> tuple[int, list[str]]:
    """Write every row of `data` (CSV, Parquet, JSON or SQLite) with its predictions to `out` (CSV or Parquet).

    Returns how many rows there are, and the schema's columns that the file lacks and that may be missing. Raises
    `DataError` at the first difference between file and schema.
    """
    kind, data, out = _format(out), data.resolve(), out.resolve()
    with Source(data.parent) as source:
        # A CSV file's values stay the text that they are: Yes must not come out as true.
        table = spelled(data) or source.table_of(data)
        present = list(source.types(table))
        absent = [column.name for column in schema.columns if column.name not in present]
        if len(absent) == len(schema.columns):
            raise DataError(
                f"{data}: none of the model's columns is there: it has {', '.join(present[:8])}, the model was trained "
                f"on {', '.join(absent[:8])}"
            )
        predicted = _joined(predict(x) for x in _inputs(source, table, data, schema))
        if taken := sorted(set(present) & set(predicted)):
            raise DataError(
                f"{data}: has a column {taken[0]!r} already: rename it, the prediction is called that"
            )
        source.register(_PREDICTIONS, predicted)
        names = ", ".join(map(quote_name, present))
        rows = f"SELECT {names}, {_PREDICTIONS}.* FROM {table} POSITIONAL JOIN {_PREDICTIONS}"
        source.ask(f"COPY ({rows}) TO {quote_text(str(out))} (FORMAT {kind})")
    return len(next(iter(predicted.values()))), absent


def predict_inputs(data: Path, out: Path, features: int, predict: Predict) -> int:
    """The same for encoded rows, `x` float32 (rows, features) in a safetensors file; only predictions are written."""
    kind, out = _format(out), out.resolve()
    try:
        x = safetensors.numpy.load_file(data).get("x")
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{data}: cannot be read: {error}: this model has no data schema, it takes a safetensors file with x"
        ) from error
    if x is None or x.dtype != np.float32 or x.ndim != 2 or x.shape[1] != features or not len(x):
        found = "no x" if x is None else f"x {x.dtype} {list(x.shape)}"
        raise DataError(
            f"{data}: holds {found}; the model takes x float32 [rows, {features}], at least one row"
        )
    with Source(out.parent) as source:
        source.register(_PREDICTIONS, predict(x))
        source.ask(f"COPY (SELECT * FROM {_PREDICTIONS}) TO {quote_text(str(out))} (FORMAT {kind})")
    return len(x)


def _format(out: Path) -> str:
    if out.suffix not in FORMATS:
        raise DataError(f"{out}: give a name that ends in {' or '.join(FORMATS)}")
    return FORMATS[out.suffix]


def _inputs(source: Source, table: str, data: Path, schema: Schema) -> Iterator[Floats]:
    for batch in source.batches(f"SELECT * FROM {table}", str(data)):
        try:
            yield encode_inputs(schema, batch.columns, batch.first_row)[0]
        except DataError as error:
            raise DataError(f"{data}: {error}") from error


def _joined(pieces: Iterator[Mapping[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    all_pieces = list(pieces)
    if not all_pieces:
        raise DataError("the file has no rows to predict")
    return {name: np.concatenate([piece[name] for piece in all_pieces]) for name in all_pieces[0]}
