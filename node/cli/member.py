"""`folkmoot member`: who belongs to the federation, and how that changes."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from folkmoot.node.cli import proposing

if TYPE_CHECKING:
    from folkmoot.protocol.charter import Charter

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def member() -> None:
    """Who belongs to the federation: add, remove or suspend members, change their roles.

    One member proposes, a quorum of the attesters signs, and anybody submits it to the ledger. Every node changes at
    the round that the proposal states, while rounds go on.
    """


@member.command()
@click.option(
    "--add", "added", type=_FILE, multiple=True, help="A new member's member.toml; may be repeated."
)
@click.option("--remove", "removed", metavar="NAME", multiple=True, help="May be repeated.")
@click.option(
    "--suspend", "suspended", metavar="NAME", multiple=True, help="Like --remove, and meant to come back."
)
@click.option(
    "--restore", "restored", metavar="NAME", multiple=True, help="A member that was suspended or removed."
)
@click.option(
    "--role",
    "roles",
    type=(str, click.Choice(["attester", "member"])),
    multiple=True,
    metavar="NAME ROLE",
    help="attester or member: whether its signature counts on the ledger.",
)
@proposing.takes_terms
def propose(
    home: Path,
    added: tuple[Path, ...],
    removed: tuple[str, ...],
    suspended: tuple[str, ...],
    restored: tuple[str, ...],
    roles: tuple[tuple[str, str], ...],
    effective: tuple[bool, int],
    out: Path | None,
) -> None:
    """Draft a change of members, for the attesters to sign.

    What it gives is a folder: send it round. Other terms change with 'folkmoot charter amend'.
    """
    from folkmoot.node.config import Home
    from folkmoot.node.standing import Standing
    from folkmoot.node.toml import load
    from folkmoot.protocol import membership
    from folkmoot.protocol.charter_tables import Member

    if not (added or removed or suspended or restored or roles):
        raise click.UsageError("give --add, --remove, --suspend, --restore or --role")
    standing = Standing.read(Home(home.resolve()))
    charter = membership.remove_members(standing.timeline.newest, (*removed, *suspended))
    for name, role in roles:
        charter = membership.set_role(charter, name, attester=role == "attester")
    for file in added:
        charter = membership.add_member(charter, load(file, Member))
    for name in restored:
        charter = membership.add_member(charter, standing.timeline.last_entry(name))
    proposing.draft(standing, charter, effective, out, suspended)


@member.command("list")
@proposing.HOME
def list_(home: Path) -> None:
    """Show the members, now and as amendments will change them."""
    from folkmoot.node.config import Home
    from folkmoot.node.standing import Standing

    standing = Standing.read(Home(home.resolve()))
    round_ = standing.head.height + 1
    charter = standing.timeline.charter_at(round_)
    click.echo(f"round {round_}, charter {charter.digest.hex()}")
    for line in _rows(charter):
        click.echo(line)
    for line in standing.timeline.coming(round_):
        click.echo(line)


def _rows(charter: "Charter") -> Iterator[str]:
    from folkmoot.protocol.membership import key_fingerprint

    width = max(len(one.name) for one in charter.members)
    for one in charter.members:
        role = "attester" if one.attester else "member"
        yield f"  {one.name:<{width}}  {role:<8}  {one.audit_key}  {one.peer_id}"
        yield f"  {'':<{width}}  keys      {key_fingerprint(one)}"


member.add_command(proposing.sign)
member.add_command(proposing.submit)
