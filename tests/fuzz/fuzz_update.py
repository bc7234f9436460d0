"""Updates: every codec's chunks, opened payload frames, sealed keys, packed sums and shards of masked values."""

import numpy as np
from fuzzing import Target

from folkmoot.protocol.codec import VectorDecoder, codec_named, encode_vector
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.ring import FixedPoint, Layout
from folkmoot.protocol.sealing import PayloadContext, open_frames, seal_frames, unseal_key
from folkmoot.protocol.secure import packing
from folkmoot.protocol.secure.layout import ShardLayout

CODECS = {
    b"f": "f32",
    b"h": "bf16",
    b"8": "int8",
    b"4": "int4",
    b"2": "int2",
    b"3": "top3",
    b"1": "top1",
}
SIZES = [3, 64, 130, 1]
LAYOUT = Layout([1, 2])
CONTEXT = PayloadContext(bytes(32), 1, bytes(32), 0)
KEY = bytes(range(32))
RINGS = {b"a": ShardLayout(100, 8, 4, 2), b"b": ShardLayout(100, 16, 5, 3), b"c": ShardLayout(100, 32, 1, 1)}


def read(data: bytes) -> None:
    """The first byte says what it is, the second how long or whose."""
    kind, number, rest = data[:1], data[1:2], data[2:]
    if kind in CODECS and number:
        _read_vector(CODECS[kind], SIZES[number[0] % len(SIZES)], rest)
    elif kind == b"s" and number:
        plain = b"".join(bytes(frame) for frame in open_frames(CONTEXT, KEY, [rest], number[0]))
        assert len(plain) == number[0]
    elif kind == b"k":
        unseal_key(rest, KEY)
    elif kind in RINGS and number:
        _read_sum(RINGS[kind], number[0] % 4 + 1, rest)


def _read_vector(name: str, size: int, data: bytes) -> None:
    found = np.full(size, np.nan)
    decoder = VectorDecoder(codec_named(name), [data[:7], data[7:]])
    decoder.read(found)
    decoder.finish()
    assert np.isfinite(found).all()
    if size == LAYOUT.size:
        for exponents in (b"\x82\x7f", b"\x00\x01"):
            summed, mean = np.empty(size), np.empty(size, dtype=np.float32)
            fixed = FixedPoint(LAYOUT, exponents)
            fixed.to_integers(found, 0, summed)
            fixed.mean(summed, 1, 0, mean)
            assert np.isfinite(mean).all() and np.array_equal(summed, np.rint(summed))


def _read_sum(layout: ShardLayout, members: int, data: bytes) -> None:
    count = layout.shard_values(0)
    if len(data) != layout.packed_bytes(count):
        return  # refused before anything is read: the size is in the message, and checked
    carries = np.empty(count, dtype=np.uint8)
    low = packing.unpack_low(layout, memoryview(data), count)
    packing.unpack_carries(layout, memoryview(data), carries)
    packing.check_range(layout, low, carries, members)
    assert (
        low.astype(object) + carries.astype(object) * 2**layout.bits <= members * (2**layout.bits - 1)
    ).all()


def seeds() -> list[bytes]:
    """Good vectors of each codec and length, a sealed text, zero sums."""
    made = [b"s\x03" + b"".join(map(bytes, seal_frames(CONTEXT, KEY, [b"abc"], 3))), b"k\x00" + bytes(80)]
    for kind, name in CODECS.items():
        for at, size in enumerate(SIZES):
            vector = np.linspace(-2, 3, size, dtype=np.float32)
            made.append(kind + bytes([at]) + b"".join(map(bytes, encode_vector(codec_named(name), vector))))
    for kind, layout in RINGS.items():
        made.append(kind + b"\x03" + bytes(layout.packed_bytes(layout.shard_values(0))))
    return made


TARGET = Target("update", read, (RemoteProtocolError,), seeds)
