"""What a member adds to its gradients and sends of the result: held to the formulas, and to what they are for."""

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
import torch

from folkmoot.node.train import local, models
from folkmoot.node.train.fitting import Turn, fit
from folkmoot.node.train.objectives import Classification
from folkmoot.node.train.steering import Carried, Steering, make_update, path_length, shift_of
from folkmoot.node.train.vectors import Vector
from folkmoot.protocol.charter_tables import Averaging, Training
from folkmoot.protocol.charter_tables import Training as Terms
from folkmoot.protocol.parts import Parts
from folkmoot.testnet.examples import Rows
from folkmoot.testnet.rehearsal import Rehearsal
from folkmoot.testnet.rehearsal import Terms as Founded

P = 12
NOTHING = np.zeros(P, bool)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    local.limit_threads(1)
    yield
    local.limit_threads(before)


def draw(seed: int, size: int = P) -> Vector:
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def carried(own: int | None = None, common: int | None = None) -> Carried:
    zeros = np.zeros(P, np.float32)
    return Carried(zeros if own is None else draw(own), zeros if common is None else draw(common))


# --- what is sent ---------------------------------------------------------------------------------------------------


def test_without_a_correction_the_difference_is_sent() -> None:
    moved, before = draw(1), carried(2)
    sent, own = make_update(Training(), moved, 7, NOTHING, before)
    assert sent is moved and own is before.own


def test_feddyn_sends_what_makes_the_plain_mean_acars_server_step() -> None:
    """x' = mean(trained) - h'/alpha, with h' the mean of the members' vectors afterwards."""
    training = Training(correction="feddyn", alpha="0.25")
    moved, before = [draw(member) for member in range(3)], [carried(10 + member) for member in range(3)]
    made = [make_update(training, d, 1, NOTHING, b) for d, b in zip(moved, before, strict=True)]
    for (_, own), d, b in zip(made, moved, before, strict=True):
        np.testing.assert_allclose(own, b.own - np.float32(0.25) * d, rtol=1e-6)
    server = np.mean([own for _, own in made], axis=0)
    np.testing.assert_allclose(
        np.mean([sent for sent, _ in made], axis=0),
        np.mean(moved, axis=0) - server / 0.25,
        rtol=1e-4,
        atol=1e-6,
    )


