"""Where everything lies in a ring vector: weight, parameters, shards, and the chunks that are worked on.

A member's update travels as integers modulo 2^b. The vector begins with one block of 64 *weight values* (the member's
weight in one limb, on the 8-bit ring in two of 4 bits, then zeros), goes on with the parameters in charter order and
ends in zeros up to a multiple of 64. It is cut into P shards at multiples of 64, so that every shard is a whole number
of AES blocks and its bit planes are whole bytes.

Headroom: a sum of m values must not wrap past the sign, so a value has v = b - 1 - ceil(log2 m) bits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.ring import CHUNK_VALUES

RingValues: TypeAlias = NDArray[np.unsignedinteger[Any]]
"""Values of the ring, in `ShardLayout.dtype`."""

BLOCK = 64
"""Shards begin and end at multiples of this many values; the weight values are the first block."""

RING_BITS = (8, 16, 32)

MAX_SUMMED = {8: 16, 16: 256, 32: 256}
"""Members whose vectors have a sum, by ring. On 8 bits sums of 4-bit weight limbs stay below 2^8, and 3 bits are left
for a value; on 16 bits sums of 8-bit weights stay below 2^16, and 7 bits are left. A carry is one byte.
"""

MAX_WEIGHT = 255
"""A secure-mode weight fits two 4-bit limbs."""


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """The ring vector of `parameters` values on a `bits`-bit ring, summed over `members`, cut into `shards`.

    Raises LocalProtocolError for numbers that no group has.
    """

    parameters: int
    bits: int
    members: int
    shards: int

    def __post_init__(self) -> None:
        if self.bits not in RING_BITS:
            raise LocalProtocolError(f"ring of {self.bits} bits: choose one of {RING_BITS}")
        if not 1 <= self.members <= MAX_SUMMED[self.bits]:
            raise LocalProtocolError(
                f"sum of {self.members} members on a ring of {self.bits} bits: it has 1 to {MAX_SUMMED[self.bits]}"
            )
        if self.parameters < 1 or self.shards < 1:
            raise LocalProtocolError(
                f"{self.parameters} parameters in {self.shards} shards: there is at least one of each"
            )

    # --- numbers ------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Values in all: weight block, parameters and padding; a multiple of BLOCK."""
        return BLOCK + -(-self.parameters // BLOCK) * BLOCK

    @property
    def value_bytes(self) -> int:
        """Bytes of one ring value."""
        return self.bits // 8

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Little-endian unsigned integers of the ring."""
        return np.dtype(f"<u{self.value_bytes}")

    @property
    def carry_bits(self) -> int:
        """h = ceil(log2 m): how many bits a sum of m values has beyond those of one."""
        return (self.members - 1).bit_length()

    @property
    def value_bits(self) -> int:
        """v: an encoded value is an integer of magnitude at most 2^v - 1, stored modulo 2^b."""
        return self.bits - 1 - self.carry_bits

    @property
    def largest(self) -> int:
        """The largest magnitude of an encoded value, 2^v - 1."""
        return (1 << self.value_bits) - 1

    # --- shards -------------------------------------------------------------------------------------------------

    def edge(self, shard: int) -> int:
        """The position at which a shard begins; `edge(shards)` is the end. Raises LocalProtocolError."""
        if not 0 <= shard <= self.shards:
            raise LocalProtocolError(f"shard {shard} of {self.shards}")
        return BLOCK * (shard * (self.size // BLOCK) // self.shards)

    def span(self, shard: int) -> tuple[int, int]:
        """(start, stop) of a shard in the ring vector; empty if there are more shards than blocks."""
        return self.edge(shard), self.edge(shard + 1)

    def shard_values(self, shard: int) -> int:
        """Values in a shard."""
        start, stop = self.span(shard)
        return stop - start

    def shard_bytes(self, shard: int) -> int:
        """Bytes of a masked shard."""
        return self.shard_values(shard) * self.value_bytes

    def sum_bytes(self, shard: int) -> int:
        """Bytes of a packed masked sum (`packing.py`)."""
        return self.packed_bytes(self.shard_values(shard))

    def packed_bytes(self, values: int) -> int:
        """Bytes of `values` packed sums, a multiple of 8 of them: b + h bits each."""
        return values * (self.bits + self.carry_bits) // 8

    def chunks(self, shard: int) -> Iterator[tuple[int, int]]:
        """(start, stop) in the ring vector of a shard's pieces: CHUNK_VALUES each, counted from the shard's start."""
        start, stop = self.span(shard)
        for at in range(start, stop, CHUNK_VALUES):
            yield at, min(at + CHUNK_VALUES, stop)

    def parameters_in(self, start: int, stop: int) -> tuple[int, int]:
        """The parameters (first, end) among ring positions [start, stop), without weight values and padding.

        Parameter j lies at position 64 + j. If there is none, first and end are equal.
        """
        end = min(max(stop - BLOCK, 0), self.parameters)
        return min(max(start - BLOCK, 0), end), end
