"""`folkmoot repair`: check what a node wrote, and mend what can be mended."""

from pathlib import Path

import click

from folkmoot.node.config import Home


@click.command()
@click.option(
    "--home",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="The node's directory.",
)
@click.option("--fix", is_flag=True, help="Mend what can be mended; the node must be stopped.")
@click.option("--yes", is_flag=True, help="Do not ask before the journal is replaced.")
@click.pass_context
def repair(ctx: click.Context, home: Path, fix: bool, yes: bool) -> None:
    """Check the journal, the archive and the models of a node, and mend them.

    Blobs and models are held to their names, journal and records to the signatures in them. Damaged blobs and models
    are removed: what a node needs of them it fetches again. A damaged or lost journal is set aside, and a new one
    begun; the node then asks the others what it signed, and sits out for about two rounds.

    Exit codes: 0 all is well, or was mended; 1 something is wrong still.
    """
    from folkmoot.node.repair import find_faults

    left = found = 0
    for fault in find_faults(Home(home.resolve())):
        found += 1
        click.echo(f"{fault.path}: {fault.problem}")
        if fault.mend is None:
            left += 1
            click.echo(f"  to do: {fault.remedy}")
        elif not fix:
            left += 1
            click.echo(f"  with --fix: {fault.remedy}")
        elif yes or fault.path != Home(home.resolve()).store or _agrees(fault.path):
            fault.mend()
            click.echo(f"  done: {fault.remedy}")
        else:
            left += 1
    if not found:
        click.echo("all is well: every blob, model, record and journal entry is what it should be")
    elif left and not fix:
        click.echo("nothing was changed: stop the node, then run this with --fix")
    ctx.exit(1 if left else 0)


def _agrees(journal: Path) -> bool:
    """Only its people can know whether a better copy lies somewhere."""
    return click.confirm(
        f"  Is there no copy of {journal} from the time of its loss? Then a new one is begun; go on?",
        default=False,
    )
