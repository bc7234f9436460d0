"""How a trainer process is started: its command and all that it gets of our environment."""

import os
import sys

DEFAULT_COMMAND = (sys.executable, "-P", "-m", "folkmoot.node.train.worker")
"""-P: modules in the folder where the node happens to start must not stand in for installed ones."""

KEPT_ENVIRONMENT = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
)
"""Names of the variables that training may need; passphrases are not among them."""


def trainer_environment(threads: int = 1) -> dict[str, str]:
    """The environment of a trainer process with `threads` compute threads."""
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    return kept | {"OMP_NUM_THREADS": str(threads)}
