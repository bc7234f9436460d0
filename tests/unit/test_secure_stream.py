"""Shards, sums and openings as streams: every way to cut them, every way in which they can be wrong, flat memory."""

import tracemalloc
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

from folkmoot.protocol.aggregate import Method, aggregate
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.outer import Outer, Piece, Snapshots, collect, in_memory
from folkmoot.protocol.payload_sums import Payload
from folkmoot.protocol.pieces import Open
from folkmoot.protocol.reader import Reader
from folkmoot.protocol.ring import CHUNK_VALUES, Float32s
from folkmoot.protocol.robust import Robust
from folkmoot.protocol.secure import packing
from folkmoot.protocol.secure.encoding import RingDecoder, RingEncoder
from folkmoot.protocol.secure.fingerprint import Challenge
from folkmoot.protocol.secure.layout import ShardLayout
from folkmoot.protocol.secure.masks import Crowd, Mask
from folkmoot.protocol.secure.stream import Opened, Opening, masked_shards, open_sum, sum_crowds, sum_shard

MASKS = [Mask(b"a" * 16, 1), Mask(b"b" * 16, -1)]
UNCHANGED = np.zeros(0, np.float32)


def of(data: bytes) -> Open:
    return partial(list, [data])


def in_pieces(data: bytes, size: int) -> Open:
    """The same bytes in small pieces, one of them empty."""
    return lambda: [b"", *(data[at : at + size] for at in range(0, len(data), size))]


def encoder(layout: ShardLayout, weight: int = 255) -> RingEncoder:
    return RingEncoder(layout, [layout.parameters], [0], weight)


def draw_update(parameters: int, seed: int = 0) -> Float32s:
    return np.random.default_rng(seed).uniform(-1, 1, parameters).astype("<f4")


def shards_of(
    layout: ShardLayout, update: Float32s, masks: list[Mask] = MASKS, weight: int = 255
) -> list[bytes]:
    shards = [b""] * layout.shards
    for shard, chunk in masked_shards(layout, encoder(layout, weight), [update], masks):
        shards[shard] += chunk
    return shards


def sums_of(layout: ShardLayout, members: list[list[bytes]]) -> list[bytes]:
    return [
        b"".join(map(bytes, sum_shard(layout, shard, [of(shards[shard]) for shards in members])))
        for shard in range(layout.shards)
    ]


def opened(
    layout: ShardLayout, sums: list[bytes], masks: list[Mask], base: Float32s, members: int, exponent: int = 0
) -> Opened[Float32s]:
    decoder = RingDecoder(layout, [layout.parameters], [exponent])

    outer = Outer(layout.parameters)
    snapshots = Snapshots(lambda start: [base.tobytes()[start:]], partial(collect, outer), UNCHANGED)
    return open_sum(
        Opening(layout, decoder, [of(data) for data in sums], [Crowd(members, tuple(masks))]),
        outer,
        snapshots,
    )


# --- a member's shards --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("pieces", [1, 3, 130])
def test_pieces_of_the_update_do_not_matter(bits: int, pieces: int) -> None:
    layout = ShardLayout(1001, bits, 4, 3)
    update = draw_update(1001)
    cut = np.array_split(update, pieces)
    found = [b""] * 3
    for shard, chunk in masked_shards(layout, encoder(layout), [cut[0], update[:0], *cut[1:]], MASKS):
        found[shard] += chunk
    assert found == shards_of(layout, update)


def test_a_vector_without_masks_is_weight_then_values_then_zeros() -> None:
    layout = ShardLayout(70, 16, 4, 1)
    (data,) = shards_of(layout, np.full(70, 0.5, np.float32), masks=[], weight=51)
    values = np.frombuffer(data, layout.dtype)
    expected = round(0.5 * 51 / 255 * 2**layout.value_bits)
    assert values.tolist() == [51] + [0] * 63 + [expected] * 70 + [0] * 58


def test_shards_larger_than_a_chunk() -> None:
    layout = ShardLayout(CHUNK_VALUES + 1000, 16, 4, 1)
    update = draw_update(layout.parameters)
    chunks = [bytes(chunk) for _, chunk in masked_shards(layout, encoder(layout), [update], MASKS)]
    assert [len(chunk) for chunk in chunks] == [2 * CHUNK_VALUES, layout.shard_bytes(0) - 2 * CHUNK_VALUES]
    (whole,) = shards_of(layout, update, masks=[])
    masked = np.frombuffer(b"".join(chunks), layout.dtype)
    assert not np.array_equal(masked, np.frombuffer(whole, layout.dtype))


