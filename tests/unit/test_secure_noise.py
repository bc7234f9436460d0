"""Skellam noise: its distribution, and that it can be made again."""

import numpy as np
import pytest
from scipy import stats

from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.secure.noise import SAMPLED_VALUES, SkellamNoise


def sampled(seed: int, variance: float, count: int) -> np.ndarray:
    values = np.zeros(count, dtype=np.int64)
    SkellamNoise(seed.to_bytes(16, "big"), variance).add(values, 0)
    return values


@pytest.mark.parametrize("variance", [0.5, 3.0, 200.0, 1e6])
def test_values_follow_the_distribution(variance: float) -> None:
    count = 200_000
    values = sampled(1, variance, count)
    true = stats.skellam(variance / 2, variance / 2)
    # Cells of about 1 % of the distribution each, where it has so many values.
    spread = int(5 * variance**0.5) + 3
    places = np.arange(-spread, spread + 1)
    edges = np.unique(places[np.searchsorted(true.cdf(places), np.linspace(0.01, 0.99, 99))])
    chances = np.diff(np.concatenate([[0], true.cdf(edges), [1]]))
    found = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(chances))
    assert stats.chisquare(found, chances * count).pvalue > 1e-4


def test_shares_of_members_add_up_to_noise_of_the_whole_variance() -> None:
    whole = sum(sampled(seed, 25.0, 100_000) for seed in range(4))
    assert whole.var() == pytest.approx(100, rel=0.02)
    assert stats.ks_2samp(whole, sampled(9, 100.0, 100_000)).pvalue > 1e-4


def test_neighbours_are_independent() -> None:
    values = sampled(3, 10.0, 100_000)
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.015


def test_noise_is_made_again_piece_by_piece() -> None:
    whole = sampled(5, 40.0, 2 * SAMPLED_VALUES + 100)
    noise, pieces = SkellamNoise((5).to_bytes(16, "big"), 40.0), np.zeros_like(whole)
    for start, stop in ((SAMPLED_VALUES + 7, len(whole)), (0, 3), (3, SAMPLED_VALUES + 7)):
        noise.add(pieces[start:stop], start)
    assert np.array_equal(pieces, whole)


def test_noise_is_added_to_what_is_there() -> None:
    values = np.full(10, 1000, dtype=np.int64)
    SkellamNoise(bytes(16), 4.0).add(values, 0)
    assert np.array_equal(values - 1000, sampled(0, 4.0, 10))


@pytest.mark.parametrize("variance", [0.0, -1.0, float("nan"), 2.0**41])
def test_a_variance_that_cannot_be_is_refused(variance: float) -> None:
    with pytest.raises(LocalProtocolError, match="variance"):
        SkellamNoise(bytes(16), variance)
