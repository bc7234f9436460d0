"""Training that hides single rows: clipping, noise, sampling, the models it takes, and what it costs."""

import math
from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from folkmoot.node.train import local, models
from folkmoot.node.train.accounting import Budget, epsilon_of
from folkmoot.node.train.fitting import Turn, fit
from folkmoot.node.train.noise import Noise, SecretRandom
from folkmoot.node.train.objectives import Classification
from folkmoot.node.train.private import check_private, private_steps
from folkmoot.node.train.steering import Carried
from folkmoot.node.train.wire import TrainerError
from folkmoot.protocol.charter_tables import Privacy, Training
from folkmoot.protocol.parts import Parts
from folkmoot.protocol.privacy import Cost

CLASSES = Classification(3, 3)


class Foreseen(SecretRandom):
    """Draws every row and no noise: what is left is clipping."""

    def normal(self, count: int) -> npt.NDArray[np.float64]:
        return np.zeros(count)


def some_rows(count: int = 24, scale: float = 1.0) -> local.Rows:
    draw = np.random.default_rng(3)
    x = draw.standard_normal((count, 4)).astype(np.float32) * np.float32(scale)
    return local.Rows.of(x, x[:, :3].argmax(axis=1).astype(np.int64))


def a_model(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(*layers) if layers else models.build("mlp", (4, 8, 3))


def by_hand(module: nn.Module, rows: local.Rows, clip: float) -> Iterator[torch.Tensor]:
    """Each row's gradient, one backward pass after the other, flat and cut."""
    for at in range(len(rows)):
        loss = CLASSES.loss(module(rows.x[at : at + 1]), rows.y[at : at + 1])
        flat = torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(module.parameters()))])
        yield flat * min(1.0, clip / float(flat.norm()))


