"""From opened payloads to the new model, chunk by chunk.

The node and the auditor call the same functions and get the same bits.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

import numpy as np

from folkmoot.protocol import ring
from folkmoot.protocol.codec import Codec
from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.outer import OpenAt, Outer, OuterStep, Piece, collect
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
from folkmoot.protocol.types import Digest, MemberId

Stored = TypeVar("Stored")


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
    base: OpenAt,
    payloads: Sequence[Payload],
    codec: Codec,
    sizes: Sequence[int],
    exponents: bytes | Sequence[int] | ring.Int8s,
    store: Callable[[Iterator[Piece]], Stored],
    unchanged: Stored,
    outer: Outer | None = None,
    robust: Robust | None = None,
) -> Aggregate[Stored]:
    """The payloads' mean as exact integers, then the outer rule on the snapshot `base`; FedAvg without one.

    The mean is weighted, or with `robust` what that rule makes of the payloads, all alike.

    `sizes`: values of each piece of an update that has an exponent. `store` is handed the new snapshot in pieces, those
    of each section in order, and returns what `Aggregate.model` shall be; `unchanged` is that for the base. If the
    iteration raises, `store` must keep nothing and let the exception pass: the pieces were no snapshot, and it may be
    called again.

    Does not depend on the order of `payloads`. An ill-formed payload counts as zero with weight zero (PROTOCOL
    section 3): its bytes were agreed on, so every honest node finds the same fault. Memory: a few chunks, and one for
    each payload. Raises LocalProtocolError for arguments that cannot be right.
    """
    check_payloads(payloads)
    outer = outer or Outer(sum(sizes))
    work = _Work(base, FixedPoint(Layout(sizes), exponents), codec, robust, outer)
    ill_formed: set[MemberId] = set()
    try:
        outcome = work.sum(payloads, store)
    except IllFormedError as error:
        # It spoilt a pass over all. Now look at each of the others whole, so that many cannot spoil many passes.
        others = [payload for payload in payloads if payload.member != error.member]
        good = [payload for payload in others if work.is_readable(payload)]
        ill_formed = {payload.member for payload in payloads} - {payload.member for payload in good}
        try:
            outcome = work.sum(good, store)
        except IllFormedError as again:
            raise LocalProtocolError(
                f"payload of member {again.member} read well once and not again: is the disk failing?"
            ) from again
    sums_digest, divisor, model = outcome
    return Aggregate(
        sums_digest,
        unchanged if model is None else model,
        model is not None,
        divisor,
        tuple(sorted(ill_formed)),
    )


def aggregate(
    base: Float32s,
    payloads: Sequence[Payload],
    codec: Codec,
    sizes: Sequence[int],
    exponents: bytes | Sequence[int] | ring.Int8s,
    outer: Outer | None = None,
    robust: Robust | None = None,
) -> Aggregate[Float32s]:
    """`aggregate_stream` with base and model as whole snapshots (float32)."""
    outer = outer or Outer(sum(sizes))
    length = outer.parameters * outer.sections
    if base.dtype != np.float32 or base.shape != (length,):
        raise LocalProtocolError(f"base is {base.dtype}{base.shape}, expected float32({length},)")
    flat = base.astype("<f4", copy=False).data.cast("B")
    store = partial(collect, outer)
    return aggregate_stream(
        lambda start: [flat[start:]], payloads, codec, sizes, exponents, store, base, outer, robust
    )


class _UnchangedError(Exception):
    """The round changes nothing: the chunks that were handed out are not a model."""


class _Work:
    """One aggregation: where the base is, scales, codec, robust and outer rule, and scratch memory for one chunk."""

    def __init__(
        self, base: OpenAt, fixed: FixedPoint, codec: Codec, robust: Robust | None, outer: Outer
    ) -> None:
        self._base = base
        self._outer = outer
        self._fixed = fixed
        self._codec = codec
        self._robust = robust
        length = min(CHUNK_VALUES, fixed.layout.size)
        self._integers = np.empty(length, dtype="<i8")
        self._mean = np.empty(length, dtype="<f4")

    def is_readable(self, payload: Payload) -> bool:
        """Read a payload from beginning to end."""
        return is_readable(payload, self._fixed, self._codec)

    def sum(
        self, payloads: Sequence[Payload], store: Callable[[Iterator[Piece]], Stored]
    ) -> tuple[Digest, int, Stored | None]:
        """Digest of divisor and sums, the divisor, and the snapshot unless it is the base.

        Raises `IllFormedError` at the first payload that cannot be read.
        """
        sums = self._sums(payloads)
        # SHA-256 of type line, divisor (8 bytes, big endian) and the sums (int64, little endian)
        state = hashlib.sha256(b"folkmoot/v1/sums\n" + struct.pack(">Q", sums.divisor))
        model: Stored | None
        try:
            model = store(self._snapshot(sums, len(payloads), state.update))
        except _UnchangedError:
            model = None
        return state.digest(), sums.divisor, model

    def _sums(self, payloads: Sequence[Payload]) -> Sums:
        if self._robust is not None and payloads:
            return RobustSums(payloads, self._fixed, self._codec, self._robust)
        return WeightedSums(payloads, self._fixed, self._codec)

    def _snapshot(self, sums: Sums, summed: int, digest: Callable[[Buffer], None]) -> Iterator[Piece]:
        """The new one; ends in `_UnchangedError` if there is none. `digest` is fed the sums in any case."""
        step = OuterStep(self._outer, self._base, summed)
        for start, chunk in sums.chunks():
            digest(self._as_integers(chunk))
            if sums.divisor:
                mean = self._mean[: len(chunk)]
                self._fixed.mean(chunk, sums.divisor, start, mean)
                yield from step.take(mean)
        if not (sums.divisor and step.is_finite):
            raise _UnchangedError
        step.finish()

    def _as_integers(self, sums: Float64s) -> Buffer:
        integers = self._integers[: len(sums)]
        np.copyto(integers, sums, casting="unsafe")
        return integers.data.cast("B")
