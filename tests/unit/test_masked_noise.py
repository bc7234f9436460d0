"""Noise inside the masks: what one row may move, what members add, what it costs, and what does not go with it."""

import math
from collections.abc import Sequence
from pathlib import Path

import dp_accounting
import msgspec
import numpy as np
import pytest
import torch
from audited_federation import NAMES, AuditedFederation
from dp_accounting.rdp import rdp_privacy_accountant
from living_federation import LivingFederation, in_virtual_time
from scipy import stats

from folkmoot.ledger.audit import accountant
from folkmoot.node.train import local, models
from folkmoot.node.train.noise import Noise
from folkmoot.node.train.objectives import Classification
from folkmoot.node.train.private import masked_step
from folkmoot.node.train.vectors import read_vector, write_vector
from folkmoot.node.trainer import FakeTrainer, FitResult, KeptVectors
from folkmoot.protocol import renyi
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_options import check_options
from folkmoot.protocol.charter_tables import Averaging, Privacy, Secrecy, Tensor, Training
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.privacy import Cost
from folkmoot.protocol.secure.masked_noise import describe_noise, exponent_bounds, noise_seed, plan_noise

PRIVACY = Privacy(mechanism="secure", noise="1.5", epsilon="3")
TERMS = {
    "averaging": Averaging(mode="secure"),
    "training": Training(steps=1, batch=4, momentum="0"),
    "privacy": PRIVACY,
}


def chartered(**tables: object) -> Charter:
    return msgspec.structs.replace(AuditedFederation().charter, **{**TERMS, **tables})


# --- what one row moves -----------------------------------------------------------------------------------------------


def test_one_row_moves_the_sum_by_whole_numbers_of_bounded_length() -> None:
    charter = chartered(training=Training(steps=1, batch=1, momentum="0", lr="0.5"))
    plan = plan_noise(charter)
    assert plan is not None and plan.reach < plan.bound
    draw = np.random.default_rng(1)
    longest = 0.0
    for _ in range(50):
        x = draw.standard_normal((1, 3)).astype(np.float32) * 10
        module = models.build("logistic", (3, 2))
        noise = Noise(1.0, 1.5, 1.0, plan)
        vector, _ = masked_step(module, Classification(2, 2), local.Rows.of(x, np.zeros(1, np.int64)), noise)
        whole = vector.astype(np.float64) / plan.unit
        assert np.array_equal(whole, np.rint(whole))
        longest = max(longest, float(np.linalg.norm(whole)))
    assert 0.9 * plan.reach < longest <= plan.bound


def test_rounding_changes_no_mean() -> None:
    plan = plan_noise(chartered())
    assert plan is not None
    coarse = msgspec.structs.replace(plan, reach=3.0, bound=6.0, unit=1.0)
    x, y = np.ones((1, 3), np.float32), np.zeros(1, np.int64)
    module = models.build("logistic", (3, 2))
    start = models.to_vector(module)
    total = np.zeros(len(start))
    for _ in range(2000):
        models.load_vector(module, start)
        total += masked_step(
            module, Classification(2, 2), local.Rows.of(x, y), Noise(1e-3, 1.0, 1.0, coarse)
        )[0]
    models.load_vector(module, start)
    loss = Classification(2, 2).loss(module(torch.from_numpy(x)), torch.from_numpy(y))
    gradient = torch.cat(
        [one.flatten() for one in torch.autograd.grad(loss, list(module.parameters()))]
    ).numpy()
    expected = -3.0 * gradient / np.linalg.norm(gradient)
    np.testing.assert_allclose(total / 2000, expected, atol=0.06)


# --- the ring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ring", [16, 32])
@pytest.mark.parametrize("noise", ["0.7", "1.5", "4"])
def test_values_and_noise_of_all_members_fit_the_ring(ring: int, noise: str) -> None:
    charter = chartered(
        secrecy=Secrecy(ring=ring),
        privacy=msgspec.structs.replace(PRIVACY, noise=noise),  # type: ignore[arg-type]
    )
    plan, members = plan_noise(charter), len(charter.members)
    assert plan is not None
    assert members * plan.limit + 16 * plan.deviation * math.sqrt(members) <= 2 ** (ring - 1)
    # The honest survivors' shares alone are the noise that epsilon is computed for.
    assert plan.deviation * math.sqrt(plan.honest) == pytest.approx(float(noise) * plan.bound)
    assert exponent_bounds(charter) == (plan.exponent, plan.exponent)


def test_who_is_counted_on_are_the_survivors_less_those_who_may_collude() -> None:
    plan = plan_noise(chartered())
    assert plan is not None and plan.honest == 3 - 1  # of four, Q = k_min = 3 survive, f = 1
    plan = plan_noise(chartered(secrecy=Secrecy(k_min=4)))
    assert plan is not None and plan.honest == 4 - 1
    assert "epsilon holds if 3 of a group's survivors" in next(
        describe_noise(chartered(secrecy=Secrecy(k_min=4)))
    )


