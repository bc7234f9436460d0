"""Options that all commands of `folkmoot testnet` have."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from folkmoot.testnet.home import TestnetHome

DEFAULT_HOME = Path(".folkmoot/testnet")

Command = Callable[..., None]


def takes_home(command: Command) -> Command:
    """Adds `--home`, passed on as `home: TestnetHome`."""

    @click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
        default=DEFAULT_HOME,
        show_default=True,
        help="The testnet's directory.",
    )
    @functools.wraps(command)
    def with_home(home: Path, **rest: Any) -> None:
        command(home=TestnetHome(home), **rest)

    return with_home
