"""The task of the learning benchmarks: MNIST dealt unevenly to members that train an MLP 784-64-10 with plain SGD.

The folder that `--data` names holds MNIST's four idx .gz files, which are not part of this project.
"""

import argparse
import gzip
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from folkmoot.node.train import local
from folkmoot.protocol.charter_tables import Averaging, Privacy, Secrecy, Training
from folkmoot.testnet.dirichlet import deal
from folkmoot.testnet.examples import Rows
from folkmoot.testnet.rehearsal import Terms

MEMBERS, ROUNDS, UNEVEN = 16, 60, 0.1
MEAN, DEVIATION = np.float32(0.1307), np.float32(0.3081)
TRAINING = Training(steps=20, batch=64, momentum="0")

Changes = dict[str, dict[str, object]]
"""Terms of a charter, by table."""

RULES: dict[str, Changes] = {
    "pooled": {},
    "fedavg": {},
    "fedprox 0.1": {"training": {"prox": "0.1"}},
    "fedavgm 0.9": {"averaging": {"rule": "fedavgm", "momentum": "0.9"}},
    "nesterov 0.9/0.7": {"averaging": {"rule": "nesterov", "momentum": "0.9", "rate": "0.7"}},
    "fedadam 0.01": {"averaging": {"rule": "fedadam", "rate": "0.01"}},
    "fedyogi 0.01": {"averaging": {"rule": "fedyogi", "rate": "0.01"}},
    "scaffold": {"training": {"correction": "scaffold"}},
    "feddyn 0.1": {"training": {"correction": "feddyn", "alpha": "0.1"}},
    "feddyn 0.1, equal weights": {
        "training": {"correction": "feddyn", "alpha": "0.1"},
        "averaging": {"weight_cap": 1},
    },
    "scaffold, nesterov": {
        "training": {"correction": "scaffold"},
        "averaging": {"rule": "nesterov", "momentum": "0.9", "rate": "0.7"},
    },
}


def arguments(description: str | None, *, is_needed: bool = True) -> argparse.ArgumentParser:
    """What all of them take; `is_needed`: without MNIST they have nothing to do."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=is_needed, metavar="FOLDER")
    parser.add_argument("--rows", type=int, default=0, help="train on the first N images only")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--lr", default="0.1")
    return parser


def load(options: argparse.Namespace) -> tuple[Rows, Rows]:
    """The first `--rows` images to train on (0: all), and the test images; pixels with mean 0 and deviation 1."""
    local.limit_threads(1)
    train, test = _read(options.data, "train"), _read(options.data, "t10k")
    return (Rows(train.x[: options.rows], train.y[: options.rows]) if options.rows else train), test


def _read(folder: Path, name: str) -> Rows:
    with gzip.open(folder / f"{name}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), dtype=np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(folder / f"{name}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), dtype=np.uint8, offset=8)
    scaled = (images.astype(np.float32) / np.float32(255) - MEAN) / DEVIATION
    return Rows(scaled, labels.astype(np.int64))


def shares(train: Rows, members: int, uneven: float, seed: int) -> list[Rows]:
    """Each member's rows."""
    return [Rows(train.x[part], train.y[part]) for part in deal(train.y, members, uneven, seed)]


def terms(lr: str, *changes: Changes, rounds: int = 1) -> Terms:
    """The task's terms with these changes, one after the other; a privacy budget is to last for `rounds`."""
    training, averaging, secrecy = msgspec.structs.replace(TRAINING, lr=lr), Averaging(codec="f32"), Secrecy()
    privacy = Privacy()
    for change in changes:
        training = msgspec.structs.replace(training, **change.get("training", {}))
        averaging = msgspec.structs.replace(averaging, **change.get("averaging", {}))
        secrecy = msgspec.structs.replace(secrecy, **change.get("secrecy", {}))
        privacy = msgspec.structs.replace(privacy, **change.get("privacy", {}))
    return Terms("mlp", (784, 64, 10), training, averaging, secrecy, privacy=privacy, rounds=rounds)


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean and standard deviation."""
    deviation = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.2f}{deviation}"
