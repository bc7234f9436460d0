"""Ring integers: weights, values checked against exact rational arithmetic, error feedback, and the mean."""

from fractions import Fraction

import numpy as np
import pytest

from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.secure.encoding import RingDecoder, RingEncoder, member_weight
from folkmoot.protocol.secure.layout import BLOCK, ShardLayout

BITS = [8, 16, 32]


def values_of(ring: np.ndarray) -> list[int]:
    return [int(value) for value in ring.view(f"<i{ring.itemsize}")]


def encoded(layout: ShardLayout, values: list[float], exponent: int, weight: int = 255) -> list[int]:
    out = np.empty(len(values), layout.dtype)
    RingEncoder(layout, [len(values)], [exponent], weight).encode(np.array(values, dtype=np.float32), 0, out)
    return values_of(out)


# --- weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("examples", "cap", "expected"),
    [
        (1, 1, 255),
        (100, 100, 255),
        (101, 100, 255),
        (50, 100, 128),  # 127.5, to even
        (1, 100, 3),  # 2.55
        (1, 10**9, 1),  # never nothing
        (1, 510, 1),  # 0.5, to even, but at least 1
        (3, 510, 2),  # 1.5
        (5, 510, 2),  # 2.5
        (10**18, 2 * 10**18, 128),
    ],
)
def test_member_weight(examples: int, cap: int, expected: int) -> None:
    assert member_weight(examples, cap) == expected


@pytest.mark.parametrize(("examples", "cap"), [(0, 10), (-1, 10), (10, 0)])
def test_weight_needs_examples_and_a_cap(examples: int, cap: int) -> None:
    with pytest.raises(LocalProtocolError):
        member_weight(examples, cap)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("members", [3, 16])
def test_weights_add_up_in_their_limbs(bits: int, members: int) -> None:
    layout = ShardLayout(10, bits, members, 1)
    block, total = np.empty(BLOCK, layout.dtype), np.zeros(BLOCK, layout.dtype)
    weights = [255, 1, 16, *[255] * (members - 3)]
    for weight in weights:
        RingEncoder(layout, [10], [0], weight).encode_weight(block)
        total += block
    assert RingDecoder(layout, [10], [0]).total_weight(total) == sum(weights)


@pytest.mark.parametrize("weight", [0, 256, -1])
def test_weights_that_no_member_has_are_refused(weight: int) -> None:
    with pytest.raises(LocalProtocolError, match="member_weight"):
        RingEncoder(ShardLayout(10, 16, 3, 1), [10], [0], weight)


# --- encoding -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", BITS)
def test_values_are_rounded_to_even_and_clipped(bits: int) -> None:
    layout = ShardLayout(8, bits, 8, 1)
    unit = 2.0 ** (3 - layout.value_bits)  # exponent 3
    values = [0.0, unit, -unit, 0.5 * unit, 1.5 * unit, -2.5 * unit, 8.0, -100.0]
    largest = layout.largest
    assert encoded(layout, values, 3) == [0, 1, -1, 0, 2, -2, largest, -largest]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("weight", [1, 77, 254])
def test_weights_scale_what_is_encoded(bits: int, weight: int) -> None:
    layout = ShardLayout(1000, bits, 5, 1)
    values = np.random.default_rng(4).uniform(-1.8, 1.8, 1000).astype(np.float32)
    found = encoded(layout, values.tolist(), 1, weight)
    for value, got in zip(values, found, strict=True):
        exact = Fraction(float(value)) * Fraction(weight, 255) * Fraction(2) ** (layout.value_bits - 1)
        # float32 arithmetic of the sender: off by half a unit and a little.
        assert abs(got - exact) <= Fraction(1, 2) + Fraction(1, 1000)


def test_tensors_have_their_own_exponents_and_pieces_may_cross_them() -> None:
    sizes, exponents = [3, 100_000, 5], [0, -4, 2]
    layout = ShardLayout(sum(sizes), 16, 3, 1)
    values = np.random.default_rng(1).uniform(-0.05, 0.05, layout.parameters).astype(np.float32)
    whole, pieces = np.empty(len(values), layout.dtype), np.empty(len(values), layout.dtype)
    encoder = RingEncoder(layout, sizes, bytes([0, 252, 2]), 255)
    encoder.encode(values, 0, whole)
    for start in range(0, len(values), 777):
        encoder.encode(values[start : start + 777], start, pieces[start : start + 777])
    assert np.array_equal(whole, pieces)
    per_unit = np.repeat(2.0 ** (layout.value_bits - np.array(exponents)), sizes)
    assert np.array_equal(whole.view("<i2"), np.rint(values * per_unit).astype(np.int16))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("exponent", [-126, 127])
