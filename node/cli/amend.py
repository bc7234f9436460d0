"""`folkmoot charter amend`: terms changed by editing the charter."""

from pathlib import Path

import click

from folkmoot.node.cli import proposing


@click.command()
@click.argument("file", metavar="CHARTER", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@proposing.takes_terms
def amend(file: Path, home: Path, effective: tuple[bool, int], out: Path | None) -> None:
    """Draft a change of terms from CHARTER, an edited copy of the charter in force.

    'folkmoot charter show --home HOME --toml' prints that one. What it gives is a folder: send it round for signatures.
    """
    from folkmoot.node.config import Home
    from folkmoot.node.standing import Standing
    from folkmoot.node.toml import load
    from folkmoot.protocol.charter import Charter

    proposing.draft(Standing.read(Home(home.resolve())), load(file, Charter), effective, out)
