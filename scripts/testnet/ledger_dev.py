"""`folkmoot ledger dev`: the embedded chain in the foreground."""

import re
from pathlib import Path

import click


def _address(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[bytes, ...]:
    for text in values:
        if not re.fullmatch(r"0x[0-9a-fA-F]{40}", text):
            raise click.BadParameter(f"{text!r} is not an address: 0x and 40 hex digits", ctx, param)
    return tuple(bytes.fromhex(text[2:]) for text in values)


@click.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8545, show_default=True, help="TCP port; 0: a free one."
)
@click.option(
    "--fund",
    metavar="ADDRESS",
    multiple=True,
    callback=_address,
    help="Give this account ether from the first block on. May be repeated.",
)
@click.option(
    "--journal",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep the chain in this file between starts; without it, it is gone when this ends.",
)
@click.argument("more", nargs=-1, metavar="[ADDRESS]...", callback=_address)
def dev(port: int, fund: tuple[bytes, ...], journal: Path | None, more: tuple[bytes, ...]) -> None:
    """Run a chain on this machine until it is interrupted. Development, not evidence.

    Its owner can rewrite it, so what stands on it proves nothing to others: use it to try things out. Further ADDRESSes
    are funded as those of --fund.
    """
    import sqlite3

    from folkmoot.testnet.chain import serve
    from folkmoot.testnet.chains import DEFAULT_CHAIN_ID
    from folkmoot.testnet.processes import TestnetError

    try:
        serve(port, None, DEFAULT_CHAIN_ID, [*fund, *more], journal)
    except (OSError, sqlite3.Error) as error:
        raise TestnetError(f"the chain cannot be served on port {port}: {error}") from error
