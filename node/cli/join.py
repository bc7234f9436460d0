"""`folkmoot join`: a new member's home, made ready to take part from the round that the amendment states."""

from pathlib import Path

import click

from folkmoot.node.cli import proposing
from folkmoot.node.cli.ledger import url


@click.command()
@proposing.FOLDER
@proposing.HOME
@click.option(
    "--rpc", metavar="URL", required=True, callback=url, help="JSON-RPC end point of the federation's chain."
)
def join(folder: Path, home: Path, rpc: str) -> None:
    """Make HOME ready to join a federation, from the proposal that added it.

    HOME is as 'folkmoot init' made it. Run this when the proposal is recorded; then start the node with 'folkmoot run'.
    It gets the model from the other members, checked against the ledger, and takes part from the proposal's round on.
    """
    from folkmoot.node.cli.ledger import write_ledger
    from folkmoot.node.config import Home
    from folkmoot.node.joining import check_entry, enter_federation, take_charters
    from folkmoot.node.proposals import read_proposal

    place, proposal = Home(home.resolve()), read_proposal(folder)
    check_entry(place, proposal)
    take_charters(place, folder, proposal)
    write_ledger(place, rpc, f"0x{proposal.domain.contract.hex()}")
    standing = enter_federation(place, proposal)
    click.echo(
        f"{place.path} joins in round {proposal.amendment.effective}; the record is at round {standing.head.height}"
    )
    if proposal.charter.model.source:
        click.echo(
            f"the model's source, {proposal.charter.model.source}, belongs into trainer.path of node.toml"
        )
    click.echo(f"start it now: folkmoot run --home {home}")