@pytest.mark.parametrize("length", [999, 1002])
def test_updates_of_another_length_are_refused(length: int) -> None:
    layout = ShardLayout(1001, 16, 4, 3)
    with pytest.raises(LocalProtocolError, match="update"):
        shards_of(layout, draw_update(length))


def test_residuals_advance_piece_by_piece() -> None:
    layout = ShardLayout(1001, 8, 4, 3)
    update = draw_update(1001)
    residual, expected = np.full(1001, 0.01, np.float32), np.full(1001, 0.01, np.float32)
    ring = np.empty(1001, layout.dtype)
    encoder(layout).encode(update, 0, ring, expected)
    done: list[Float32s] = []

    def residual_pieces() -> Iterator[Float32s]:
        for at in range(0, 1001, 100):
            yield residual[at : at + 100]
            done.append(residual[at : at + 100].copy())

    pieces = [update[at : at + 100] for at in range(0, 1001, 100)]
    chunks = b"".join(
        bytes(c) for _, c in masked_shards(layout, encoder(layout), pieces, [], residual_pieces())
    )
    assert np.array_equal(np.frombuffer(chunks, layout.dtype)[64 : 64 + 1001], ring)
    assert np.array_equal(np.concatenate(done), expected), "each piece was done when the next was asked for"


@pytest.mark.parametrize("lengths", [[1000], [1001, 5], [1001, 0], []])
def test_residuals_in_other_pieces_are_refused(lengths: list[int]) -> None:
    layout = ShardLayout(1001, 8, 4, 3)
    residuals = [np.zeros(length, np.float32) for length in lengths]
    with pytest.raises(LocalProtocolError, match="residuals"):
        list(masked_shards(layout, encoder(layout), [draw_update(1001)], [], residuals))


