"""Is a sum of masked shards right? A random linear check that needs no masks taken off.

A challenge r has one number below 2^32 for every position of the ring vector. A member's fingerprint of a shard y is
the inner product <r, y>; since that is linear, those of all members add up to <r, S> of the right sum S, modulo
p = 2^61 - 1 (after Freivalds, "Probabilistic Machines Can Use Less Running Time", IFIP 1977). If a sum is wrong in some
coordinate, then whatever the others are, at most one value of r there hides it: 2^-32. So there are two independent
challenges: 2^-64. They derive from the digests of all sums, so nobody knows them while a sum can still be changed.
A masked shard looks uniform, so its fingerprint tells nothing about the update beneath.

Exact by construction: the challenges and the values are split into limbs of 16 bits, a product is below 2^32, and a
sum of 2^16 of them below 2^48. A float64 holds every integer up to 2^53, so neither the order of additions nor fused
operations nor the BLAS library can change a bit. Everything beyond is Python integers.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias

import numpy as np

from folkmoot.protocol.hashing import digest
from folkmoot.protocol.pieces import Open
from folkmoot.protocol.reader import Reader
from folkmoot.protocol.ring import CHUNK_VALUES, Float64s
from folkmoot.protocol.secure import packing
from folkmoot.protocol.secure.keystream import SEED_SIZE, Keystream
from folkmoot.protocol.secure.layout import RingValues, ShardLayout
from folkmoot.protocol.types import Digest

Fingerprint: TypeAlias = tuple[int, int]
"""The two inner products of a shard or of a sum, each in [0, p)."""

PRIME = 2**61 - 1

PIECE = 1 << 16
"""Values per matrix product; more would not be exact. Pieces are counted from the shard's start, and CHUNK_VALUES is a
multiple of it."""

_SLAB = 1 << 13
"""Columns per call of the matrix product: with 4 limbs or more OpenBLAS was 5 times slower on whole pieces."""

_LIMB_BITS = 16
_ROWS = 4
_BYTES_PER_VALUE = 2 * _ROWS


def challenge_seed(survivors: Digest, roots: Sequence[Digest]) -> bytes:
    """The seed (16 bytes) of the check on one certificate's sums: digest of V, and roots of all shards' masked sums."""
    return digest("folkmoot/v1/fingerprint", survivors, b"".join(roots))[:SEED_SIZE]


def verify(values: Iterable[Fingerprint], total: Fingerprint) -> bool:
    """Whether members' fingerprints add up to that of the sum, modulo p, in both components."""
    first, second = 0, 0
    for value in values:
        first, second = first + value[0], second + value[1]
    return (first % PRIME, second % PRIME) == (total[0] % PRIME, total[1] % PRIME)


class Challenge:
    """The two challenge vectors of one seed, of which only what is needed is ever in memory.

    For the piece of n <= 2^16 values at ring position a: the 8n bytes of the seed's keystream from byte 8a on, as four
    rows of n little-endian 16-bit numbers. r1 = row 0 + 2^16 row 1, r2 = row 2 + 2^16 row 3.

    Holds scratch memory for one chunk, so an object serves one thread at a time.
    """

    def __init__(self, layout: ShardLayout, seed: bytes) -> None:
        """`seed`: 16 bytes, of `challenge_seed`. Raises LocalProtocolError."""
        self._layout, self._keystream = layout, Keystream(seed)
        length = min(PIECE, layout.size)
        self._octets = np.empty(_BYTES_PER_VALUE * length, dtype=np.uint8)
        self._challenge = np.empty((_ROWS, length))

    def of_shard(self, shard: int, open_: Open) -> Fingerprint:
        """The fingerprint of one member's masked shard. Raises LocalProtocolError on a wrong length."""
        (value,) = self._products(shard, [_Masked(self._layout, open_, shard)])
        return value

    def of_sum(self, shard: int, open_: Open) -> Fingerprint:
        """The fingerprint of a packed sum. Raises LocalProtocolError on a wrong length."""
        return self.of_shards_and_sum(shard, [], open_)[1]

    def of_shards_and_sum(
        self, shard: int, shards: Sequence[Open], total: Open
    ) -> tuple[list[Fingerprint], Fingerprint]:
        """Those of any number of members' shards and of the sum in one pass, which expands the challenge once."""
        values, (of_sum,) = self.of_shards_and_sums(shard, shards, total, 1)
        return values, of_sum

    def of_shards_and_sums(
        self, shard: int, shards: Sequence[Open], totals: Open, crowds: int
    ) -> tuple[list[Fingerprint], tuple[Fingerprint, ...]]:
        """The same where `totals` opens the sums of so many crowds, chunk by chunk beside each other."""
        masked = [_Masked(self._layout, open_, shard) for open_ in shards]
        reader = Reader(totals(), f"sum of shard {shard}")
        packed = [_Packed(self._layout, reader, shard) for _ in range(crowds)]
        values = self._products(shard, [*masked, *packed])
        return values[: len(masked)], tuple(values[len(masked) :])

    def _products(self, shard: int, vectors: Sequence["_Vector"]) -> list[Fingerprint]:
        shifts = [vector.shifts for vector in vectors]
        limbs = np.empty((sum(map(len, shifts)), self._challenge.shape[1]))
        totals = [[0] * _ROWS for _ in limbs]
        for start, stop in self._layout.chunks(shard):
            for vector in vectors:
                vector.read(stop - start)
            for at in range(start, stop, PIECE):
                end = min(at + PIECE, stop)
                _read_limbs(vectors, at - start, end - start, limbs[:, : end - at])
                products = _multiply(limbs[:, : end - at], self._expand(at, end))
                for total, row in zip(totals, products.tolist(), strict=True):
                    total[:] = [before + int(value) for before, value in zip(total, row, strict=True)]
        for vector in vectors:
            vector.finish()
        return _combine(shifts, totals)

    def _expand(self, start: int, stop: int) -> Float64s:
        """The four rows of the challenge for ring positions [start, stop)."""
        octets = self._octets[: _BYTES_PER_VALUE * (stop - start)]
        self._keystream.write(_BYTES_PER_VALUE * start, octets.data)
        rows = self._challenge[:, : stop - start]
        np.copyto(rows, octets.view("<u2").reshape(_ROWS, -1))
        return rows


