"""Robust rules: held to ByzFL's answers, and to exact integers where floats could round."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.protocol import robust
from folkmoot.protocol.charter_tables import RobustRule
from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.ring import CHUNK_VALUES, FixedPoint, Layout, compute_exponents

RULES = [rule for rule in get_args(RobustRule) if rule != "none"]
CASES = json.loads((Path(__file__).parents[1] / "vectors" / "robust.json").read_text())["cases"]
LIMIT = 2**32


def combined(rule: str, rows: np.ndarray, bad: int) -> tuple[np.ndarray, int]:
    """The sums, and the divisor, of integers that all belong to one tensor."""
    products = robust.Products(len(rows), Layout([rows.shape[1]]), [0])
    for start in range(0, rows.shape[1], CHUNK_VALUES):
        products.add(rows[:, start : start + CHUNK_VALUES], start)
    found, out = robust.combine(robust.Robust(rule, bad), products.matrix), np.empty(rows.shape[1])
    for start in range(0, rows.shape[1], CHUNK_VALUES):
        stop = start + CHUNK_VALUES
        found.apply(rows[:, start:stop].copy(), out[start:stop])
    return out, found.divisor


def integers(vectors: np.ndarray, layout: Layout, exponents: np.ndarray) -> np.ndarray:
    rows = vectors.astype(np.float64)
    for row in rows:
        FixedPoint(layout, exponents).to_integers(row, 0, row)
    return rows


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{len(case['vectors'])}-vectors")
@pytest.mark.parametrize("rule", RULES)
def test_rules_give_what_byzfl_gives(case: dict[str, Any], rule: str) -> None:
    vectors = np.array(case["vectors"])
    layout = Layout([10, 13, 1])  # scales of their own
    exponents = np.max([compute_exponents(v.astype(np.float32), layout, -126, 127) for v in vectors], axis=0)
    rows = integers(vectors, layout, exponents)
    products = robust.Products(len(rows), layout, exponents.tolist())
    products.add(rows, 0)
    combination, sums = robust.combine(robust.Robust(rule, case["bad"]), products.matrix), np.empty(24)
    combination.apply(rows, sums)
    units = np.repeat(np.ldexp(1.0, exponents.astype(int) - 32), layout.sizes)
    found, expected = sums * units / combination.divisor, np.array(case["results"][rule])
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("members", [1, 2, 3, 32])
def test_equal_updates_give_themselves(rule: str, members: int) -> None:
    update = np.array([float(LIMIT), -float(LIMIT), 1024.0, 0.0])
    sums, divisor = combined(rule, np.tile(update, (members, 1)), bad=10)
    assert np.abs(sums / divisor - update).max() <= LIMIT * 2.0**-20


@pytest.mark.parametrize("rule", ["trimmed-mean", "nnm", "multi-krum"])
def test_the_largest_integers_of_the_most_members_sum_exactly(rule: str) -> None:
    rng = np.random.default_rng(5)
    rows = rng.integers(LIMIT - 1000, LIMIT, (32, 50), endpoint=True).astype(np.float64)
    sums, divisor = combined(rule, rows, bad=10)
    whole = [[int(value) for value in row] for row in rows]
    if rule == "multi-krum":
        choice = robust.krum_choice(products_of(rows), 10)
        expected = [sum(whole[at][column] for at in choice) for column in range(50)]
    else:
        mixing = robust.nearest_neighbours(products_of(rows), 10) if rule == "nnm" else np.eye(32)
        mixed = [
            [sum(int(m) * r[c] for m, r in zip(row, whole, strict=True)) for c in range(50)] for row in mixing
        ]
        expected = [sum(sorted(row[column] for row in mixed)[10:-10]) for column in range(50)]
    assert [int(value) for value in sums] == expected
    assert divisor == {"trimmed-mean": 12, "nnm": 12 * 22, "multi-krum": 22}[rule]


def products_of(rows: np.ndarray) -> robust.Matrix:
    products = robust.Products(len(rows), Layout([rows.shape[1]]), [0])
    products.add(rows, 0)
    return products.matrix


def test_products_are_exact_over_a_chunk_of_the_largest_values() -> None:
    rows = np.full((2, CHUNK_VALUES), float(LIMIT))
    rows[1] = -float(LIMIT - 1)
    product = -LIMIT * (LIMIT - 1)
    assert products_of(rows) == [
        [LIMIT**2 * CHUNK_VALUES, product * CHUNK_VALUES],
        [product * CHUNK_VALUES, (LIMIT - 1) ** 2 * CHUNK_VALUES],
    ]


@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_products_are_those_of_whole_numbers(count: int, length: int, seed: int) -> None:
    whole = np.random.default_rng(seed).integers(-LIMIT, LIMIT, (count, length), endpoint=True).tolist()
    expected = [[sum(map(int.__mul__, one, other)) for other in whole] for one in whole]
    assert products_of(np.array(whole, dtype=np.float64)) == expected


def test_tensors_count_by_their_scales() -> None:
    products = robust.Products(1, Layout([1, 1]), [3, -2])
    products.add(np.array([[3.0, 5.0]]), 0)
    assert products.matrix == [[9 * 4**5 + 25]]


@pytest.mark.parametrize("rule", RULES)
def test_chunks_do_not_matter(rule: str) -> None:
    rows = np.random.default_rng(1).integers(-LIMIT, LIMIT, (5, CHUNK_VALUES + 70)).astype(np.float64)
    sums, divisor = combined(rule, rows, bad=1)
    head, head_divisor = combined(rule, rows, bad=1)
    assert divisor == head_divisor and np.array_equal(sums, head)


@pytest.mark.parametrize("rule", RULES)
def test_attackers_within_the_bound_do_not_pull_far(rule: str) -> None:
    rng = np.random.default_rng(2)
    honest = rng.normal(2**20, 2**16, (15, 400))
    attack = np.full((5, 400), -float(LIMIT))
    sums, divisor = combined(rule, np.rint(np.concatenate([attack, honest])), bad=5)
    off = np.linalg.norm(sums / divisor - honest.mean(axis=0)) / np.linalg.norm(honest.mean(axis=0))
    assert off < (0.7 if rule == "centered-clipping" else 0.1)


@given(st.integers(1, 32), st.integers(0, 2**32 - 1))
def test_any_number_of_rows_is_sorted(count: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(-9, 9, (count, 20)).astype(np.float64)
    bad = (count - 1) // 2
    sums, divisor = combined("trimmed-mean", rows, bad=32)
    assert np.array_equal(sums, np.sort(rows, axis=0)[bad : count - bad].sum(axis=0))
    assert divisor == count - 2 * bad


@pytest.mark.parametrize("rule", ["geometric-median", "centered-clipping"])
def test_weights_never_exceed_one(rule: str) -> None:
    weights = {"geometric-median": robust.median_weights, "centered-clipping": robust.clipping_weights}[rule]
    for seed in range(50):
        rows = np.random.default_rng(seed).integers(-LIMIT, LIMIT, (1 + seed % 32, 3)).astype(np.float64)
        found = weights(products_of(rows))
        assert min(found) >= 0 and sum(found) <= (1 << robust.WEIGHT_BITS) + len(rows)


def test_no_updates_have_no_combination() -> None:
    with pytest.raises(LocalProtocolError, match="over no updates"):
        robust.combine(robust.Robust("nnm", 0), [])
