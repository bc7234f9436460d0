"""A report's folder: `report.html` with its plots, and the figures as CSV."""

from importlib.metadata import version
from pathlib import Path
from typing import Literal, TypeAlias

from folkmoot.node.report.page import render
from folkmoot.node.report.story import Story
from folkmoot.node.report.tables import write_tables
from folkmoot.protocol.errors import FolkmootError

PAGE = "report.html"

Kind: TypeAlias = Literal["svg", "png"]


class ReportError(FolkmootError):
    """A report cannot be made or written; the message says why."""


def write_folder(folder: Path, story: Story, kind: Kind = "svg") -> Path:
    """Write the report of `story` into `folder`, over an earlier one, and return its page; raises `ReportError`."""
    try:
        from folkmoot.node.report.plots import write_plots
    except ModuleNotFoundError as error:
        raise ReportError(f"plots need {error.name}: pip install 'folkmoot[report]'") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tables = write_tables(folder, story)
        plots = write_plots(folder, story, kind)
        page = folder / PAGE
        page.write_text(render(story, plots, tables, version("folkmoot")))
    except OSError as error:
        raise ReportError(f"{error.filename or folder}: cannot be written: {error.strerror}") from error
    return page
