"""The round's result: exact sums, and what happens with payloads that cannot be read."""

import hashlib
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import repeat
from typing import get_args

import numpy as np
import pytest

from folkmoot.protocol import sealing
from folkmoot.protocol.aggregate import Aggregate, Method, aggregate, aggregate_stream
from folkmoot.protocol.blob import ref_of
from folkmoot.protocol.charter_tables import RobustRule
from folkmoot.protocol.codec import codec_named, encode_vector
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.outer import Piece, Snapshots
from folkmoot.protocol.payload_sums import Payload
from folkmoot.protocol.pieces import Buffer
from folkmoot.protocol.ring import CHUNK_VALUES, Float32s
from folkmoot.protocol.robust import Robust

F32 = codec_named("f32")


def payload(member: int, weight: int, values: np.ndarray | list[float]) -> Payload:
    data = np.asarray(values, dtype=np.float32).tobytes()
    return Payload(member, weight, lambda: [data])


def run(base: list[float], *payloads: Payload, exponent: int = 2) -> Aggregate[Float32s]:
    return aggregate(Method.plain("f32", [len(base)]), [exponent], payloads, np.array(base, dtype=np.float32))


def test_the_weighted_mean_is_added_to_the_base() -> None:
    result = run([1.0, 2.0, 3.0], payload(0, 1, [1.0, 0.0, -4.0]), payload(1, 3, [2.0, 4.0, 0.0]))
    assert result.model.tolist() == [2.75, 5.0, 2.0]
    assert (result.changed, result.divisor, result.ill_formed) == (True, 4, ())


def test_sums_digest_is_of_weight_and_sums() -> None:
    result = run([0.0, 0.0], payload(0, 5, [1.0, -0.5]), exponent=0)
    sums = (5 * 2**32).to_bytes(8, "little") + (-5 * 2**31).to_bytes(8, "little", signed=True)
    preimage = b"folkmoot/v1/sums\n" + (5).to_bytes(8, "big") + sums
    assert result.sums_digest == hashlib.sha256(preimage).digest()


def test_values_above_the_scale_are_clipped() -> None:
    assert run([0.0], payload(0, 1, [9.0]), exponent=1).model.tolist() == [2.0]


def test_order_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    base = rng.standard_normal(1000).tolist()
    payloads = [payload(m, int(rng.integers(1, 65_536)), rng.standard_normal(1000)) for m in range(7)]
    forward, backward = run(base, *payloads), run(base, *payloads[::-1])
    assert forward.sums_digest == backward.sums_digest
    assert forward.model.tobytes() == backward.model.tobytes()


@pytest.mark.parametrize("bad", [b"", bytes(11), bytes(13), np.array([0, np.nan, 0], "<f4").tobytes()])
def test_an_ill_formed_payload_counts_as_nothing(bad: bytes) -> None:
    good = [payload(0, 2, [1.0, 1.0, 1.0]), payload(2, 6, [-1.0, 0.5, 0.0])]
    result = run([0.0] * 3, *good, Payload(1, 9, lambda: [bad]))
    without = run([0.0] * 3, *good)
    assert result.ill_formed == (1,)
    assert (result.sums_digest, result.divisor) == (without.sums_digest, 8)
    assert result.model.tobytes() == without.model.tobytes()


# --- robust rules -----------------------------------------------------------------------------------------------------

ROBUST = [rule for rule in get_args(RobustRule) if rule != "none"]


def robustly(rule: str, faults: int, *payloads: Payload) -> Aggregate[Float32s]:
    base = np.zeros(CHUNK_VALUES + 5, dtype=np.float32)
    return aggregate(
        replace(Method.plain("f32", [100, len(base) - 100]), robust=Robust(rule, faults)),
        [1, -2],
        payloads,
        base,
    )


