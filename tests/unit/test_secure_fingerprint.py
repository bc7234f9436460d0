"""The linear check: equal to its definition, blind to nothing that an owner can do."""

from functools import partial

import numpy as np
import pytest

from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.pieces import Open
from folkmoot.protocol.ring import CHUNK_VALUES
from folkmoot.protocol.secure import packing
from folkmoot.protocol.secure.fingerprint import (
    PIECE,
    PRIME,
    Challenge,
    Fingerprint,
    challenge_seed,
    verify,
)
from folkmoot.protocol.secure.keystream import Keystream
from folkmoot.protocol.secure.layout import RingValues, ShardLayout
from folkmoot.protocol.secure.stream import sum_crowds, sum_shard

SEED = challenge_seed(b"V" * 32, [b"a" * 32, b"b" * 32])
BITS = [8, 16, 32]


def of(values: RingValues) -> Open:
    return partial(list, [values.tobytes()])


def draw_shards(layout: ShardLayout, shard: int, members: int = 3) -> list[RingValues]:
    random = np.random.default_rng(8)
    size = layout.shard_values(shard)
    return [random.integers(0, 2**layout.bits, size, dtype=layout.dtype) for _ in range(members)]


def packed(layout: ShardLayout, shard: int, shards: list[RingValues]) -> Open:
    return partial(list, [b"".join(bytes(c) for c in sum_shard(layout, shard, [of(y) for y in shards]))])


def challenge_vectors(layout: ShardLayout, shard: int, seed: bytes) -> tuple[list[int], list[int]]:
    """r1 and r2 of one shard, by the definition."""
    first, second = [], []
    start, stop = layout.span(shard)
    for at in range(start, stop, PIECE):
        count = min(PIECE, stop - at)
        octets = bytearray(8 * count)
        Keystream(seed).write(8 * at, memoryview(octets))
        rows = [
            [
                int.from_bytes(octets[place : place + 2], "little")
                for place in range(begin, begin + 2 * count, 2)
            ]
            for begin in range(0, 8 * count, 2 * count)
        ]
        first += [low + (high << 16) for low, high in zip(rows[0], rows[1], strict=True)]
        second += [low + (high << 16) for low, high in zip(rows[2], rows[3], strict=True)]
    return first, second


def exact(layout: ShardLayout, shard: int, seed: bytes, values: list[int]) -> Fingerprint:
    first, second = challenge_vectors(layout, shard, seed)
    return (
        sum(r * y for r, y in zip(first, values, strict=True)) % PRIME,
        sum(r * y for r, y in zip(second, values, strict=True)) % PRIME,
    )


# --- definition ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shard", [0, 1])
def test_fingerprints_are_inner_products(bits: int, shard: int) -> None:
    layout = ShardLayout(2 * PIECE + 3000, bits, 16, 2)  # each shard has a whole piece and part of one
    shards = draw_shards(layout, shard, members=5)
    challenge = Challenge(layout, SEED)
    for values in shards[:2]:
        assert challenge.of_shard(shard, of(values)) == exact(layout, shard, SEED, values.tolist())
    total = [sum(column) for column in zip(*(values.tolist() for values in shards), strict=True)]
    assert challenge.of_sum(shard, packed(layout, shard, shards)) == exact(layout, shard, SEED, total)


@pytest.mark.parametrize("bits", BITS)
def test_the_largest_values_are_exact(bits: int) -> None:
    layout = ShardLayout(PIECE, bits, 16, 1)
    shards = [np.full(layout.size, 2**bits - 1, layout.dtype)] * 16
    challenge = Challenge(layout, SEED)
    values, total = challenge.of_shards_and_sum(0, [of(y) for y in shards], packed(layout, 0, shards))
    assert values[0] == exact(layout, 0, SEED, [2**bits - 1] * layout.size)
    assert total == exact(layout, 0, SEED, [16 * (2**bits - 1)] * layout.size)
    assert verify(values, total)


def test_crowds_sums_lie_beside_each_other_chunk_by_chunk() -> None:
    layout = ShardLayout(CHUNK_VALUES + PIECE + 100, 16, 3, 1)
    shards = draw_shards(layout, 0, members=5)
    crowds, challenge = (shards[:2], shards[2:]), Challenge(layout, SEED)
    together = sum_crowds(layout, 0, [[of(y) for y in crowd] for crowd in crowds])
    data = b"".join(bytes(chunk) for chunk in together)
    for size in (len(data), 999):  # in one piece, and in many
        total = partial(list, [data[at : at + size] for at in range(0, len(data), size)])
        values, of_sums = challenge.of_shards_and_sums(0, [of(y) for y in shards], total, 2)
        assert of_sums == tuple(challenge.of_sum(0, packed(layout, 0, crowd)) for crowd in crowds)
        assert verify(values[:2], of_sums[0]) and verify(values[2:], of_sums[1])
    with pytest.raises(LocalProtocolError, match="goes on"):
        challenge.of_shards_and_sums(0, [], total, 1)


def test_one_pass_over_all_gives_the_same() -> None:
    layout = ShardLayout(CHUNK_VALUES + PIECE + 100, 16, 3, 1)
    shards = draw_shards(layout, 0)
    challenge, total = Challenge(layout, SEED), packed(layout, 0, shards)
    values, of_sum = challenge.of_shards_and_sum(0, [of(y) for y in shards], total)
    assert values == [challenge.of_shard(0, of(y)) for y in shards]
    assert of_sum == challenge.of_sum(0, total)
    assert challenge.of_shards_and_sum(0, [], total) == ([], of_sum)
    assert verify(values, of_sum)


