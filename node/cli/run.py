"""`folkmoot run`: this member's node, until it is stopped."""

from pathlib import Path

import click


@click.command()
@click.option(
    "--home",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="The node's directory, with node.toml, the charter and the keys.",
)
def run(home: Path) -> None:
    """Run this node until SIGINT or SIGTERM.

    Checks the charter and the ledger before it talks to any peer. Goes on where it stopped. The passphrase of the keys
    comes from FOLKMOOT_PASSPHRASE_FILE, FOLKMOOT_PASSPHRASE or a prompt.
    """
    import os

    from folkmoot.node.heap import share_one_heap

    os.umask(0o077)  # what this node and its trainer write is nobody else's to read
    share_one_heap()  # before anything that is imported starts a thread

    import trio

    from folkmoot.node import daemon
    from folkmoot.node.config import Home
    from folkmoot.node.logs import logging_to
    from folkmoot.node.opening import open_home

    node = open_home(Home(home.resolve()))
    with logging_to(node.home.logs, node.config.log.level):
        trio.run(daemon.run, node)
