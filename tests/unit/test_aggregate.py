"""The round's result: exact sums, and what happens with payloads that cannot be read."""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from folkmoot.protocol import sealing
from folkmoot.protocol.aggregate import Aggregate, Payload, aggregate
from folkmoot.protocol.codec import codec_named, encode_vector
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.ring import CHUNK_VALUES

F32 = codec_named("f32")


def payload(member: int, weight: int, values: np.ndarray | list[float]) -> Payload:
    data = np.asarray(values, dtype=np.float32).tobytes()
    return Payload(member, weight, lambda: [data])


def run(base: list[float], *payloads: Payload, exponent: int = 2) -> Aggregate:
    return aggregate(np.array(base, dtype=np.float32), payloads, F32, [len(base)], [exponent])


def test_the_weighted_mean_is_added_to_the_base() -> None:
    result = run([1.0, 2.0, 3.0], payload(0, 1, [1.0, 0.0, -4.0]), payload(1, 3, [2.0, 4.0, 0.0]))
    assert result.model.tolist() == [2.75, 5.0, 2.0]
    assert (result.changed, result.total_weight, result.ill_formed) == (True, 4, ())


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
    assert (result.sums_digest, result.total_weight) == (without.sums_digest, 8)
    assert result.model.tobytes() == without.model.tobytes()


def test_a_payload_that_breaks_off_late_is_taken_back_exactly() -> None:
    size = 2 * CHUNK_VALUES + 5
    rng = np.random.default_rng(5)
    good = payload(0, 3, rng.standard_normal(size))
    passes = 0

    def breaks() -> Iterator[bytes]:
        nonlocal passes
        passes += 1
        yield from encode_vector(F32, rng.standard_normal(2 * CHUNK_VALUES).astype(np.float32))
        raise RemoteProtocolError("frame 33 fails authentication")

    rng_state = rng.bit_generator.state

    def same_every_time() -> Iterable[bytes]:
        rng.bit_generator.state = rng_state
        return breaks()

    base = np.zeros(size, dtype=np.float32)
    result = aggregate(base, [Payload(1, 7, same_every_time), good], F32, [size], [3])
    assert passes == 2
    assert result.ill_formed == (1,)
    assert result.sums_digest == aggregate(base, [good], F32, [size], [3]).sums_digest


def test_with_no_weight_the_model_stays() -> None:
    base = np.array([1.0], dtype=np.float32)
    for payloads in ([], [payload(0, 0, [1.0])], [Payload(0, 5, lambda: [b""])]):
        result = aggregate(base, payloads, F32, [1], [0])
        assert (result.changed, result.total_weight) == (False, 0)
        assert result.model.tolist() == [1.0]


def test_a_result_that_is_not_finite_leaves_the_model() -> None:
    base = [0.0, float(np.finfo(np.float32).max)]
    result = run(base, payload(0, 1, [1.0, 1e38]), exponent=127)
    assert not result.changed
    assert result.model.tolist() == base
    assert result.total_weight == 1


def test_tensors_have_their_own_scales_across_chunks() -> None:
    sizes = [CHUNK_VALUES + 3, 4, CHUNK_VALUES]
    update = np.full(sum(sizes), 1.0, dtype=np.float32)
    result = aggregate(np.zeros_like(update), [payload(0, 1, update)], F32, sizes, bytes([0xFF, 0, 0xFE]))
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
    result = aggregate(base, [streamed, unreadable], F32, [size], [4])
    assert result.ill_formed == (1,)
    assert result.sums_digest == aggregate(base, [payload(0, 4, update)], F32, [size], [4]).sums_digest


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
            aggregate(start, payloads, F32, sizes, [0])
