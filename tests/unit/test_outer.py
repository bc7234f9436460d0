"""The outer rules: formulas, bits, state, and what a snapshot is."""

from collections.abc import Sequence
from functools import partial

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.protocol.aggregate import Aggregate, Method, aggregate
from folkmoot.protocol.blob import CHUNK, ref_of, rest_of, root_with
from folkmoot.protocol.charter import STATES
from folkmoot.protocol.charter_tables import Averaging
from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.outer import Outer, Snapshots, collect, take_step
from folkmoot.protocol.payload_sums import Payload
from folkmoot.protocol.ring import CHUNK_VALUES, Float32s

RULES = sorted(STATES)


def take(outer: Outer, snapshot: Float32s, means: Sequence[Float32s], summed: int = 1) -> Float32s:
    """One step with the mean in these pieces."""
    data = snapshot.astype("<f4").tobytes()
    snapshots = Snapshots(lambda start: [data[start:]], partial(collect, outer), snapshot)
    return take_step(outer, (mean.copy() for mean in means), summed, snapshots)[0]


def run(averaging: Averaging, means: Sequence[Float32s]) -> list[Float32s]:
    """The models (without state) of rounds with these means, from zeros."""
    outer = Outer(len(means[0]), averaging)
    snapshot, models = outer.start(np.zeros(len(means[0]), np.float32)), []
    for mean in means:
        snapshot = take(outer, snapshot, [mean])
        models.append(snapshot[: outer.parameters])
    return models


def draw_means(rounds: int, size: int = 50, seed: int = 0) -> list[Float32s]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 0.01, size).astype(np.float32) for _ in range(rounds)]


