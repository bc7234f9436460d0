"""From opened payloads to the new model.

The node and the auditor call the same function and get the same bits.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from folkmoot.protocol import ring
from folkmoot.protocol.codec import Codec, decode_vector
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.pieces import Buffer
from folkmoot.protocol.ring import CHUNK_VALUES, FixedPoint, Float32s, Int64s, Layout
from folkmoot.protocol.types import Digest, MemberId


@dataclass(frozen=True, slots=True)
class Payload:
    """A survivor's update: whose, with which weight (`ring.weight_of`), and how to read its plaintext.

    `open` begins a new pass over the plaintext, in pieces of any size (`sealing.open_frames`); every pass
    must give the same bytes. A `RemoteProtocolError` from it or from decoding makes the payload ill-formed.
    """

    member: MemberId
    weight: int
    open: Callable[[], Iterable[Buffer]]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What came out: digest of weight and sums (LOCK names it), the new model, and whose payload did not
    count.

    `changed` is False if the model is the base: total weight zero, or a result that is not finite.
    """

    sums_digest: Digest
    model: Float32s
    changed: bool
    total_weight: int
    ill_formed: tuple[MemberId, ...]


def aggregate(
    base: Float32s,
    payloads: Sequence[Payload],
    codec: Codec,
    sizes: Sequence[int],
    exponents: bytes | Sequence[int] | ring.Int8s,
) -> Aggregate:
    """Weighted mean of the payloads as exact integers, then FedAvg on `base` (float32, `sum(sizes)` values).

    Does not depend on the order of `payloads`. An ill-formed payload counts as zero with weight zero
    (PROTOCOL section 3): its bytes were agreed on, so every honest node finds the same fault. Memory: base,
    one int64 vector, the result, and one chunk. Raises LocalProtocolError for arguments that cannot be right.
    """
    layout = Layout(sizes)
    _check_arguments(base, payloads, layout)
    fixed = FixedPoint(layout, exponents)
    summing = _Sums(fixed, codec)
    ill_formed = []
    total_weight = 0
    for payload in sorted(payloads, key=lambda payload: payload.member):
        if summing.add(payload):
            total_weight += payload.weight
        else:
            ill_formed.append(payload.member)
    model, changed = _apply(base, summing.sums, total_weight, fixed)
    return Aggregate(
        _sums_digest(total_weight, summing.sums), model, changed, total_weight, tuple(ill_formed)
    )


class _Sums:
    """The weighted sum so far, and scratch memory for one chunk."""

    def __init__(self, fixed: FixedPoint, codec: Codec) -> None:
        self.sums = np.zeros(fixed.layout.size, dtype="<i8")
        self._fixed = fixed
        self._codec = codec
        self._integers = np.empty(min(CHUNK_VALUES, fixed.layout.size), dtype=np.int64)

    def add(self, payload: Payload) -> bool:
        """Add a payload; returns False, with the sums as before, if it is ill-formed."""
        added = 0
        chunks = decode_vector(self._codec, payload.open(), self._fixed.layout.size)
        try:
            for start, values in chunks:
                self._add_chunk(start, values, payload.weight)
                added += 1
        except RemoteProtocolError:
            # A fault deep in the stream: read the good beginning again and take it back, exactly.
            again = decode_vector(self._codec, payload.open(), self._fixed.layout.size)
            for start, values in islice(again, added):
                self._add_chunk(start, values, -payload.weight)
            return False
        return True

    def _add_chunk(self, start: int, values: Float32s, weight: int) -> None:
        integers = self._integers[: len(values)]
        self._fixed.to_integers(values, start, integers)
        ring.accumulate_weighted(self.sums[start : start + len(values)], integers, weight)


def _check_arguments(base: Float32s, payloads: Sequence[Payload], layout: Layout) -> None:
    if base.dtype != np.float32 or base.shape != (layout.size,):
        raise LocalProtocolError(f"base is {base.dtype}{base.shape}, expected float32({layout.size},)")
    members = [payload.member for payload in payloads]
    if len(set(members)) != len(members):
        raise LocalProtocolError(f"payloads of members {sorted(members)}: one is there twice")
    if any(not 0 <= payload.weight <= ring.MAX_WEIGHT for payload in payloads):
        raise LocalProtocolError(f"a weight is not between 0 and {ring.MAX_WEIGHT}: use ring.weight_of")
    ring.check_headroom(len(payloads))


def _apply(base: Float32s, sums: Int64s, total_weight: int, fixed: FixedPoint) -> tuple[Float32s, bool]:
    if total_weight == 0:
        return base, False
    model = np.empty_like(base)
    for start, stop in fixed.layout.chunks():
        piece = model[start:stop]
        fixed.mean(sums[start:stop], total_weight, start, piece)
        if not ring.apply_fedavg(base[start:stop], piece, piece):
            return base, False
    return model, True


def _sums_digest(total_weight: int, sums: Int64s) -> Digest:
    """SHA-256 of type line, total weight (8 bytes, big endian) and the sums (int64, little endian)."""
    state = hashlib.sha256(b"folkmoot/v1/sums\n" + struct.pack(">Q", total_weight))
    state.update(sums.data)
    return state.digest()
