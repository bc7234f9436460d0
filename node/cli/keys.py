"""`folkmoot keys`: this member's keys, replaced without leaving the federation."""

from pathlib import Path

import click

from folkmoot.node.cli import proposing


@click.group()
def keys() -> None:
    """This member's keys."""


@keys.command()
@click.option(
    "--only",
    "names",
    type=click.Choice(["identity", "sealing", "audit"]),
    multiple=True,
    help="Replace these only; may be repeated.  [default: all three]",
)
@proposing.takes_terms
def rotate(home: Path, names: tuple[str, ...], effective: tuple[bool, int], out: Path | None) -> None:
    """Make new keys beside the old ones, and draft the proposal that puts them in force.

    The node changes keys at the stated round; until then it needs the old ones, and afterwards it keeps them: disputes
    about earlier rounds are settled with them. The passphrase stays the same. The gas key is in no charter: to replace
    it, put another keystore in its place while the node is stopped.
    """
    import os

    from folkmoot.node.config import Home
    from folkmoot.node.keys import AUDIT, IDENTITY, SEALING, chartered, folder_of, key_folders, rotate_keys
    from folkmoot.node.passphrase import read_passphrase
    from folkmoot.node.standing import Standing
    from folkmoot.protocol.membership import replace_member

    files = {"identity": IDENTITY, "sealing": SEALING, "audit": AUDIT}
    standing = Standing.read(Home(home.resolve()))
    charter, place = standing.timeline.newest, standing.home.keys
    mine = charter.members[charter.member_named(standing.config.name)]
    standing.check_round(proposing.round_of(standing, effective))  # before keys are made for nothing
    standing.check_pending([bytes.fromhex(mine.audit_key[2:])])
    in_use, newest = folder_of(place, mine), key_folders(place)[-1]
    if newest == in_use:
        chosen = [files[name] for name in names] or list(files.values())
        newest = rotate_keys(place, in_use, chosen, read_passphrase(os.environ))
        click.echo(f"new keys in {newest}: keep a backup of them, and the old ones")
    else:
        click.echo(f"the keys in {newest} are in no charter yet: proposing these")
    after = replace_member(charter, chartered(newest, mine))
    proposing.draft(standing, after, effective, out)