# --- formulas -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "nesterov"), [("fedavgm", False), ("nesterov", True)])
def test_momentum_rules_are_torchs_sgd_on_the_negative_mean(rule: str, nesterov: bool) -> None:
    means = draw_means(8)
    weights = torch.zeros(50, requires_grad=True)
    sgd = torch.optim.SGD([weights], lr=0.7, momentum=0.9, nesterov=nesterov)
    averaging = msgspec.convert({"rule": rule, "rate": "0.7"}, Averaging)
    for mean, model in zip(means, run(averaging, means), strict=True):
        weights.grad = -torch.from_numpy(mean)
        sgd.step()
        np.testing.assert_allclose(model, weights.detach().numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rule", ["fedadam", "fedyogi"])
def test_adaptive_rules_follow_their_papers_formula_in_float64(rule: str) -> None:
    means = draw_means(8)
    x, m, s = np.zeros((3, 50))
    averaging = msgspec.convert({"rule": rule, "rate": "0.01"}, Averaging)
    for mean, model in zip(means, run(averaging, means), strict=True):
        d = mean.astype(np.float64)
        m = 0.9 * m + 0.1 * d
        s = 0.99 * s + 0.01 * d**2 if rule == "fedadam" else s - 0.01 * d**2 * np.sign(s - d**2)
        x = x + 0.01 * m / (np.sqrt(s) + 0.001)
        np.testing.assert_allclose(model, x, rtol=2e-5, atol=1e-8)


def test_fedavg_adds_the_mean_and_keeps_nothing() -> None:
    base, mean = draw_means(2)
    outer = Outer(50)
    assert outer.sections == 1
    assert np.array_equal(take(outer, base, [mean]), base + mean)
    halved = Outer(50, Averaging(rate="0.5"))
    assert np.array_equal(take(halved, base, [mean]), base + np.float32(0.5) * mean)


# --- bits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_every_operation_rounds_once_to_float32(rule: str) -> None:
    """Value by value, with numpy's scalars, whose every operation is one IEEE rounding."""
    averaging = msgspec.convert({"rule": rule, "rate": "0.7"}, Averaging)
    f, one = np.float32, np.float32(1)
    rate, mu, b2, eps = f("0.7"), f("0.9"), f("0.99"), f("0.001")
    means = draw_means(3, 20, seed=4)
    found = run(averaging, means)[-1]
    for at in range(20):
        x = v = s = f(0)
        for mean in means:
            d = mean[at]
            match rule:
                case "fedavg":
                    x = x + rate * d
                case "fedavgm":
                    v = v * mu + d
                    x = x + v * rate
                case "nesterov":
                    v = v * mu + d
                    x = x + (v * mu + d) * rate
                case _:
                    v = v * mu + d * (one - mu)
                    square = d * d
                    sign = one if rule == "fedadam" else np.sign(s - square)
                    s = s * b2 + square * (one - b2) if rule == "fedadam" else s - square * (one - b2) * sign
                    x = x + v / (np.sqrt(s) + eps) * rate
        assert found[at].tobytes() == x.tobytes()


@given(
    rule=st.sampled_from(RULES),
    parameters=st.integers(1, 200),
    cuts=st.lists(st.integers(1, 60), max_size=8),
    controls=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_pieces_of_the_mean_do_not_matter(
    rule: str, parameters: int, cuts: list[int], controls: bool, seed: int
) -> None:
    averaging = msgspec.convert({"rule": rule}, Averaging)
    outer = Outer(parameters, averaging, ((0, parameters // 3),), controls, members=5)
    rng = np.random.default_rng(seed)
    snapshot = np.abs(rng.normal(size=parameters * outer.sections)).astype(np.float32)
    mean = rng.normal(size=outer.update_values).astype(np.float32)
    pieces = np.split(mean, np.unique(np.clip(np.cumsum(cuts), 0, len(mean))))
    assert np.array_equal(take(outer, snapshot, [mean], 3), take(outer, snapshot, pieces, 3))


def test_more_than_a_chunk_comes_out_whole() -> None:
    size = CHUNK_VALUES + 5
    rng = np.random.default_rng(1)
    outer = Outer(size, Averaging(rule="nesterov"))
    mean = rng.normal(size=size).astype(np.float32)
    snapshot = outer.start(rng.normal(size=size).astype(np.float32))
    found = take(outer, snapshot, [mean[:CHUNK_VALUES], mean[CHUNK_VALUES:]])
    assert np.array_equal(found[size:], mean)  # the first velocity is the mean
    assert np.array_equal(found[:size], snapshot[:size] + (np.float32("0.9") * mean + mean))


# --- statistics, control variates, what is not finite -----------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_statistics_take_the_plain_mean_and_have_no_state(rule: str) -> None:
    averaging = msgspec.convert({"rule": rule, "rate": "0.7"}, Averaging)
    outer = Outer(6, averaging, statistics=((2, 4),))
    snapshot = outer.start(np.ones(6, np.float32))
    for _ in range(3):
        before, mean = snapshot, np.full(6, 0.25, np.float32)
        snapshot = take(outer, before, [mean])
        assert np.array_equal(snapshot[2:4], before[2:4] + mean[2:4])
        for section in range(1, outer.sections):
            assert not snapshot[6 * section + 2 : 6 * section + 4].any()
            assert snapshot[6 * section : 6 * section + 2].all()


def test_control_variates_move_by_the_part_of_the_members_that_is_in_the_mean() -> None:
    outer = Outer(2, Averaging(rule="fedavgm"), has_controls=True, members=4)
    assert (outer.sections, outer.update_values) == (3, 4)
    snapshot = np.array([1, 1, 0, 0, 8, 8], np.float32)
    found = take(outer, snapshot, [np.array([1, 2, 4, -4], np.float32)], summed=3)
    assert found.tolist() == [2, 3, 1, 2, 11, 5]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("place", [0, 70])
def test_what_is_not_finite_changes_neither_model_nor_state(rule: str, place: int) -> None:
    averaging = msgspec.convert({"rule": rule, "rate": "4"}, Averaging)
    outer = Outer(100, averaging)
    base = outer.start(np.full(100, 3e38, np.float32))
    update = np.zeros(100, np.float32)
    update[place] = 1e38
    result = aggregate_one(outer, base, update)
    assert not result.changed and result.model is base


def test_a_mean_or_a_base_of_another_length_is_refused() -> None:
    outer, mean = Outer(3, Averaging(rule="nesterov")), np.zeros(3, np.float32)
    for length in (5, 7):
        with pytest.raises(LocalProtocolError, match="base model"):
            take(outer, np.zeros(length, np.float32), [mean])
    with pytest.raises(LocalProtocolError, match="a mean of 2 values, an update has 3"):
        take(outer, np.zeros(6, np.float32), [mean[:2]])


def aggregate_one(outer: Outer, base: Float32s, update: Float32s) -> Aggregate[Float32s]:
    payload = Payload(0, 1, partial(list, [update.tobytes()]))
    return aggregate(Method("f32", (outer.parameters,), outer), [127], [payload], base)


def test_aggregation_makes_the_rules_step_round_after_round() -> None:
    outer, means = Outer(50, Averaging(rule="nesterov", rate="0.7")), draw_means(4)
    snapshot = outer.start(np.zeros(50, np.float32))
    for mean, model in zip(means, run(outer.averaging, means), strict=True):
        payload = Payload(0, 1, partial(list, [mean.tobytes()]))
        snapshot = aggregate(Method("f32", (50,), outer), [0], [payload], snapshot).model
        # The mean of one update is itself, but for its fixed-point unit, 2^-32.
        np.testing.assert_allclose(snapshot[:50], model, atol=1e-9)


# --- snapshots and their digests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [1, CHUNK // 4 - 1, CHUNK // 4, CHUNK // 4 + 1, CHUNK // 2])
@pytest.mark.parametrize("sections", [1, 2, 3])
def test_weights_and_their_rest_give_the_snapshots_digest(values: int, sections: int) -> None:
    data = np.random.default_rng(2).normal(size=values * sections).astype("<f4").tobytes()
    rest = rest_of(data, 4 * values)
    assert root_with(data[: 4 * values], rest) == ref_of(data).root
    assert (rest.tail, rest.leaves) == (b"", ()) or sections > 1
    assert root_with(b"\1" + data[1 : 4 * values], rest) != ref_of(data).root
