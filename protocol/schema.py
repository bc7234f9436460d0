"""The charter's data schema: what a member's rows must look like, and how they become a model's numbers.

Names, categories, classes and scaling constants are declared, never fitted on one member's rows, so that the same row
gives the same numbers at every member; `rows.py` does the encoding.

A number takes one place of the input, (value - center) / scale, and one more, 0 or 1, where missing = "indicate". A
category takes one place for each declared value, one more for unknown values where `other` is set, and one more for
missing ones where missing = "indicate"; the place that fits is 1, the rest 0.
"""

import math
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from folkmoot.protocol.errors import CharterError, FolkmootError

Decimal = Annotated[str, Meta(pattern=r"^-?[0-9]+(\.[0-9]+)?(e-?[0-9]+)?$")]
Label = Annotated[str, Meta(min_length=1, max_length=1024)]

Task: TypeAlias = Literal["binary", "multiclass", "regression"]

BLANKS = ("?", "NA", "N/A", "NaN", "null")
"""What people write for "no value", in any case, beside nothing at all."""


class DataError(FolkmootError):
    """Rows that do not fit the schema, or cannot be read; the message names column, row and value, or the query."""

    exit_code = 2


class _Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """As the charter's other tables: immutable, nothing unknown."""


class Column(_Terms, frozen=True, kw_only=True):
    """One input column. `categories` and `other` are for categories, `center` and `scale` for numbers.

    Where a value is missing: "refuse" makes that an error; "fill" puts 0 into every place of the column (for a number
    that is its center); "indicate" does the same and sets a place of its own to 1.
    """

    name: Label
    kind: Literal["number", "category"]
    categories: tuple[Label, ...] = ()
    other: bool = False
    center: Decimal = "0"
    scale: Decimal = "1"
    missing: Literal["refuse", "fill", "indicate"] = "refuse"

    @property
    def width(self) -> int:
        """How many places of the input it takes."""
        values = 1 if self.kind == "number" else len(self.categories) + self.other
        return values + (self.missing == "indicate")


class Schema(_Terms, frozen=True, kw_only=True):
    """The columns that are learnt from, in input order, and the target.

    Classes are numbered in their order here; of a binary task the second is the positive one. A regression's target is
    (value - center) / scale. `blanks` are texts, in any case, that stand for a missing value wherever they are no
    declared category.
    """

    task: Task
    target: Label
    columns: tuple[Column, ...]
    classes: tuple[Label, ...] = ()
    center: Decimal = "0"
    scale: Decimal = "1"
    blanks: tuple[Label, ...] = BLANKS

    @property
    def features(self) -> int:
        """Width of the encoded input."""
        return sum(column.width for column in self.columns)

    @property
    def outputs(self) -> int:
        """How many scores a model gives for one row: one for each class, or the predicted number."""
        return len(self.classes) or 1


def check_schema(schema: Schema, source: str = "schema") -> None:
    """Raise `CharterError` where the schema contradicts itself."""
    names = [column.name for column in schema.columns]
    if not names or len(set(names)) != len(names):
        raise CharterError(f"{source}: data.columns must name each column once, and at least one")
    if schema.target in names:
        raise CharterError(
            f"{source}: the target {schema.target!r} is among data.columns; it cannot be an input"
        )
    wanted = {"binary": range(2, 3), "multiclass": range(2, 1 << 31), "regression": range(1)}[schema.task]
    if len(schema.classes) not in wanted or len(set(schema.classes)) != len(schema.classes):
        raise CharterError(
            f"{source}: data.classes = {list(schema.classes)}: a {schema.task} task has "
            + {"binary": "two", "multiclass": "two or more", "regression": "no"}[schema.task]
            + " different classes"
        )
    if float(schema.scale) <= 0 or not math.isfinite(float(schema.scale)):
        raise CharterError(f"{source}: data.scale = {schema.scale}: it must be above 0")
    for column in schema.columns:
        _check_column(column, source)


def _check_column(column: Column, source: str) -> None:
    where = f"{source}: column {column.name!r}"
    if column.kind == "number" and (column.categories or column.other):
        raise CharterError(f"{where}: a number has no categories")
    if column.kind == "category" and (column.center, column.scale) != ("0", "1"):
        raise CharterError(f"{where}: a category has no center or scale")
    if column.kind == "category" and not column.categories:
        raise CharterError(f"{where}: declare its categories")
    if len(set(column.categories)) != len(column.categories):
        raise CharterError(f"{where}: a category is declared twice")
    if float(column.scale) <= 0 or not math.isfinite(float(column.scale)):
        raise CharterError(f"{where}: scale = {column.scale}: it must be above 0")
