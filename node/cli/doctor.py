"""`folkmoot doctor`: what is not as it should be with this node, and what to do."""

import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from folkmoot.node.config import Home

if TYPE_CHECKING:
    from folkmoot.node.doctor.finding import Finding

_COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}
_NAME, _STATE = 14, 8


@click.command()
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="The node's home directory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def doctor(ctx: click.Context, home: Path, as_json: bool) -> None:
    """Check a node: its home, its data, the chain, its port and its peers, and say what to do.

    Works beside a running node and without one; whether others can call it, only a running node learns. Changes
    nothing.

    Exit codes: 0 no problem (there may be warnings); 1 at least one problem.
    """
    from folkmoot.node.doctor.examine import examine

    findings = []
    for finding in examine(Home(home.resolve())):
        findings.append(finding)
        if not as_json:
            _show(finding)
    problems = sum(one.state == "problem" for one in findings)
    if as_json:
        click.echo(msgspec.json.encode({"problems": problems, "findings": findings}))
    else:
        warnings = sum(one.state == "warning" for one in findings)
        click.echo(f"problems: {problems}, warnings: {warnings}")
    ctx.exit(1 if problems else 0)


def _show(finding: "Finding") -> None:
    indent = " " * (_NAME + _STATE)
    width = max(60, shutil.get_terminal_size((100, 0)).columns)
    text = textwrap.fill(
        finding.detail, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
    state = click.style(f"{finding.state:<{_STATE}}", fg=_COLORS[finding.state])
    click.echo(f"{finding.check:<{_NAME}}{state}{text.lstrip()}")
    if finding.advice:
        click.echo(
            textwrap.fill(f"-> {finding.advice}", width, initial_indent=indent, subsequent_indent=indent)
        )
