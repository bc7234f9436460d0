"""From opened payloads to the new model, chunk by chunk.

The node and the auditor call the same functions and get the same bits.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeAlias, TypeVar

import numpy as np

from folkmoot.protocol import ring
from folkmoot.protocol.codec import Codec, VectorDecoder
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.outer import OpenAt, Outer, OuterStep, Piece, collect
from folkmoot.protocol.pieces import Buffer
from folkmoot.protocol.ring import CHUNK_VALUES, FixedPoint, Float32s, Float64s, Layout
from folkmoot.protocol.types import Digest, MemberId

Stored = TypeVar("Stored")

Open: TypeAlias = Callable[[], Iterable[Buffer]]
"""Begins a new pass over some bytes, in pieces of any size; every pass must give the same bytes."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A survivor's update: whose, with which weight (`ring.weight_of`), and how to read its plaintext.

    A `RemoteProtocolError` from `open` (`sealing.open_frames`) or from decoding makes the payload ill-formed.
    """

    member: MemberId
    weight: int
    open: Open


@dataclass(frozen=True, slots=True)
class Aggregate(Generic[Stored]):
    """What came out: digest of weight and sums (LOCK names it), the new snapshot, and whose payload did not count.

    `changed` is False if the snapshot is the base: total weight zero, or a result that is not finite.
    """

    sums_digest: Digest
    model: Stored
    changed: bool
    total_weight: int
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
) -> Aggregate[Stored]:
    """Weighted mean of the payloads as exact integers, then the outer rule on the snapshot `base`; FedAvg without one.

    `sizes`: values of each piece of an update that has an exponent. `store` is handed the new snapshot in pieces, those
    of each section in order, and returns what `Aggregate.model` shall be; `unchanged` is that for the base. If the
    iteration raises, `store` must keep nothing and let the exception pass: the pieces were no snapshot, and it may be
    called again.

    Does not depend on the order of `payloads`. An ill-formed payload counts as zero with weight zero (PROTOCOL
    section 3): its bytes were agreed on, so every honest node finds the same fault. Memory: a few chunks, and one for
    each payload. Raises LocalProtocolError for arguments that cannot be right.
    """
    _check_payloads(payloads)
    outer = outer or Outer(sum(sizes))
    work = _Work(base, FixedPoint(Layout(sizes), exponents), codec, outer)
    ill_formed: set[MemberId] = set()
    try:
        outcome = work.sum(payloads, store)
    except _IllFormedError as error:
        # It spoilt a pass over all. Now look at each of the others whole, so that many cannot spoil many passes.
        others = [payload for payload in payloads if payload.member != error.member]
        good = [payload for payload in others if work.is_readable(payload)]
        ill_formed = {payload.member for payload in payloads} - {payload.member for payload in good}
        try:
            outcome = work.sum(good, store)
        except _IllFormedError as again:
            raise LocalProtocolError(
                f"payload of member {again.member} read well once and not again: is the disk failing?"
            ) from again
    sums_digest, total_weight, model = outcome
    return Aggregate(
        sums_digest,
        unchanged if model is None else model,
        model is not None,
        total_weight,
        tuple(sorted(ill_formed)),
    )


def aggregate(
    base: Float32s,
    payloads: Sequence[Payload],
    codec: Codec,
    sizes: Sequence[int],
    exponents: bytes | Sequence[int] | ring.Int8s,
    outer: Outer | None = None,
) -> Aggregate[Float32s]:
    """`aggregate_stream` with base and model as whole snapshots (float32)."""
    outer = outer or Outer(sum(sizes))
    length = outer.parameters * outer.sections
    if base.dtype != np.float32 or base.shape != (length,):
        raise LocalProtocolError(f"base is {base.dtype}{base.shape}, expected float32({length},)")
    flat = base.astype("<f4", copy=False).data.cast("B")
    return aggregate_stream(
        lambda start: [flat[start:]], payloads, codec, sizes, exponents, partial(collect, outer), base, outer
    )


def _check_payloads(payloads: Sequence[Payload]) -> None:
    members = [payload.member for payload in payloads]
    if len(set(members)) != len(members):
        raise LocalProtocolError(f"payloads of members {sorted(members)}: one is there twice")
    if any(not 0 <= payload.weight <= ring.MAX_WEIGHT for payload in payloads):
        raise LocalProtocolError(f"a weight is not between 0 and {ring.MAX_WEIGHT}: use ring.weight_of")
    ring.check_headroom(len(payloads))


class _IllFormedError(Exception):
    """The payload of `member` cannot be read."""

    def __init__(self, member: MemberId) -> None:
        super().__init__(member)
        self.member = member


class _UnchangedError(Exception):
    """The round changes nothing: the chunks that were handed out are not a model."""


class _Source:
    """One pass over a payload; everything that is wrong with it is an `_IllFormedError`."""

    def __init__(self, payload: Payload, codec: Codec) -> None:
        self.payload = payload
        self._decoder = VectorDecoder(codec, payload.open())

    def read(self, out: Float64s) -> None:
        try:
            self._decoder.read(out)
        except RemoteProtocolError as error:
            raise _IllFormedError(self.payload.member) from error

    def finish(self) -> None:
        try:
            self._decoder.finish()
        except RemoteProtocolError as error:
            raise _IllFormedError(self.payload.member) from error


class _Work:
    """One aggregation: where the base is, scales, codec and outer rule, and scratch memory for one chunk."""

    def __init__(self, base: OpenAt, fixed: FixedPoint, codec: Codec, outer: Outer) -> None:
        self._base = base
        self._outer = outer
        self._fixed = fixed
        self._codec = codec
        length = min(CHUNK_VALUES, fixed.layout.size)
        self._values = np.empty(length, dtype=np.float64)
        self._sums = np.empty(length, dtype=np.float64)
        self._integers = np.empty(length, dtype="<i8")
        self._mean = np.empty(length, dtype="<f4")

    def is_readable(self, payload: Payload) -> bool:
        """Read a payload from beginning to end."""
        try:
            source = _Source(payload, self._codec)
            for start, stop in self._fixed.layout.chunks():
                source.read(self._values[: stop - start])
            source.finish()
        except _IllFormedError:
            return False
        return True

    def sum(
        self, payloads: Sequence[Payload], store: Callable[[Iterator[Piece]], Stored]
    ) -> tuple[Digest, int, Stored | None]:
        """One pass over all: digest of weight and sums, total weight, and the snapshot unless it is the base.

        Raises `_IllFormedError` at the first payload that cannot be read.
        """
        total = sum(payload.weight for payload in payloads)
        # SHA-256 of type line, total weight (8 bytes, big endian) and the sums (int64, little endian)
        state = hashlib.sha256(b"folkmoot/v1/sums\n" + struct.pack(">Q", total))
        model: Stored | None
        try:
            model = store(self._snapshot(payloads, total, state.update))
        except _UnchangedError:
            model = None
        return state.digest(), total, model

    def _snapshot(
        self, payloads: Sequence[Payload], total_weight: int, digest: Callable[[Buffer], None]
    ) -> Iterator[Piece]:
        """The new one; ends in `_UnchangedError` if there is none. `digest` is fed the sums in any case."""
        sources = [_Source(payload, self._codec) for payload in payloads]
        step = OuterStep(self._outer, self._base, len(payloads))
        for start, stop in self._fixed.layout.chunks():
            sums, mean = self._sum_chunk(sources, start, stop), self._mean[: stop - start]
            digest(self._as_integers(sums))
            if total_weight:
                self._fixed.mean(sums, total_weight, start, mean)
                yield from step.take(mean)
        for source in sources:
            source.finish()
        if not (total_weight and step.is_finite):
            raise _UnchangedError
        step.finish()

    def _sum_chunk(self, sources: Sequence[_Source], start: int, stop: int) -> Float64s:
        sums, values = self._sums[: stop - start], self._values[: stop - start]
        sums.fill(0.0)
        for source in sources:
            source.read(values)
            self._fixed.to_integers(values, start, values)
            ring.accumulate_weighted(sums, values, source.payload.weight)
        return sums

    def _as_integers(self, sums: Float64s) -> Buffer:
        integers = self._integers[: len(sums)]
        np.copyto(integers, sums, casting="unsafe")
        return integers.data.cast("B")
