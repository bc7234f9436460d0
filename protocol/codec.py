"""How a vector is written for the wire: codecs by name, each strict.

A codec works on chunks of `ring.CHUNK_VALUES` values (the last may be shorter), so neither side holds more
than one beside the vector. To add one: a class with the four members of `Codec`, and a line in `_CODECS`.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.pieces import Buffer, recut
from folkmoot.protocol.ring import CHUNK_VALUES, Float32s


class Codec(Protocol):
    """One way to write float32 values.

    Chunks are written one after the other, without padding between them.
    """

    name: str

    def encoded_size(self, parameters: int) -> int:
        """Bytes of an encoded vector of `parameters` values; known before anything is sent."""
        ...

    def encode(self, chunk: Float32s) -> bytes:
        """Write one chunk. Raises LocalProtocolError on a value that is not finite."""
        ...

    def decode(self, data: Buffer, parameters: int) -> Float32s:
        """Read one chunk of `parameters` values; the result may be a view of `data`.

        Raises RemoteProtocolError on anything that `encode` would not have written.
        """
        ...


class Float32Codec:
    """Plain little-endian float32: exact, 4 bytes per value. Refuses NaN and infinities."""

    name = "f32"

    def encoded_size(self, parameters: int) -> int:
        """Four bytes a value."""
        return 4 * parameters

    def encode(self, chunk: Float32s) -> bytes:
        """The values' own bytes."""
        if not np.isfinite(chunk).all():
            raise LocalProtocolError("cannot encode a value that is not finite: the update is unusable")
        return chunk.astype("<f4", copy=False).tobytes()

    def decode(self, data: Buffer, parameters: int) -> Float32s:
        """A view of `data` as values."""
        if len(data) != 4 * parameters:
            raise RemoteProtocolError(f"f32 chunk of {len(data)} bytes, expected {4 * parameters}")
        values = np.frombuffer(data, dtype="<f4")
        if not np.isfinite(values).all():
            raise RemoteProtocolError("f32 chunk holds a value that is not finite")
        return values


_CODECS: dict[str, Codec] = {codec.name: codec for codec in (Float32Codec(),)}


def codec_named(name: str) -> Codec:
    """The codec that a charter asks for. Raises LocalProtocolError for a name we do not know."""
    try:
        return _CODECS[name]
    except KeyError:
        raise LocalProtocolError(f"unknown codec {name!r}: known are {', '.join(_CODECS)}") from None


def encode_vector(codec: Codec, vector: Float32s) -> Iterator[bytes]:
    """Write a flat vector chunk by chunk."""
    for start in range(0, len(vector), CHUNK_VALUES):
        yield codec.encode(vector[start : start + CHUNK_VALUES])


def decode_vector(codec: Codec, pieces: Iterable[Buffer], parameters: int) -> Iterator[tuple[int, Float32s]]:
    """Read a vector of exactly `parameters` values from bytes that come in pieces of any size.

    Yields (index of the chunk's first value, values); use each before the next. Raises RemoteProtocolError on
    bad, missing or trailing bytes.
    """
    chunks = recut(pieces, codec.encoded_size(CHUNK_VALUES))
    for start in range(0, parameters, CHUNK_VALUES):
        count = min(CHUNK_VALUES, parameters - start)
        data = next(chunks, None)
        if data is None:
            raise RemoteProtocolError(
                f"{codec.name} vector ends at value {start}, expected {parameters} values"
            )
        yield start, codec.decode(data, count)
    if next(chunks, None) is not None:
        raise RemoteProtocolError(f"{codec.name} vector has bytes after its {parameters} values")
