"""What the user sees while a testnet runs: a table that grows, or where nobody looks, one line per round."""

from collections.abc import Sequence
from statistics import median
from types import TracebackType
from typing import Protocol, Self

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from folkmoot.node.cli.status import format_metrics, format_size, format_values, metric_names
from folkmoot.node.status_file import NodeStatus
from folkmoot.protocol.metrics import mean_metrics

MOST_NAMES = 6
"""Participants that are shown by name."""


class RoundView(msgspec.Struct, frozen=True, kw_only=True):
    """One round as the nodes together tell it. `traffic`: bytes sent and received, mean over the nodes."""

    round: int
    finished: int
    """Nodes that have completed it."""
    participants: tuple[str, ...]
    seconds: float
    metrics: dict[str, float]
    traffic: float


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is shown. `nodes` counts all, dead ones too; heights are rounds."""

    nodes: int
    total: int
    rounds: tuple[RoundView, ...]
    ledger_height: int
    ledger_backlog: int
    ledger_state: str
    activity: str

    @property
    def ledger(self) -> str:
        """The ledger in a few words."""
        waiting = f", {self.ledger_backlog} waiting" if self.ledger_backlog else ""
        state = "" if self.ledger_state == "ok" else f" ({self.ledger_state})"
        return f"{self.ledger_height} of {self.total} rounds recorded{waiting}{state}"


def make_view(statuses: Sequence[NodeStatus], nodes: int, total: int) -> View:
    """The view of a testnet of `nodes` nodes and `total` rounds, from those that have spoken."""
    ahead = max(statuses, key=lambda status: status.ledger.height, default=None)
    numbers = sorted({entry.round for status in statuses for entry in status.history})
    return View(
        nodes=nodes,
        total=total,
        rounds=tuple(_round_view(number, statuses) for number in numbers),
        ledger_height=ahead.ledger.height if ahead else 0,
        ledger_backlog=max((status.ledger.backlog for status in statuses), default=0),
        ledger_state=ahead.ledger.state if ahead else "unknown",
        activity=" · ".join(f"{status.name} {status.phase}" for status in statuses) or "starting",
    )


def _round_view(number: int, statuses: Sequence[NodeStatus]) -> RoundView:
    entries = [entry for status in statuses for entry in status.history if entry.round == number]
    return RoundView(
        round=number,
        finished=len(entries),
        participants=max((tuple(entry.participants) for entry in entries), key=len),
        seconds=median(entry.seconds for entry in entries),
        metrics=mean_metrics(entry.metrics for entry in entries),
        traffic=sum(entry.bytes for entry in entries) / len(entries),
    )


class Display(Protocol):
    """Shows a testnet's progress between `__enter__` and `__exit__`."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state on the screen."""
        ...

    def say(self, text: str) -> None:
        """One message, above what is shown."""
        ...

    def update(self, view: View, *, final: bool = False) -> None:
        """Show `view`; `final` if nothing will follow it."""
        ...


class LiveTable:
    """For a terminal: the table is drawn in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Print above the table."""
        self._console.print(Text(text))

    def update(self, view: View, *, final: bool = False) -> None:
        """Draw the table anew."""
        last_line = [] if final else [Text(view.activity, style="dim")]
        self._live.update(Group(_table(view), f"ledger: {view.ledger}", *last_line), refresh=True)


class PlainLines:
    """For a pipe or a file: a line for each round, once all that belongs to it is known."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(Text(text), soft_wrap=True)

    def update(self, view: View, *, final: bool = False) -> None:
        """Print the lines of the rounds that have been finished since."""
        for row in view.rounds:
            # A model is measured before the next round's training, so its metrics come a little later.
            complete = row.finished == view.nodes and bool(row.metrics)
            if row.round > self._printed and (complete or row.round < view.rounds[-1].round or final):
                self.say(_line(row, view))
                self._printed = row.round


def make_display(console: Console) -> Display:
    """The display that suits where `console` writes to."""
    return LiveTable(console) if console.is_terminal else PlainLines(console)


def _table(view: View) -> Table:
    table = Table()
    names = metric_names(row.metrics for row in view.rounds)
    for heading in ("round", "took part", "done by", "seconds", " / ".join(names), "traffic/node", "ledger"):
        table.add_column(heading, justify="left" if heading == "took part" else "right")
    for row in view.rounds:
        table.add_row(*_cells(row, view, format_values(row.metrics, names)))
    return table


def _cells(row: RoundView, view: View, measured: str) -> list[str]:
    return [
        f"{row.round}/{view.total}",
        _who(row.participants, view.nodes),
        f"{row.finished}/{view.nodes}",
        f"{row.seconds:.2f}",
        measured,
        format_size(row.traffic),
        "recorded" if row.round <= view.ledger_height else "waiting",
    ]


def _who(names: Sequence[str], nodes: int) -> str:
    """Who took part: by name while that fits a line."""
    return " ".join(names) if len(names) <= MOST_NAMES else f"{len(names)} of {nodes}"


def _line(row: RoundView, view: View) -> str:
    number, participants, _, seconds, measured, traffic, _ = _cells(row, view, format_metrics(row.metrics))
    return (
        f"round {number}: {participants}; {seconds} s, {measured}, {traffic} per node; ledger: {view.ledger}"
    )