def test_extreme_exponents_neither_overflow_nor_warn(bits: int, exponent: int) -> None:
    layout = ShardLayout(4, bits, 16, 1)
    top = float(np.ldexp(np.float32(0.5), exponent))
    largest, half = layout.largest, 2 ** (layout.value_bits - 1)
    assert encoded(layout, [top, -top, 0.0, 3e38], exponent)[:3] == [half, -half, 0]
    assert encoded(layout, [3e38, -3e38, 0, 0], -126)[:2] == [largest, -largest]
    residual, out = np.zeros(4, np.float32), np.empty(4, layout.dtype)
    RingEncoder(layout, [4], [exponent], 1).encode(np.full(4, top, np.float32), 0, out, residual)
    assert np.isfinite(residual).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    layout = ShardLayout(3, 16, 3, 1)
    with pytest.raises(LocalProtocolError, match="not finite"):
        encoded(layout, [0.0, bad, 1.0], 0)
    encoder = RingEncoder(layout, [3], [0], 255)
    with pytest.raises(LocalProtocolError, match="not finite"):
        out, residual = np.empty(3, layout.dtype), np.array([0, bad, 0], np.float32)
        encoder.encode(np.zeros(3, np.float32), 0, out, residual)


# --- error feedback -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("weight", [255, 40])
def test_residual_is_what_was_lost(bits: int, weight: int) -> None:
    layout = ShardLayout(500, bits, 8, 1)
    random = np.random.default_rng(2)
    values = random.uniform(-1.5, 1.5, 500).astype(np.float32)  # some are clipped
    before = random.uniform(-0.1, 0.1, 500).astype(np.float32)
    residual, out = before.copy(), np.empty(500, layout.dtype)
    RingEncoder(layout, [500], [0], weight).encode(values, 0, out, residual)
    sent = out.view(f"<i{out.itemsize}").astype(np.float64) * 2.0**-layout.value_bits * 255 / weight
    assert np.allclose(sent + residual, values.astype(np.float64) + before, rtol=0, atol=1e-6)
    if weight == 255:
        assert np.abs(residual).max() > 0.3, "what was clipped stays in the residual"


def test_error_feedback_sends_small_values_in_the_long_run() -> None:
    layout = ShardLayout(100, 8, 8, 1)  # 15 steps to 1.0
    values = np.full(100, 0.01, dtype=np.float32)
    encoder, out = RingEncoder(layout, [100], [0], 255), np.empty(100, layout.dtype)
    residual, sent = np.zeros(100, np.float32), np.zeros(100)
    for _ in range(50):
        encoder.encode(values, 0, out, residual)
        sent += out.view("<i1") / 2.0**layout.value_bits
    assert np.allclose(sent, 0.5, atol=2.0**-layout.value_bits)


# --- mean ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("exponent", "weight"), [(0, 255), (-126, 7), (100, 3 * 255), (16, 1)])
def test_mean_rounds_the_exact_quotient(bits: int, exponent: int, weight: int) -> None:
    layout = ShardLayout(300, bits, 3, 1)
    limit = 3 * layout.largest
    sums = np.random.default_rng(3).integers(-limit, limit + 1, 300)
    out = np.empty(300, np.float32)
    values = sums.astype(f"<i{bits // 8}").view(layout.dtype)
    RingDecoder(layout, [300], [exponent]).mean(values, weight, 0, out)
    for total, got in zip(sums.tolist(), out, strict=True):
        exact = Fraction(total * 255, weight) * Fraction(2) ** (exponent - layout.value_bits)
        # Two IEEE roundings of the exact quotient: float64, then float32. Python divides big integers correctly.
        assert got == np.float32(exact.numerator / exact.denominator)


def test_mean_of_tensors_with_their_own_exponents() -> None:
    layout = ShardLayout(6, 16, 3, 1)
    decoder = RingDecoder(layout, [2, 4], bytes([0, 255]))
    ones, out = np.full(3, 2, dtype=layout.dtype), np.empty(3, np.float32)
    decoder.mean(ones, 510, 1, out)
    unit = 2.0**-layout.value_bits
    assert out.tolist() == [unit, unit / 2, unit / 2]


def test_a_mean_beyond_float32_is_infinite_without_a_warning() -> None:
    layout = ShardLayout(2, 16, 3, 1)
    out = np.empty(2, np.float32)
    values = np.array([32767, -32768], dtype="<i2").view(layout.dtype)
    RingDecoder(layout, [2], [127]).mean(values, 1, 0, out)
    assert out.tolist() == [np.inf, -np.inf]


def test_our_own_mistakes_are_raised() -> None:
    layout = ShardLayout(4, 16, 3, 1)
    encoder, decoder = RingEncoder(layout, [4], [0], 255), RingDecoder(layout, [4], [0])
    four, ring = np.zeros(4, np.float32), np.zeros(4, layout.dtype)
    with pytest.raises(LocalProtocolError, match="exponents"):
        RingEncoder(layout, [4], [0, 0], 255)
    with pytest.raises(LocalProtocolError, match="parameters"):
        RingDecoder(layout, [5], [0])
    with pytest.raises(LocalProtocolError, match="ring values"):
        encoder.encode(four, 0, ring[:3])
    with pytest.raises(LocalProtocolError, match="ring values"):
        encoder.encode(four, 0, np.zeros(4, np.uint32))
    with pytest.raises(LocalProtocolError, match="residual"):
        encoder.encode(four, 0, ring, four[:3])
    with pytest.raises(LocalProtocolError, match="ring values"):
        encoder.encode_weight(ring)
    with pytest.raises(LocalProtocolError, match="ring values"):
        decoder.total_weight(ring)
    with pytest.raises(LocalProtocolError, match="weight"):
        decoder.mean(ring, 0, 0, four)
    with pytest.raises(LocalProtocolError, match="ring values"):
        decoder.mean(ring[:3], 1, 0, four)
