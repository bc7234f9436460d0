"""Numbers as exact integers: fixed point, weighted sums, and the one division that ends a round.

A value of a tensor with scale exponent E is an integer in units of 2^(E-32), clipped at 2^E. Integer sums do
not depend on order, so every honest node, and later the auditor, gets the same bits (PROTOCOL section 5).

Why it is exact in numpy:
- a float32 is a float64, and its product with a power of two is exact there: magnitudes run from 2^-149 *
  2^(32-127) to 2^128 * 2^(32+128), far inside the normal float64 range (2^-1022 .. 2^1023), and the 24-bit
  significand is kept. Hence `rint` sees the true value and rounds it once, ties to even.
- the same holds for what a block codec decodes to: at most 15 significant bits between 2^-133 and 2^135.
- a sum of n integers up to 2^32 with weights below 2^16 stays below 2^53 (`check_headroom`), so it is exact
  both as int64 and as float64. Sums are kept as float64, in which they are born and divided; a sum that starts
  at +0 never becomes -0.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from folkmoot.protocol.errors import LocalProtocolError

Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Int8s = NDArray[np.int8]

VALUE_BITS = 32
"""Binary places below 2^E: a clipped value is an integer of magnitude at most 2^32."""

MAX_WEIGHT = 2**16 - 1
"""Open-mode weights are below 2^16."""

EXACT_BITS = 53
"""Integers up to 2^53 are exact in a float64."""

CHUNK_VALUES = 1 << 18
"""Values worked on at a time: 1 MiB of float32, which stays in the cache (whole vectors were 7x slower)."""

_LIMIT = float(2**VALUE_BITS)


class Layout:
    """Where each tensor lies in the flat vector; tensors in charter order."""

    def __init__(self, sizes: Sequence[int]) -> None:
        """`sizes`: number of values per tensor, each at least 1. Raises LocalProtocolError."""
        if not sizes or min(sizes) < 1:
            raise LocalProtocolError("a layout needs one tensor or more, each with a value or more")
        self.sizes = tuple(sizes)
        self._ends = tuple(accumulate(sizes))
        self._edges = np.array(self._ends, dtype=np.int64)

    @property
    def size(self) -> int:
        """Length of the flat vector, in values."""
        return self._ends[-1]

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Cut [start, stop) of the flat vector at tensor edges: (tensor, from, to), counted from `start`."""
        tensor = int(np.searchsorted(self._edges, start, side="right"))
        at = start
        while at < stop:
            end = min(self._ends[tensor], stop)
            yield tensor, at - start, end - start
            at = end
            tensor += 1

    def chunks(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of each chunk of CHUNK_VALUES; the last may be shorter."""
        for start in range(0, self.size, CHUNK_VALUES):
            yield start, min(start + CHUNK_VALUES, self.size)


class FixedPoint:
    """Turns chunks of vectors into ring integers and sums back into float32, under one roster's exponents.

    Holds scratch memory for one chunk, so an object serves one thread at a time.
    """

    def __init__(self, layout: Layout, exponents: bytes | Sequence[int] | Int8s) -> None:
        """`exponents`: one int8 per tensor (bytes are read as int8, as READY and roster carry them)."""
        scales = np.frombuffer(exponents, dtype=np.int8) if isinstance(exponents, bytes) else exponents
        if len(scales) != len(layout.sizes):
            raise LocalProtocolError(
                f"{len(scales)} exponents for {len(layout.sizes)} tensors: give one each"
            )
        self.layout = layout
        self.exponents = tuple(int(exponent) for exponent in scales)
        self._per_unit = [math.ldexp(1.0, VALUE_BITS - exponent) for exponent in self.exponents]
        self._unit = [math.ldexp(1.0, exponent - VALUE_BITS) for exponent in self.exponents]
        self._scratch = np.empty(min(CHUNK_VALUES, layout.size), dtype=np.float64)

    def to_integers(self, chunk: Float64s, start: int, out: Float64s) -> None:
        """Write round-half-even(x * 2^(32-E)), clipped to +-2^32, into `out` (as long as `chunk`, or `chunk` itself).

        `chunk` begins at value `start` of the flat vector and may cross tensor edges. Its values must be finite:
        codecs refuse all others.
        """
        for tensor, low, high in self.layout.pieces(start, start + len(chunk)):
            # dtype guards callers: numpy would multiply a float32 array by a Python float in float32.
            np.multiply(chunk[low:high], self._per_unit[tensor], out=out[low:high], dtype=np.float64)
        np.rint(out, out=out)
        np.clip(out, -_LIMIT, _LIMIT, out=out)

    def mean(self, sums: Float64s, total_weight: int, start: int, out: Float32s) -> None:
        """Write sum * 2^(E-32) / total_weight into `out`, for the chunk of sums that begins at value `start`.

        The product is exact; the division rounds to float64 and the store to float32, both IEEE and so the
        same everywhere. The result is finite: no mean exceeds 2^E <= 2^127. Raises LocalProtocolError on a
        weight of zero.
        """
        if total_weight < 1:
            raise LocalProtocolError(f"mean over a total weight of {total_weight}: it must be positive")
        scaled = self._scratch[: len(sums)]
        for tensor, low, high in self.layout.pieces(start, start + len(sums)):
            np.multiply(sums[low:high], self._unit[tensor], out=scaled[low:high])
        np.divide(scaled, float(total_weight), out=scaled)
        np.copyto(out, scaled, casting="same_kind")


def compute_exponents(vector: Float32s, layout: Layout, lower: int, upper: int) -> Int8s:
    """The scale each tensor of `vector` needs: the smallest E with max|x| <= 2^E, clamped to [lower, upper].

    An all-zero tensor reads as `lower`. Raises LocalProtocolError on a wrong length or a value that is not
    finite.
    """
    if len(vector) != layout.size:
        raise LocalProtocolError(f"vector of {len(vector)} values, the layout has {layout.size}")
    exponents = np.full(len(layout.sizes), lower, dtype=np.int8)
    for start, stop in layout.chunks():
        for tensor, low, high in layout.pieces(start, stop):
            piece = vector[start + low : start + high]
            # Comparisons only, so no rounding; a NaN comes through as NaN.
            largest = max(float(piece.max()), -float(piece.min()))
            if not math.isfinite(largest):
                raise LocalProtocolError(
                    f"tensor {tensor} holds a value that is not finite: the update is unusable"
                )
            needed = min(_smallest_exponent(largest, lower), upper)
            exponents[tensor] = max(int(exponents[tensor]), needed)
    return exponents


def accumulate_weighted(sums: Float64s, integers: Float64s, weight: int) -> None:
    """sums += weight * integers, in place; `integers` is overwritten. Exact below 2^53 (`check_headroom`)."""
    np.multiply(integers, weight, out=integers)
    np.add(sums, integers, out=sums)


def weight_of(num_examples: int, cap: int) -> int:
    """A member's integer weight, at most MAX_WEIGHT: examples count up to `cap`, scaled down if `cap` is
    above 65535.

    Scaling is round-half-even in integers and never takes a member with examples to zero. Raises
    LocalProtocolError.
    """
    if num_examples < 0 or cap < 1:
        raise LocalProtocolError(
            f"weight of {num_examples} examples under a cap of {cap}: both must be counts"
        )
    counted = min(num_examples, cap)
    if cap <= MAX_WEIGHT or counted == 0:
        return counted
    whole, rest = divmod(counted * MAX_WEIGHT, cap)
    up = 2 * rest > cap or (2 * rest == cap and whole % 2 == 1)
    return max(1, whole + up)


def check_headroom(members: int, max_weight: int = MAX_WEIGHT) -> None:
    """Raise LocalProtocolError unless a sum over `members` fits: value + weight + ceil(log2 n) bits <= 53."""
    bits = VALUE_BITS + max_weight.bit_length() + max(0, members - 1).bit_length()
    if bits > EXACT_BITS:
        raise LocalProtocolError(
            f"{members} members with weights up to {max_weight} need {bits} bits, {EXACT_BITS} are exact: "
            "lower the weight cap or sum in groups"
        )


def check_float_environment() -> None:
    """Compute a golden vector that passes through subnormal numbers; raise LocalProtocolError if it differs.

    Some libraries set flush-to-zero when they are loaded (per thread, inherited by threads started later):
    results would differ from every other node's. Call it at start, after all imports, and in worker threads.
    """
    # Long enough for the vector loops of numpy, which may behave unlike the scalar ones.
    sums = np.tile(np.array(_GOLDEN_SUMS, dtype=np.float64), 16)
    found = np.empty(len(sums), dtype=np.float32)
    FixedPoint(Layout([len(sums)]), [-126]).mean(sums, 3, 0, found)
    np.add(found, found[::-1], out=found)
    integers = found.astype(np.float64)
    FixedPoint(Layout([len(sums)]), [-126]).to_integers(integers, 0, integers)
    expected = np.tile(np.array(_GOLDEN_INTEGERS, dtype=np.float64), 16)
    if not np.array_equal(integers, expected):
        raise LocalProtocolError(
            "this process does not compute with subnormal floats (flush-to-zero is set, often by a library "
            "built with -ffast-math): its models would differ from every other node's; remove that library"
        )


def _smallest_exponent(largest: float, lower: int) -> int:
    if largest == 0.0:
        return lower
    fraction, exponent = math.frexp(largest)  # largest = fraction * 2^exponent, 0.5 <= fraction < 1
    return exponent - 1 if fraction == 0.5 else exponent


# Means of 3 under E = -126, in units of 2^-149: 0, 1/1536, 2048, 3 * 2^22, -2^23, 54613 1/3,
# -1223338 2/3, -2^22.
_GOLDEN_SUMS = (0, 1, 3 << 20, 9 << 31, -(6 << 31), 5 << 24, -(7 << 28), -(3 << 31))
# Each rounded, plus its mirror image, in units of 2^-158.
_GOLDEN_HALF = (-(1 << 22) << 9, -1223339 << 9, (2048 + 54613) << 9, 1 << 31)
_GOLDEN_INTEGERS = _GOLDEN_HALF + _GOLDEN_HALF[::-1]
