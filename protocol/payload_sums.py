"""Survivors' payloads as one sequence of exact sums: by weight, or by a robust rule."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np

from folkmoot.protocol import ring
from folkmoot.protocol.codec import Codec, VectorDecoder
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.pieces import Open
from folkmoot.protocol.ring import CHUNK_VALUES, FixedPoint, Float64s
from folkmoot.protocol.robust import Combination, Products, Robust, combine
from folkmoot.protocol.types import MemberId

Chunk: TypeAlias = tuple[int, Float64s]
"""Where it begins, and integers that are exact in float64; to be used before the next is asked for."""

Rows: TypeAlias = Callable[[], Iterator[Chunk]]


@dataclass(frozen=True, slots=True)
class Payload:
    """A survivor's update: whose, with which weight (`ring.weight_of`), and how to read its plaintext.

    A `RemoteProtocolError` from `open` (`sealing.open_frames`) or from decoding makes the payload ill-formed.
    """

    member: MemberId
    weight: int
    open: Open


class IllFormedError(Exception):
    """The payload of `member` cannot be read."""

    def __init__(self, member: MemberId) -> None:
        super().__init__(member)
        self.member = member


class Sums(Protocol):
    """What the payloads come to: sums, and the whole number by which they are divided (0: there is no mean).

    Anything that is wrong with a payload is an `IllFormedError`.
    """

    divisor: int

    def chunks(self) -> Iterator[Chunk]:
        """The sums, from first to last. Another call makes another pass."""
        ...


class WeightedSums:
    """Each payload times its weight; divided by the total weight. Memory: two chunks, and one for each payload."""

    def __init__(self, payloads: Sequence[Payload], fixed: FixedPoint, codec: Codec) -> None:
        self.divisor = sum(payload.weight for payload in payloads)
        self._payloads, self._fixed, self._codec = payloads, fixed, codec

    def chunks(self) -> Iterator[Chunk]:
        """See `Sums`."""
        length = min(CHUNK_VALUES, self._fixed.layout.size)
        all_sums, all_values = np.empty(length), np.empty(length)
        sources = [_Source(payload, self._fixed, self._codec) for payload in self._payloads]
        for start, stop in self._fixed.layout.chunks():
            sums, values = all_sums[: stop - start], all_values[: stop - start]
            sums.fill(0.0)
            for source in sources:
                source.read(start, values)
                ring.accumulate_weighted(sums, values, source.payload.weight)
            yield start, sums
        for source in sources:
            source.finish()


class RobustSums:
    """What a robust rule makes of `count` vectors, one or more, by going twice through them. Memory: their rows.

    `rows` begins a pass: all vectors side by side, float64 (count, values) of integers up to 2^32, piece by piece. Ties
    go by rows.
    """

    def __init__(self, rows: Rows, count: int, fixed: FixedPoint, robust: Robust) -> None:
        products = Products(count, fixed.layout, fixed.exponents)
        for start, piece in rows():
            products.add(piece, start)
        self._rows, self._length = rows, min(CHUNK_VALUES, fixed.layout.size)
        self._combination: Combination = combine(robust, products.matrix)
        self.divisor = self._combination.divisor

    @classmethod
    def of_payloads(
        cls, payloads: Sequence[Payload], fixed: FixedPoint, codec: Codec, robust: Robust
    ) -> "RobustSums":
        """Ties go by member."""
        ordered = sorted(payloads, key=lambda payload: payload.member)
        return cls(partial(_side_by_side, ordered, fixed, codec), len(ordered), fixed, robust)

    def chunks(self) -> Iterator[Chunk]:
        """See `Sums`."""
        sums = np.empty(self._length)
        for start, rows in self._rows():
            out = sums[: rows.shape[1]]
            self._combination.apply(rows, out)
            yield start, out


def _side_by_side(payloads: Sequence[Payload], fixed: FixedPoint, codec: Codec) -> Iterator[Chunk]:
    """All payloads, (payloads, values of a chunk)."""
    rows = np.empty((len(payloads), min(CHUNK_VALUES, fixed.layout.size)))
    sources = [_Source(payload, fixed, codec) for payload in payloads]
    for start, stop in fixed.layout.chunks():
        for source, row in zip(sources, rows, strict=True):
            source.read(start, row[: stop - start])
        yield start, rows[:, : stop - start]
    for source in sources:
        source.finish()


class _Source:
    """One pass over a payload; everything that is wrong with it is an `IllFormedError`."""

    def __init__(self, payload: Payload, fixed: FixedPoint, codec: Codec) -> None:
        self.payload = payload
        self._fixed = fixed
        self._decoder = VectorDecoder(codec, payload.open())

    def read(self, start: int, out: Float64s) -> None:
        """The integers of the next chunk, which begins at `start`."""
        try:
            self._decoder.read(out)
        except RemoteProtocolError as error:
            raise IllFormedError(self.payload.member) from error
        self._fixed.to_integers(out, start, out)

    def finish(self) -> None:
        try:
            self._decoder.finish()
        except RemoteProtocolError as error:
            raise IllFormedError(self.payload.member) from error


def check_payloads(payloads: Sequence[Payload]) -> None:
    """Raise LocalProtocolError for payloads that no round has."""
    members = [payload.member for payload in payloads]
    if len(set(members)) != len(members):
        raise LocalProtocolError(f"payloads of members {sorted(members)}: one is there twice")
    if any(not 0 <= payload.weight <= ring.MAX_WEIGHT for payload in payloads):
        raise LocalProtocolError(f"a weight is not between 0 and {ring.MAX_WEIGHT}: use ring.weight_of")
    ring.check_headroom(len(payloads))


def is_readable(payload: Payload, fixed: FixedPoint, codec: Codec) -> bool:
    """Whether a payload is well-formed from beginning to end."""
    try:
        for _ in WeightedSums([payload], fixed, codec).chunks():
            pass
    except IllFormedError:
        return False
    return True
