"""How a rehearsed round goes from updates to a step, in the two modes: the same codecs, integers and feedback."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from folkmoot.protocol.aggregate import Method, aggregate
from folkmoot.protocol.certificates import common_exponents
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.codec import codec_named, encode_vector
from folkmoot.protocol.feedback import encode_with_feedback
from folkmoot.protocol.groups import draw_groups
from folkmoot.protocol.outer import Outer, in_memory
from folkmoot.protocol.payload_sums import Payload
from folkmoot.protocol.pieces import Open
from folkmoot.protocol.ring import CHUNK_VALUES, FixedPoint, Float32s, Layout, compute_exponents, weight_of
from folkmoot.protocol.robust import Robust
from folkmoot.protocol.secure.dealing import shard_layout
from folkmoot.protocol.secure.encoding import RingDecoder, RingEncoder, member_weight
from folkmoot.protocol.secure.keystream import SEED_SIZE
from folkmoot.protocol.secure.masked_noise import exponent_bounds, plan_noise
from folkmoot.protocol.secure.masks import Crowd
from folkmoot.protocol.secure.noise import SkellamNoise
from folkmoot.protocol.secure.stream import Opening, masked_shards, open_sum, sum_crowds
from folkmoot.protocol.types import Digest


@dataclass(frozen=True)
class Sent:
    """A member's update, and how many examples it claims."""

    member: int
    examples: int
    update: Float32s
    fragment: int = 0


class Residuals:
    """What writing updates down lost, for each member: with error feedback, else nothing is kept."""

    def __init__(self, charter: Charter) -> None:
        self._has_feedback = charter.has_feedback
        self._kept: dict[tuple[int, int], Float32s] = {}

    def of(self, sent: Sent) -> Float32s | None:
        """To be changed in place."""
        if not self._has_feedback:
            return None
        return self._kept.setdefault((sent.member, sent.fragment), np.zeros_like(sent.update))

    def with_update(self, sent: Sent) -> Float32s:
        """What is written down."""
        kept = self._kept.get((sent.member, sent.fragment))
        return sent.update if kept is None else sent.update + kept


def sums_of(charter: Charter, federation: Digest) -> "OpenSums | SecureSums":
    """Those of the charter's mode; `federation` (its id) draws groups."""
    return SecureSums(charter, federation) if charter.is_secure else OpenSums(charter)


def scales(charter: Charter, vectors: Sequence[Float32s]) -> bytes:
    """The exponents of a roster whose members have these vectors to write down."""
    layout, bounds = Layout(charter.update_sizes), exponent_bounds(charter)
    announced = [compute_exponents(vector, layout, *bounds).tobytes() for vector in vectors]
    return common_exponents(announced, charter.faults)


class OpenSums:
    """Open mode, without seals."""

    def __init__(self, charter: Charter) -> None:
        self._charter = charter
        self._codec, self._residuals = codec_named(charter.averaging.codec), Residuals(charter)

    def step(self, round_: int, snapshot: Float32s, sent: Sequence[Sent]) -> Float32s:
        """The snapshot after a round."""
        exponents = scales(self._charter, [self._residuals.with_update(one) for one in sent])
        method = Method.of(self._charter, round_)
        fixed = FixedPoint(Layout(method.sizes), exponents)
        payloads = [self._payload(one, self._write(one, fixed)) for one in sent]
        return aggregate(method, exponents, payloads, snapshot).model

    def mean(self, round_: int, sent: Sequence[Sent]) -> Float32s:
        """What would come of these updates, written down exactly."""
        exponents = scales(self._charter, [one.update for one in sent])
        sizes = self._charter.update_sizes
        method = Method("f32", sizes, Outer(sum(sizes)), Robust.of(self._charter))
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
    """Secure mode, without masks, which are gone from every sum; in one shard, which changes no value."""

    def __init__(self, charter: Charter, federation: Digest) -> None:
        self._charter, self._federation = charter, federation
        self._layout = replace(shard_layout(charter), shards=1)
        self._residuals = Residuals(charter)
        self._plan = plan_noise(charter)

    def step(self, round_: int, snapshot: Float32s, sent: Sequence[Sent]) -> Float32s:
        """The snapshot after a round."""
        exponents = scales(self._charter, [self._residuals.with_update(one) for one in sent])
        shards = {one.member: self._shard(one, exponents, self._residuals.of(one)) for one in sent}
        return self._open(round_, shards, exponents, Outer.of(self._charter, round_), snapshot)

    def mean(self, round_: int, sent: Sequence[Sent]) -> Float32s:
        """What would come of these updates without feedback."""
        exponents = scales(self._charter, [one.update for one in sent])
        shards = {one.member: self._shard(one, exponents, None) for one in sent}
        return self._open(
            round_, shards, exponents, Outer(self._layout.parameters), np.zeros_like(sent[0].update)
        )

    def _shard(self, sent: Sent, exponents: bytes, residual: Float32s | None) -> Open:
        weight = member_weight(sent.examples, self._charter.averaging.weight_cap)
        encoder = RingEncoder(self._layout, self._charter.update_sizes, exponents, weight)
        rest = None if residual is None else _chunks(residual)
        noise = self._noise()
        pieces = masked_shards(self._layout, encoder, _chunks(sent.update), [], rest, noise)
        return partial(list, [b"".join(bytes(piece) for _, piece in pieces)])

    def _noise(self) -> SkellamNoise | None:
        """A member's share, where the charter has noise inside the masks."""
        if self._plan is None:
            return None
        return SkellamNoise(secrets.token_bytes(SEED_SIZE), self._plan.deviation**2)

    def _open(
        self, round_: int, shards: dict[int, Open], exponents: bytes, outer: Outer, base: Float32s
    ) -> Float32s:
        crowds = self._crowds(round_, shards)
        sums = [bytes(piece) for piece in sum_crowds(self._layout, 0, crowds)]
        decoder = RingDecoder(self._layout, self._charter.update_sizes, exponents)
        opening = Opening(
            self._layout, decoder, [partial(list, sums)], [Crowd(len(one), ()) for one in crowds]
        )
        return open_sum(opening, outer, in_memory(outer, base), Robust.of(self._charter)).model

    def _crowds(self, round_: int, shards: dict[int, Open]) -> list[list[Open]]:
        if not self._charter.sums_by_group:
            return [list(shards.values())]
        groups = draw_groups(self._charter, self._federation, round_)
        parts = ([shards[one] for one in group.members if one in shards] for group in groups)
        return [part for part in parts if part]


def _chunks(vector: Float32s) -> Iterator[Float32s]:
    for at in range(0, len(vector), CHUNK_VALUES):
        yield vector[at : at + CHUNK_VALUES]
