"""`folkmoot init`: a new home with its keys, configuration and empty journal."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from folkmoot.node.config import DataConfig, Home, LedgerConfig, NetworkConfig, NodeConfig, render_config
from folkmoot.node.keys import PublicKeys, create_keys
from folkmoot.node.passphrase import read_passphrase
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.toml import ConfigError

if TYPE_CHECKING:
    from folkmoot.protocol.charter_tables import Member

_UNSET = "0x" + 40 * "0"
"""Stands for the contract until the ledger is known; commented out in the file."""


class HomeError(FolkmootError):
    """The home cannot be made where it was asked for."""

    exit_code = 2


def _name(ctx: click.Context, param: click.Parameter, name: str) -> str:
    if not re.fullmatch("[a-z0-9][a-z0-9-]{0,31}", name):
        raise click.BadParameter(f"{name!r}: 1 to 32 small letters, digits and hyphens", ctx, param)
    return name


@click.command()
@click.argument("home", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--name",
    required=True,
    callback=_name,
    help="Your member's name in the charter: small letters, digits, hyphens.",
)
@click.option(
    "--listen",
    metavar="MULTIADDR",
    default="/ip4/127.0.0.1/tcp/0",
    show_default=True,
    help="Where the node listens; port 0 takes a free one.",
)
@click.option(
    "--bootstrap",
    metavar="MULTIADDR|FILE",
    multiple=True,
    help="Where another member's node listens, or a file that will say so. May be repeated.",
)
@click.option(
    "--query", metavar="SQL", help="The SELECT that reads your rows: SELECT * FROM 'customers.csv'."
)
@click.option("--cheap-keys", is_flag=True, hidden=True, help="Weak protection of the keystores; for tests.")
def init(
    home: Path, name: str, listen: str, bootstrap: tuple[str, ...], query: str | None, cheap_keys: bool
) -> None:
    """Make HOME, a new node's directory.

    Writes its keys, node.toml, an empty journal, and member.toml: the public halves of the keys, for the charter. HOME
    must not exist or be empty. The passphrase that protects two of the keys comes from FOLKMOOT_PASSPHRASE_FILE,
    FOLKMOOT_PASSPHRASE or a prompt.
    """
    from folkmoot.node.charter_files import write_member
    from folkmoot.node.store import Journal
    from folkmoot.protocol.charter_tables import Member

    place = Home(home)
    config = _config(name, listen, bootstrap, query)
    _refuse_non_empty(home)
    passphrase = read_passphrase(os.environ, confirm=True)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.config.write_text(_render(config), encoding="utf-8")
    except OSError as error:
        raise HomeError(f"{home}: cannot be written: {error.strerror}") from error
    publics = create_keys(place.keys, passphrase, cheap=cheap_keys)
    member = Member(
        name=name,
        peer_id=publics.peer_id,
        identity_key=publics.identity_key,
        sealing_key=publics.sealing_key,
        audit_key=publics.audit_key,
    )
    write_member(place, member)
    Journal.create(place.store)
    _tell(place, member, publics)


def _config(name: str, listen: str, bootstrap: tuple[str, ...], query: str | None) -> NodeConfig:
    config = NodeConfig(
        name=name,
        network=NetworkConfig(listen=listen, bootstrap=bootstrap),
        ledger=LedgerConfig(rpc=("http://127.0.0.1:8545",), contract=_UNSET),
        data=DataConfig(query=query),
    )
    try:
        # A struct that is made in code is not checked; one that is converted is.
        return msgspec.convert(msgspec.to_builtins(config), NodeConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"folkmoot init: {error}".replace("`$.", "`")) from error


def _refuse_non_empty(home: Path) -> None:
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise HomeError(
            f"{home}: exists and is not an empty directory: give a new one, homes are never overwritten"
        )


def _render(config: NodeConfig) -> str:
    """The file, its ledger still to be filled in: `folkmoot ledger deploy` and `ledger use` do that."""
    lines = render_config(config).splitlines()
    start = lines.index("[ledger]")
    end = lines.index("", start)
    ledger = [line if line.startswith("#") else f"# {line}" for line in lines[start:end]]
    advice = "# Filled in by 'folkmoot ledger deploy' (one member) and 'folkmoot ledger use' (the others)."
    return "\n".join([*lines[:start], advice, *ledger, *lines[end:]]) + "\n"


def _tell(home: Home, member: "Member", publics: PublicKeys) -> None:
    from folkmoot.protocol.membership import key_fingerprint

    click.echo(f"peer id   {publics.peer_id}")
    click.echo(f"keys      {key_fingerprint(member)}  (others compare this with you before they sign)")
    click.echo(f"gas key   {publics.gas_key}  (this account pays for transactions: fund it)")
    click.echo(f"give {home.member} to whoever drafts the charter; keep {home.keys} secret and in a backup")