def updates(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(6)
    return [rng.uniform(-0.2, 0.2, CHUNK_VALUES + 5) for _ in range(count)]


@pytest.mark.parametrize("rule", ROBUST)
def test_robust_rules_do_not_depend_on_order_or_weights(rule: str) -> None:
    payloads = [payload(member, 1, values) for member, values in enumerate(updates(5))]
    heavy = [payload(member, 9 * member, values) for member, values in enumerate(updates(5))]
    forward, backward = robustly(rule, 1, *payloads), robustly(rule, 1, *heavy[::-1])
    assert forward.sums_digest == backward.sums_digest
    assert forward.model.tobytes() == backward.model.tobytes()


@pytest.mark.parametrize("rule", ROBUST)
def test_robust_rules_leave_out_what_is_ill_formed(rule: str) -> None:
    good = [payload(member, 1, values) for member, values in enumerate(updates(4))]
    result, without = robustly(rule, 1, *good, Payload(7, 1, lambda: [b"?"])), robustly(rule, 1, *good)
    assert (result.ill_formed, result.sums_digest) == ((7,), without.sums_digest)


@pytest.mark.parametrize("rule", ROBUST)
def test_a_robust_mean_of_one_update_is_that_update(rule: str) -> None:
    (values,) = updates(1)
    result = robustly(rule, 3, payload(0, 1, values))
    assert np.abs(result.model - values).max() < 1e-6


@pytest.mark.parametrize("rule", ROBUST)
def test_a_robust_rule_over_nothing_changes_nothing(rule: str) -> None:
    assert not robustly(rule, 1, Payload(0, 1, lambda: [b""])).changed


class Pass:
    """A payload's plaintext that counts how often it is read, and may break off after two chunks."""

    def __init__(self, values: np.ndarray, is_broken: bool) -> None:
        self.values = values.astype(np.float32)
        self.is_broken = is_broken
        self.count = 0

    def __call__(self) -> Iterator[Buffer]:
        self.count += 1
        if not self.is_broken:
            yield from encode_vector(F32, self.values)
            return
        yield from encode_vector(F32, self.values[: 2 * CHUNK_VALUES])
        raise RemoteProtocolError("frame 33 fails authentication")


def test_payloads_that_break_off_late_leave_no_trace_and_cost_three_passes() -> None:
    size = 2 * CHUNK_VALUES + 5
    rng = np.random.default_rng(5)
    base = rng.standard_normal(size).astype(np.float32)
    passes = [Pass(rng.standard_normal(size), is_broken=member in (1, 2, 4)) for member in range(6)]
    payloads = [Payload(member, 3 + member, one) for member, one in enumerate(passes)]
    result = aggregate(Method.plain("f32", [size]), [3], payloads, base)
    good = [payloads[0], payloads[3], payloads[5]]
    without = aggregate(Method.plain("f32", [size]), [3], good, base)
    assert result.ill_formed == (1, 2, 4)
    assert (result.sums_digest, result.divisor) == (without.sums_digest, without.divisor)
    assert result.model.tobytes() == without.model.tobytes()
    assert [one.count for one in passes] == [4, 1, 2, 4, 2, 4]  # with the pass of `without`


def stream(
    base: np.ndarray, payloads: list[Payload], codec: str, exponent: int, log: list[str]
) -> Aggregate[str]:
    def store(pieces: Iterator[Piece]) -> str:
        log.append("begun")
        whole = b"".join(values.tobytes() for _, values in pieces)
        log.append("kept")
        return ref_of(whole).root.hex()

    snapshots = Snapshots(lambda start: [base.tobytes()[start:]], store, "base")
    return aggregate_stream(Method.plain(codec, [len(base)]), [exponent], payloads, snapshots)


def test_a_stream_stores_what_the_whole_vector_is() -> None:
    size = 3 * CHUNK_VALUES + 77
    rng = np.random.default_rng(9)
    base = rng.standard_normal(size).astype(np.float32)
    updates = [rng.standard_normal(size).astype(np.float32) for _ in range(3)]
    for codec in ("f32", "int8", "int4"):
        data = [b"".join(encode_vector(codec_named(codec), update)) for update in updates]
        payloads = [Payload(m, 5 + m, lambda m=m, data=data: [data[m]]) for m in range(3)]
        log: list[str] = []
        result = stream(base, payloads, codec, 3, log)
        whole = aggregate(Method.plain(codec, [size]), [3], payloads, base)
        assert (result.model, log) == (ref_of(whole.model.tobytes()).root.hex(), ["begun", "kept"])
        assert (result.sums_digest, result.divisor) == (whole.sums_digest, 18)
        assert result.changed


def test_a_stream_that_fails_keeps_nothing() -> None:
    huge = np.full(2, np.finfo(np.float32).max)
    for base, payloads, attempts in [
        (np.zeros(1), [], 1),
        (huge, [payload(0, 1, [1.0, 1e38])], 1),
        (np.zeros(1), [Payload(0, 1, lambda: [b"short"])], 2),
    ]:
        log: list[str] = []
        result = stream(base.astype(np.float32), payloads, "f32", 127, log)
        assert (result.model, result.changed) == ("base", False)
        assert log == ["begun"] * attempts


def test_a_payload_that_changes_between_passes_is_a_fault_of_ours() -> None:
    passes = iter([b"\0" * 4, b"\0" * 4, b"short"])
    fickle = Payload(0, 1, lambda: [next(passes)])
    with pytest.raises(LocalProtocolError, match="member 0 read well once"):
        run([0.0], fickle, Payload(1, 1, lambda: [b"short"]))


def test_a_base_of_another_length_is_refused() -> None:
    for length in (1, 3):
        with pytest.raises(LocalProtocolError, match="base model"):
            snapshots = Snapshots(lambda _, length=length: [bytes(4 * length)], list, [])
            aggregate_stream(Method.plain("f32", [2]), [0], [payload(0, 1, [1.0, 1.0])], snapshots)


@pytest.mark.parametrize(("name", "top"), [("int8", 127), ("int4", 7)])
def test_sums_of_block_codes_are_those_of_exact_arithmetic(name: str, top: int) -> None:
    rng = np.random.default_rng(11)
    sizes, exponents = [100, 1, 90], [-3, 16, 2]  # tensors that end inside blocks
    codes = rng.integers(-top, top + 1, size=(5, 3, 64))
    codes.reshape(5, -1)[:, 191:] = 0
    bits = rng.integers(0x2E00, 0x4200, size=(5, 3))  # from below half a unit to beyond 2^16
    weights = [int(weight) for weight in rng.integers(1, 65_536, size=5)]
    sums = [0] * 191
    payloads = []
    for member, weight in enumerate(weights):
        data = b""
        for block in range(3):
            row = codes[member, block]
            packed = (
                row.astype(np.int8)
                if top == 127
                else (row[0::2] & 15 | (row[1::2] & 15) << 4).astype(np.uint8)
            )
            data += int(bits[member, block]).to_bytes(2, "little") + packed.tobytes()
        payloads.append(Payload(member, weight, lambda data=data: [data]))
        for index in range(191):
            block_bits = int(bits[member, index // 64])
            scale = Fraction(128 + (block_bits & 127)) * Fraction(2) ** ((block_bits >> 7) - 134)
            exponent = np.repeat(exponents, sizes)[index]
            value = round(
                int(codes[member, index // 64, index % 64]) * scale * Fraction(2) ** (32 - int(exponent))
            )
            sums[index] += weight * max(-(2**32), min(2**32, value))
    preimage = b"folkmoot/v1/sums\n" + sum(weights).to_bytes(8, "big")
    preimage += b"".join(total.to_bytes(8, "little", signed=True) for total in sums)
    result = aggregate(Method.plain(name, sizes), exponents, payloads, np.zeros(191, dtype=np.float32))
    assert result.sums_digest == hashlib.sha256(preimage).digest()


def test_memory_does_not_grow_with_the_vector() -> None:
    codec, size = codec_named("int4"), 16 * CHUNK_VALUES
    chunk = bytes(codec.encode(np.ones(CHUNK_VALUES, dtype=np.float32)))
    payloads = [Payload(member, 1, lambda: repeat(chunk, 16)) for member in range(4)]
    tracemalloc.start()
    try:
        snapshots = Snapshots(lambda _: repeat(bytes(4 * CHUNK_VALUES), 16), sum_lengths, 0)
        aggregate_stream(Method.plain("int4", [size]), [0], payloads, snapshots)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20 < 8 * size


def sum_lengths(pieces: Iterator[Piece]) -> int:
    return sum(len(values) for _, values in pieces)


def test_with_no_weight_the_model_stays() -> None:
    base = np.array([1.0], dtype=np.float32)
    for payloads in ([], [payload(0, 0, [1.0])], [Payload(0, 5, lambda: [b""])]):
        result = aggregate(Method.plain("f32", [1]), [0], payloads, base)
        assert (result.changed, result.divisor) == (False, 0)
        assert result.model.tolist() == [1.0]


def test_a_result_that_is_not_finite_leaves_the_model() -> None:
    base = [0.0, float(np.finfo(np.float32).max)]
    result = run(base, payload(0, 1, [1.0, 1e38]), exponent=127)
    assert not result.changed
    assert result.model.tolist() == base
    assert result.divisor == 1


def test_tensors_have_their_own_scales_across_chunks() -> None:
    sizes = [CHUNK_VALUES + 3, 4, CHUNK_VALUES]
    update = np.full(sum(sizes), 1.0, dtype=np.float32)
    result = aggregate(
        Method.plain("f32", sizes), bytes([0xFF, 0, 0xFE]), [payload(0, 1, update)], np.zeros_like(update)
    )
    expected = np.repeat(np.array([0.5, 1.0, 0.25], dtype=np.float32), sizes)
    assert np.array_equal(result.model, expected)


def test_sealed_payloads_stream_straight_in() -> None:
    rng = np.random.default_rng(6)
    size = CHUNK_VALUES + 77
    update = rng.standard_normal(size).astype(np.float32)
    context, key = sealing.PayloadContext(bytes(32), 1, bytes(32), 0), bytes(32)
    total = F32.encoded_size(size)
    sealed = b"".join(sealing.seal_frames(context, key, encode_vector(F32, update), total))
    streamed = Payload(0, 4, lambda: sealing.open_frames(context, key, [sealed], total))
    broken = bytearray(sealed)
    broken[-1] ^= 1
    unreadable = Payload(1, 4, lambda: sealing.open_frames(context, key, [broken], total))
    base = np.zeros(size, dtype=np.float32)
    result = aggregate(Method.plain("f32", [size]), [4], [streamed, unreadable], base)
    assert result.ill_formed == (1,)
    assert (
        result.sums_digest
        == aggregate(Method.plain("f32", [size]), [4], [payload(0, 4, update)], base).sums_digest
    )


def test_arguments_that_cannot_be_right_are_refused() -> None:
    base = np.zeros(2, dtype=np.float32)
    fine = payload(0, 1, [1.0, 1.0])
    bad = [
        (base.astype(np.float64), [fine], [2]),
        (base, [fine], [3]),
        (base, [fine, fine], [2]),
        (base, [payload(0, -1, [1.0, 1.0])], [2]),
        (base, [payload(0, 65_536, [1.0, 1.0])], [2]),
        (base, [payload(m, 1, [1.0, 1.0]) for m in range(33)], [2]),
    ]
    for start, payloads, sizes in bad:
        with pytest.raises(LocalProtocolError):
            aggregate(Method.plain("f32", sizes), [0], payloads, start)
