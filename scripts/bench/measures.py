"""What measuring costs a round: `.venv/bin/python scripts/bench/measures.py`.

CPU milliseconds, the least of several: to train one epoch, to run the held-out rows (a quarter as many) through the
model, and to measure them, which is that and accuracy, AUC, log loss, Brier score and calibration.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from folkmoot.node.train import local, models
from folkmoot.node.train.objectives import Classification
from folkmoot.protocol.charter_tables import Training

MODELS = {
    "digits, 10 classes": ((64, 256, 128, 10), 1440),
    "a table, 2 classes": ((30, 32, 2), 8000),
    "MNIST, 10 classes": ((784, 64, 10), 20_000),
    "65 classes": ((64, 64, 65), 20_000),
}


def least(work: Callable[[], object], tries: int) -> float:
    """CPU milliseconds."""
    found = []
    for _ in range(tries):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found) * 1e3


def measure(layers: tuple[int, ...], rows: int) -> str:
    """The figures of one model."""
    draw = np.random.default_rng(0)
    x = draw.standard_normal((rows, layers[0]), dtype=np.float32)
    train = local.Rows.of(x, draw.integers(0, layers[-1], rows))
    test = local.Rows(train.x[: rows // 4], train.y[: rows // 4])
    module, objective = models.build_seeded("mlp", layers, 0), Classification(layers[-1], layers[-1])
    terms = Training(epochs=1, lr="0.001")
    epoch = least(lambda: local.train(module, objective, train, terms, "a", 1, _unwatched), 3)
    alone = least(lambda: _run(module, test), 9)
    measured = least(lambda: local.evaluate(module, objective, test, _unwatched), 9)
    ratio = (epoch + measured) / (epoch + alone)
    return f"{rows:,} | {epoch:.1f} | {alone:.2f} | {measured:.2f} | {ratio:.3f}"


def main() -> None:
    """Print a Markdown table."""
    local.limit_threads(1)
    print("| | rows to train on | an epoch | model alone | measured | all of it, times without measures |")
    print("|---|---|---|---|---|---|")
    for name, (layers, rows) in MODELS.items():
        print(f"| {name} | {measure(layers, rows)} |", flush=True)


@torch.no_grad()
def _run(module: torch.nn.Module, rows: local.Rows) -> None:
    for at in range(0, len(rows), local.EVALUATION_BATCH):
        module(rows.x[at : at + local.EVALUATION_BATCH])


def _unwatched(done: int, total: int) -> None:
    """Nobody waits."""


if __name__ == "__main__":
    main()
