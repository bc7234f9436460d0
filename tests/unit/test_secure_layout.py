"""The ring vector's shape: sizes, shard edges, headroom."""

from itertools import pairwise

import numpy as np
import pytest

from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.ring import CHUNK_VALUES
from folkmoot.protocol.secure.layout import BLOCK, ShardLayout


def test_sizes_of_a_small_vector() -> None:
    layout = ShardLayout(parameters=130, bits=16, members=5, shards=3)
    assert layout.size == 64 + 192
    assert (layout.carry_bits, layout.value_bits, layout.largest) == (3, 12, 4095)
    assert layout.dtype == np.dtype("<u2")
    assert [layout.span(shard) for shard in range(3)] == [(0, 64), (64, 128), (128, 256)]
    assert [layout.shard_bytes(shard) for shard in range(3)] == [128, 128, 256]
    assert [layout.sum_bytes(shard) for shard in range(3)] == [152, 152, 304]


@pytest.mark.parametrize(
    ("members", "carry_bits"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4), (16, 4)]
)
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_headroom_holds_the_sum_of_all_members(members: int, carry_bits: int, bits: int) -> None:
    layout = ShardLayout(1, bits, members, 1)
    assert layout.carry_bits == carry_bits
    assert members * layout.largest < 2 ** (bits - 1), "a sum of values keeps its sign"
    assert members * (2**bits - 1) < 2 ** (bits + carry_bits), "an unreduced sum of masked values fits"
    assert layout.largest >= 7, "an honest value keeps a few bits on every ring"


def test_shards_tile_the_vector_at_multiples_of_a_block() -> None:
    for shards in (1, 2, 3, 7, 16, 40):
        layout = ShardLayout(1000, 32, 16, shards)
        edges = [layout.edge(shard) for shard in range(shards + 1)]
        assert edges[0] == 0 and edges[-1] == layout.size
        assert all(edge % BLOCK == 0 for edge in edges) and edges == sorted(edges)
        assert sum(layout.shard_bytes(shard) for shard in range(shards)) == 4 * layout.size


def test_more_shards_than_blocks_leave_some_empty() -> None:
    layout = ShardLayout(1, 8, 4, 5)
    sizes = [layout.shard_values(shard) for shard in range(5)]
    assert sorted(sizes) == [0, 0, 0, 64, 64]
    empty = sizes.index(0)
    assert layout.shard_bytes(empty) == layout.sum_bytes(empty) == 0
    assert list(layout.chunks(empty)) == []


def test_chunks_are_counted_from_the_shards_start() -> None:
    layout = ShardLayout(3 * CHUNK_VALUES, 16, 3, 2)
    start, stop = layout.span(1)
    chunks = list(layout.chunks(1))
    assert chunks[0] == (start, start + CHUNK_VALUES)
    assert chunks[-1][1] == stop and chunks[-1][0] < stop
    assert all(first[1] == second[0] for first, second in pairwise(chunks))


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, 64, (0, 0)),
        (0, 128, (0, 64)),
        (64, 128, (0, 64)),
        (128, 192, (64, 70)),
        (0, 192, (0, 70)),
        (192, 192, (70, 70)),
    ],
)
def test_parameters_among_ring_positions(start: int, stop: int, expected: tuple[int, int]) -> None:
    assert ShardLayout(70, 16, 3, 1).parameters_in(start, stop) == expected


@pytest.mark.parametrize(
    ("parameters", "bits", "members", "shards"),
    [
        (10, 12, 3, 1),
        (10, 64, 3, 1),
        (10, 16, 0, 1),
        (10, 8, 17, 1),
        (10, 16, 257, 1),
        (10, 16, 3, 0),
        (0, 16, 3, 1),
    ],
)
def test_impossible_layouts_are_refused(parameters: int, bits: int, members: int, shards: int) -> None:
    with pytest.raises(LocalProtocolError):
        ShardLayout(parameters, bits, members, shards)


@pytest.mark.parametrize("shard", [-1, 3])
def test_shards_that_are_not_there_are_refused(shard: int) -> None:
    with pytest.raises(LocalProtocolError, match="shard"):
        ShardLayout(10, 16, 3, 3).span(shard)
