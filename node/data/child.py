"""Start `prepare.py` in a process of its own, and pass on what it says. Imports neither DuckDB nor numpy."""

import os
import subprocess
import sys

from folkmoot.node.config import Home
from folkmoot.node.train.command import trainer_environment
from folkmoot.protocol.schema import DataError


def prepare_data(home: Home) -> None:
    """Encode the rows of `home` by the charter's schema; raises `DataError` where they do not fit it."""
    command = [sys.executable, "-P", "-m", "folkmoot.node.data.prepare", "--home", str(home.path)]
    # DuckDB reads paths that begin with ~.
    environment = trainer_environment() | {name: os.environ[name] for name in ("HOME",) if name in os.environ}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", env=environment
    )
    if done.returncode:
        raise DataError(done.stderr.strip() or f"preparing the data ended with exit code {done.returncode}")
