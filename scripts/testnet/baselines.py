"""What the federation is measured against: each node alone, all data in one place, and a central FedAvg loop.

`python -m folkmoot.testnet.baselines HOME MEMBER,MEMBER,... ROUNDS` prints the first two as JSON, for the testnet in
HOME. All train with the trainer's own functions, and with the seeds that the nodes use.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np
import safetensors.numpy

from folkmoot.node.charter_files import read_charter
from folkmoot.node.config import Home, load_config
from folkmoot.node.recorded import RecordedModels
from folkmoot.node.report.story import Step
from folkmoot.node.train import local, models
from folkmoot.node.train.custom import CustomSource
from folkmoot.node.train.measuring import calibration_of
from folkmoot.node.train.objectives import Objective, make_objective
from folkmoot.node.train.source import locate_source
from folkmoot.node.train.vectors import Vector
from folkmoot.node.train.wire import Metrics, TrainerError
from folkmoot.protocol.charter_tables import Model, Training
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.schema import Schema
from folkmoot.testnet.attacks import BACKDOOR_TARGET, backdoor_value, plant_patch
from folkmoot.testnet.examples import Example, Rows
from folkmoot.testnet.home import Plan, TestnetHome, read_testnet


class Baselines(msgspec.Struct, frozen=True):
    """Metrics on the held-out rows of each member's model trained alone, in order, and of the pooled one.

    And how far the chances can be trusted that the shared model gives these rows. With attackers, `honest` are those of
    FedAvg among the other nodes alone, and `backdoor` how often the shared model takes a row with a planted patch for
    the target.
    """

    alone: tuple[Metrics, ...]
    pooled: Metrics
    calibration: tuple[Step, ...] = ()
    honest: Metrics = {}
    backdoor: float | None = None


@dataclass(frozen=True)
class Founded:
    """What a testnet's charter says, and the rows that its nodes prepared."""

    kind: str
    layers: tuple[int, ...]
    training: Training
    data: Schema | None
    source: CustomSource | None
    image: tuple[int, ...]
    start: Vector
    frozen: frozenset[str]
    shares: tuple[Rows, ...]
    test: Rows

    @property
    def train(self) -> Rows:
        """All rows to train on, node by node."""
        return Rows(
            np.concatenate([rows.x for rows in self.shares]), np.concatenate([rows.y for rows in self.shares])
        )

    def deal(self, nodes: int) -> tuple[Rows, ...]:
        """Each node's rows."""
        assert nodes == len(self.shares)
        return self.shares


Taught: TypeAlias = Example | Founded


def load_founded(home: TestnetHome, members: Sequence[str]) -> Founded:
    """The testnet in `home`, once its nodes have started: only then are their rows prepared."""
    charter = read_charter(home.node(members[0]))
    shares = [_prepared(home, name) for name in members]
    return Founded(
        kind=charter.model.kind,
        layers=charter.model.layers,
        training=charter.training,
        data=charter.data,
        source=_source(home.node(members[0]), charter.model),
        image=charter.model.image,
        start=_flat(home.node(members[0]), charter.model),
        frozen=frozenset(tensor.name for tensor in charter.model.tensors if tensor.part == "frozen"),
        shares=tuple(train for train, _ in shares),
        test=shares[0][1],
    )


def _source(node: Home, model: Model) -> CustomSource | None:
    """A custom model's source, as the node has it."""
    file = locate_source(model, node.resolve(load_config(node).trainer.path))
    return CustomSource(model.source, Path(file), model.source_digest) if file else None


def _flat(node: Home, model: Model) -> Vector:
    """The starting weights."""
    named = safetensors.numpy.load_file(node.initial_model)
    return np.concatenate([named[tensor.name].reshape(-1) for tensor in model.tensors])


def _prepared(home: TestnetHome, name: str) -> tuple[Rows, Rows]:
    """A node's rows to train on, and those held out, which are the same at all nodes."""
    node = home.node(name)
    files = load_config(node).data
    train, test = (safetensors.numpy.load_file(node.resolve(file)) for file in (files.train, files.test))
    return Rows(train["x"], train["y"]), Rows(test["x"], test["y"])


def compute(example: Taught, members: Sequence[str], rounds: int, seed: int) -> Baselines:
    """Train each member's share alone, and all shares together, for as many epochs as the federation does."""
    training = msgspec.structs.replace(example.training, seed=seed)
    start = _start_of(example, seed)
    alone = [
        measure(example, _train_on(example, rows, training, member, rounds, start))
        for member, rows in zip(members, example.deal(len(members)), strict=True)
    ]
    pooled = measure(example, _train_on(example, example.train, training, "pooled", rounds, start))
    return Baselines(tuple(alone), pooled)