def test_scaffold_finds_the_mean_gradient_of_its_steps() -> None:
    """With a constant gradient g, D = -lr L (g + c - c_i): the new variate is g."""
    for momentum in ("0", "0.9"):
        training = Training(correction="scaffold", lr="0.05", momentum=momentum)
        before, gradient, steps = carried(1, 2), draw(3), 13
        velocity, moved = np.zeros(P), np.zeros(P)
        for _ in range(steps):
            velocity = float(momentum) * velocity + gradient + before.common - before.own
            moved = moved - 0.05 * velocity
        sent, own = make_update(training, moved.astype(np.float32), steps, NOTHING, before)
        np.testing.assert_allclose(own, gradient, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(sent[P:], own - before.own)
        assert np.array_equal(sent[:P], moved.astype(np.float32))


@pytest.mark.parametrize("momentum", ["0", "0.5", "0.9", "1"])
def test_path_length_is_the_weight_of_all_gradients(momentum: str) -> None:
    velocity = length = 0.0
    for steps in range(1, 9):
        velocity = float(momentum) * velocity + 1
        length += velocity
        assert path_length(Training(momentum=momentum), steps) == pytest.approx(length)
    assert path_length(Training(momentum=momentum, optimizer="adamw"), 8) == 8


def test_fednova_makes_a_short_path_as_long_as_the_common_one() -> None:
    training = Training(normalize_to=20, momentum="0")
    moved, statistics = draw(1), np.arange(P) >= 10
    sent, _ = make_update(training, moved, 5, statistics, carried())
    np.testing.assert_allclose(sent[:10], 4 * moved[:10])
    assert np.array_equal(sent[10:], moved[10:])
    assert np.array_equal(make_update(training, moved, 20, statistics, carried())[0], moved)


@pytest.mark.parametrize("correction", ["feddyn", "scaffold"])
def test_statistics_are_sent_as_they_are(correction: str) -> None:
    training = msgspec.structs.replace(Training(), correction=correction)
    moved, statistics = draw(1), np.arange(P) % 3 == 0
    sent, own = make_update(training, moved, 4, statistics, carried())
    assert np.array_equal(sent[:P][statistics], moved[statistics])
    assert not own[statistics].any() and own[~statistics].all()


# --- what is added to gradients ----------------------------------------------------------------------------------


def test_gradients_are_clipped_then_pulled_and_shifted() -> None:
    weights = [torch.zeros(2), torch.zeros(1)]
    steering = Steering(Training(clip="1", prox="0.5"), weights, [torch.tensor([1.0, 0.0]), torch.zeros(1)])
    weights[0] += 2
    given = [torch.tensor([3.0, 0.0]), torch.tensor([4.0])]
    found = steering.apply(given)
    torch.testing.assert_close(found, [torch.tensor([0.6 + 1 + 1, 1.0]), torch.tensor([0.8])])
    torch.testing.assert_close(given, [torch.tensor([3.0, 0.0]), torch.tensor([4.0])])  # left alone
    torch.testing.assert_close(
        torch.linalg.vector_norm(torch.cat(Steering(Training(clip="1"), weights).apply(given))),
        torch.tensor(1.0),
    )


def test_clipping_is_that_of_torch() -> None:
    parameters = [torch.nn.Parameter(torch.from_numpy(draw(seed))) for seed in (1, 2)]
    gradients = [torch.from_numpy(draw(seed)) for seed in (3, 4)]
    ours = Steering(Training(clip="0.3"), parameters).apply(gradients)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_(parameters, 0.3)
    for parameter, found in zip(parameters, ours, strict=True):
        torch.testing.assert_close(found, parameter.grad, rtol=1e-4, atol=1e-6)


def test_the_shift_is_minus_h_or_the_difference_of_variates() -> None:
    before = carried(1, 2)
    assert shift_of(Terms(), before) is None
    assert np.array_equal(shift_of(Terms(correction="feddyn"), before), -before.own)  # type: ignore[arg-type]
    found = shift_of(Terms(correction="scaffold"), before)
    assert found is not None and np.array_equal(found, before.common - before.own)


# --- federations ----------------------------------------------------------------------------------------------------


def uneven() -> list[Rows]:
    """Two members with one class each of the same two blobs."""
    rng = np.random.default_rng(0)
    x = [rng.normal(sign, 1, (40, 3)).astype(np.float32) for sign in (-1, 1)]
    return [Rows(rows, np.full(40, label)) for label, rows in enumerate(x)]


def play(training: Training, rounds: int, averaging: Averaging | None = None) -> Rehearsal:
    terms = Founded("logistic", (3, 2), training, averaging or Averaging(codec="f32"))
    federation = Rehearsal(terms, uneven(), seed=3)
    for _ in range(rounds):
        federation.play()
    return federation


def loss(federation: Rehearsal) -> float:
    rows = uneven()
    both = local.Rows.of(np.concatenate([one.x for one in rows]), np.concatenate([one.y for one in rows]))
    module = models.build("logistic", (3, 2))
    models.load_vector(module, federation.model)
    return float(Classification(2, 2).loss(module(both.x), both.y).detach())


PLAIN = Training(epochs=3, batch=40, lr="0.5", momentum="0", weight_decay="0.1")


@pytest.mark.parametrize(
    "correction",
    [{"correction": "feddyn", "alpha": "0.3"}, {"correction": "scaffold"}],
    ids=["feddyn", "scaffold"],
)
def test_corrections_find_the_optimum_of_all_rows_where_fedavg_does_not(correction: dict[str, str]) -> None:
    """Full batches, a convex loss: what is left over is only the drift of unlike members."""
    pooled = Rehearsal(
        Founded("logistic", (3, 2), msgspec.structs.replace(PLAIN, batch=80), Averaging(codec="f32")),
        [Rows(*(np.concatenate([getattr(one, name) for one in uneven()]) for name in ("x", "y")))],
        seed=3,
    )
    for _ in range(60):
        pooled.play()
    best = pooled.model
    drifted = np.abs(play(PLAIN, 60).model - best).max()
    corrected = np.abs(play(msgspec.structs.replace(PLAIN, **correction), 60).model - best).max()
    assert corrected < 0.25 * drifted


def test_secure_sums_give_what_open_ones_do_but_for_the_rings_unit() -> None:
    training = Training(steps=3, batch=10, correction="scaffold", momentum="0")
    nesterov = Averaging(codec="f32", rule="nesterov", rate="0.7", weight_cap=40)
    opened = play(training, 4, nesterov)
    masked = play(training, 4, msgspec.structs.replace(nesterov, mode="secure"))
    assert len(masked.snapshot) == 3 * len(masked.model)
    np.testing.assert_allclose(masked.snapshot, opened.snapshot, atol=2e-3)


def test_fit_is_the_plain_difference_where_nothing_is_chosen() -> None:
    rows = uneven()[0]
    module = models.build_seeded("logistic", (3, 2), 5)
    start = models.to_vector(module)
    nothing = Carried(np.zeros_like(start), np.zeros_like(start))
    turn = Turn("alice", 2, start, nothing, Parts(models.layout(module)))
    made = fit(
        module,
        Classification(2, 2),
        local.Rows.of(rows.x, rows.y),
        Training(),
        turn,
        lambda done, total: None,
    )
    assert np.array_equal(made.sent, models.to_vector(module) - start)
    assert made.loss > 0 and not made.own.any()
