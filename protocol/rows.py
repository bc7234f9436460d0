"""A member's rows as a model takes them, by the charter's schema (`schema.py`): plain Python values in, arrays out."""

import math
from collections.abc import Hashable, Mapping, Sequence
from decimal import Decimal as ExactDecimal
from difflib import get_close_matches
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from folkmoot.protocol.schema import Column, DataError, Schema

Floats: TypeAlias = npt.NDArray[np.float32]
Targets: TypeAlias = npt.NDArray[np.int64] | npt.NDArray[np.float32]
Columns: TypeAlias = Mapping[str, Sequence[object]]
"""Values by column name, all of one length: str, bool, int, float, Decimal, or None where there is none."""

_TRUTHS = {
    "true": True,
    "t": True,
    "yes": True,
    "y": True,
    "false": False,
    "f": False,
    "no": False,
    "n": False,
}
_MISSING, _UNKNOWN = -1, -2
_SHOWN = 8


class Encoded(NamedTuple):
    """Rows as a model takes them: `x` float32 (n, features); `y` (n,) int64 classes, or float32 for a regression.

    Rows without a target are left out and counted. `missing` counts the missing values of each column over all rows.
    """

    x: Floats
    y: Targets
    missing: dict[str, int]
    without_target: int


def encode(schema: Schema, columns: Columns, first_row: int = 1) -> Encoded:
    """Inputs and targets of the rows whose target is there; other columns than the schema's are ignored.

    A column that is not there at all counts as missing in every row. `first_row` is the number of the first row in
    messages. Raises `DataError` for the first value that does not fit.
    """
    if schema.target not in columns:
        raise DataError(f"the rows have no target column {schema.target!r}{_nearest(schema.target, columns)}")
    y, known = _read_target(schema, columns[schema.target], first_row)
    x, missing = encode_inputs(schema, columns, first_row)
    return Encoded(x[known], y[known], missing, int(len(known) - known.sum()))


def encode_inputs(schema: Schema, columns: Columns, first_row: int = 1) -> tuple[Floats, dict[str, int]]:
    """`x` float32 (n, features) of every row, and the missing values of each column; raises as `encode`."""
    rows = len(next(iter(columns.values()), ()))
    x = np.zeros((rows, schema.features), dtype=np.float32)
    missing, at = {}, 0
    for column in schema.columns:
        values = columns.get(column.name)
        if values is None:
            if column.missing == "refuse":
                raise DataError(
                    f"the rows have no column {column.name!r}, and the charter allows no missing values in it"
                    + _nearest(column.name, columns)
                )
            values = [None] * rows
        place = x[:, at : at + column.width]
        read = _encode_numbers if column.kind == "number" else _encode_categories
        absent = read(schema, column, values, place, first_row)
        missing[column.name] = int(absent.sum())
        at += column.width
    return x, missing


def _encode_numbers(
    schema: Schema, column: Column, values: Sequence[object], place: Floats, first_row: int
) -> npt.NDArray[np.bool_]:
    """Fill the places of a number; which values are missing."""
    numbers, absent = _read_numbers(schema, column.name, values, first_row)
    _refuse_missing(column, absent, first_row)
    place[:, 0] = _scaled(column.name, numbers, absent, column.center, column.scale, first_row)
    if column.missing == "indicate":
        place[:, 1] = absent
    return absent


def _encode_categories(
    schema: Schema, column: Column, values: Sequence[object], place: Floats, first_row: int
) -> npt.NDArray[np.bool_]:
    """Fill the places of a category; which values are missing."""
    slots = _read_slots(schema, column.name, column.categories, values, first_row, strict=not column.other)
    absent: npt.NDArray[np.bool_] = slots == _MISSING
    _refuse_missing(column, absent, first_row)
    slots[slots == _UNKNOWN] = len(column.categories)
    if column.missing == "indicate":
        slots[absent] = column.width - 1
    filled = np.flatnonzero(slots >= 0)
    place[filled, slots[filled]] = 1
    return absent


def _read_target(
    schema: Schema, values: Sequence[object], first_row: int
) -> tuple[Targets, npt.NDArray[np.bool_]]:
    """The targets, and which rows have one."""
    if schema.classes:
        labels = _read_slots(schema, schema.target, schema.classes, values, first_row, strict=True)
        return labels, labels != _MISSING
    numbers, absent = _read_numbers(schema, schema.target, values, first_row)
    return _scaled(schema.target, numbers, absent, schema.center, schema.scale, first_row), ~absent


