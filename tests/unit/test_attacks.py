"""Attacks do what their papers say, and robust rules hold against them where the plain mean does not."""

import numpy as np
import pytest

from folkmoot.protocol.ring import FixedPoint, Layout
from folkmoot.protocol.robust import Products, Robust, combine
from folkmoot.testnet import attacks


def honest(count: int = 15, values: int = 300) -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.normal(rng.normal(0, 1, values), 0.5, (count, values))


def robust_mean(rows: np.ndarray, faults: int) -> np.ndarray:
    """Through the integers that a federation sums."""
    layout, rows = Layout([rows.shape[1]]), rows.astype(np.float32).astype(np.float64)
    for row in rows:
        FixedPoint(layout, [4]).to_integers(row, 0, row)
    products, sums = Products(len(rows), layout, [4]), np.empty(rows.shape[1])
    products.add(rows, 0)
    found = combine(Robust("nnm", faults), products.matrix)
    found.apply(rows, sums)
    mean = np.empty(rows.shape[1], dtype=np.float32)
    FixedPoint(layout, [4]).mean(sums, found.divisor, 0, mean)
    return mean.astype(np.float64)


def harm(rows: np.ndarray, found: np.ndarray) -> float:
    return float(np.linalg.norm(found - rows.mean(axis=0)) / np.linalg.norm(rows.mean(axis=0)))


def test_little_is_enough_stays_within_the_honest_spread() -> None:
    rows = honest()
    sent = attacks.little_is_enough(rows, 5)
    # n = 20, f = 5: 6 honest ones are to side with them, quantile (15 - 6) / 15, 0.2533 standard deviations.
    assert np.allclose(sent, rows.mean(axis=0) - 0.2533 * rows.std(axis=0), atol=1e-3)
    assert sent.shape == (5, rows.shape[1])


@pytest.mark.parametrize("attack", [attacks.sign_flip, attacks.inner_product, attacks.little_is_enough])
def test_a_robust_mean_is_harmed_less_than_the_plain_one(attack) -> None:  # type: ignore[no-untyped-def]
    rows = honest()
    everything = np.concatenate([rows, attack(rows, 5)])
    plain, robust = everything.mean(axis=0), robust_mean(everything, 5)
    assert harm(rows, robust) < 0.2
    assert attack is attacks.little_is_enough or harm(rows, robust) < 0.2 * harm(rows, plain)


def test_the_line_search_harms_more_than_the_formula() -> None:
    rows = honest()
    best = attacks.optimised(attacks.little_is_enough, rows, 5, lambda all_rows: robust_mean(all_rows, 5))
    fixed = attacks.little_is_enough(rows, 5)
    harms = [harm(rows, robust_mean(np.concatenate([rows, sent]), 5)) for sent in (best, fixed)]
    assert harms[0] >= harms[1]


def test_free_riders_send_what_costs_them_nothing() -> None:
    rows = honest()
    assert not attacks.nothing(rows, 2).any()
    assert np.array_equal(attacks.copied(rows, 2), rows[[0, 0]])
    drawn = attacks.noise(rows, 2, np.random.default_rng(1))
    assert np.sqrt((drawn**2).mean()) == pytest.approx(np.sqrt((rows**2).mean()), rel=0.1)


@pytest.mark.parametrize("name", attacks.FORGED)
def test_every_forged_attack_gives_each_attacker_an_update(name: str) -> None:
    rows = honest(6, 40).astype(np.float32)
    view = attacks.View(rows, rows + 1, 2, lambda found: found.mean(axis=0), np.random.default_rng(2))
    assert attacks.FORGED[name](view).shape == (2, 40)
    if name == "stale":
        assert np.array_equal(attacks.FORGED[name](view)[1], rows[0] + 1)


@pytest.mark.parametrize("name", attacks.POISONED)
def test_every_poisoned_attack_keeps_shapes_and_leaves_the_rows_alone(name: str) -> None:
    x, y = np.random.default_rng(0).random((6, 10)).astype(np.float32), np.arange(6) % 3
    before = x.copy(), y.copy()
    planted, labels = attacks.POISONED[name](x, y, 3)
    assert planted.shape == x.shape and not np.array_equal(labels, y)
    assert np.array_equal(x, before[0]) and np.array_equal(y, before[1])


@pytest.mark.parametrize(("text", "why"), [("ipm", "write ipm:N"), ("ipm:4", "1 to 3"), ("x:1", "there are")])
def test_attacks_that_there_are_not(text: str, why: str) -> None:
    attacks.check_attack("ipm:3", 4)
    with pytest.raises(ValueError, match=why):
        attacks.check_attack(text, 4)


def test_data_attacks_change_copies() -> None:
    x, y = np.zeros((4, 3), dtype=np.float32), np.array([0, 1, 2, 2])
    assert attacks.flip_labels(y, 3).tolist() == [2, 1, 0, 0]
    planted, labels = attacks.plant_backdoor(x, y, target=1, patch=[0, 2], value=1.0)
    assert planted[0].tolist() == [1, 0, 1] and not planted[1].any() and labels.tolist() == [1, 1, 1, 2]
    assert not x.any() and y.tolist() == [0, 1, 2, 2]
