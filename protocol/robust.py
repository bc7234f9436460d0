"""Robust rules: combinations of updates that a few bad ones cannot pull far, in exact integers.

A rule looks at the inner products of the updates (`Products`) and gives a `Combination`: how each chunk of their
integers (`ring.FixedPoint.to_integers`) becomes one chunk of sums, and the whole number by which sums are divided. So a
robust round has the form of a plain one, exact sums over a divisor, and the same bits everywhere (PROTOCOL section 5).

Updates count alike: an attacker would claim the most examples. Who is near to whom is told by member ids where
distances are equal, so rows stand in the order of members.

Why float64 and BLAS are exact here: all values are integers, and no sum of magnitudes reaches 2^53, so no order of
adding, and no fused multiply-add, ever rounds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Self, TypeAlias

import numpy as np

from folkmoot.protocol.charter import Charter, max_faults
from folkmoot.protocol.charter_tables import RobustRule
from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.ring import VALUE_BITS, Float64s, Layout

HALF = float(2 ** (VALUE_BITS // 2))
"""Values are cut into halves for inner products: of two halves below 2^32, over a chunk of 2^18 values below 2^51."""

WEIGHT_BITS = 26
"""Weights of `weighted` combinations are in units of 2^-26 and sum to 1 at most; values get as many bits."""

WORKING_BITS = 48
"""Binary places of weights while they are iterated."""

MEDIAN_STEPS = 8
"""Steps of Weiszfeld's iteration, from zero."""

CLIPPING_STEPS = 3
"""Rounds of centred clipping, from zero."""

BLOCK_VALUES = 1 << 13
"""Columns worked on at a time, so that all rows stay in the cache."""

Matrix: TypeAlias = list[list[int]]


@dataclass(frozen=True, slots=True)
class Robust:
    """A rule, and how many of the updates may be bad."""

    rule: RobustRule
    faults: int

    @classmethod
    def of(cls, charter: Charter) -> Self | None:
        """The charter's; None where updates are averaged plainly."""
        averaging = charter.averaging
        if averaging.robust == "none":
            return None
        return cls(averaging.robust, averaging.faults or max_faults(len(charter.members)))


class Products:
    """Exact inner products of `count` vectors, fed chunk by chunk, in units of 4^(E_min - 32).

    E_min is the smallest of the tensors' scale `exponents`.
    """

    def __init__(self, count: int, layout: Layout, exponents: Sequence[int]) -> None:
        self._layout = layout
        self._weights = [4 ** (int(exponent) - int(min(exponents))) for exponent in exponents]
        self._sums: Matrix = [[0] * count for _ in range(count)]

    def add(self, rows: Float64s, start: int) -> None:
        """Take in a chunk: float64 (count, k) of integers up to 2^32, from value `start` of the flat vectors on."""
        for tensor, low, high in self._layout.pieces(start, start + rows.shape[1]):
            weight = self._weights[tensor]
            for sums, products in zip(self._sums, _inner_products(rows[:, low:high]), strict=True):
                for at, product in enumerate(products):
                    sums[at] += weight * product

    @property
    def matrix(self) -> Matrix:
        """The inner product of every two vectors."""
        return self._sums


def _inner_products(rows: Float64s) -> Matrix:
    """Of every two rows of at most CHUNK_VALUES integers up to 2^32."""
    count = len(rows)
    halves, sums = np.empty((2 * count, BLOCK_VALUES)), np.zeros((2 * count, 2 * count))
    for start in range(0, rows.shape[1], BLOCK_VALUES):
        block = rows[:, start : start + BLOCK_VALUES]
        cut = halves[:, : block.shape[1]]
        high, low = cut[:count], cut[count:]
        np.rint(np.multiply(block, 1 / HALF, out=high), out=high)
        np.subtract(block, np.multiply(high, HALF, out=low), out=low)
        sums += cut @ cut.T
    exact, half = [[int(value) for value in row] for row in sums.tolist()], int(HALF)
    return [
        [
            half * half * exact[one][other]
            + half * (exact[one][count + other] + exact[count + one][other])
            + exact[count + one][count + other]
            for other in range(count)
        ]
        for one in range(count)
    ]


