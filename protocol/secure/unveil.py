"""One member's masked vector, opened under a permit: is it what the rules allow, and how large is the update in it?

The masks are those that the member committed to. So if what is left without them is no encoded update, then the member
put something else into the sum, and its commitment is the proof.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from folkmoot.protocol.pieces import Open
from folkmoot.protocol.reader import Reader
from folkmoot.protocol.ring import CHUNK_VALUES, Float32s, Layout
from folkmoot.protocol.secure.dealing import recovered_mask
from folkmoot.protocol.secure.encoding import RingDecoder, RingEncoder
from folkmoot.protocol.secure.layout import BLOCK, MAX_WEIGHT, RingValues
from folkmoot.protocol.secure.masks import Expander, Mask, pair_mask
from folkmoot.protocol.secure.verify import MaskedRound, Releases
from folkmoot.protocol.types import MemberId


@dataclass(frozen=True, slots=True)
class Unveiled:
    """What was in a member's vector: its weight, and Euclidean norm and largest magnitude of every tensor.

    `faults` says what no honest encoder writes; then there are no tensors, for the values mean nothing.
    """

    weight: int
    norms: tuple[float, ...]
    largest: tuple[float, ...]
    faults: tuple[str, ...]


def vector_masks(
    round_: MaskedRound, releases: Releases, member: MemberId, seeds: Mapping[MemberId, bytes]
) -> tuple[Mask, ...]:
    """Every mask in a survivor's vector. `seeds`: verified ones that the other survivors gave out, by survivor.

    Those that it had with members left out, and its self-mask, were released with the round.
    """
    known = {**dict(releases.seeds[member].seeds if member in releases.seeds else ()), **seeds}
    pairs = (pair_mask(seed, member, peer) for peer, seed in sorted(known.items()))
    return (recovered_mask(round_.circles, member, releases.shares[member]), *pairs)


def unveil(round_: MaskedRound, shards: Sequence[Open], masks: Sequence[Mask]) -> Unveiled:
    """Take the masks off a member's shards, chunk by chunk. Raises LocalProtocolError on a shard of wrong length.

    Norms are for people, not for the protocol: their last bits depend on the machine.
    """
    work = _Unveiling(round_, Expander(round_.layout, masks))
    for shard, open_ in enumerate(shards):
        reader = Reader(open_(), f"masked shard {shard}")
        for start, stop in round_.layout.chunks(shard):
            work.take(reader, start, stop)
        reader.finish()
    return work.result


class _Unveiling:
    """One vector on its way, and scratch memory for one chunk."""

    def __init__(self, round_: MaskedRound, expander: Expander) -> None:
        self._layout = round_.layout
        self._expander = expander
        self._sizes, self._exponents = round_.federation.charter.update_sizes, round_.roster.exponents
        self._signed = np.dtype(f"<i{self._layout.value_bytes}")
        self._decoder = RingDecoder(self._layout, self._sizes, self._exponents)
        self._tensors = Layout(self._sizes)
        length = min(CHUNK_VALUES, self._layout.size)
        self._values = np.empty(length, dtype=self._layout.dtype)
        self._update = np.empty(length, dtype=np.float32)
        self._squares = [0.0] * len(self._sizes)
        self._largest = [0.0] * len(self._sizes)
        self._faults: dict[str, None] = {}
        self._weight = 0

    def take(self, reader: Reader, start: int, stop: int) -> None:
        """The next chunk, ring positions [start, stop)."""
        layout, values = self._layout, self._values[: stop - start]
        data = reader.take((stop - start) * layout.value_bytes)
        np.copyto(values, np.frombuffer(data, dtype=layout.dtype))
        self._expander.add(values, start, subtract=True)
        if start == 0:
            self._take_weight(values[:BLOCK])
        first, end = layout.parameters_in(start, stop)
        offset = BLOCK + first - start
        if first < end:
            self._take_parameters(values[offset : offset + end - first], first)
        if values[offset + end - first :].any():
            self._faults["its padding is not zero"] = None

    def _take_weight(self, block: RingValues) -> None:
        self._weight = self._decoder.total_weight(block)
        honest = np.empty_like(block)
        if 1 <= self._weight <= MAX_WEIGHT:
            RingEncoder(self._layout, self._sizes, self._exponents, self._weight).encode_weight(honest)
            if np.array_equal(block, honest):
                return
        self._faults[f"it does not begin with a weight of 1 to {MAX_WEIGHT}"] = None

    def _take_parameters(self, values: RingValues, first: int) -> None:
        signed = values.view(self._signed)
        # Not abs(): the most negative value of the ring has no positive counterpart.
        if (signed > self._layout.largest).any() or (signed < -self._layout.largest).any():
            self._faults["it has values beyond the range of one member"] = None
        if self._faults:
            return
        update: Float32s = self._update[: len(values)]
        self._decoder.mean(values, self._weight, first, update)
        for tensor, low, high in self._tensors.pieces(first, first + len(values)):
            piece = update[low:high].astype(np.float64)
            self._squares[tensor] += float(piece @ piece)
            self._largest[tensor] = max(self._largest[tensor], float(np.abs(piece).max()))

    @property
    def result(self) -> Unveiled:
        """After the last chunk."""
        faults = tuple(self._faults)
        norms = () if faults else tuple(map(math.sqrt, self._squares))
        return Unveiled(self._weight, norms, () if faults else tuple(self._largest), faults)
