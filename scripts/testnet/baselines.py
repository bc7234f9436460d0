"""What the federation is measured against: each node alone, all data in one place, and a central FedAvg loop.

`python -m folkmoot.testnet.baselines EXAMPLE MEMBER,MEMBER,... ROUNDS SEED` prints the first two as JSON. All
train with the trainer's own functions, and with the seeds that the nodes use.
"""

import sys
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from folkmoot.node.train import local, models
from folkmoot.node.train.vectors import Vector
from folkmoot.node.train.wire import Metrics
from folkmoot.protocol.charter import Training
from folkmoot.testnet import examples
from folkmoot.testnet.examples import Example, Rows


class Baselines(msgspec.Struct, frozen=True):
    """Metrics on the held-out rows of each member's model trained alone, in order, and of the pooled one."""

    alone: tuple[Metrics, ...]
    pooled: Metrics


def compute(example: Example, members: Sequence[str], rounds: int, seed: int) -> Baselines:
    """Train each member's share alone, and all shares together, for as many epochs as the federation does."""
    training = msgspec.structs.replace(example.training, seed=seed)
    start = models.initial_vector(example.kind, example.layers, seed)
    alone = [
        measure(example, _train_on(example, rows, training, member, rounds, start))
        for member, rows in zip(members, example.deal(len(members)), strict=True)
    ]
    pooled = measure(example, _train_on(example, example.train, training, "pooled", rounds, start))
    return Baselines(tuple(alone), pooled)


def central_fedavg(
    example: Example, members: Sequence[str], rounds: int, training: Training, base: Vector
) -> Iterator[Vector]:
    """FedAvg without a federation: the model after each round, flat float32 (P,), from the same starts and
    seeds.

    Updates are weighted by their rows and averaged in float64; the only roundings are that of the mean to
    float32 and that of the sum with the base. A federation differs by no more than its fixed-point unit.
    """
    shares = example.deal(len(members))
    weights = [len(rows) for rows in shares]
    for round in range(1, rounds + 1):
        total = np.zeros(len(base))
        for member, rows, weight in zip(members, shares, weights, strict=True):
            trained = _fit(example, rows, training, member, round, base)
            total += (trained - base).astype(np.float64) * weight
        base = base + (total / sum(weights)).astype(np.float32)
        yield base


def _train_on(
    example: Example, rows: Rows, training: Training, member: str, rounds: int, vector: Vector
) -> Vector:
    for round in range(1, rounds + 1):
        vector = _fit(example, rows, training, member, round, vector)
    return vector


def _fit(example: Example, rows: Rows, training: Training, member: str, round: int, base: Vector) -> Vector:
    """One round of local training from `base`; the trained vector."""
    module = models.build(example.kind, example.layers)
    models.load_vector(module, base)
    local.train(module, _tensors(rows), training, member, round, _unwatched)
    return models.to_vector(module)


def measure(example: Example, vector: Vector) -> Metrics:
    """How the model in `vector` does on the held-out rows."""
    module = models.build(example.kind, example.layers)
    models.load_vector(module, vector)
    return local.evaluate(module, _tensors(example.test), _unwatched)


def _tensors(rows: Rows) -> local.Rows:
    return local.Rows.of(rows.x, rows.y)


def _unwatched(done: int, total: int) -> None:
    """Nobody waits for the progress of a baseline."""


def main(arguments: list[str]) -> int:
    """Run with the words after the program's name; the exit status."""
    name, members, rounds, seed = arguments
    local.limit_threads(1)
    result = compute(examples.load(name), members.split(","), int(rounds), int(seed))
    print(msgspec.json.encode(result).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
