"""Uneven shares of the classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.protocol.errors import FolkmootError
from folkmoot.testnet.dirichlet import concentration_of, deal


@given(
    nodes=st.integers(1, 12),
    rows=st.integers(24, 300),
    concentration=st.floats(0.01, 100),
    seed=st.integers(0, 99),
)
def test_every_row_is_dealt_once_and_nobody_has_none(
    nodes: int, rows: int, concentration: float, seed: int
) -> None:
    y = np.random.default_rng(seed).integers(0, 4, rows)
    dealt = deal(y, nodes, concentration, seed)
    assert sorted(np.concatenate(dealt).tolist()) == list(range(rows))
    assert min(map(len, dealt)) >= 2


def test_a_small_concentration_is_uneven_and_a_large_one_is_not() -> None:
    y = np.repeat(np.arange(10), 600)

    def largest_share(concentration: float) -> float:
        mixes = [np.bincount(y[rows], minlength=10) / len(rows) for rows in deal(y, 8, concentration, 1)]
        return float(np.mean([mix.max() for mix in mixes]))

    assert largest_share(1000) < 0.15 < 0.4 < largest_share(0.1)


def test_texts() -> None:
    assert (concentration_of("iid"), concentration_of("age"), concentration_of("dirichlet:0.3")) == (
        0,
        0,
        0.3,
    )
    for text in ("dirichlet:", "dirichlet:x", "dirichlet:0", "dirichlet:-1", "dirichlet:inf"):
        with pytest.raises(ValueError, match="write a number above 0"):
            concentration_of(text)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(FolkmootError, match="3 rows are too few for 2 nodes: give --nodes 1 or less"):
        deal(np.zeros(3, np.int64), 2, 0.1, 0)