# --- sums ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("members", [1, 2, 3, 8, 16])
def test_packed_sum_is_the_unreduced_sum(bits: int, members: int) -> None:
    layout = ShardLayout(300, bits, members, 2)
    start, stop = layout.span(1)
    random = np.random.default_rng(5)
    vectors = [random.integers(0, 2**bits, stop - start, dtype=layout.dtype) for _ in range(members)]
    vectors[0][0] = vectors[-1][0] = 2**bits - 1
    total = [sum(column) for column in zip(*(vector.tolist() for vector in vectors), strict=True)]
    sources = [in_pieces(vector.tobytes(), 37) for vector in vectors]
    data = b"".join(map(bytes, sum_shard(layout, 1, sources)))
    assert len(data) == layout.sum_bytes(1)
    # By the definition: low bits, then one bit plane for each carry bit.
    expected = b"".join((value % 2**bits).to_bytes(bits // 8, "little") for value in total)
    for bit in range(bits, bits + layout.carry_bits):
        plane = [value >> bit & 1 for value in total]
        expected += bytes(
            sum(plane[at + place] << place for place in range(8)) for at in range(0, len(plane), 8)
        )
    assert data == expected
    carries = np.empty(stop - start, np.uint8)
    packing.unpack_carries(layout, memoryview(data), carries)
    low = packing.unpack_low(layout, memoryview(data), stop - start)
    assert (low.astype(object) + 2**bits * carries.astype(object)).tolist() == total
    packing.check_range(layout, low, carries, members)


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("members", [1, 2, 3, 5])
def test_the_largest_possible_sum_and_one_more(bits: int, members: int) -> None:
    layout = ShardLayout(300, bits, 8, 2)
    largest = members * (2**bits - 1)
    for value, fits in [(largest, True), (largest + 1, False), (8 * 2**bits - 1, False)]:
        low, carries = np.zeros(8, layout.dtype), np.zeros(8, np.uint8)
        low[3], carries[3] = value % 2**bits, value >> bits
        if fits:
            packing.check_range(layout, low, carries, members)
        else:
            with pytest.raises(RemoteProtocolError, match="larger"):
                packing.check_range(layout, low, carries, members)


def test_sources_of_another_length_are_refused() -> None:
    layout = ShardLayout(300, 16, 4, 2)
    good = bytes(layout.shard_bytes(0))
    with pytest.raises(LocalProtocolError, match=r"source 1.*ends 1 bytes before"):
        list(sum_shard(layout, 0, [of(good), of(good[:-1])]))
    with pytest.raises(LocalProtocolError, match=r"source 0.*goes on"):
        list(sum_shard(layout, 0, [of(good + b"\0"), of(good)]))
    for count in (0, 5):
        with pytest.raises(LocalProtocolError, match="members"):
            list(sum_shard(layout, 0, [of(good)] * count))


def test_an_empty_shard_has_an_empty_sum() -> None:
    layout = ShardLayout(1, 16, 4, 5)
    empty = next(shard for shard in range(5) if not layout.shard_values(shard))
    assert list(sum_shard(layout, empty, [of(b"")] * 4)) == []
    sums = sums_of(layout, [shards_of(layout, draw_update(1))])
    assert opened(layout, sums, MASKS, np.zeros(1, np.float32), 1).changed


def test_reader_joins_and_splits() -> None:
    data = bytes(range(200))
    for size in (1, 7, 200):
        reader = Reader(in_pieces(data, size)(), "bytes")
        assert bytes(reader.take(0)) == b""
        assert b"".join(bytes(reader.take(count)) for count in (3, 0, 100, 90, 7)) == data
        reader.finish()


# --- opening ------------------------------------------------------------------------------------------------


def test_opening_averages_by_weight() -> None:
    layout = ShardLayout(100, 32, 3, 2)
    one, two = np.full(100, 0.5, np.float32), np.full(100, -0.25, np.float32)
    members = [shards_of(layout, one, [MASKS[0]], 255), shards_of(layout, two, [MASKS[1]], 51)]
    base = draw_update(100)
    result = opened(layout, sums_of(layout, members), MASKS, base, 2)
    assert result.changed and result.total_weight == 306
    assert np.allclose(result.model, base + (0.5 * 255 - 0.25 * 51) / 306, atol=1e-6)


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("weight", [0, 256, 1000])
def test_impossible_total_weights_change_nothing(bits: int, weight: int) -> None:
    layout = ShardLayout(100, bits, 3, 2)
    first = np.zeros(layout.shard_values(0), layout.dtype)
    first[0], first[1] = (weight, 0) if bits > 8 else (weight % 16, weight // 16)
    sums = sums_of(layout, [[first.tobytes(), bytes(layout.shard_bytes(1))]])
    result = opened(layout, sums, [], np.ones(100, np.float32), 1)
    assert not result.changed and result.model is UNCHANGED
    assert result.total_weight == weight


# --- crowds ---------------------------------------------------------------------------------------------------------


def opened_robustly(
    layout: ShardLayout, crowds: list[list[list[bytes]]], robust: Robust, base: Float32s, masks: list[Mask]
) -> Opened[Float32s]:
    """Each crowd's members' shards, to which everybody added the masks."""
    sums = []
    for shard in range(layout.shards):
        sources = [[of(shards[shard]) for shards in crowd] for crowd in crowds]
        sums.append(b"".join(map(bytes, sum_crowds(layout, shard, sources))))
    outer, decoder = Outer(layout.parameters), RingDecoder(layout, [layout.parameters], [0])
    masked = [Crowd(len(crowd), tuple(masks * len(crowd))) for crowd in crowds]
    opening = Opening(layout, decoder, [of(data) for data in sums], masked)
    return open_sum(opening, outer, in_memory(outer, base), robust)


@pytest.mark.parametrize("rule", ["nnm", "trimmed-mean", "geometric-median"])
def test_a_robust_rule_takes_crowds_means_as_open_mode_takes_updates(rule: str) -> None:
    size = CHUNK_VALUES + 500
    layout, robust = ShardLayout(size, 16, 3, 3), Robust(rule, 1)  # type: ignore[arg-type]
    crowds = [
        [shards_of(layout, draw_update(size, 10 * crowd + member)) for member in range(3)]
        for crowd in range(4)
    ]
    base, zeros = draw_update(size, 99), np.zeros(size, np.float32)
    found = opened_robustly(layout, crowds, robust, base, MASKS)
    means = [opened(layout, sums_of(layout, crowd), MASKS * 3, zeros, 3).model for crowd in crowds]
    payloads = [Payload(place, 1, of(mean.tobytes())) for place, mean in enumerate(means)]
    expected = aggregate(Method("f32", (size,), Outer(size), robust), [0], payloads, base)
    assert np.array_equal(found.model, expected.model)
    assert (found.changed, found.total_weight) == (True, 4 * 3 * 255)


def test_a_crowd_with_an_impossible_weight_is_not_heard() -> None:
    layout, base, robust = ShardLayout(300, 16, 3, 2), draw_update(300, 9), Robust("trimmed-mean", 1)
    members = [shards_of(layout, draw_update(300, seed), []) for seed in range(9)]
    good = [members[:3], members[3:6], members[6:]]
    bad = [[[bytes(128) + shards[0][128:], *shards[1:]] for shards in members[:3]]]  # no weight at all
    found = opened_robustly(layout, [*good, *bad], robust, base, [])
    assert np.array_equal(found.model, opened_robustly(layout, good, robust, base, []).model)
    alone = opened_robustly(layout, bad, robust, base, [])
    assert not alone.changed and alone.model is base


def test_several_crowds_need_a_rule() -> None:
    layout, base = ShardLayout(100, 16, 3, 2), draw_update(100)
    opening = Opening(layout, RingDecoder(layout, [100], [0]), [of(b"")] * 2, [Crowd(1, ()), Crowd(1, ())])
    with pytest.raises(LocalProtocolError, match="no rule"):
        open_sum(opening, Outer(100), in_memory(Outer(100), base))


def test_results_that_are_not_finite_change_nothing() -> None:
    layout = ShardLayout(CHUNK_VALUES + 100, 16, 3, 2)
    update = np.ones(layout.parameters, np.float32)
    sums = sums_of(layout, [shards_of(layout, update, [])])
    base = np.ones(layout.parameters, np.float32)
    assert opened(layout, sums, [], base, 1, exponent=100).changed
    base[-1] = np.finfo(np.float32).max
    result = opened(layout, sums, [], base, 1, exponent=127)
    assert not result.changed and result.model is UNCHANGED


def test_sums_that_cannot_be_are_the_owners_fault() -> None:
    layout = ShardLayout(100, 16, 4, 2)
    sums = sums_of(layout, [shards_of(layout, draw_update(100))] * 2)
    spoilt = bytearray(sums[1])
    spoilt[-1] |= 0x80  # the highest carry bit of the last value: at least 2 * 2^16
    with pytest.raises(RemoteProtocolError, match="2 masked values"):
        opened(layout, [sums[0], bytes(spoilt)], MASKS * 2, draw_update(100), 2)
    # Also if the weight has already made the round change nothing.
    with pytest.raises(RemoteProtocolError):
        opened(layout, [sums[0], bytes(spoilt)], [], draw_update(100), 2)


def test_wrong_lengths_and_numbers_are_refused() -> None:
    layout, base = ShardLayout(100, 16, 4, 2), draw_update(100)
    sums = sums_of(layout, [shards_of(layout, base)])
    with pytest.raises(LocalProtocolError, match="shards"):
        opened(layout, sums[:1], MASKS, base, 1)
    with pytest.raises(LocalProtocolError, match="sum of shard 1 ends"):
        opened(layout, [sums[0], sums[1][:-1]], MASKS, base, 1)
    with pytest.raises(LocalProtocolError, match="sum of shard 0 goes on"):
        opened(layout, [sums[0] + b"\0", sums[1]], MASKS, base, 1)
    with pytest.raises(LocalProtocolError, match="base model ends"):
        opened(layout, sums, MASKS, base[:-1], 1)
    with pytest.raises(LocalProtocolError, match="base model goes on"):
        opened(layout, sums, MASKS, np.append(base, base), 1)
    for members in (0, 5):
        with pytest.raises(LocalProtocolError, match="members"):
            opened(layout, sums, MASKS, base, members)


# --- memory -------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_vector() -> None:
    small, large = peak_of_all_stages(1_000_000), peak_of_all_stages(4_000_000)
    # Three times as much would be 36 MB of float32, or 18 MB of ring values.
    assert large < small + (1 << 20), f"{small / 2**20:.1f} MiB, then {large / 2**20:.1f} MiB"


def peak_of_all_stages(parameters: int) -> int:
    """Largest memory in bytes while three members mask, sum, open and check at once, each by the chunk."""
    members = 3
    layout = ShardLayout(parameters, 16, members, members)
    piece, base = np.full(100_000, 0.5, np.float32), np.ones(250_000, "<f4").data

    def shard_of(member: int, wanted: int) -> Iterator[memoryview]:
        mask = Mask(bytes([member]) * 16, 1)
        update = (piece for _ in range(0, parameters, len(piece)))
        for shard, chunk in masked_shards(layout, encoder(layout), update, [mask]):
            if shard == wanted:
                yield chunk

    def sum_of(shard: int) -> Iterator[memoryview]:
        return sum_shard(layout, shard, [partial(shard_of, member, shard) for member in range(members)])

    def count_right(pieces: Iterator[Piece]) -> int:
        return sum(len(values) for _, values in pieces if (values == np.float32(1.5)).all())

    sums = [partial(sum_of, shard) for shard in range(members)]
    masks = [Mask(bytes([member]) * 16, 1) for member in range(members)]
    bases = [base] * (parameters // len(base))
    tracemalloc.start()
    try:
        decoder = RingDecoder(layout, [parameters], [0])
        opening = Opening(layout, decoder, sums, [Crowd(members, tuple(masks))])
        snapshots = Snapshots(lambda _: bases, count_right, 0)
        result = open_sum(opening, Outer(parameters), snapshots)
        Challenge(layout, b"c" * 16).of_shards_and_sum(0, [partial(shard_of, 0, 0)], sums[0])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.changed and result.model == parameters
    return peak
