"""`folkmoot report`: what the federation came to for this node, as a page with plots, and as CSV."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from folkmoot.node.charters import load_timeline
from folkmoot.node.config import Home
from folkmoot.node.report.folder import Kind, ReportError, write_folder
from folkmoot.node.report.story import ALONE, PERSONAL, SHARED, Part, Story, losses
from folkmoot.node.status_file import read_status
from folkmoot.protocol.errors import FolkmootError

if TYPE_CHECKING:
    from folkmoot.node.report.story import Step


@click.command()
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="The node's home directory.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder to write; HOME/report if not given.",
)
@click.option("--plots", type=click.Choice(["svg", "png"]), default="svg", show_default=True)
def report(home: Path, out: Path | None, plots: Kind) -> None:
    """Write what this node measured as a page with plots, and as CSV.

    Reads the home only, beside a running node too. The last 500 rounds are told.
    """
    where = Home(home.resolve())
    story = _story(where)
    page = write_folder(out or home / "report", story, plots)
    for loss in losses(story):
        click.echo(loss)
    click.echo(f"wrote {page}")


def _story(home: Home) -> Story:
    seen = read_status(home.status)
    if seen is None:
        raise ReportError(
            f"{home.status}: no node has said anything in this home yet: start it with 'folkmoot run'"
        )
    known = {SHARED: seen.metrics, PERSONAL: seen.ditto_metrics, ALONE: seen.alone_metrics}
    models = {name: metrics for name, metrics in known.items() if metrics}
    part = Part(name=seen.name, rounds=seen.history, models=models, calibration=_calibration(home))
    return Story(title=f"{load_timeline(home).founding.name}: {seen.name}", mode=seen.mode, parts=[part])


def _calibration(home: Home) -> "list[Step]":
    from folkmoot.node.train.measuring import calibration_of

    try:
        return calibration_of(home)
    except FolkmootError as error:
        click.echo(f"no calibration is shown: {error}", err=True)
        return []
