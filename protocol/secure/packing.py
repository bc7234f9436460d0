"""Unreduced sums of masked shards, and how they are packed.

A sum of at most m ring values is S = low + 2^b * carries, with carries < m. It is kept as these two, because adding
modulo 2^b and counting the wraps is faster than adding in a wider type, and because opening needs only the low part.

Packed, for every chunk of `ShardLayout.chunks`: the low b bits of each value, then h bit planes (bit b, b + 1, ...) of
one bit per value, the first value in the lowest bit of a byte. The traffic is b + h bits per value.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.secure.layout import RingValues, ShardLayout

Octets: TypeAlias = NDArray[np.uint8]


def accumulate(low: RingValues, carries: Octets, values: RingValues) -> None:
    """Add ring values to sums, in place."""
    np.add(low, values, out=low)
    # An unsigned sum is smaller than what was added exactly if it wrapped.
    np.add(carries, low < values, out=carries)


def pack(layout: ShardLayout, low: RingValues, carries: Octets, out: Octets) -> None:
    """Write one chunk of sums into `out`, `layout.packed_bytes(len(low))` bytes."""
    at = len(low) * layout.value_bytes
    out[:at] = low.view(np.uint8)
    for bit in range(layout.carry_bits):
        plane = np.packbits(np.bitwise_and(carries, 1 << bit), bitorder="little")
        out[at : at + len(plane)] = plane
        at += len(plane)


def unpack_low(layout: ShardLayout, data: memoryview, count: int) -> RingValues:
    """The low bits of a packed chunk of `count` sums: a view of `data`."""
    return np.frombuffer(data, dtype=layout.dtype, count=count)


def unpack_carries(layout: ShardLayout, data: memoryview, out: Octets) -> None:
    """Write how often each of the `len(out)` sums of a packed chunk wrapped."""
    out.fill(0)
    planes = np.frombuffer(data, dtype=np.uint8, offset=len(out) * layout.value_bytes)
    for bit, plane in enumerate(planes.reshape(layout.carry_bits, len(out) // 8)):
        digits = np.unpackbits(plane, bitorder="little")
        np.multiply(digits, 1 << bit, out=digits)  # numpy shifts bytes ten times slower
        np.bitwise_or(out, digits, out=out)


def check_range(layout: ShardLayout, low: RingValues, carries: Octets, members: int) -> None:
    """Raise RemoteProtocolError unless every sum is at most members * (2^b - 1), as that of `members` values is."""
    # That bound is (members - 1) * 2^b + (2^b - members).
    if (carries < members - 1).all():
        return
    at_most = (1 << layout.bits) - members
    if (carries >= members).any() or (low[carries == members - 1] > at_most).any():
        raise RemoteProtocolError(f"a packed sum is larger than {members} masked values can add up to")
