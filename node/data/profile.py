"""What the columns of a relation hold, asked in one pass over it."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from folkmoot.node.data.source import Source, quote_name, quote_text
from folkmoot.protocol.schema import BLANKS

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_NUMBERS = (*_WHOLE, *(f"U{kind}" for kind in _WHOLE), "FLOAT", "DOUBLE", "DECIMAL")
_TEXTS = ("VARCHAR", "ENUM", "UUID", "BOOLEAN")
_TIMES = ("DATE", "TIME", "TIMESTAMP", "INTERVAL")


class Profile(NamedTuple):
    """One column over all rows: how many values, and different ones (`texts`); how many of them are numbers, and
    different numbers (`quantities`: 1 and 1.0 are one); what the numbers are like.
    """

    name: str
    kind: str
    rows: int
    values: int
    texts: int
    numbers: int
    quantities: int
    mean: float | None
    deviation: float | None
    whole: bool | None
    stray: str | None
    """A value that is no number."""

    @property
    def is_number(self) -> bool:
        """Whether every value is one, be it written as text."""
        return self.kind != "BOOLEAN" and self.numbers == self.values > 0

    @property
    def distinct(self) -> int:
        """How many different values there are."""
        return self.quantities if self.is_number else self.texts

    @property
    def missing(self) -> int:
        """Rows without a value."""
        return self.rows - self.values


def profile(source: Source, rows: str, columns: Mapping[str, str]) -> dict[str, Profile]:
    """What `columns` (with their SQL types, all readable) of the relation `rows` hold."""
    if not columns:
        return {}
    asked = [expression for name, kind in columns.items() for expression in _measures(name, kind)]
    ((count, *answers),) = source.ask(f"SELECT count(*), {', '.join(asked)} FROM {rows}")
    width = len(asked) // len(columns)
    return {
        name: Profile(name, kind, count, *answers[at * width : (at + 1) * width])
        for at, (name, kind) in enumerate(columns.items())
    }


def is_readable(kind: str) -> bool:
    """Whether columns of this SQL type can be learnt from."""
    return _family(kind) in (*_NUMBERS, *_TEXTS)


def is_time(kind: str) -> bool:
    """Whether it is a date, a time or a length of time."""
    return _family(kind) in _TIMES


def value_of(name: str, kind: str) -> str:
    """SQL for a column's value, NULL where it is missing."""
    column = quote_name(name)
    if _family(kind) in ("FLOAT", "DOUBLE"):
        return f"CASE WHEN isnan({column}) THEN NULL ELSE {column} END"
    if _family(kind) not in ("VARCHAR", "ENUM", "UUID"):
        return column
    blanks = ", ".join(quote_text(blank.casefold()) for blank in ("", *BLANKS))
    text = f"trim({column}::VARCHAR)"
    return f"CASE WHEN lower({text}) IN ({blanks}) THEN NULL ELSE {text} END"


def _measures(name: str, kind: str) -> Iterator[str]:
    """SQL for a `Profile`'s fields from `values` on."""
    value = value_of(name, kind)
    number = f"TRY_CAST({value} AS DOUBLE)" if _family(kind) != "BOOLEAN" else "NULL::DOUBLE"
    yield f"count({value})"
    yield f"count(DISTINCT {value})"
    yield f"count({number})"
    yield f"count(DISTINCT {number})"
    yield f"avg({number})"
    yield f"stddev_pop({number})"
    yield f"bool_and({number} = floor({number}))"
    yield f"min(CASE WHEN {number} IS NULL THEN ({value})::VARCHAR END)"


def _family(kind: str) -> str:
    """The type without its parameters: DECIMAL(9,2) is DECIMAL, TIMESTAMP WITH TIME ZONE is TIMESTAMP."""
    return "LIST" if kind.endswith("]") else kind.partition("(")[0].partition(" ")[0]