@dataclass(frozen=True)
class Combination:
    """How chunks of the updates become one chunk of sums: `apply(rows, out)`, and what the sums are divided by.

    `rows` is float64 (count, k) of integers up to 2^32, `out` float64 (k,): integers below 2^53, or multiples of a
    power of two that are exact in float64. `rows` may be overwritten.
    """

    divisor: int
    apply: Callable[[Float64s, Float64s], None]


def combine(robust: Robust, products: Matrix) -> Combination:
    """What the rule makes of vectors with these inner products.

    Of few vectors fewer can be bad: `faults` counts as at most (n - 1) // 2. Raises LocalProtocolError without any.
    """
    count = len(products)
    if not count:
        raise LocalProtocolError("a robust rule over no updates: the model stays as it is")
    bad = min(robust.faults, (count - 1) // 2)
    match robust.rule:
        case "trimmed-mean":
            return trimmed(count, bad)
        case "nnm":
            return trimmed(count, bad, nearest_neighbours(products, bad))
        case "multi-krum":
            return averaged(count, krum_choice(products, bad))
        case "geometric-median":
            return weighted(median_weights(products))
        case "centered-clipping":
            return weighted(clipping_weights(products))
        case _ as unknown:
            raise LocalProtocolError(f"unknown robust rule {unknown!r}")


# --- who is near to whom ---------------------------------------------------------------------------------------------


def squared_distances(products: Matrix) -> Matrix:
    """|v_i - v_j|^2, in the unit of `products`."""
    norms = [products[at][at] for at in range(len(products))]
    return [
        [norms[one] + norms[other] - 2 * product for other, product in enumerate(row)]
        for one, row in enumerate(products)
    ]


def nearest_neighbours(products: Matrix, bad: int) -> Float64s:
    """Nearest-neighbour mixing (Allouah 2023, 2302.01772): row i has a 1 at i itself and at the n - bad - 1 nearest."""
    count = len(products)
    mixing = np.zeros((count, count))
    for one, row in enumerate(squared_distances(products)):
        mixing[one, _smallest(row, count - bad)] = 1.0
    return mixing


def krum_choice(products: Matrix, bad: int) -> list[int]:
    """Multi-Krum (Blanchard 2017): the n - bad vectors that are nearest (squared) to their n - bad - 1 nearest."""
    count = len(products)
    scores = [sum(sorted(row)[: count - bad]) for row in squared_distances(products)]  # 0 to itself
    return _smallest(scores, count - bad)


def _smallest(values: Sequence[int], count: int) -> list[int]:
    """Places of the `count` smallest values, the first of equals first."""
    return sorted(sorted(range(len(values)), key=values.__getitem__)[:count])


# --- weights of a point among the vectors ----------------------------------------------------------------------------


def median_weights(products: Matrix, steps: int = MEDIAN_STEPS) -> list[int]:
    """The geometric median by Weiszfeld's iteration from zero, as weights of the vectors (Pillutla 2019, 1912.13445).

    z <- sum v_i / |v_i - z| over sum 1 / |v_i - z|; no distance counts as less than one unit. Weights are in units of
    2^-WEIGHT_BITS and sum to nearly 1.
    """
    weights = [0] * len(products)
    for _ in range(steps):
        distances = _distances_to(weights, products)
        nearest = min(distances)
        inverse = [(nearest << WORKING_BITS) // distance for distance in distances]
        total = sum(inverse)
        weights = [(one << WORKING_BITS) // total for one in inverse]
    return _final(weights)


def clipping_weights(products: Matrix, steps: int = CLIPPING_STEPS) -> list[int]:
    """Centred clipping from zero (Karimireddy 2021, 2012.10333), as weights of the vectors.

    z <- z + mean of (v_i - z) min(1, tau / |v_i - z|), where tau is the median of the |v_i - z| (the lower one).
    Weights are in units of 2^-WEIGHT_BITS; what they lack to 1 is the weight of zero.
    """
    count = len(products)
    weights = [0] * count
    for _ in range(steps):
        distances = _distances_to(weights, products)
        radius = sorted(distances)[(count - 1) // 2]
        clips = [(min(radius, distance) << WORKING_BITS) // distance for distance in distances]
        kept = (count << WORKING_BITS) - sum(clips)
        weights = [
            (weight * kept // (1 << WORKING_BITS) + clip) // count
            for weight, clip in zip(weights, clips, strict=True)
        ]
    return _final(weights)


def _distances_to(weights: Sequence[int], products: Matrix) -> list[int]:
    """|v_i - z| for z = sum w_j v_j, w in units of 2^-WORKING_BITS; in 2^-WORKING_BITS of a unit, at least 1."""
    one = 1 << WORKING_BITS
    inner = [sum(map(int.__mul__, weights, row)) for row in products]  # <v_i, z>
    norm = sum(map(int.__mul__, weights, inner))  # |z|^2
    return [
        max(1, isqrt(max(0, one * one * products[at][at] - 2 * one * inner[at] + norm)))
        for at in range(len(products))
    ]


def _final(weights: Sequence[int]) -> list[int]:
    """Rounded to WEIGHT_BITS; more bits than a float64 can add exactly are gone."""
    surplus = WORKING_BITS - WEIGHT_BITS
    return [(weight + (1 << surplus - 1)) >> surplus for weight in weights]


# --- combinations ----------------------------------------------------------------------------------------------------


def averaged(count: int, chosen: Sequence[int]) -> Combination:
    """The mean of the chosen rows."""
    choice = np.zeros(count)
    choice[list(chosen)] = 1.0
    return Combination(len(chosen), lambda rows, out: _product(choice, rows, out))


def weighted(weights: Sequence[int]) -> Combination:
    """The rows' sum by weights in units of 2^-WEIGHT_BITS, that is at most 1 in all (give or take their rounding).

    Values are rounded to 26 bits, so that sums stay below 2^53.
    """
    factors, cut = np.array(weights, dtype=np.float64), 2.0 ** (VALUE_BITS - WEIGHT_BITS)

    def apply(rows: Float64s, out: Float64s) -> None:
        np.multiply(rows, 1.0 / cut, out=rows)
        np.rint(rows, out=rows)
        _product(factors, rows, out)
        np.multiply(out, cut, out=out)

    return Combination(1 << WEIGHT_BITS, apply)


def trimmed(count: int, bad: int, mixing: Float64s | None = None) -> Combination:
    """Coordinate-wise trimmed mean (Yin 2018, 1803.01498): without the `bad` smallest and largest values.

    With `mixing` (`nearest_neighbours`) each row is first replaced by the sum of its n - bad nearest.
    """
    comparisons = list(_sorting_network(count)) if bad else []
    kept, mixed = count - 2 * bad, count - bad if mixing is not None else 1

    def apply(rows: Float64s, out: Float64s) -> None:
        for start in range(0, rows.shape[1], BLOCK_VALUES):
            block = rows[:, start : start + BLOCK_VALUES]
            sort = np.matmul(mixing, block) if mixing is not None else block.copy()
            lower = np.empty(sort.shape[1])
            for low, high in comparisons:
                np.minimum(sort[low], sort[high], out=lower)
                np.maximum(sort[low], sort[high], out=sort[high])
                sort[low] = lower
            np.add.reduce(sort[bad : count - bad], axis=0, out=out[start : start + BLOCK_VALUES])

    return Combination(kept * mixed, apply)


def _product(factors: Float64s, rows: Float64s, out: Float64s) -> None:
    np.matmul(factors, rows, out=out)


def _sorting_network(count: int) -> Iterator[tuple[int, int]]:
    """Comparisons that sort `count` rows: Batcher's odd-even merge sort (Knuth, TAOCP 3, 5.2.2, algorithm M).

    Whole rows are compared with each other, so that numpy works along them.
    """
    top = 1 << max(0, (count - 1).bit_length() - 1)
    span = top
    while span:
        step, offset, distance = top, 0, span
        while True:
            for low in range(count - distance):
                if low & span == offset:
                    yield low, low + distance
            if step == span:
                break
            distance, step, offset = step - span, step >> 1, span
        span >>= 1
