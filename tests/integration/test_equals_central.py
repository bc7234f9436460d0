"""The four-node digits federation computes what a central FedAvg loop computes, to the last unit.

Real engines, payloads, sums and the real training code; network, ledger and time are simulated, so that all four
members are in every round however busy the machine is.

How far the two may be apart, in one round from one base, for each parameter:

- A member's update is written in units of 2^(E-32), ties to even: half a unit off at most, and so is a mean of four.
  Here E = 0 (no update reaches beyond 1, which the test checks), so that is 2^-33.
- Both round the mean to float32 and then its sum with the base. Where two values on the way to a rounding differ at
  all, the results may differ by one step of float32 there: one at the mean, one at the model.

What else equals a central loop: in secure mode the same, but for the ring's unit in place of 2^-32; with another outer
rule the step with the same mean (`tests/unit/test_rehearsal.py` holds both of a rehearsed federation, and
`tests/unit/test_outer.py` every rule to its formula); FedProx, FedNova and clipping change what a member trains, which
the loop would do alike. FedDyn and SCAFFOLD keep a vector with each member and have no central loop without one.

Weights are integers and sums exact, so nothing else is lost. From round to round training amplifies such differences,
as it does any; so each round is compared from the federation's own model before it.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from audited_federation import NAMES
from living_federation import LivingFederation, in_virtual_time

from folkmoot.node.train import models
from folkmoot.node.train.session import Session
from folkmoot.node.train.wire import Evaluate, Fit, Task
from folkmoot.node.trainer import FitResult, KeptVectors, Measured
from folkmoot.protocol.blob import ref_of
from folkmoot.protocol.charter_tables import Averaging, Model, Training
from folkmoot.protocol.messages import Roster
from folkmoot.protocol.privacy import Cost
from folkmoot.protocol.record import decode_record
from folkmoot.testnet import baselines
from folkmoot.testnet.examples import Example, digits

pytestmark = pytest.mark.integration

ROUNDS = 10
SEED = 0
UNIT = 2.0**-32


class Trained:
    """The real training, in this process."""

    def __init__(self, task: Task) -> None:
        self._session = Session(task)

    async def fit(
        self,
        round: int,
        base: Path,
        update: Path,
        kept: KeptVectors,
        spent: Sequence[Cost],
        fragment: tuple[int, int, int] | None = None,
    ) -> FitResult:
        done = self._session.fit(Fit(1, round, str(base), str(update)), _unwatched)
        return FitResult(
            done.metrics, update=update, num_examples=done.num_examples, train_loss=done.train_loss
        )

    async def evaluate(self, model: Path, kept: Mapping[str, Path]) -> Measured:
        return Measured(self._session.evaluate(Evaluate(1, str(model)), _unwatched).metrics)


def _unwatched(done: int, total: int) -> None:
    pass


def make_federation(path: Path, example: Example) -> LivingFederation:
    """The federation that `folkmoot testnet run --example digits` founds, with simulated surroundings."""
    initial = models.initial_vector(example.kind, example.layers, SEED)
    tensors = models.layout(models.build(example.kind, example.layers))
    flat = initial.astype("<f4").tobytes()
    federation = LivingFederation(
        path / "homes",
        rounds=ROUNDS,
        initial=flat,
        model=Model(kind="mlp", layers=example.layers, initial=ref_of(flat).root.hex(), tensors=tensors),
        training=Training(seed=SEED),
        averaging=Averaging(codec="f32"),
    )
    folders = [path / name for name in NAMES]
    example.write_data(folders)
    for house, folder in zip(federation.houses, folders, strict=True):
        files = str(folder / "train.safetensors"), str(folder / "test.safetensors")
        house.trainer = Trained(Task(NAMES[house.me], federation.charter.model, Training(seed=SEED), *files))
    return federation


async def play(path: Path, example: Example) -> list[npt.NDArray[np.float32]]:
    """The federation's models, from the starting weights to the last."""
    federation = make_federation(path, example)
    await federation.run()
    federation.check()
    alice = federation.houses[0]
    vectors = [np.frombuffer(federation.initial, dtype="<f4").copy()]
    for round_ in range(1, ROUNDS + 1):
        record = decode_record(alice.archive.record(round_) or b"")
        roster = record.roster.body
        assert isinstance(roster, Roster)
        assert len(record.commitments) == len(NAMES)
        assert set(roster.exponents) == {0}, "an update beyond 1: the bound of this test does not hold"
        model = alice.models.read(alice.watched.rounds[round_].model)
        vectors.append(np.frombuffer(model, dtype="<f4").copy())
    return vectors


def test_every_round_equals_central_fedavg_to_the_fixed_point_unit(tmp_path: Path) -> None:
    example, threads = digits(), torch.get_num_threads()
    torch.set_num_threads(1)  # as the trainers' default: the last bits depend on it
    try:
        vectors = in_virtual_time(partial(play, tmp_path, example))
        for round_, (base, model) in enumerate(pairwise(vectors), start=1):
            (central,) = baselines.central_fedavg(example, NAMES, 1, Training(seed=SEED), base, first=round_)
            steps = np.spacing(np.abs(central - base)) + np.spacing(np.abs(central))
            apart = np.abs(model.astype(np.float64) - central)
            assert (apart <= UNIT / 2 + steps).all(), f"round {round_}: {apart.max()}"
        assert baselines.measure(example, vectors[-1])["accuracy"] >= 0.96
    finally:
        torch.set_num_threads(threads)
