"""Options that the auditor's commands have in common."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _address(ctx: click.Context, param: click.Parameter, text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        address = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        address = b""
    if len(address) != 20:
        raise click.BadParameter(f"{text!r} is not an address: 0x and 40 hex digits", ctx, param)
    return address


def _urls(ctx: click.Context, param: click.Parameter, urls: tuple[str, ...]) -> tuple[str, ...]:
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise click.BadParameter(f"{url!r} is not a URL like http://127.0.0.1:8545", ctx, param)
    return urls


def _archives(ctx: click.Context, param: click.Parameter, folders: tuple[Path, ...]) -> tuple[Path, ...]:
    """Refuses a folder that is none, but has some in it; an empty archive is one."""
    for folder in folders:
        if not any((folder / part).is_dir() for part in ("rounds", "blobs")):
            inside = sorted(
                one.parent for pattern in ("rounds", "*/rounds", "*/*/rounds") for one in folder.glob(pattern)
            )
            if inside:
                named = ", ".join(map(str, inside[:4])) + (" ..." if len(inside) > 4 else "")
                raise click.BadParameter(
                    f"{folder} is no archive, but there is one in it: give {named}", ctx, param
                )
    return folders


CONTRACT = click.option(
    "--contract", metavar="ADDRESS", callback=_address, help="The federation's contract.  [required]"
)
HOMES = click.option(
    "--home",
    "homes",
    metavar="HOME",
    type=_FOLDER,
    multiple=True,
    help="A node's home: its archive, charter and keys. May be repeated.",
)
ARCHIVES = click.option(
    "--archive",
    "archives",
    metavar="DIR",
    type=_FOLDER,
    callback=_archives,
    multiple=True,
    help="An archive that you were given. May be repeated.",
)
CHARTER = click.option(
    "--charter",
    "charter_file",
    metavar="FILE",
    type=FILE,
    help="charter.toml, with charter.sig/ beside it; without it, a home's.",
)
OFFLINE = click.option(
    "--offline",
    metavar="ZIP",
    type=FILE,
    help="Audit a bundle instead of a chain: no network is needed.",
)
RPCS = click.option(
    "--rpc",
    "rpcs",
    metavar="URL",
    multiple=True,
    callback=_urls,
    help="JSON-RPC end point of the chain; give several and they are compared.",
)
MAX_AGE = click.option(
    "--max-age",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    help="A chain whose newest block is older is INCONCLUSIVE (default: 3600; a bundle or development chain: any age).",
)
DEFAULT_AGE = 3600.0
"""Seconds: longer than honest chains rest, shorter than most things take that somebody would hide."""

JSON = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
OUTPUT = click.Path(dir_okay=False, writable=True, path_type=Path)


def online(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of an audit that asks a chain."""
    options = (
        RPCS,
        CONTRACT,
        HOMES,
        ARCHIVES,
        CHARTER,
        click.option(
            "--first-block",
            metavar="N",
            type=click.IntRange(min=0),
            help="Older blocks are not searched (default: where the contract was deployed).",
        ),
        MAX_AGE,
        click.option(
            "--state",
            metavar="FILE",
            type=OUTPUT,
            help="Remembers the last verified head (default: by federation, in your state directory).",
        ),
        click.option(
            "--no-state", is_flag=True, help="Remember nothing, and compare with nothing remembered."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
