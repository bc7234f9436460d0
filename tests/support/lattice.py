"""Small integer vectors that are orthogonal to given ones: what an owner would add to a sum to stay unseen."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from folkmoot.protocol.secure import packing
from folkmoot.protocol.secure.fingerprint import Challenge
from folkmoot.protocol.secure.layout import ShardLayout

DIMENSION = 8
"""Coordinates that are changed: two challenges of 32 bits leave relations of about 2^(64/6)."""

WEIGHT = 1 << 80
"""What a product other than zero costs in the lattice: more than any short vector."""


def add_unseen(layout: ShardLayout, challenge: Challenge, shard: int, packed: bytes) -> bytes:
    """A packed sum with an error that this challenge gives the same fingerprint, and that is in range."""
    start, stop = layout.span(shard)
    count = stop - start
    rows = challenge._expand(start, stop).astype(np.int64)
    carries = np.empty(count, dtype=np.uint8)
    packing.unpack_carries(layout, memoryview(packed), carries)
    totals = packing.unpack_low(layout, memoryview(packed), count).astype(np.int64)
    totals += carries.astype(np.int64) << layout.bits
    # In the middle of the range there is room for the error on both sides.
    middle = layout.members << (layout.bits - 1)
    places = np.argsort(np.abs(totals - middle))[:DIMENSION]
    first, second = (rows[at][places] + (rows[at + 1][places] << 16) for at in (0, 2))
    totals[places] += np.array(short_relation(first.tolist(), second.tolist()))
    out = np.empty(len(packed), dtype=np.uint8)
    low = (totals & ((1 << layout.bits) - 1)).astype(layout.dtype)
    packing.pack(layout, low, (totals >> layout.bits).astype(np.uint8), out)
    return out.tobytes()


def short_relation(*rows: Sequence[int]) -> list[int]:
    """A short vector other than zero whose product with each row is zero; LLL finds it (Lenstra, Lenstra, Lovasz)."""
    size = len(rows[0])
    basis = [
        [int(at == place) for at in range(size)] + [WEIGHT * row[place] for row in rows]
        for place in range(size)
    ]
    reduced = _reduce(basis)
    return next(vector[:size] for vector in reduced if any(vector) and not any(vector[size:]))


def _reduce(basis: list[list[int]]) -> list[list[int]]:
    """LLL with exact fractions; bases here are tiny, so it starts from scratch after every swap."""
    at = 1
    while at < len(basis):
        star, factors = _orthogonalised(basis)
        for below in range(at - 1, -1, -1):
            times = round(factors[at][below])
            if times:
                basis[at] = [a - times * b for a, b in zip(basis[at], basis[below], strict=True)]
                factors[at] = [f - times * g for f, g in zip(factors[at], factors[below], strict=True)]
        bound = Fraction(3, 4) - factors[at][at - 1] ** 2
        if _product(star[at], star[at]) >= bound * _product(star[at - 1], star[at - 1]):
            at += 1
        else:
            basis[at - 1], basis[at] = basis[at], basis[at - 1]
            at = max(at - 1, 1)
    return basis


def _orthogonalised(basis: list[list[int]]) -> tuple[list[list[Fraction]], list[list[Fraction]]]:
    """Gram-Schmidt: the orthogonal vectors, and how much of each is in every vector of the basis."""
    star: list[list[Fraction]] = []
    factors: list[list[Fraction]] = []
    for place, vector in enumerate(basis):
        rest = [Fraction(value) for value in vector]
        row = [Fraction(int(place == other)) for other in range(len(basis))]
        for other, base in enumerate(star):
            row[other] = _product(vector, base) / _product(base, base)
            rest = [value - row[other] * part for value, part in zip(rest, base, strict=True)]
        star.append(rest)
        factors.append(row)
    return star, factors


def _product(one: Sequence[int | Fraction], other: Sequence[int | Fraction]) -> Fraction:
    return sum((a * b for a, b in zip(one, other, strict=True)), Fraction(0))