def test_empty_shard_has_a_fingerprint_of_zero() -> None:
    layout = ShardLayout(1, 16, 4, 5)
    empty = next(shard for shard in range(5) if not layout.shard_values(shard))
    assert Challenge(layout, SEED).of_shard(empty, list) == (0, 0)
    assert Challenge(layout, SEED).of_sum(empty, list) == (0, 0)


# --- soundness ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", BITS)
def test_one_more_in_one_coordinate_is_seen(bits: int) -> None:
    layout = ShardLayout(10_000, bits, 3, 2)
    shards, challenge = draw_shards(layout, 1), Challenge(layout, SEED)
    values = [challenge.of_shard(1, of(y)) for y in shards]
    good = b"".join(packed(layout, 1, shards)())
    assert verify(values, challenge.of_sum(1, partial(list, [good])))
    for at in (0, 777 * layout.value_bytes, len(good) - 1):  # a low bit, another, and a carry
        spoilt = bytearray(good)
        spoilt[at] ^= 1
        total = challenge.of_sum(1, partial(list, [spoilt]))
        assert not verify(values, total)
        # Each of the two challenges alone sees it.
        assert all(sum(v[i] for v in values) % PRIME != total[i] for i in (0, 1))


def test_a_change_made_for_another_challenge_is_seen() -> None:
    """Who knows a challenge can change two values in its blind spot; a changed sum has another root, so another one."""
    layout = ShardLayout(1000, 32, 3, 1)
    shards, challenge = draw_shards(layout, 0), Challenge(layout, SEED)
    for shard in shards:
        shard[:2] = 0, 2**32 - 1  # leaves room for the change
    total = [sum(column) for column in zip(*(y.tolist() for y in shards), strict=True)]
    known, _ = challenge_vectors(layout, 0, SEED)
    change = [known[1], -known[0]]  # orthogonal to the first vector
    spoilt = pack_sum(layout, [total[0] + change[0], total[1] + change[1], *total[2:]])
    values, _ = challenge.of_shards_and_sum(0, [of(y) for y in shards], spoilt)
    cheated, seen = challenge.of_sum(0, spoilt)
    assert cheated == sum(first for first, _ in values) % PRIME, "the first vector is blind to it"
    assert seen != sum(second for _, second in values) % PRIME, "the second is not"

    fresh = Challenge(layout, challenge_seed(b"V" * 32, [b"a" * 32, b"c" * 32]))
    values, found = fresh.of_shards_and_sum(0, [of(y) for y in shards], spoilt)
    assert all(sum(value[i] for value in values) % PRIME != found[i] for i in (0, 1))


def pack_sum(layout: ShardLayout, total: list[int]) -> Open:
    """A sum of one chunk, packed."""
    low = np.array([value % 2**layout.bits for value in total], layout.dtype)
    carries = np.array([value >> layout.bits for value in total], np.uint8)
    out = np.empty(layout.packed_bytes(len(total)), np.uint8)
    packing.pack(layout, low, carries, out)
    return partial(list, [out.tobytes()])


def test_lying_members_and_swapped_shards_are_seen() -> None:
    layout = ShardLayout(5000, 16, 3, 1)
    shards, challenge = draw_shards(layout, 0), Challenge(layout, SEED)
    values, total = challenge.of_shards_and_sum(0, [of(y) for y in shards], packed(layout, 0, shards))
    assert verify(values, total)
    assert not verify(values[:2], total)
    assert not verify([*values[:2], (values[2][0] + 1, values[2][1])], total)
    assert not verify([*values[:2], (values[2][0], values[2][1] + 1)], total)
    assert not verify(values, (total[1], total[0]))


def test_seed_depends_on_survivors_and_on_every_root_in_order() -> None:
    seeds = {
        challenge_seed(b"V" * 32, [b"a" * 32, b"b" * 32]),
        challenge_seed(b"W" * 32, [b"a" * 32, b"b" * 32]),
        challenge_seed(b"V" * 32, [b"b" * 32, b"a" * 32]),
        challenge_seed(b"V" * 32, [b"a" * 32]),
        challenge_seed(b"V" * 32, [b"a" * 32, b"c" * 32]),
    }
    assert len(seeds) == 5 and {len(seed) for seed in seeds} == {16}


def test_wrong_lengths_are_refused() -> None:
    layout = ShardLayout(1000, 16, 3, 2)
    shards, challenge = draw_shards(layout, 0), Challenge(layout, SEED)
    (total,) = packed(layout, 0, shards)()
    with pytest.raises(LocalProtocolError, match="ends"):
        challenge.of_shard(0, of(shards[0][:-1]))
    with pytest.raises(LocalProtocolError, match="goes on"):
        challenge.of_shard(0, of(np.append(shards[0], shards[0][:1])))
    with pytest.raises(LocalProtocolError, match="ends"):
        challenge.of_sum(0, partial(list, [total[:-1]]))
    with pytest.raises(LocalProtocolError, match="goes on"):
        challenge.of_sum(0, partial(list, [total, b"\0"]))
    with pytest.raises(LocalProtocolError, match="seed"):
        Challenge(layout, b"short")
