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
    import signal
    import sys

    # Until the daemon listens to signals: children that were started to unlock keys or to read data are ended.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))

    from folkmoot.node.heap import share_one_heap
    from folkmoot.node.no_dumps import forbid_core_dumps

    os.umask(0o077)  # what this node and its trainer write is nobody else's to read
    forbid_core_dumps()  # before any key is read
    share_one_heap()  # before anything that is imported starts a thread
    # Robust rules multiply small matrices: on busy cores BLAS threads wait for each other longer than one takes.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    import trio

    from folkmoot.node import daemon
    from folkmoot.node.config import Home, load_config
    from folkmoot.node.logs import logging_to
    from folkmoot.node.lost_charters import lacks_charter, search_lost
    from folkmoot.node.opening import open_home

    place = Home(home.resolve())
    if lacks_charter(place):
        with logging_to(place.logs, load_config(place).log):
            trio.run(search_lost, place)
    node = open_home(place)
    with logging_to(node.home.logs, node.config.log):
        trio.run(daemon.run, node)