def central_fedavg(
    example: Taught, members: Sequence[str], rounds: int, training: Training, base: Vector, first: int = 1
) -> Iterator[Vector]:
    """FedAvg without a federation: the model after each round, flat float32 (P,), from the same starts and
    seeds. `base` is the model before round `first`.

    Updates are weighted by their rows and averaged in float64; the only roundings are that of the mean to
    float32 and that of the sum with the base. A federation differs by no more than its fixed-point unit.
    """
    shares = example.deal(len(members))
    weights = [len(rows) for rows in shares]
    for round in range(first, first + rounds):
        total = np.zeros(len(base))
        for member, rows, weight in zip(members, shares, weights, strict=True):
            trained = _fit(example, rows, training, member, round, base)
            total += (trained - base).astype(np.float64) * weight
        base = base + (total / sum(weights)).astype(np.float32)
        yield base


def _train_on(
    example: Taught, rows: Rows, training: Training, member: str, rounds: int, vector: Vector
) -> Vector:
    for round in range(1, rounds + 1):
        try:
            vector = _fit(example, rows, training, member, round, vector)
        except TrainerError as error:
            if error.kind != "non_finite":  # a node withholds such an update too, and goes on
                raise
    return vector


def _fit(example: Taught, rows: Rows, training: Training, member: str, round: int, base: Vector) -> Vector:
    """One round of local training from `base`; the trained vector."""
    module = models.build(*_architecture(example))
    if isinstance(example, Founded):
        models.freeze(module, example.frozen)
    models.load_vector(module, base)
    local.train(module, _objective(example), _tensors(rows), training, member, round, _unwatched)
    return models.to_vector(module)


def measure(example: Taught, vector: Vector) -> Metrics:
    """How the model in `vector` does on the held-out rows."""
    module = models.build(*_architecture(example))
    models.load_vector(module, vector)
    return local.evaluate(module, _objective(example), _tensors(example.test), _unwatched)


def _calibration(node: Home) -> tuple[Step, ...]:
    """Of the shared model, as one node has it; empty if it has none that can be read."""
    try:
        return tuple(calibration_of(node))
    except FolkmootError as error:
        print(f"no calibration: {error}", file=sys.stderr)
        return ()


def _architecture(example: Taught) -> tuple[str, tuple[int, ...], CustomSource | None, tuple[int, ...]]:
    return example.kind, example.layers, _source_of(example), example.image


def _start_of(example: Taught, seed: int) -> Vector:
    if isinstance(example, Founded):
        return example.start
    return models.initial_vector(example.kind, example.layers, seed, example.image)


def _source_of(example: Taught) -> CustomSource | None:
    return example.source if isinstance(example, Founded) else None


def _objective(example: Taught) -> Objective:
    return make_objective(example.data, example.layers[-1])


def _tensors(rows: Rows) -> local.Rows:
    return local.Rows.of(rows.x, rows.y)


def _unwatched(done: int, total: int) -> None:
    """Nobody waits for the progress of a baseline."""


def _with_attack(result: Baselines, founded: Founded, home: TestnetHome, plan: Plan) -> Baselines:
    """What the other nodes would have come to without the attackers, and what a backdoor did."""
    others = [name for name in plan.names if name not in plan.attackers]
    places = [plan.names.index(name) for name in others]
    without = replace(founded, shares=tuple(founded.shares[place] for place in places))
    *_, model = central_fedavg(without, others, plan.rounds, founded.training, founded.start)
    honest = measure(without, model)
    backdoor = None
    if plan.attack_name == "backdoor":
        backdoor = _backdoor_success(founded, home.node(others[0]), plan.names.index(plan.attackers[0]))
    return msgspec.structs.replace(result, honest=honest, backdoor=backdoor)


def _backdoor_success(founded: Founded, node: Home, attacker: int) -> float | None:
    """How often the shared model, as this node has it, takes a patched row of another class for the target."""
    recorded = RecordedModels(node)
    if not (rounds := recorded.rounds()):
        return None
    module = models.build(*_architecture(founded))
    models.load_vector(module, recorded.whole(rounds[-1], lambda text: None))
    module.eval()
    others = founded.test.x[founded.test.y != BACKDOOR_TARGET]
    patched = plant_patch(others, backdoor_value(founded.shares[attacker].x))
    found = module(local.Rows.of(patched, np.zeros(len(patched), np.int64)).x).argmax(dim=1).numpy()
    return float((found == BACKDOOR_TARGET).mean())


def main(arguments: list[str]) -> int:
    """Run with the words after the program's name; the exit status."""
    home, names, rounds = arguments
    members = names.split(",")
    local.limit_threads(1)
    founded = load_founded(TestnetHome(Path(home)), members)
    found = compute(founded, members, int(rounds), founded.training.seed)
    result = msgspec.structs.replace(
        found, calibration=_calibration(TestnetHome(Path(home)).node(members[0]))
    )
    plan = read_testnet(TestnetHome(Path(home))).plan
    if plan.attack:
        result = _with_attack(result, founded, TestnetHome(Path(home)), plan)
    print(msgspec.json.encode(result).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