# --- vectors as limbs ---------------------------------------------------------------------------------------


class _Vector(Protocol):
    """A shard or a sum, read chunk by chunk, as rows of numbers below 2^16 with a power of two for each."""

    shifts: Sequence[int]

    def read(self, count: int) -> None:
        """Take the next chunk of `count` values."""
        ...

    def limbs(self, start: int, stop: int, out: Float64s) -> None:
        """Write the limbs of values [start, stop) of the chunk: one row for each of `shifts`."""
        ...

    def finish(self) -> None:
        """Raise LocalProtocolError unless the vector ends here."""
        ...


class _Masked:
    """A masked shard: its values as one limb, or on the 32-bit ring as two."""

    def __init__(self, layout: ShardLayout, open_: Open, shard: int) -> None:
        self.shifts: Sequence[int] = _limb_shifts(layout)
        self._layout, self._reader = layout, Reader(open_(), f"masked shard {shard}")
        self._values: RingValues = np.empty(0, dtype=layout.dtype)

    def read(self, count: int) -> None:
        data = self._reader.take(count * self._layout.value_bytes)
        self._values = np.frombuffer(data, dtype=self._layout.dtype)

    def limbs(self, start: int, stop: int, out: Float64s) -> None:
        _split(self._layout, self._values[start:stop], out)

    def finish(self) -> None:
        self._reader.finish()


class _Packed:
    """A packed sum: the limbs of its low part, and the carries as one more. Others may be read between."""

    def __init__(self, layout: ShardLayout, reader: Reader, shard: int) -> None:
        self.shifts: Sequence[int] = [*_limb_shifts(layout), layout.bits]
        self._layout, self._reader = layout, reader
        length = min(CHUNK_VALUES, layout.shard_values(shard))
        self._low: RingValues = np.empty(length, dtype=layout.dtype)
        self._carries = np.empty(length, dtype=np.uint8)

    def read(self, count: int) -> None:
        data = self._reader.take(self._layout.packed_bytes(count))
        np.copyto(self._low[:count], packing.unpack_low(self._layout, data, count))
        packing.unpack_carries(self._layout, data, self._carries[:count])

    def limbs(self, start: int, stop: int, out: Float64s) -> None:
        _split(self._layout, self._low[start:stop], out[:-1])
        np.copyto(out[-1], self._carries[start:stop])

    def finish(self) -> None:
        self._reader.finish()


def _limb_shifts(layout: ShardLayout) -> list[int]:
    return list(range(0, layout.bits, _LIMB_BITS))


def _split(layout: ShardLayout, values: RingValues, out: Float64s) -> None:
    """Write the limbs of ring values, the lowest first, as rows."""
    limb = np.dtype(f"<u{min(layout.value_bytes, _LIMB_BITS // 8)}")
    np.copyto(out, values.view(limb).reshape(-1, len(out)).T)


def _multiply(limbs: Float64s, rows: Float64s) -> Float64s:
    """The inner product of every limb with every row, (limbs, 4): exact, see above."""
    products = np.zeros((len(limbs), len(rows)))
    for at in range(0, limbs.shape[1], _SLAB):
        np.add(products, limbs[:, at : at + _SLAB] @ rows[:, at : at + _SLAB].T, out=products)
    return products


def _read_limbs(vectors: Sequence[_Vector], start: int, stop: int, out: Float64s) -> None:
    row = 0
    for vector in vectors:
        vector.limbs(start, stop, out[row : row + len(vector.shifts)])
        row += len(vector.shifts)


def _combine(shifts: Sequence[Sequence[int]], totals: Sequence[Sequence[int]]) -> list[Fingerprint]:
    """Put limbs of vectors and rows of the challenge together again, modulo p."""
    fingerprints, at = [], 0
    for own in shifts:
        first = second = 0
        for shift, row in zip(own, totals[at : at + len(own)], strict=True):
            first += (row[0] + (row[1] << _LIMB_BITS)) << shift
            second += (row[2] + (row[3] << _LIMB_BITS)) << shift
        fingerprints.append((first % PRIME, second % PRIME))
        at += len(own)
    return fingerprints
