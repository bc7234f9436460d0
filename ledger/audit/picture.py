"""The rounds of an audit as a picture: inline SVG, drawn from the report alone, coloured by the page's style sheet.

One row for the rounds themselves and one for each member, one column for each round; many rounds share a column, which
then shows the worst of them. Whoever cannot tell the colours apart has the marks, and the tables below the picture.
"""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from folkmoot.ledger.audit.participation import State
from folkmoot.ledger.audit.report import AuditReport, MemberRow, RoundRow, Status, worst

COLUMNS = 60
"""Columns at most; more rounds than that share them."""

_GAP, _LABEL, _TOP, _WIDTH = 2, 120, 24, 1000
_SMALLEST, _LARGEST = 13, 26
"""Sides of a cell, in pixels."""

_MARKS = {
    State.MISSING: "",
    State.LATE: "l",
    State.WITHHELD: "w",
    State.INVALID: "!",
    State.EXCLUDED: "x",
    State.EQUIVOCATED: "!!",
}
_STATES = (
    *(State.EQUIVOCATED, State.INVALID, State.WITHHELD, State.EXCLUDED, State.LATE, State.MISSING),
    State.CONTRIBUTED,
)
"""Worst first: of several rounds in one column this one shows."""

_STATUS_MARKS = {
    Status.MISBEHAVIOUR: "!!",
    Status.FAIL: "!",
    Status.INCONCLUSIVE: "?",
    Status.UNREACHABLE: "?",
}

FIRST_ROW = (
    "The first row is the worst that any check found in the round: green holds, ? something is missing or not final, "
    "! a check fails, !! somebody is convicted."
)

Cell = tuple[str, str, str]
"""Class in the style sheet, mark, and what the pointer shows."""


def draw(report: AuditReport) -> str:
    """The picture; an empty string if there is no round to show."""
    if not report.rounds:
        return ""
    columns = _columns(report.rounds)
    rows: list[tuple[str, list[Cell]]] = [("every check", [_round_cell(column) for column in columns])]
    for member in report.members:
        rows.append((member.name, _member_cells(member, columns)))
    side = min(_LARGEST, max(_SMALLEST, (_WIDTH - _LABEL) // len(columns) - _GAP))
    step = side + _GAP
    width, height = _LABEL + step * len(columns) + _GAP, _TOP + step * len(rows) + _GAP
    fit = f"width:100%;max-width:{width}px;min-width:{_LABEL + _SMALLEST * len(columns)}px"
    parts = [f'<svg viewBox="0 0 {width} {height}" style="{fit}" role="img">']
    parts.append("<title>What became of every round, and of every member's contribution to it</title>")
    parts += _axis(columns, step)
    for place, (name, cells) in enumerate(rows):
        top = _TOP + step * place
        parts.append(f'<text x="0" y="{top + side / 2 + 4}">{escape(_short(name))}</text>')
        for column, cell in enumerate(cells):
            parts += _cell(_LABEL + step * column, top, side, cell)
    return "\n".join([*parts, "</svg>"])


def rounds_per_column(rounds: int) -> int:
    """How many rounds share a column."""
    return max(1, -(-rounds // COLUMNS))


def legend() -> Iterator[tuple[str, str, str]]:
    """Class, mark and meaning of every state that a member's cell can have."""
    for state in reversed(_STATES):
        yield state.value, _MARKS.get(state, ""), _MEANINGS[state]
    yield "unknown", "", "not a member then, or no record was given"


_MEANINGS = {
    State.CONTRIBUTED: "in the round's sum",
    State.MISSING: "nothing given shows a contribution",
    State.LATE: "signed, but not there in time",
    State.EXCLUDED: "committed to this roster, and left out (it may have been late)",
    State.WITHHELD: "counted, but nobody shows its bytes",
    State.INVALID: "not what was committed to, or ill-formed",
    State.EQUIVOCATED: "signed contradicting things",
}


def _columns(rounds: Sequence[RoundRow]) -> list[Sequence[RoundRow]]:
    size = rounds_per_column(len(rounds))
    return [rounds[at : at + size] for at in range(0, len(rounds), size)]


def _round_cell(column: Sequence[RoundRow]) -> Cell:
    status = Status.PASS
    for row in column:
        status = worst(status, row.status)
    recorded = all(row.recorded for row in column)
    counts = [row.survivors for row in column if row.survivors is not None]
    told = [_span(column), status.value if recorded else f"{status.value}, not on the ledger"]
    if counts:
        told.append(
            f"{min(counts)} contributions" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
        )
    return f"s-{status.value.lower()}", _STATUS_MARKS.get(status, ""), ", ".join(told)


def _member_cells(member: MemberRow, columns: Sequence[Sequence[RoundRow]]) -> list[Cell]:
    others = {one.round: one for one in member.rounds}
    return [
        _member_cell(member.name, others, column)
        if any(first <= row.round <= last for row in column for first, last in member.spans)
        else _stranger_cell(member.name, column)
        for column in columns
    ]


def _stranger_cell(name: str, column: Sequence[RoundRow]) -> Cell:
    """Of rounds in which a member has no part, or of which there is no record."""
    known = any(row.survivors is not None for row in column)
    return "m-unknown", "", f"{name}, {_span(column)}: {'not a member' if known else 'no record was given'}"


def _member_cell(name: str, others: Mapping[int, object], column: Sequence[RoundRow]) -> Cell:
    found = [others[row.round] for row in column if row.round in others]
    states = [State(getattr(one, "state", State.MISSING)) for one in found]
    state = next((each for each in _STATES if each in states), State.CONTRIBUTED)
    why = getattr(found[0], "why", "") if len(found) == 1 else ""
    if len(column) > 1 and found:
        why = f"{len(found)} of {len(column)} rounds did not count"
    return f"m-{state.value}", _MARKS.get(state, ""), f"{name}, {_span(column)}: {why or state.value}"


def _cell(x: int, y: int, side: int, cell: Cell) -> Iterator[str]:
    kind, mark, told = cell
    yield f"<g><title>{escape(told)}</title>"
    yield f'<rect class="{kind}" x="{x}" y="{y}" width="{side}" height="{side}" rx="3"/>'
    if mark:
        yield f'<text class="mark" x="{x + side / 2}" y="{y + side / 2 + 3.5}">{mark}</text>'
    yield "</g>"


def _axis(columns: Sequence[Sequence[RoundRow]], step: int) -> Iterator[str]:
    every = max(1, -(-len(columns) // 12))
    for place in range(0, len(columns), every):
        x = _LABEL + step * place + (step - _GAP) / 2
        yield f'<text class="axis" x="{x}" y="{_TOP - 8}">{columns[place][0].round}</text>'


def _span(column: Sequence[RoundRow]) -> str:
    first, last = column[0].round, column[-1].round
    return f"round {first}" if first == last else f"rounds {first} to {last}"


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