def _read_numbers(
    schema: Schema, name: str, values: Sequence[object], first_row: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The values as float64, NaN where missing; and which are."""
    try:
        numbers = np.array(values, dtype=np.float64)  # reads None as NaN, and numbers written as text
    except (TypeError, ValueError, OverflowError):
        numbers = np.empty(0)
    if numbers.shape != (len(values),):  # something else is among them
        blanks = _blanks(schema)
        numbers = np.array([_number(name, value, blanks, row) for row, value in enumerate(values, first_row)])
    return numbers, np.isnan(numbers)


def _number(name: str, value: object, blanks: frozenset[str], row: int) -> float:
    if value is None or (isinstance(value, str) and value.strip().casefold() in blanks):
        return math.nan
    try:
        if isinstance(value, str | int | float | ExactDecimal):
            return float(value)
    except (ValueError, OverflowError):
        pass
    raise DataError(f"row {row}, column {name!r}: {value!r} is not a number")


def _scaled(
    name: str,
    numbers: npt.NDArray[np.float64],
    absent: npt.NDArray[np.bool_],
    center: str,
    scale: str,
    first_row: int,
) -> Floats:
    """(value - center) / scale, 0 where missing."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = ((numbers - float(center)) / float(scale)).astype(np.float32)
    scaled[absent] = 0
    if not np.isfinite(scaled).all():
        at = int(np.argmin(np.isfinite(scaled)))
        raise DataError(f"row {first_row + at}, column {name!r}: {numbers[at]!s} is too large to learn from")
    return scaled


def _read_slots(
    schema: Schema,
    name: str,
    labels: Sequence[str],
    values: Sequence[object],
    first_row: int,
    *,
    strict: bool,
) -> npt.NDArray[np.int64]:
    """The number of each value's label, or that it is missing or (unless `strict`) unknown."""
    matcher = _Matcher(labels, _blanks(schema))
    # By type too: True == 1 == 1.0 to a dict.
    found: dict[tuple[type, object], int] = {}
    slots = np.empty(len(values), dtype=np.int64)
    for at, value in enumerate(values):
        key = (type(value), value if isinstance(value, Hashable) else str(value))
        slot = found.get(key)
        if slot is None:
            slot = found[key] = matcher.slot(value)
        if slot == _UNKNOWN and strict:
            what = "classes" if name == schema.target else "categories"
            raise DataError(
                f"row {first_row + at}, column {name!r}: {_shown(value)} is none of the charter's {what} "
                f"({_listed(labels)})"
            )
        slots[at] = slot
    return slots


class _Matcher:
    """Finds the label that a value means: its text, or for a number or a boolean the only label of that meaning.

    Readers guess types from the rows at hand: one member's column of Yes and No is boolean, another's, with a third
    word in it, is text; 1, 1.0 and "1.0" are one number.
    """

    def __init__(self, labels: Sequence[str], blanks: frozenset[str]) -> None:
        self._blanks = blanks
        self._texts = {label: slot for slot, label in enumerate(labels)}
        self._numbers = _unique([_to_number(label) for label in labels])
        self._truths = _unique([_TRUTHS.get(label.casefold()) for label in labels])

    def slot(self, value: object) -> int:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return _MISSING
        if isinstance(value, bool):
            return self._truths.get(value, _UNKNOWN)
        if isinstance(value, int | float | ExactDecimal):
            return self._numbers.get(_to_number(str(value)), _UNKNOWN)
        text = str(value).strip()
        if text in self._texts:
            return self._texts[text]
        if text.casefold() in self._blanks:
            return _MISSING
        return self._numbers.get(_to_number(text), _UNKNOWN)


def _unique(meanings: Sequence[object]) -> dict[object, int]:
    """The place of each meaning that only one label has."""
    return {one: at for at, one in enumerate(meanings) if one is not None and meanings.count(one) == 1}


def _to_number(text: str) -> ExactDecimal | None:
    try:
        number = ExactDecimal(text)
    except ArithmeticError:
        return None
    return number if number.is_finite() else None


def _blanks(schema: Schema) -> frozenset[str]:
    return frozenset(blank.casefold() for blank in schema.blanks) | {""}


def _refuse_missing(column: Column, absent: npt.NDArray[np.bool_], first_row: int) -> None:
    if column.missing == "refuse" and absent.any():
        row = first_row + int(np.argmax(absent))
        raise DataError(
            f"row {row}, column {column.name!r}: no value, and the charter allows none to be missing"
        )


def _nearest(name: str, columns: Columns) -> str:
    folded = {other.casefold(): other for other in columns}
    nearest = get_close_matches(name.casefold(), folded, n=1)
    if nearest:
        return f'; is it {folded[nearest[0]]!r}? Rename it in the query: ... AS "{name}"'
    return f"; they have {_listed(list(columns))}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)
