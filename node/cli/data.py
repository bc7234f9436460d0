"""`folkmoot data`: look at this member's own rows before the others wait for them."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from folkmoot.node.data.summary import Summary


@click.group()
def data() -> None:
    """This member's own rows: what the query of node.toml reads, against the charter's schema."""


@data.command()
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="The node's home directory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(home: Path, as_json: bool) -> None:
    """Read the rows as the node will, and show counts, missing values and classes. Writes nothing.

    Exits with 2 where they do not fit: the message names column, row and value, or what is wrong with the query.
    """
    import msgspec

    from folkmoot.node.config import Home
    from folkmoot.node.data.prepare import read

    summary = read(Home(home.resolve())).summary
    if as_json:
        click.echo(msgspec.json.encode(summary))
    else:
        _show(summary)


def _show(summary: "Summary") -> None:
    from rich.console import Console

    console = Console()
    console.print(
        f"{summary.rows} rows: {summary.train.rows} to train on, {summary.test.rows} held out, "
        f"{summary.without_target} without {summary.target!r}; {summary.features} inputs from "
        f"{len(summary.missing)} columns",
        highlight=False,
    )
    console.print(_columns(summary))
    if summary.train.classes:
        console.print(_classes(summary))
    if summary.ignored:
        console.print(f"not in the schema: {', '.join(summary.ignored)}", highlight=False)
    for warning in summary.warnings:
        console.print(f"note: {warning}", highlight=False)


def _columns(summary: "Summary") -> "Table":
    from rich.table import Table

    table = Table(title="columns", title_justify="left")
    table.add_column("column")
    table.add_column("missing", justify="right")
    table.add_column("share", justify="right")
    for name, count in summary.missing.items():
        share = "not there" if name in summary.absent else f"{count / max(1, summary.rows):.1%}"
        table.add_row(name, str(count), share)
    return table


def _classes(summary: "Summary") -> "Table":
    from rich.table import Table

    table = Table(title=f"{summary.target} ({summary.task})", title_justify="left")
    table.add_column("class")
    for heading in ("train", "share", "held out", "share"):
        table.add_column(heading, justify="right")
    for name, count in summary.train.classes.items():
        held_out = summary.test.classes[name]
        table.add_row(
            name,
            str(count),
            f"{count / max(1, summary.train.rows):.1%}",
            str(held_out),
            f"{held_out / max(1, summary.test.rows):.1%}",
        )
    return table
