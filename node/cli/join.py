"""`folkmoot join`: a new member's home, made ready to take part from the round that the amendment states."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from folkmoot.node.cli import proposing
from folkmoot.node.cli.ledger import url

if TYPE_CHECKING:
    from folkmoot.node.config import Home
    from folkmoot.node.proposals import Proposal
    from folkmoot.node.standing import Standing

PEERS = "peers"
"""In HOME: the addresses of members' nodes that came with the proposal."""


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
    from folkmoot.node.charters import keep_charter
    from folkmoot.node.cli.ledger import write_ledger
    from folkmoot.node.config import Home
    from folkmoot.node.proposals import ProposalError, read_proposal
    from folkmoot.node.standing import Standing

    place, proposal = Home(home.resolve()), read_proposal(folder)
    _check_entry(place, proposal)
    _copy_federation(place, folder)
    keep_charter(place, proposal.charter)
    write_ledger(place, rpc, f"0x{proposal.domain.contract.hex()}")
    standing = Standing.read(place)
    if proposal.amendment not in standing.final:
        state = "not final on the ledger yet" if standing.is_recorded(proposal) else "not on the ledger yet"
        raise ProposalError(f"amendment {proposal.amendment.number} is {state}: run this again when it is")
    _prepare_journal(standing, proposal)
    click.echo(
        f"{place.path} joins in round {proposal.amendment.effective}; the record is at round {standing.head.height}"
    )
    if proposal.charter.model.source:
        click.echo(
            f"the model's source, {proposal.charter.model.source}, belongs into trainer.path of node.toml"
        )
    click.echo(f"start it now: folkmoot run --home {home}")


def _check_entry(place: "Home", proposal: "Proposal") -> None:
    """The proposal adds the member whose home this is, with these keys."""
    from folkmoot.node.charter_files import load_member
    from folkmoot.node.keys import folder_of

    charter = proposal.charter
    folder_of(place.keys, charter.members[charter.member_named(load_member(place).name)])


def _copy_federation(place: "Home", folder: Path) -> None:
    """The charters so far, into a home that has none; and where members' nodes listen."""
    import shutil

    from folkmoot.node.proposals import ADDRESSES, FEDERATION, ProposalError

    source = folder / FEDERATION
    if place.charter.is_file() and place.charter.read_bytes() != (source / place.charter.name).read_bytes():
        raise ProposalError(f"{place.charter}: another federation's charter is there: use a home of its own")
    try:
        shutil.copyfile(source / place.charter.name, place.charter)
        shutil.copyfile(source / ADDRESSES, place.path / PEERS)
        for name in (place.charter_signatures.name, place.charters.name):
            if (source / name).is_dir():
                shutil.copytree(source / name, place.path / name, dirs_exist_ok=True)
        text = place.config.read_text(encoding="utf-8")
        place.config.write_text(set_bootstrap(text, PEERS), encoding="utf-8")
    except OSError as error:
        raise ProposalError(f"{place.path}: cannot be made ready: {error}") from error


def set_bootstrap(text: str, file: str) -> str:
    """node.toml's `text` with that file of addresses, unless the operator has named other ones."""
    return re.sub(r"(?m)^bootstrap = \[\]$", f'bootstrap = ["{file}"]', text)


def _prepare_journal(standing: "Standing", proposal: "Proposal") -> None:
    from folkmoot.node.charters import enter_term, keep_amendments
    from folkmoot.node.proposals import ProposalError
    from folkmoot.node.store import Journal

    with Journal.open(standing.home.store) as journal:
        if any(True for _ in journal.entries()):
            raise ProposalError(f"{standing.home.store}: this node has taken part before: just run it")
        keep_amendments(journal, standing.final)
        enter_term(journal, standing.timeline.span_at(proposal.amendment.effective).first)
