"""Propose a schema from a file: what each column is, what is left out and why.

Only a proposal: whoever drafts the charter reads the notes, changes what is wrong, and all members sign the result.
"""

import math
from collections.abc import Sequence
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, NamedTuple

from folkmoot.node.data.profile import Profile, is_readable, is_time, profile, value_of
from folkmoot.node.data.source import Source, quote_text
from folkmoot.protocol.schema import Column, DataError, Schema, Task, check_schema

MAX_CATEGORIES = 100
MAX_CLASSES = 1000
MOST_LABELS = 20
"""A target of numbers with more different values is a quantity, not a class."""

IDENTIFIER_SHARE = 0.9
"""Texts that differ in more than this share of the rows name the row and say nothing about it."""

FEW_ROWS = 20
"""In fewer rows all values may differ by chance."""

_CODES = range(3, 11)


def propose_schema(
    file: Path,
    target: str,
    task: Task | None = None,
    *,
    allow_missing: bool = False,
    categories: Sequence[str] = (),
) -> tuple[Schema, list[str]]:
    """A schema for the rows of `file` (CSV, Parquet, JSON or SQLite), and notes on what was decided.

    `task` overrides what the target looks like; `allow_missing` lets every column have missing values, for members
    whose rows have more gaps than these; `categories` names columns whose numbers are codes. Raises `DataError`.
    """
    file = file.resolve()
    with Source(file.parent) as source:
        rows = source.table_of(file)
        return propose(
            source,
            rows,
            target,
            task,
            spelled=spelled(file),
            allow_missing=allow_missing,
            categories=categories,
        )


def propose(
    source: Source,
    rows: str,
    target: str,
    task: Task | None = None,
    *,
    spelled: str | None = None,
    leave_out: Sequence[str] = (),
    allow_missing: bool = False,
    categories: Sequence[str] = (),
) -> tuple[Schema, list[str]]:
    """As `propose_schema`, of the relation `rows` (what may stand after FROM).

    `spelled` is the same with every column as text, where booleans have words of their own.
    """
    types = source.types(rows)
    for name in (target, *leave_out, *categories):
        if name not in types:
            raise DataError(f"no column {name!r}{_nearest(name, list(types))}")
    if target in categories:
        raise DataError(f"the target {target!r} is no column to learn from: say what it is with the task")
    if not is_readable(types[target]):
        raise DataError(f"the target {target!r} is of type {types[target]}: neither classes nor a number")
    proposal = _Proposal(source, rows, spelled, allow_missing, categories)
    proposal.drop_rows_without(target, types[target])
    goal = proposal.target(target, types[target], task)
    columns = proposal.columns(
        {name: kind for name, kind in types.items() if name not in (target, *leave_out)}
    )
    schema = Schema(
        task=goal.task,
        target=target,
        classes=goal.classes,
        center=goal.center,
        scale=goal.scale,
        columns=columns,
    )
    check_schema(schema)
    return schema, proposal.notes


def spelled(file: Path) -> str | None:
    """The relation that reads a CSV file as text; None for files that know their types."""
    if file.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return None
    return f"read_csv({quote_text(str(file))}, all_varchar = true)"


class _Target(NamedTuple):
    """The schema's fields about the target."""

    task: Task
    classes: tuple[str, ...] = ()
    center: str = "0"
    scale: str = "1"


