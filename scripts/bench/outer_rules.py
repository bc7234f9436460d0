"""What outer rules gain on uneven data: `outer_rules.py --data FOLDER [--rows N] [--seeds N] [--lr R] [RULE ...]`.

MNIST (FOLDER holds its four idx .gz files, which are not part of this project), 16 members with Dirichlet(0.1) shares
of the classes, 60 rounds of 20 steps of 64 rows with plain SGD, MLP 784-64-10. Each rule runs through the node's own
functions (`folkmoot.testnet.rehearsal`). "Pooled" is one member with all rows that takes the same steps. The worst
member is the one on whose own mix of classes the common model is least accurate. Prints a Markdown table.
"""

import argparse
import gzip
import statistics
import time
from pathlib import Path

import msgspec
import numpy as np

from folkmoot.node.train import local
from folkmoot.protocol.charter import Averaging, Training
from folkmoot.testnet.dirichlet import deal
from folkmoot.testnet.examples import Rows
from folkmoot.testnet.rehearsal import Rehearsal, Terms

MEMBERS, ROUNDS, SHOWN = 16, 60, (15, 30, 60)
MEAN, DEVIATION = np.float32(0.1307), np.float32(0.3081)
TRAINING = Training(steps=20, batch=64, momentum="0")

RULES: dict[str, dict[str, dict[str, object]]] = {
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


def load_mnist(folder: Path, rows: int) -> tuple[Rows, Rows]:
    """The first `rows` images to train on (0: all), and the test images; pixels with mean 0 and deviation 1."""
    train, test = _read(folder, "train"), _read(folder, "t10k")
    return (Rows(train.x[:rows], train.y[:rows]) if rows else train), test


def _read(folder: Path, name: str) -> Rows:
    with gzip.open(folder / f"{name}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), dtype=np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(folder / f"{name}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), dtype=np.uint8, offset=8)
    scaled = (images.astype(np.float32) / np.float32(255) - MEAN) / DEVIATION
    return Rows(scaled, labels.astype(np.int64))


def learn(rule: str, lr: str, train: Rows, test: Rows, seed: int) -> list[tuple[float, float]]:
    """Accuracy, and that of the worst member, after each of the rounds that are shown."""
    changes = RULES[rule]
    terms = Terms(
        kind="mlp",
        layers=(784, 64, 10),
        training=msgspec.structs.replace(TRAINING, lr=lr, **changes.get("training", {})),
        averaging=msgspec.structs.replace(Averaging(codec="f32"), **changes.get("averaging", {})),
    )
    dealt = [np.arange(len(train))] if rule == "pooled" else deal(train.y, MEMBERS, 0.1, seed)
    federation = Rehearsal(terms, [Rows(train.x[part], train.y[part]) for part in dealt], seed)
    found = []
    for round_ in range(1, ROUNDS + 1):
        federation.play()
        if round_ in SHOWN:
            accuracy, by_member = federation.accuracies(test)
            found.append((100 * accuracy, 100 * min(by_member)))
    return found


def main() -> None:
    """Run the rules that are named (all) and print a row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rules", nargs="*", metavar="RULE", help=f"some of: {', '.join(RULES)}")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--rows", type=int, default=0, help="train on the first N images only")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--lr", default="0.05")
    options = parser.parse_args()
    local.limit_threads(1)
    train, test = load_mnist(options.data, options.rows)
    print(f"| {len(train):,} images | {' | '.join(f'round {n}' for n in SHOWN)} | worst member | s a run |")
    print("|---|" + "---|" * (len(SHOWN) + 2))
    for rule in options.rules or RULES:
        began = time.monotonic()
        runs = [learn(rule, options.lr, train, test, seed) for seed in range(options.seeds)]
        seconds = (time.monotonic() - began) / len(runs)
        cells = [_spread([run[at][0] for run in runs]) for at in range(len(SHOWN))]
        worst = _spread([run[-1][1] for run in runs])
        print(f"| {rule} | {' | '.join(cells)} | {worst} | {seconds:.0f} |", flush=True)


def _spread(values: list[float]) -> str:
    deviation = f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


if __name__ == "__main__":
    main()
