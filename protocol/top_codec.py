"""The few largest values of each 4,096, each with a sign and one of two magnitudes: the codecs top3 and top1.

A vector is cut into groups of 4,096 values, the last may be shorter. Of a group of n values k = ceil(percent * n / 100)
are kept, those of the largest magnitude (the first of equals first). They are written as the smaller and the larger of
two magnitudes (bfloat16, 2 bytes each, little endian), then k symbols of 14 bits, highest bit first, in ascending order
of place: the place in its group (12 bits), the sign (1: negative), and which magnitude. Zero bits fill the last byte.
(Chunks of a vector and two bits for a value: SparseLoCo, 2508.15706; DeMo, 2411.19870.)

Every kept value decodes to plus or minus one magnitude, all others to zero. What that loses is much; only with error
feedback does it come back. An encoder takes the mean magnitudes of the smaller and the larger half of what it keeps.
"""

import numpy as np
from numpy.typing import NDArray

from folkmoot.protocol.block_codec import widen
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.pieces import Buffer
from folkmoot.protocol.ring import Float32s, Float64s

GROUP = 4096
"""Values of which the largest are kept together; CHUNK_VALUES is a multiple, so chunks do not show in the bytes."""

SYMBOL_BITS = 14
HEAD = 4
"""Bytes of the two magnitudes."""

_INFINITE = 0x7F80

Symbols = NDArray[np.uint16]


class TopCodec:
    """Keeps `percent` of the values."""

    def __init__(self, name: str, percent: int) -> None:
        self.name = name
        self._percent = percent

    def encoded_size(self, parameters: int) -> int:
        """Whole groups, and a rest."""
        whole, rest = divmod(parameters, GROUP)
        return whole * self._group_size(GROUP) + (self._group_size(rest) if rest else 0)

    def encode(self, chunk: Float32s) -> Buffer:
        """Write at most CHUNK_VALUES values. Raises LocalProtocolError on a value that is not finite."""
        if not np.isfinite(chunk).all():
            raise LocalProtocolError("cannot encode a value that is not finite: the update is unusable")
        groups, rest = self._split(chunk)
        return b"".join(self._encode_groups(part) for part in (groups, rest) if part.size)

    def decode(self, data: Buffer, out: Float64s) -> None:
        """Read `len(out)` values, at most CHUNK_VALUES.

        Refuses with RemoteProtocolError: another length, a magnitude that is negative, infinite or NaN, the larger one
        first, places that do not ascend or lie beyond the end, bits other than zero at the end of a group.
        """
        if len(data) != self.encoded_size(len(out)):
            raise RemoteProtocolError(
                f"{self.name} chunk of {len(data)} bytes, expected {self.encoded_size(len(out))}"
            )
        out.fill(0.0)
        groups, rest = self._split(out)
        cut = len(groups) * self._group_size(GROUP)
        for part, piece in ((groups, data[:cut]), (rest, data[cut:])):
            if part.size:
                self._decode_groups(piece, part)

    def _kept(self, values: int) -> int:
        return -(-self._percent * values // 100)

    def _group_size(self, values: int) -> int:
        return HEAD + -(-self._kept(values) * SYMBOL_BITS // 8)

    @staticmethod
    def _split(chunk: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Whole groups as rows, and the rest as one; views."""
        whole = len(chunk) // GROUP * GROUP
        return chunk[:whole].reshape(-1, GROUP), chunk[whole:].reshape(1, -1)

    def _encode_groups(self, groups: Float32s) -> bytes:
        places = _largest(np.abs(groups), self._kept(groups.shape[1]))
        found = np.take_along_axis(groups, places, axis=1)
        magnitudes, is_large = _magnitudes(np.abs(found))
        symbols = (places << 2 | (found < 0) << 1 | is_large).astype(np.uint16)
        return np.concatenate([magnitudes.view(np.uint8), _pack(symbols)], axis=1).tobytes()

    def _decode_groups(self, data: Buffer, out: NDArray[np.floating]) -> None:
        rows = np.frombuffer(data, dtype=np.uint8).reshape(len(out), -1)
        magnitudes = np.ascontiguousarray(rows[:, :HEAD]).view("<u2")
        symbols = self._unpack(rows[:, HEAD:], self._kept(out.shape[1]))
        places = (symbols >> 2).astype(np.int64)
        self._check(magnitudes, places, out.shape[1])
        found = np.take_along_axis(
            widen(magnitudes).astype(np.float64), (symbols & 1).astype(np.int64), axis=1
        )
        np.negative(found, out=found, where=(symbols & 2).astype(bool))
        np.put_along_axis(out, places, found, axis=1)

    def _unpack(self, packed: NDArray[np.uint8], kept: int) -> Symbols:
        bits = np.unpackbits(packed, axis=1)
        if bits[:, kept * SYMBOL_BITS :].any():
            raise RemoteProtocolError(f"{self.name} chunk is padded with a bit other than 0")
        wide = np.zeros((len(packed), kept, 16), dtype=np.uint8)
        wide[:, :, 2:] = bits[:, : kept * SYMBOL_BITS].reshape(len(packed), kept, SYMBOL_BITS)
        return np.packbits(wide, axis=2).view(">u2")[:, :, 0]

    def _check(self, magnitudes: NDArray[np.uint16], places: NDArray[np.int64], length: int) -> None:
        if magnitudes.max(initial=0) >= _INFINITE:
            raise RemoteProtocolError(f"{self.name} chunk holds a magnitude that is negative or not finite")
        if (magnitudes[:, 0] > magnitudes[:, 1]).any():
            raise RemoteProtocolError(f"{self.name} chunk holds the larger magnitude first")
        if (np.diff(places, axis=1) <= 0).any() or places.max(initial=0) >= length:
            raise RemoteProtocolError(
                f"{self.name} chunk holds places that do not ascend, or are beyond its end"
            )


def _largest(sizes: Float32s, count: int) -> NDArray[np.int64]:
    """Places of the `count` largest of each row, ascending; of equals the first, however numpy selects."""
    least = np.partition(sizes, -count, axis=1)[:, -count, None]
    is_larger, is_least = sizes > least, sizes == least
    is_least &= np.cumsum(is_least, axis=1) <= count - is_larger.sum(axis=1, keepdims=True)
    return np.nonzero(is_larger | is_least)[1].reshape(len(sizes), count)


def _magnitudes(sizes: Float32s) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Two bfloat16s for each row, rounded down, and which of the values have the larger one."""
    half = sizes.shape[1] // 2
    is_large = sizes >= np.partition(sizes, half, axis=1)[:, half, None]
    means = [
        np.add.reduce(sizes, axis=1, dtype=np.float64, where=which) / np.maximum(1, which.sum(axis=1))
        for which in (~is_large, is_large)
    ]
    bits = np.stack(means, axis=1).astype("<f4").view("<u4")
    return (bits >> np.uint32(16)).astype("<u2"), is_large


def _pack(symbols: Symbols) -> NDArray[np.uint8]:
    """14 bits each, highest first; rows end in whole bytes."""
    bits = np.unpackbits(symbols.astype(">u2")[:, :, None].view(np.uint8), axis=2)[:, :, 2:]
    return np.packbits(bits.reshape(len(symbols), -1), axis=1)
