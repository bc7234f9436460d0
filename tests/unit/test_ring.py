"""Fixed point: values checked against exact rational arithmetic."""

import ctypes
import ctypes.util
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import pytest

from folkmoot.protocol import ring
from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.ring import CHUNK_VALUES, FixedPoint, Layout, compute_exponents, weight_of


def to_integers(values: list[float], exponent: int) -> list[int]:
    chunk = np.array(values, dtype=np.float32).astype(np.float64)
    out = np.empty(len(chunk), dtype=np.float64)
    FixedPoint(Layout([len(chunk)]), [exponent]).to_integers(chunk, 0, out)
    return [int(value) for value in out]


def exact_integer(value: np.float32, exponent: int) -> int:
    # Python rounds fractions half to even.
    scaled = round(Fraction(float(value)) * Fraction(2) ** (32 - exponent))
    return max(-(2**32), min(2**32, scaled))


# --- exponents ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("largest", "expected"),
    [
        (1.0, 0),
        (-1.0, 0),
        (1.0000001, 1),
        (0.5, -1),
        (0.75, 0),
        (2.0, 1),
        (3.0, 2),
        (1e-30, -20),
        (1e30, 16),
        (0.0, -20),
    ],
)
def test_exponent_is_the_smallest_that_holds_the_largest_value(largest: float, expected: int) -> None:
    vector = np.array([0.0, largest, -largest / 2], dtype=np.float32)
    assert compute_exponents(vector, Layout([3]), -20, 16).tolist() == [expected]


def test_each_tensor_has_its_own_exponent_across_chunk_edges() -> None:
    sizes = [CHUNK_VALUES - 1, 3, 2 * CHUNK_VALUES, 1]
    vector = np.zeros(sum(sizes), dtype=np.float32)
    vector[CHUNK_VALUES - 2] = 4.0  # last of tensor 0
    vector[CHUNK_VALUES - 1] = 0.25  # tensor 1, first chunk
    vector[CHUNK_VALUES + 1] = -8.0  # tensor 1, second chunk
    vector[-2] = 1e-3  # tensor 2, last chunk
    exponents = compute_exponents(vector, Layout(sizes), -5, 10)
    assert exponents.dtype == np.int8
    assert exponents.tolist() == [2, 3, -5, -5]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_exponents_of_a_value_that_is_not_finite(bad: float) -> None:
    with pytest.raises(LocalProtocolError, match="tensor 1"):
        compute_exponents(np.array([1.0, 2.0, bad, 0.0], dtype=np.float32), Layout([2, 2]), -20, 16)


def test_exponents_of_a_vector_of_another_length() -> None:
    with pytest.raises(LocalProtocolError, match="3 values, the layout has 4"):
        compute_exponents(np.zeros(3, dtype=np.float32), Layout([4]), -20, 16)


# --- to integers --------------------------------------------------------------------------------------------


def test_halves_go_to_even_and_values_are_clipped() -> None:
    unit = 2.0**-32
    assert to_integers([0.5 * unit, 1.5 * unit, 2.5 * unit, -0.5 * unit, -1.5 * unit], 0) == [0, 2, 2, 0, -2]
    assert to_integers([1.0, 1.5, -1.0, -3e38, 3e38], 0) == [2**32, 2**32, -(2**32), -(2**32), 2**32]


def test_integers_are_those_of_exact_arithmetic() -> None:
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**32, size=4000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    for exponent in (-126, -20, 0, 16, 127):
        assert to_integers(values.tolist(), exponent) == [exact_integer(value, exponent) for value in values]


def test_smallest_and_largest_floats_at_the_ends_of_the_scale() -> None:
    smallest, largest = np.float32(2.0**-149), np.finfo(np.float32).max
    assert to_integers([smallest], -126) == [2 ** (32 + 126 - 149)]
    assert to_integers([largest], 127) == [2**32]
    assert to_integers([largest], -126) == [2**32]


def test_chunks_that_cross_tensor_edges_use_each_tensors_scale() -> None:
    layout = Layout([2, 1, 3])
    fixed = FixedPoint(layout, bytes([0, 1, 0xFF]))  # exponents 0, 1, -1
    whole = np.full(6, 0.25, dtype=np.float64)
    expected = [2**30, 2**30, 2**29, 2**31, 2**31, 2**31]
    for start in range(6):
        for stop in range(start, 6):
            out = np.empty(stop - start, dtype=np.float64)
            fixed.to_integers(whole[start:stop], start, out)
            assert out.tolist() == expected[start:stop]


# --- sums and means -----------------------------------------------------------------------------------------