class _Proposal:
    """Asks the source what it must know, and notes what is not obvious."""

    def __init__(
        self,
        source: Source,
        rows: str,
        spelled: str | None,
        allow_missing: bool,
        categories: Sequence[str],
    ) -> None:
        self.notes: list[str] = []
        self._source = source
        self._rows = rows
        self._spelled = spelled
        self._allow_missing = allow_missing
        self._categories = frozenset(categories)

    def drop_rows_without(self, target: str, kind: str) -> None:
        """Look only at rows that have a target from here on."""
        value = value_of(target, kind)
        ((rows, known),) = self._source.ask(f"SELECT count(*), count({value}) FROM {self._rows}")
        if not rows:
            raise DataError("there are no rows")
        if not known:
            raise DataError(f"the target {target!r} has no value in any of {rows} rows")
        if known < rows:
            self.notes.append(f"{rows - known} of {rows} rows have no {target!r}: left out")
            self._rows = f"(SELECT * FROM {self._rows} WHERE {value} IS NOT NULL)"

    def target(self, name: str, kind: str, task: Task | None) -> _Target:
        """What is to be predicted; `task` overrides what it looks like."""
        goal = profile(self._source, self._rows, {name: kind})[name]
        if goal.distinct == 1:
            only = self._labels(goal)[0]
            raise DataError(f"the target {name!r} is {only!r} in every row: nothing can be learnt from that")
        chosen = task or _task_of(goal)
        if chosen == "regression":
            if not goal.is_number:
                raise DataError(f"the target {name!r} holds {goal.stray!r}, which is no number to predict")
            return _Target(chosen, (), *_constants(goal))
        if goal.distinct > MAX_CLASSES or goal.distinct > IDENTIFIER_SHARE * goal.rows > FEW_ROWS:
            raise DataError(
                f"the target {name!r} has {goal.distinct} values in {goal.rows} rows: those are no classes"
            )
        if chosen == "binary" and goal.distinct != 2:
            raise DataError(f"the target {name!r} has {goal.distinct} classes; a binary task has two")
        return _Target(chosen, tuple(self._labels(goal)))

    def columns(self, types: dict[str, str]) -> tuple[Column, ...]:
        """The columns to learn from, of those with their SQL types in `types`."""
        readable = {name: kind for name, kind in types.items() if is_readable(kind)}
        profiles = profile(self._source, self._rows, readable)
        for name, kind in types.items():
            if name not in readable:
                hint = "; the query can make it a number" if is_time(kind) else ""
                self.notes.append(f"{name}: is of type {kind}: left out{hint}")
        found = tuple(column for seen in profiles.values() if (column := self._column(seen)) is not None)
        if not found:
            raise DataError("no column is left to learn from: " + "; ".join(self.notes))
        return found

    def _column(self, seen: Profile) -> Column | None:
        is_category = not seen.is_number or seen.name in self._categories
        if reason := _why_left_out(seen, is_category):
            self.notes.append(f"{seen.name}: {reason}: left out")
            return None
        if seen.missing:
            self.notes.append(
                f"{seen.name}: {seen.missing} of {seen.rows} values are missing; the model is told where"
            )
        missing: Literal["refuse", "indicate"]
        missing = "indicate" if seen.missing or self._allow_missing else "refuse"
        if is_category:
            categories = tuple(self._labels(seen))
            return Column(name=seen.name, kind="category", categories=categories, missing=missing)
        if seen.whole and seen.distinct in _CODES:
            self.notes.append(
                f"{seen.name}: {seen.distinct} different whole numbers: taken as a number; "
                "if they are codes, declare it a category"
            )
        center, scale = _constants(seen)
        return Column(name=seen.name, kind="number", center=center, scale=scale, missing=missing)

    def _labels(self, seen: Profile) -> list[str]:
        """The different values of a column as text, numbers by size and words by the alphabet."""
        value = value_of(seen.name, seen.kind)
        asked = f"SELECT DISTINCT {value} FROM {self._rows} WHERE {value} IS NOT NULL"
        values = [row[0] for row in self._source.ask(asked)]
        if seen.kind == "BOOLEAN":
            return self._words(seen.name, sorted(values))
        if seen.is_number:
            return [_plain(number) for number in sorted({Decimal(str(value)) for value in values})]
        return sorted(str(value) for value in values)

    def _words(self, name: str, truths: Sequence[bool]) -> list[str]:
        """How a boolean column writes these values where it is text."""
        plain = ["true" if truth else "false" for truth in truths]
        if self._spelled is None:
            return plain
        value = value_of(name, "VARCHAR")
        asked = f"SELECT DISTINCT {value}::BOOLEAN, {value} FROM {self._spelled} WHERE {value} IS NOT NULL"
        found = self._source.ask(asked)
        words = dict(found)
        return [words[truth] for truth in truths] if len(words) == len(found) else plain


def _why_left_out(seen: Profile, is_category: bool) -> str:
    """A reason not to learn from a column, or nothing."""
    if not seen.values:
        return "has no value in any row"
    if seen.distinct == 1:
        return "has the same value in every row that has one"
    # Measures differ from row to row as well: only texts and whole numbers name something.
    share = IDENTIFIER_SHARE if is_category else 1.0
    if seen.values >= FEW_ROWS and seen.distinct >= share * seen.values and (is_category or seen.whole):
        return f"differs in {seen.distinct} of {seen.values} rows, as an identifier does"
    if is_category and seen.distinct > MAX_CATEGORIES:
        kind = "a category" if seen.is_number else "text"
        mixed = (
            f", of which {seen.numbers} are numbers and others not ({seen.stray!r})"
            if seen.stray and seen.numbers
            else ""
        )
        return (
            f"is {kind} with {seen.distinct} different values{mixed}, more than {MAX_CATEGORIES} categories"
        )
    return ""


def _task_of(goal: Profile) -> Task:
    if goal.distinct == 2:
        return "binary"
    return "regression" if goal.is_number and goal.distinct > MOST_LABELS else "multiclass"


def _constants(seen: Profile) -> tuple[str, str]:
    """Center and scale as short decimals: the mean to a hundredth of the deviation, and that to three digits."""
    assert seen.mean is not None and seen.deviation is not None
    if not seen.deviation > 0:  # values so close that their squares are lost
        return _plain(Decimal(seen.mean)), "1"
    digits = 2 - math.floor(math.log10(seen.deviation))
    return _plain(_round(seen.mean, digits)), _plain(_round(seen.deviation, digits))


def _round(value: float, digits: int) -> Decimal:
    return (
        Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits))
        if digits >= 0
        else Decimal(round(value, digits))
    )


def _plain(number: Decimal) -> str:
    """As people write it: no exponent, no zeros at the end, no sign before zero."""
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def _nearest(name: str, names: Sequence[str]) -> str:
    folded = {other.casefold(): other for other in names}
    nearest = get_close_matches(name.casefold(), folded, n=1)
    return f"; did you mean {folded[nearest[0]]!r}?" if nearest else f"; there are {', '.join(names)}"
