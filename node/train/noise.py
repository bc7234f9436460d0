"""Randomness that nobody can foresee: for noise that hides rows, and for which rows are drawn.

Numbers come from an AES keystream under a key of the system's generator, so who knows the charter's seed, or all noise
of earlier rounds, knows nothing of the next. numpy's and torch's generators can be worked out from what they gave.
"""

import secrets
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from folkmoot.protocol.secure.keystream import SEED_SIZE, Keystream
from folkmoot.protocol.secure.masked_noise import NoisePlan

Floats64: TypeAlias = npt.NDArray[np.float64]

_SUMMED = 4
"""Normal values of which each one given is made: then the gaps of one float64 draw say nothing of what was added to
(Holohan and Braghin 2021, 2107.10138; Opacus does the same in its secure mode)."""


@dataclass(frozen=True, slots=True)
class Noise:
    """How one row's part is bounded and hidden.

    Of a row's gradient a length of `clip` counts, the noise has `multiplier` times that deviation in every value, and
    each row is in a step with the chance `sample_rate`.
    """

    clip: float
    multiplier: float
    sample_rate: float
    plan: NoisePlan | None = None
    """Where the noise is added under the mask, how what is sent must be written; else None."""


class SecretRandom:
    """One stream of numbers; never the same twice."""

    def __init__(self) -> None:
        self._stream = Keystream(secrets.token_bytes(SEED_SIZE))
        self._position = 0

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """So many numbers of 64 bits."""
        drawn = np.empty(count, dtype="<u8")
        self._stream.write(self._position, drawn.data.cast("B"))
        self._position += drawn.nbytes
        return drawn

    def uniform(self, count: int) -> Floats64:
        """Numbers above 0 and below 1, in steps of 2^-53."""
        return ((self.words(count) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def normal(self, count: int) -> Floats64:
        """Numbers of the standard normal distribution (Box and Muller)."""
        pairs = count * _SUMMED // 2
        lengths = np.sqrt(-2 * np.log(self.uniform(pairs)))
        angles = 2 * np.pi * self.uniform(pairs)
        values = np.concatenate([lengths * np.cos(angles), lengths * np.sin(angles)])
        total: Floats64 = values.reshape(_SUMMED, count).sum(axis=0)
        total /= np.sqrt(_SUMMED)
        return total

    def sample(self, rows: int, rate: float) -> npt.NDArray[np.int64]:
        """Row numbers of a Poisson sample: each row is in it with the chance `rate`, by itself."""
        return np.flatnonzero(self.uniform(rows) < rate)
