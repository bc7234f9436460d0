"""A trainer that does not train: each fit writes random numbers as the update, at once. For `folkmoot bench`.

    python -m folkmoot.testnet.bench_trainer SEED

Speaks the trainer's protocol (`node/train/wire.py`) with numpy alone, so that a round's time is the network's and the
data path's.
"""

import os
import sys
from pathlib import Path

import numpy as np

from folkmoot.node.train.wire import (
    Cancel,
    Evaluate,
    Evaluated,
    Fit,
    Fitted,
    Ready,
    Task,
    TrainerError,
    read_request,
    write_reply,
)

EXAMPLES = 100
"""Rows that every member claims to have: equal weights."""

_PIECE = 1 << 18


def write_update(path: Path, parameters: int, seed: int, round: int) -> None:
    """Random float32 values in [-1, 1), the same for the same (seed, round); the file appears whole."""
    rng = np.random.default_rng((seed, round))
    partial = path.with_name(path.name + ".part")
    with partial.open("wb", buffering=0) as file:
        for at in range(0, parameters, _PIECE):
            values = rng.random(min(_PIECE, parameters - at), dtype=np.float32)
            (values * np.float32(2) - np.float32(1)).tofile(file)
    partial.replace(path)


def main(arguments: list[str]) -> int:
    """Serve one daemon until its pipe closes; the exit status."""
    seed = int(arguments[0])
    task = read_request(0)
    if not isinstance(task, Task):
        raise TrainerError("protocol", "the first request must be the task")
    write_reply(1, Ready(os.getpid(), EXAMPLES))
    while (request := read_request(0)) is not None:
        match request:
            case Fit():
                write_update(Path(request.update), task.model.parameters, seed, request.round)
                write_reply(1, Fitted(request.id, EXAMPLES, 0.0, {}))
            case Evaluate():
                write_reply(1, Evaluated(request.id, {}))
            case Cancel():
                pass  # what was cancelled is done by now; its answer is passed over
            case Task():
                raise TrainerError("protocol", "a second task; start another trainer for it")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