def test_mean_is_the_sum_divided_once_in_float64_then_rounded_to_float32() -> None:
    rng = np.random.default_rng(2)
    sums = rng.integers(-(2**48), 2**48, size=1000).astype(np.float64)
    total = 3 * 65_535
    out = np.empty(1000, dtype=np.float32)
    FixedPoint(Layout([400, 600]), [-3, 9]).mean(sums, total, 0, out)
    for value, found, exponent in zip(sums, out, [-3] * 400 + [9] * 600, strict=True):
        quotient = Fraction(int(value)) * Fraction(2) ** (exponent - 32) / total
        assert found == np.float32(float(quotient))  # float() of a fraction is correctly rounded


def test_mean_of_one_member_is_its_clipped_rounded_value() -> None:
    values = np.array([0.1, -0.7, 5.0, 0.0], dtype=np.float32).astype(np.float64)
    fixed = FixedPoint(Layout([4]), [0])
    integers, out = np.empty(4, dtype=np.float64), np.empty(4, dtype=np.float32)
    fixed.to_integers(values, 0, integers)
    fixed.mean(integers * 17, 17, 0, out)
    np.testing.assert_allclose(out, [0.1, -0.7, 1.0, 0.0], rtol=1e-7)


def test_mean_over_no_weight_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="weight of 0"):
        FixedPoint(Layout([1]), [0]).mean(np.zeros(1), 0, 0, np.empty(1, dtype=np.float32))


def test_weighted_integers_add_up_exactly() -> None:
    sums = np.array([5.0, -6.0])
    for weight in (65_535, 1):
        ring.accumulate_weighted(sums, np.array([2.0**32 - 1, -(2.0**32)]), weight)
    assert [int(value) for value in sums] == [5 + 2**16 * (2**32 - 1), -6 - 2**48]


# --- weights and headroom -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("examples", "cap", "expected"),
    [
        (0, 100, 0),
        (7, 100, 7),
        (101, 100, 100),
        (10**12, 65_535, 65_535),
        (0, 10**6, 0),
        (1, 10**6, 1),  # never scaled to nothing
        (10**6, 10**6, 65_535),
        (10**9, 10**6, 65_535),
        (500_000, 10**6, 32_768),  # 32767.5 goes to the even neighbour
        (1, 2 * 65_535, 1),  # 0.5 goes to 0, then up to 1
        (3, 2 * 65_535, 2),  # 1.5 goes to 2
        (5, 2 * 65_535, 2),  # 2.5 goes to 2
    ],
)
def test_weight_of(examples: int, cap: int, expected: int) -> None:
    assert weight_of(examples, cap) == expected


def test_weight_is_exact_rounding_for_any_cap() -> None:
    for examples in range(1, 3000, 37):
        for cap in (65_536, 70_001, 10**6, 2**40):
            exact = max(1, round(Fraction(min(examples, cap) * 65_535, cap)))
            assert weight_of(examples, cap) == exact


def test_weights_of_nonsense_are_refused() -> None:
    for examples, cap in ((-1, 10), (10, 0)):
        with pytest.raises(LocalProtocolError):
            weight_of(examples, cap)


def test_headroom_is_53_bits() -> None:
    ring.check_headroom(32)
    with pytest.raises(LocalProtocolError, match="54 bits"):
        ring.check_headroom(33)
    ring.check_headroom(2**13, max_weight=255)
    with pytest.raises(LocalProtocolError):
        ring.check_headroom(2**13 + 1, max_weight=255)
    assert 32 * 2**32 * ring.MAX_WEIGHT < 2**53


def test_layouts_and_exponents_that_do_not_fit() -> None:
    for sizes in ([], [3, 0]):
        with pytest.raises(LocalProtocolError):
            Layout(sizes)
    with pytest.raises(LocalProtocolError, match="3 exponents for 2 tensors"):
        FixedPoint(Layout([1, 1]), bytes(3))


# --- the platform -------------------------------------------------------------------------------------------


def test_this_machine_computes_with_subnormals() -> None:
    ring.check_float_environment()


# Where the control word lies in glibc's fenv_t, and its flush-to-zero bits.
_FLUSH = {"x86_64": (28, 1 << 15 | 1 << 6), "aarch64": (0, 1 << 24)}


@contextmanager
def flush_to_zero() -> Iterator[None]:
    """Do to this thread what libraries built with -ffast-math do when they are loaded."""
    offset, bits = _FLUSH[platform.machine()]
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    before = ctypes.create_string_buffer(64)
    libm.fegetenv(before)
    changed = ctypes.create_string_buffer(before.raw, 64)
    word = int.from_bytes(changed.raw[offset : offset + 4], "little") | bits
    changed[offset : offset + 4] = word.to_bytes(4, "little")
    libm.fesetenv(changed)
    try:
        yield
    finally:
        libm.fesetenv(before)


@pytest.mark.skipif(
    platform.machine() not in _FLUSH or platform.libc_ver()[0] != "glibc", reason="knows only glibc's fenv_t"
)
def test_flush_to_zero_is_noticed() -> None:
    with flush_to_zero(), pytest.raises(LocalProtocolError, match="subnormal"):
        ring.check_float_environment()
    ring.check_float_environment()
