"""What benchmarks measure is what nodes do: a rehearsed round is a central FedAvg loop's, with every outer rule."""

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
import torch

from folkmoot.node.train import local
from folkmoot.protocol.charter_tables import Averaging
from folkmoot.testnet import baselines, examples
from folkmoot.testnet.rehearsal import Rehearsal, Terms

SEED, MEMBERS = 3, 4


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    local.limit_threads(1)
    yield
    local.limit_threads(before)


@pytest.mark.parametrize("mode", ["open", "secure"])
def test_a_round_is_the_central_loops_and_the_outer_rule_takes_its_mean(mode: str) -> None:
    example = examples.load("digits")
    averaging = msgspec.convert(
        {"mode": mode, "codec": "f32", "rule": "fedavgm", "momentum": "0.5", "weight_cap": 400}, Averaging
    )
    federation = Rehearsal(
        Terms(example.kind, example.layers, example.training, averaging), example.deal(MEMBERS), SEED
    )
    training, names = (
        msgspec.structs.replace(example.training, seed=SEED),
        [f"node-{n}" for n in range(MEMBERS)],
    )
    unit = 2.0**-32 if mode == "open" else 2.0**-13  # of the fixed point, and of the ring for four members
    velocity = np.zeros_like(federation.model)
    for round_ in (1, 2):
        before = federation.model.copy()
        federation.play()
        (central,) = baselines.central_fedavg(example, names, 1, training, before, first=round_)
        velocity = np.float32(0.5) * velocity + (central - before)
        np.testing.assert_allclose(federation.model, before + velocity, atol=4 * unit + 1e-6)
