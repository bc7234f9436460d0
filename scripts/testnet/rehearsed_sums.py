"""How a rehearsed round goes from updates to a step, in the two modes: the same codecs, integers and feedback."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from folkmoot.protocol.aggregate import Method, aggregate
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.codec import codec_named, encode_vector
from folkmoot.protocol.feedback import encode_with_feedback
from folkmoot.protocol.outer import Outer, in_memory, take_step
from folkmoot.protocol.payload_sums import Payload
from folkmoot.protocol.ring import CHUNK_VALUES, FixedPoint, Float32s, Layout, weight_of
from folkmoot.protocol.secure.dealing import shard_layout
from folkmoot.protocol.secure.encoding import RingDecoder, RingEncoder, member_weight


@dataclass(frozen=True)
class Sent:
    """A member's update, and how many examples it claims."""

    member: int
    examples: int
    update: Float32s


class Residuals:
    """What writing updates down lost, for each member: with error feedback, else nothing is kept."""

    def __init__(self, charter: Charter) -> None:
        self._has_feedback = charter.has_feedback
        self._kept: dict[int, Float32s] = {}

    def of(self, sent: Sent) -> Float32s | None:
        """To be changed in place."""
        if not self._has_feedback:
            return None
        return self._kept.setdefault(sent.member, np.zeros_like(sent.update))

    def with_update(self, sent: Sent) -> Float32s:
        """What is written down."""
        kept = self._kept.get(sent.member)
        return sent.update if kept is None else sent.update + kept


class OpenSums:
    """Open mode, without seals."""

    def __init__(self, charter: Charter) -> None:
        self._charter, self._method = charter, Method.of(charter)
        self._codec, self._residuals = codec_named(charter.averaging.codec), Residuals(charter)
        self.written = self._residuals.with_update

    def step(self, round_: int, snapshot: Float32s, sent: Sequence[Sent], exponents: bytes) -> Float32s:
        """The snapshot after a round."""
        fixed = FixedPoint(Layout(self._method.sizes), exponents)
        payloads = [self._payload(one, self._write(one, fixed)) for one in sent]
        return aggregate(self._method, exponents, payloads, snapshot).model

    def mean(self, round_: int, sent: Sequence[Sent], exponents: bytes) -> Float32s:
        """What would come of these updates, written down exactly."""
        method = Method("f32", self._method.sizes, Outer(sum(self._method.sizes)), self._method.robust)
        payloads = [self._payload(one, one.update.tobytes()) for one in sent]
        return aggregate(method, exponents, payloads, np.zeros_like(sent[0].update)).model

    def _payload(self, sent: Sent, data: bytes) -> Payload:
        weight = weight_of(sent.examples, self._charter.averaging.weight_cap)
        return Payload(sent.member, weight, partial(list, [data]))

    def _write(self, sent: Sent, fixed: FixedPoint) -> bytes:
        residual = self._residuals.of(sent)
        if residual is None:
            return b"".join(encode_vector(self._codec, sent.update))
        pieces = encode_with_feedback(self._codec, fixed, _chunks(sent.update), _chunks(residual))
        return b"".join(pieces)


class SecureSums:
    """Secure mode, without masks, which are gone from every sum."""

    def __init__(self, charter: Charter) -> None:
        self._charter, self._outer = charter, Outer.of(charter)
        self._layout, self._residuals = shard_layout(charter), Residuals(charter)
        self.written = self._residuals.with_update

    def step(self, round_: int, snapshot: Float32s, sent: Sequence[Sent], exponents: bytes) -> Float32s:
        """The snapshot after a round."""
        means = self._means(sent, exponents, self._residuals)
        return take_step(self._outer, means, len(sent), in_memory(self._outer, snapshot))[0]

    def mean(self, round_: int, sent: Sequence[Sent], exponents: bytes) -> Float32s:
        """What would come of these updates without feedback."""
        return np.concatenate([piece.copy() for piece in self._means(sent, exponents, None)])

    def _means(
        self, sent: Sequence[Sent], exponents: bytes, residuals: Residuals | None
    ) -> Iterator[Float32s]:
        layout, sizes = self._layout, self._charter.update_sizes
        total, weights = np.zeros(layout.parameters, dtype=layout.dtype), 0
        for one in sent:
            weight = member_weight(one.examples, self._charter.averaging.weight_cap)
            values = np.zeros_like(total)
            residual = None if residuals is None else residuals.of(one)
            RingEncoder(layout, sizes, exponents, weight).encode(one.update, 0, values, residual)
            total += values
            weights += weight
        decoder = RingDecoder(layout, sizes, exponents)
        for at in range(0, len(total), CHUNK_VALUES):
            sums = total[at : at + CHUNK_VALUES]
            mean = np.empty(len(sums), dtype=np.float32)
            decoder.mean(sums, weights, at, mean)
            yield mean


def _chunks(vector: Float32s) -> Iterator[Float32s]:
    for at in range(0, len(vector), CHUNK_VALUES):
        yield vector[at : at + CHUNK_VALUES]
