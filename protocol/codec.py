"""How a vector is written for the wire: codecs by name, each strict.

A codec works on chunks of `ring.CHUNK_VALUES` values (the last may be shorter), so neither side holds more
than one beside the vector. To add one: a class with the four members of `Codec`, and a line in `_CODECS`.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np

from folkmoot.protocol.block_codec import BlockCodec, widen
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.pieces import Buffer, recut
from folkmoot.protocol.ring import CHUNK_VALUES, Float32s, Float64s
from folkmoot.protocol.top_codec import TopCodec


class Codec(Protocol):
    """One way to write float32 values.

    Chunks are written one after the other, without padding between them. A codec may hold scratch memory for one
    chunk, so an object serves one thread at a time.
    """

    name: str

    def encoded_size(self, parameters: int) -> int:
        """Bytes of an encoded vector of `parameters` values; known before anything is sent."""
        ...

    def encode(self, chunk: Float32s) -> Buffer:
        """Write one chunk; the result may be a view of it. Raises LocalProtocolError on a value that is not finite."""
        ...

    def decode(self, data: Buffer, out: Float64s) -> None:
        """Read one chunk of `len(out)` values into `out`, exactly.

        Raises RemoteProtocolError on a wrong length and on anything else that no encoder writes.
        """
        ...


class Float32Codec:
    """Plain little-endian float32: exact, 4 bytes per value. Refuses NaN and infinities."""

    name = "f32"

    def encoded_size(self, parameters: int) -> int:
        """Four bytes a value."""
        return 4 * parameters

    def encode(self, chunk: Float32s) -> Buffer:
        """The values' own bytes."""
        if not np.isfinite(chunk).all():
            raise LocalProtocolError("cannot encode a value that is not finite: the update is unusable")
        return chunk.astype("<f4", copy=False).data.cast("B")

    def decode(self, data: Buffer, out: Float64s) -> None:
        """The values as float64."""
        if len(data) != 4 * len(out):
            raise RemoteProtocolError(f"f32 chunk of {len(data)} bytes, expected {4 * len(out)}")
        values = np.frombuffer(data, dtype="<f4")
        if not np.isfinite(values).all():
            raise RemoteProtocolError("f32 chunk holds a value that is not finite")
        np.copyto(out, values)


class BFloat16Codec:
    """The upper halves of float32s, rounded to nearest, ties to even: 2 bytes a value, 8 significant bits.

    What would round to an infinity becomes the largest finite value.
    """

    name = "bf16"

    def encoded_size(self, parameters: int) -> int:
        """Two bytes a value."""
        return 2 * parameters

    def encode(self, chunk: Float32s) -> Buffer:
        """Round each value."""
        if not np.isfinite(chunk).all():
            raise LocalProtocolError("cannot encode a value that is not finite: the update is unusable")
        bits = chunk.astype("<f4").view("<u4")
        signs = bits & np.uint32(_BF16_SIGN << 16)
        bits ^= signs
        bits += ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
        halves = np.minimum(bits >> np.uint32(16), np.uint32(_BF16_LARGEST)) | signs >> np.uint32(16)
        encoded: bytes = halves.astype("<u2").tobytes()
        return encoded

    def decode(self, data: Buffer, out: Float64s) -> None:
        """The values as float64."""
        if len(data) != 2 * len(out):
            raise RemoteProtocolError(f"bf16 chunk of {len(data)} bytes, expected {2 * len(out)}")
        halves = np.frombuffer(data, dtype="<u2")
        if (halves & np.uint16(~_BF16_SIGN & 0xFFFF)).max(initial=0) > _BF16_LARGEST:
            raise RemoteProtocolError("bf16 chunk holds a value that is not finite")
        np.copyto(out, widen(halves))


_BF16_SIGN, _BF16_LARGEST = 0x8000, 0x7F7F

_CODECS: dict[str, Callable[[], Codec]] = {
    "f32": Float32Codec,
    "bf16": BFloat16Codec,
    "int8": lambda: BlockCodec("int8", bits=8),
    "int4": lambda: BlockCodec("int4", bits=4),
    "int2": lambda: BlockCodec("int2", bits=2),
    "top3": lambda: TopCodec("top3", percent=3),
    "top1": lambda: TopCodec("top1", percent=1),
}


def codec_named(name: str) -> Codec:
    """A codec object of the kind that a charter asks for, for one thread.

    Raises LocalProtocolError for a name we do not know.
    """
    try:
        return _CODECS[name]()
    except KeyError:
        raise LocalProtocolError(f"unknown codec {name!r}: known are {', '.join(_CODECS)}") from None


def encode_vector(codec: Codec, vector: Float32s) -> Iterator[Buffer]:
    """Write a flat vector chunk by chunk."""
    for start in range(0, len(vector), CHUNK_VALUES):
        yield codec.encode(vector[start : start + CHUNK_VALUES])


class VectorDecoder:
    """Reads an encoded vector, chunk by chunk, from bytes that come in pieces of any size."""

    def __init__(self, codec: Codec, pieces: Iterable[Buffer]) -> None:
        self._codec = codec
        self._chunks = recut(pieces, codec.encoded_size(CHUNK_VALUES))

    def read(self, out: Float64s) -> None:
        """The next `len(out)` values: CHUNK_VALUES, or what is left in the last chunk.

        Raises RemoteProtocolError on bad or missing bytes.
        """
        data = next(self._chunks, None)
        if data is None:
            raise RemoteProtocolError(f"{self._codec.name} vector ends before its last value")
        self._codec.decode(data, out)

    def finish(self) -> None:
        """Raise RemoteProtocolError unless the bytes end here; call it after the last chunk."""
        if next(self._chunks, None) is not None:
            raise RemoteProtocolError(f"{self._codec.name} vector has bytes after its last value")