@pytest.mark.parametrize(
    ("tables", "text"),
    [
        ({"averaging": Averaging(mode="open")}, "without masks every update would be seen"),
        ({"secrecy": Secrecy(ring=8)}, "no room for noise"),
        ({"training": Training(steps=2, momentum="0")}, "after the first step"),
        ({"training": Training(steps=1, optimizer="adamw")}, "one row could turn it round"),
        ({"training": Training(steps=1, correction="feddyn")}, "remembers of its rows"),
        ({"training": Training(steps=1, correction="scaffold")}, "remembers of its rows"),
        ({"training": Training(steps=1, weight_decay="0.1")}, "no part of the rows' gradients"),
        ({"training": Training(steps=1, clip="1")}, "cuts every row's gradient already"),
        ({"privacy": Privacy(mechanism="secure")}, "the charter must say how much"),
        ({"privacy": Privacy(mechanism="secure", noise="2000")}, "too little room for noise"),
    ],
)
def test_what_does_not_go_with_it_is_refused(tables: dict[str, object], text: str) -> None:
    check_options(chartered(), "charter.toml")
    with pytest.raises(CharterError, match=text):
        check_options(chartered(**tables), "charter.toml")


def test_the_same_update_gets_the_same_noise_whatever_the_attempt() -> None:
    secret, update = bytes(range(32)), bytes(32)
    assert noise_seed(secret, bytes(32), 3, update) == noise_seed(secret, bytes(32), 3, update)
    others = {noise_seed(secret, bytes(32), 4, update), noise_seed(secret, bytes(32), 3, b"\1" * 32)}
    assert noise_seed(secret, bytes(32), 3, update) not in others and len(others) == 2


# --- what it costs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "variance"), [(1, 4.0), (3, 20.0), (10, 400.0), (2, 1.5)])
def test_the_divergence_is_bounded_as_the_theorem_says(shift: int, variance: float) -> None:
    """In one dimension the divergence can be summed up."""
    places = np.arange(-4000, 4000)
    here = stats.skellam(variance / 2, variance / 2).logpmf(places)
    there = stats.skellam(variance / 2, variance / 2).logpmf(places - shift)
    good = np.isfinite(here) & np.isfinite(there)
    for order in (2, 4, 8):
        exact = np.log(np.exp(order * there[good] - (order - 1) * here[good]).sum()) / (order - 1)
        bound = renyi.skellam_divergence(order, math.sqrt(variance) / shift, shift, 1)
        assert exact <= bound * (1 + 1e-6)


@pytest.mark.parametrize(
    "cost", [Cost(sample_rate=0.02, noise=1.0, steps=500), Cost(sample_rate=1.0, noise=9.0, steps=20)]
)
def test_gaussian_divergences_are_those_of_dp_accounting(cost: Cost) -> None:
    theirs = rdp_privacy_accountant.RdpAccountant(list(renyi.ORDERS))
    event = dp_accounting.PoissonSampledDpEvent(cost.sample_rate, dp_accounting.GaussianDpEvent(cost.noise))
    theirs.compose(event, cost.steps)
    assert renyi.epsilon_of([cost], 1e-5) == pytest.approx(theirs.get_epsilon(1e-5), rel=1e-3)


def test_much_skellam_noise_costs_what_gaussian_noise_does() -> None:
    gaussian = Cost(sample_rate=0.02, noise=1.0, steps=500)
    skellam = msgspec.structs.replace(gaussian, bound=300.0, values=25_000)
    ours, plain = (renyi.epsilon_of([one], 1e-5) for one in (skellam, gaussian))
    assert plain <= ours < 1.001 * plain
    assert accountant.epsilon_of([skellam], 1e-5) == pytest.approx(ours, rel=1e-3)


# --- in a federation of real engines --------------------------------------------------------------------------------

WIDE = (Tensor(name="wide", shape=(50, 40)),)


class Silent(FakeTrainer):
    """Sends nothing but zeros, so that the sum is the noise alone."""

    async def fit(
        self,
        round: int,
        base: Path,
        update: Path,
        own: KeptVectors | None = None,
        spent: Sequence[Cost] = (),
        fragment: tuple[int, int, int] | None = None,
    ) -> FitResult:
        result = await super().fit(round, base, update)
        write_vector(update, np.zeros(2000, np.float32))
        cost = Cost(sample_rate=0.01, noise=1.5, steps=1, bound=self.bound, values=2000)
        return msgspec.structs.replace(result, cost=cost, epsilon=1.0)

    bound = 0.0


def test_the_sum_of_all_members_has_all_their_noise(tmp_path: Path) -> None:
    async def play() -> LivingFederation:
        federation = LivingFederation(tmp_path, rounds=2, tensors=WIDE, **TERMS)
        plan = plan_noise(federation.charter)
        assert plan is not None
        for house in federation.houses:
            house.trainer = Silent(2000, NAMES[house.me], delay=1.0)
            house.trainer.bound = plan.bound
        await federation.run()
        return federation

    federation = in_virtual_time(play)
    federation.check()
    house, plan = federation.houses[0], plan_noise(federation.charter)
    assert plan is not None
    before = federation.made.base
    for round_ in (1, 2):
        effect = house.watched.rounds[round_]
        model = read_vector(house.models.place(effect.model.root), 2000)
        members = len(effect.participants)
        noise = (model - before) / plan.unit * members
        assert noise.std() == pytest.approx(plan.deviation * math.sqrt(members), rel=0.1)
        before = model
