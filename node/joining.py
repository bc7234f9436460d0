"""A new member's home, made ready from the proposal that added it."""

import re
import shutil
from pathlib import Path

from folkmoot.node.charter_files import load_member
from folkmoot.node.charters import enter_term, keep_amendments, keep_charter
from folkmoot.node.config import Home
from folkmoot.node.keys import folder_of
from folkmoot.node.proposals import ADDRESSES, FEDERATION, Proposal, ProposalError
from folkmoot.node.standing import Standing
from folkmoot.node.store import Journal

PEERS = "peers"
"""In HOME: the addresses of members' nodes that came with the proposal."""


def check_entry(home: Home, proposal: Proposal) -> None:
    """Raise `FolkmootError` unless the proposal adds the member whose home this is, with its keys."""
    charter = proposal.charter
    folder_of(home.keys, charter.members[charter.member_named(load_member(home).name)])


def take_charters(home: Home, folder: Path, proposal: Proposal) -> None:
    """Put the federation's charters so far, the proposed one and its nodes' addresses into a home that has none.

    Raises `ProposalError`.
    """
    source = folder / FEDERATION
    try:
        if home.charter.is_file() and home.charter.read_bytes() != (source / home.charter.name).read_bytes():
            raise ProposalError(f"{home.charter}: another charter is there: use a home of its own")
        shutil.copyfile(source / home.charter.name, home.charter)
        shutil.copyfile(source / ADDRESSES, home.path / PEERS)
        for name in (home.charter_signatures.name, home.charters.name):
            if (source / name).is_dir():
                shutil.copytree(source / name, home.path / name, dirs_exist_ok=True)
        text = home.config.read_text(encoding="utf-8")
        home.config.write_text(set_bootstrap(text, PEERS), encoding="utf-8")
    except OSError as error:
        raise ProposalError(f"{home.path}: cannot be made ready: {error}") from error
    keep_charter(home, proposal.charter)


def set_bootstrap(text: str, file: str) -> str:
    """node.toml's `text` with that file of addresses, behind what the operator has named in one line."""

    def extended(found: re.Match[str]) -> str:
        named = found[1].strip().rstrip(",")
        return found[0] if f'"{file}"' in named else f'bootstrap = [{named}{", " if named else ""}"{file}"]'

    return re.sub(r"(?m)^bootstrap = \[(.*)\]$", extended, text)


def enter_federation(home: Home, proposal: Proposal) -> Standing:
    """Let the home's node begin under the proposed charter, if the ledger has it; node.toml names the ledger.

    Raises `ProposalError` where it does not, or not finally; `FolkmootError`.
    """
    standing = Standing.read(home)
    number = proposal.amendment.number
    if proposal.amendment not in standing.final:
        state = "not final on the ledger yet" if standing.is_recorded(proposal) else "not on the ledger yet"
        raise ProposalError(f"amendment {number} is {state}: run this again when it is")
    with Journal.open(home.store) as journal:
        if any(True for _ in journal.entries()):
            raise ProposalError(f"{home.store}: this node has taken part before: just run it")
        keep_amendments(journal, standing.final)
        enter_term(journal, standing.timeline.span_at(proposal.amendment.effective).first)
    return standing
