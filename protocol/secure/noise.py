"""Noise that adds up: integers of a Skellam distribution, from a keystream.

A Skellam value is the difference of two independent Poisson values of one mean, so its variance is twice that mean, and
the sum of Skellam values of several members is a Skellam value again, of the sum of their variances. Each member can
put its share of the noise under its own mask, and the sum has all of it although nobody knows it (Agarwal, Kairouz,
Liu 2021, 2110.04995).

Sampling: 8 bytes of the keystream pick a Poisson value from a table of the distribution function. Its entries are off
by less than 2^-50, so a vector of d values is within d * 2^-49 of the true distribution: add that to delta.
"""

import math

import numpy as np
from numpy.typing import NDArray

from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.secure.keystream import Keystream

Int64s = NDArray[np.int64]

MAX_VARIANCE = 2.0**40
"""Beyond this the table would take more than a hundred megabytes; no ring has room for such noise."""

SAMPLED_VALUES = 1 << 15
"""Values sampled at a time."""

_DRAW_BYTES = 8
_TAIL_DEVIATIONS = 12
_TAIL_VALUES = 64
"""How far the table goes to both sides of the mean: so many standard deviations, and so many values more."""


class SkellamNoise:
    """The noise of one vector. `seed`: 16 secret bytes that serve nothing else.

    Asked again for the same place it gives the same values, so what was sent can be made again. Raises
    LocalProtocolError for a variance that is not positive or above MAX_VARIANCE.
    """

    def __init__(self, seed: bytes, variance: float) -> None:
        if not 0 < variance <= MAX_VARIANCE:
            raise LocalProtocolError(f"noise of variance {variance}: it must be above 0 and at most 2^40")
        self._stream = Keystream(seed)
        self._table = _poisson_table(variance / 2)
        self._draws = np.empty(2 * SAMPLED_VALUES, dtype="<u8")

    def add(self, values: Int64s, start: int) -> None:
        """Add the noise of places `start`, `start` + 1, ... to `values`."""
        for at in range(0, len(values), SAMPLED_VALUES):
            part = values[at : at + SAMPLED_VALUES]
            draws = self._draws[: 2 * len(part)]
            self._stream.write(2 * _DRAW_BYTES * (start + at), draws.data.cast("B"))
            # The table's first value falls out of the difference.
            counts = np.searchsorted(self._table, draws, side="right").astype(np.int64)
            part += counts[0::2]
            part -= counts[1::2]


def _poisson_table(mean: float) -> NDArray[np.uint64]:
    """For each value from the smallest that matters on: the chance, in 2^-64, not to be above it."""
    spread = _TAIL_DEVIATIONS * math.sqrt(mean) + _TAIL_VALUES
    first, last = max(0, math.floor(mean - spread)), math.ceil(mean + spread)
    mode = math.floor(mean)
    # p(k) = p(k - 1) * mean / k, both ways from the largest, so that nothing underflows that matters.
    above = np.cumprod(mean / np.arange(mode + 1, last + 1, dtype=np.float64))
    below = np.cumprod(np.arange(mode, first, -1, dtype=np.float64) / mean)[::-1]
    weights = np.concatenate([below, [1.0], above])
    chances = np.cumsum(weights) / math.fsum(weights.tolist())
    # The largest float64 below 2^64: whatever is drawn above it counts as one beyond the last.
    return np.minimum(chances * 2.0**64, 2.0**64 - 2**11).astype(np.uint64)
