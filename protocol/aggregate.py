"""From opened payloads to the new model, chunk by chunk.

The node and the auditor call the same functions and get the same bits.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Self, TypeAlias

import numpy as np

from folkmoot.protocol import ring
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import CodecName
from folkmoot.protocol.codec import codec_named
from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.outer import NoMeanError, Outer, Snapshots, Stored, in_memory, take_step
from folkmoot.protocol.payload_sums import (
    IllFormedError,
    Payload,
    RobustSums,
    Sums,
    WeightedSums,
    check_payloads,
    is_readable,
)
from folkmoot.protocol.pieces import Buffer
from folkmoot.protocol.ring import CHUNK_VALUES, FixedPoint, Float32s, Float64s, Layout
from folkmoot.protocol.robust import Robust
from folkmoot.protocol.types import Digest, MemberId, Round

Exponents: TypeAlias = bytes | Sequence[int] | ring.Int8s
"""A roster's scales, one int8 for each piece of an update."""


@dataclass(frozen=True, slots=True)
class Method:
    """How updates become the next model: how they are written down, what is taken of them, and the step with that.

    `sizes`: values of each piece of an update that has a scale exponent. Without `robust` the mean is weighted.
    """

    codec: CodecName
    sizes: tuple[int, ...]
    outer: Outer
    robust: Robust | None = None

    @classmethod
    def of(cls, charter: Charter, round_: Round) -> Self:
        """The charter's, in a round."""
        outer, robust = Outer.of(charter, round_), Robust.of(charter)
        return cls(charter.averaging.codec, charter.update_sizes, outer, robust)

    @classmethod
    def plain(cls, codec: CodecName, sizes: Sequence[int]) -> Self:
        """FedAvg."""
        return cls(codec, tuple(sizes), Outer(sum(sizes)))


@dataclass(frozen=True, slots=True)
class Aggregate(Generic[Stored]):
    """What came out: digest of divisor and sums (LOCK names it), the new snapshot, and whose payload did not count.

    `changed` is False if the snapshot is the base: nothing to divide by, or a result that is not finite. `divisor` is
    what the sums were divided by: the total weight, or a robust rule's own.
    """

    sums_digest: Digest
    model: Stored
    changed: bool
    divisor: int
    ill_formed: tuple[MemberId, ...]


def aggregate_stream(
    method: Method, exponents: Exponents, payloads: Sequence[Payload], snapshots: Snapshots[Stored]
) -> Aggregate[Stored]:
    """The payloads' mean as exact integers, then the outer rule's step with it.

    The mean is weighted, or what a robust rule makes of the payloads, all alike. `exponents` are the roster's.

    Does not depend on the order of `payloads`. An ill-formed payload counts as zero with weight zero (PROTOCOL
    section 3): its bytes were agreed on, so every honest node finds the same fault. Memory: a few chunks, and one for
    each payload. Raises LocalProtocolError for arguments that cannot be right.
    """
    check_payloads(payloads)
    work = _Work(method, exponents, snapshots)
    try:
        return work.sum(payloads)
    except IllFormedError as error:
        # It spoilt a pass over all. Now look at each of the others whole, so that many cannot spoil many passes.
        others = [payload for payload in payloads if payload.member != error.member]
        good = [payload for payload in others if work.is_readable(payload)]
        ill_formed = {payload.member for payload in payloads} - {payload.member for payload in good}
    try:
        return work.sum(good, tuple(sorted(ill_formed)))
    except IllFormedError as again:
        raise LocalProtocolError(
            f"payload of member {again.member} read well once and not again: is the disk failing?"
        ) from again


def aggregate(
    method: Method, exponents: Exponents, payloads: Sequence[Payload], base: Float32s
) -> Aggregate[Float32s]:
    """`aggregate_stream` with base and model as whole snapshots (float32)."""
    return aggregate_stream(method, exponents, payloads, in_memory(method.outer, base))


class _Work(Generic[Stored]):
    """One aggregation, and scratch memory for one chunk."""

    def __init__(self, method: Method, exponents: Exponents, snapshots: Snapshots[Stored]) -> None:
        self._method, self._snapshots = method, snapshots
        self._codec = codec_named(method.codec)
        self._fixed = FixedPoint(Layout(method.sizes), exponents)
        length = min(CHUNK_VALUES, self._fixed.layout.size)
        self._integers = np.empty(length, dtype="<i8")
        self._mean = np.empty(length, dtype="<f4")

    def is_readable(self, payload: Payload) -> bool:
        """Read a payload from beginning to end."""
        return is_readable(payload, self._fixed, self._codec)

    def sum(self, payloads: Sequence[Payload], ill_formed: tuple[MemberId, ...] = ()) -> Aggregate[Stored]:
        """Raises `IllFormedError` at the first payload that cannot be read."""
        sums = self._sums(payloads)
        # SHA-256 of type line, divisor (8 bytes, big endian) and the sums (int64, little endian)
        state = hashlib.sha256(b"folkmoot/v1/sums\n" + struct.pack(">Q", sums.divisor))
        mean = self._means(sums, state.update)
        model, changed = take_step(self._method.outer, mean, len(payloads), self._snapshots)
        return Aggregate(state.digest(), model, changed, sums.divisor, ill_formed)

    def _sums(self, payloads: Sequence[Payload]) -> Sums:
        if self._method.robust is not None and payloads:
            return RobustSums.of_payloads(payloads, self._fixed, self._codec, self._method.robust)
        return WeightedSums(payloads, self._fixed, self._codec)

    def _means(self, sums: Sums, digest: Callable[[Buffer], None]) -> Iterator[Float32s]:
        """The mean, chunk by chunk; ends in `NoMeanError` if there is none. `digest` is fed the sums in any case."""
        for start, chunk in sums.chunks():
            digest(self._as_integers(chunk))
            if sums.divisor:
                mean = self._mean[: len(chunk)]
                self._fixed.mean(chunk, sums.divisor, start, mean)
                yield mean
        if not sums.divisor:
            raise NoMeanError

    def _as_integers(self, sums: Float64s) -> Buffer:
        integers = self._integers[: len(sums)]
        np.copyto(integers, sums, casting="unsafe")
        return integers.data.cast("B")