@pytest.mark.parametrize("clip", [0.1, 1.0, 100.0])
def test_each_rows_gradient_is_cut_and_their_sum_divided_by_the_expected_sample(clip: float) -> None:
    module, rows = a_model(), some_rows()
    module.train()
    steps = private_steps(module, CLASSES, rows, Noise(clip, 1.0, 1.0), Foreseen())
    gradients, loss, count = next(steps)
    steps.close()
    found = torch.cat([one.flatten() for one in gradients])
    expected = torch.stack(list(by_hand(module, rows, clip))).sum(0) / len(rows)
    assert count == len(rows)
    assert math.isclose(loss, CLASSES.loss(module(rows.x), rows.y).item(), rel_tol=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_large_sample_is_gone_through_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, found = some_rows(), []
    for held in (1, 1 << 26):
        monkeypatch.setattr("folkmoot.node.train.private.HELD_VALUES", held)
        module = a_model()
        module.train()
        steps = private_steps(module, CLASSES, rows, Noise(0.5, 1.0, 1.0), Foreseen())
        found.append(torch.cat([one.flatten() for one in next(steps).gradients]))
        steps.close()
    torch.testing.assert_close(found[0], found[1])


def test_a_row_without_a_finite_gradient_counts_as_none() -> None:
    module, rows = a_model(), some_rows()
    rows.x[5] = float("inf")
    module.train()
    steps = private_steps(module, CLASSES, rows, Noise(1.0, 1.0, 1.0), Foreseen())
    gradients = next(steps).gradients
    steps.close()
    assert all(bool(one.isfinite().all()) for one in gradients)


def test_the_noise_has_the_deviation_that_was_asked_for() -> None:
    module, rows = a_model(nn.Linear(4, 300), nn.ReLU(), nn.Linear(300, 3)), some_rows()
    for parameter in module.parameters():
        parameter.data.zero_()
    module.train()
    steps = private_steps(module, CLASSES, rows, Noise(2.0, 3.0, 0.5))
    drawn = torch.cat([one.flatten() for _ in range(20) for one in next(steps).gradients])
    steps.close()
    # Gradients of at most 24 rows, each no longer than 2, hardly show in 40,000 values of deviation 6.
    assert abs(float(drawn.std()) * 12 / 6 - 1) < 0.03


def test_normal_numbers_are_normal_and_samples_have_their_rate() -> None:
    random = SecretRandom()
    values = random.normal(200_000)
    assert abs(values.mean()) < 0.015 and abs(values.std() - 1) < 0.015
    assert (
        abs((np.abs(values) < 1).mean() - 0.6827) < 0.01 and abs((np.abs(values) < 2).mean() - 0.9545) < 0.01
    )
    assert abs((values**4).mean() - 3) < 0.2
    assert abs(len(random.sample(200_000, 0.03)) / 200_000 - 0.03) < 0.003
    assert len(random.sample(50, 1.0)) == 50


def test_no_two_trainings_are_alike_although_the_charters_seed_is_one() -> None:
    rows, training = some_rows(), Training(steps=3, seed=7)
    module = a_model()
    start = models.to_vector(module)
    nothing = Carried(np.zeros_like(start), np.zeros_like(start))
    turn = Turn("alice", 1, start, nothing, Parts(models.layout(module)))
    noise = Noise(1.0, 1.0, 0.5)
    one, other = (
        fit(module, CLASSES, rows, training, turn, lambda done, total: None, noise=noise).sent
        for _ in range(2)
    )
    assert not np.array_equal(one, other)
    one, other = (fit(module, CLASSES, rows, training, turn, lambda done, total: None).sent for _ in range(2))
    assert np.array_equal(one, other)  # Opacus left nothing behind


# --- models -----------------------------------------------------------------------------------------------------------


class Beside(nn.Module):
    """Takes the mean of the rows beside it into account."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(x - x.mean(0))
        return out


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (a_model(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)), "layer 1 .*BatchNorm"),
        (Beside(), "rows beside it"),
    ],
)
def test_a_model_that_mixes_rows_is_refused_with_the_layers_name(module: nn.Module, text: str) -> None:
    with pytest.raises(TrainerError, match=text) as caught:
        check_private(module, 4, CLASSES)
    assert caught.value.kind == "model"


class Unknown(nn.Module):
    """A layer that Opacus has no rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


@pytest.mark.parametrize(
    "module",
    [
        a_model(),
        a_model(nn.Linear(4, 8), nn.LayerNorm(8), nn.Dropout(0.5), nn.Linear(8, 3)),
        a_model(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 2, 2), nn.Flatten(), nn.Linear(6, 3)),
        a_model(Unknown(), nn.Linear(4, 3)),
    ],
)
def test_other_models_are_taken(module: nn.Module) -> None:
    check_private(module, 4, CLASSES)


# --- what it costs --------------------------------------------------------------------------------------------------


def test_the_order_of_what_was_spent_makes_no_difference_and_too_much_is_told_at_once() -> None:
    one, other = (Cost(sample_rate=0.1, noise=noise, steps=20) for noise in (1.5, 2.0))
    assert epsilon_of([one, other, one], 3.0, 1e-5) == epsilon_of([one, one, other], 3.0, 1e-5)
    assert epsilon_of([Cost(sample_rate=0.5, noise=0.05, steps=10_000)], 3.0, 1e-5) > 1000
    assert epsilon_of([], 3.0, 1e-5) == 0


def test_computed_noise_is_the_least_with_which_planned_rounds_fit() -> None:
    budget = Budget(Privacy(mechanism="records", epsilon="8"), planned=2, rows=200, batch=20, steps=5)
    spent = [budget.cost]
    assert 7.9 < budget.with_next(spent) <= 8
    less = msgspec.structs.replace(budget.cost, noise=budget.cost.noise - 0.001)
    assert epsilon_of([less, less], 8, 1e-5) > 8
    with pytest.raises(TrainerError, match="the privacy budget is spent") as caught:
        budget.with_next([*spent, budget.cost])
    assert caught.value.kind == "budget"
