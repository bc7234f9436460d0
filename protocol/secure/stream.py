"""From an update to masked shards, from shards to their sum, from sums to the new model; all chunk by chunk.

Memory: a few chunks. Every function is for one thread; run several of them for several shards, numpy and OpenSSL let
go of the interpreter's lock.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic

import numpy as np

from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.outer import NoMeanError, Outer, Snapshots, Stored, take_step
from folkmoot.protocol.payload_sums import RobustSums
from folkmoot.protocol.pieces import Open
from folkmoot.protocol.reader import Reader
from folkmoot.protocol.ring import CHUNK_VALUES, FixedPoint, Float32s, Float64s
from folkmoot.protocol.robust import Robust
from folkmoot.protocol.secure import packing
from folkmoot.protocol.secure.encoding import RingDecoder, RingEncoder
from folkmoot.protocol.secure.layout import BLOCK, MAX_WEIGHT, RingValues, ShardLayout
from folkmoot.protocol.secure.masks import Crowd, Expander, Mask
from folkmoot.protocol.secure.noise import SkellamNoise


@dataclass(frozen=True, slots=True)
class Opened(Generic[Stored]):
    """What an opening gives: the new model, and the sum of the weights in it.

    `changed` is False if the model is the base: a total weight that the members cannot have, or a result that is not
    finite.
    """

    model: Stored
    changed: bool
    total_weight: int


# --- a member's shards --------------------------------------------------------------------------------------


def masked_shards(
    layout: ShardLayout,
    encoder: RingEncoder,
    update: Iterable[Float32s],
    masks: Sequence[Mask],
    residuals: Iterable[Float32s] | None = None,
    noise: SkellamNoise | None = None,
) -> Iterator[tuple[int, memoryview]]:
    """Encode an update, given in pieces of any size, and mask it: (shard, bytes) in order, in chunks.

    What is yielded is to be used before the next is asked for. A shard without values (more shards than blocks) does
    not occur. With `residuals` (what earlier rounds lost, in pieces as long as the update's), those are changed in
    place into the new ones: a piece is done when the one after it is asked for. `noise` is added to every parameter.
    Raises LocalProtocolError on an update
    of another length, which may show only at the end, or with a value that is not finite.
    """
    source, expander = _Update(encoder, update, residuals), Expander(layout, masks)
    values = np.empty(min(CHUNK_VALUES, layout.size), dtype=layout.dtype)
    for shard in range(layout.shards):
        for start, stop in layout.chunks(shard):
            chunk = values[: stop - start]
            chunk.fill(0)
            if start == 0:
                encoder.encode_weight(chunk[:BLOCK])
            first, end = layout.parameters_in(start, stop)
            values_of_it = _parameters(chunk, start, first, end)
            source.encode(first, values_of_it)
            if noise is not None:
                _add_noise(noise, first, values_of_it)
            expander.add(chunk, start)
            yield shard, chunk.data.cast("B")
    source.finish()


def _add_noise(noise: SkellamNoise, first: int, values: RingValues) -> None:
    """Put a member's share of the noise on its values, the parameters from `first` on, modulo 2^b."""
    drawn = np.zeros(len(values), dtype=np.int64)
    noise.add(drawn, first)
    np.add(values, drawn.astype(values.dtype), out=values)


class _Update:
    """An update that comes in pieces, encoded in other pieces."""

    def __init__(
        self, encoder: RingEncoder, pieces: Iterable[Float32s], residuals: Iterable[Float32s] | None
    ) -> None:
        self._encoder, self._pieces = encoder, _paired(pieces, residuals)
        self._piece = np.empty(0, dtype=np.float32)
        self._residual: Float32s | None = None

    def encode(self, first: int, out: RingValues) -> None:
        """Encode the next `len(out)` values, the parameters from `first` on."""
        done = 0
        while done < len(out):
            if not self._next_piece():
                raise LocalProtocolError(f"update ends after {first + done} values")
            count = min(len(self._piece), len(out) - done)
            residual = None if self._residual is None else self._residual[:count]
            self._encoder.encode(self._piece[:count], first + done, out[done : done + count], residual)
            self._piece = self._piece[count:]
            self._residual = None if self._residual is None else self._residual[count:]
            done += count

    def finish(self) -> None:
        if self._next_piece():
            raise LocalProtocolError("update has more values than the layout has parameters")

    def _next_piece(self) -> bool:
        """Move on to a piece with values left; False at the end."""
        while not len(self._piece):
            pair = next(self._pieces, None)
            if pair is None:
                return False
            self._piece, self._residual = pair
        return True


def _paired(
    update: Iterable[Float32s], residuals: Iterable[Float32s] | None
) -> Iterator[tuple[Float32s, Float32s | None]]:
    """Each piece of the update with that of the residual."""
    if residuals is None:
        yield from ((piece, None) for piece in update)
        return
    others = iter(residuals)
    for piece in update:
        residual = next(others, None)
        if residual is None or len(residual) != len(piece):
            raise LocalProtocolError("residuals come in other pieces than the update")
        yield piece, residual
    if next(others, None) is not None:
        raise LocalProtocolError("residuals go on after the end of the update")


# --- an owner's sum -----------------------------------------------------------------------------------------


def sum_shard(layout: ShardLayout, shard: int, sources: Sequence[Open]) -> Iterator[memoryview]:
    """`sum_crowds` of a single crowd."""
    return sum_crowds(layout, shard, [sources])


def sum_crowds(layout: ShardLayout, shard: int, crowds: Sequence[Sequence[Open]]) -> Iterator[memoryview]:
    """The packed, unreduced sum of one shard of the members of each crowd (`packing.py`): by chunk, then by crowd.

    What is yielded is to be used before the next is asked for. Raises LocalProtocolError on a source of another length
    than `layout.shard_bytes(shard)`, and on more sources in a crowd than the layout has room for.
    """
    for sources in crowds:
        _check_members(layout, len(sources))
    readers = [
        [Reader(source(), f"masked shard {shard} (source {index})") for index, source in enumerate(sources)]
        for sources in crowds
    ]
    length = min(CHUNK_VALUES, layout.shard_values(shard))
    low, carries = np.empty(length, dtype=layout.dtype), np.empty(length, dtype=np.uint8)
    packed = np.empty(layout.packed_bytes(length), dtype=np.uint8)
    for start, stop in layout.chunks(shard):
        count = stop - start
        for crowd in readers:
            low[:count], carries[:count] = 0, 0
            for reader in crowd:
                values = np.frombuffer(reader.take(count * layout.value_bytes), dtype=layout.dtype)
                packing.accumulate(low[:count], carries[:count], values)
            out = packed[: layout.packed_bytes(count)]
            packing.pack(layout, low[:count], carries[:count], out)
            yield out.data
    for reader in chain.from_iterable(readers):
        reader.finish()


# --- everybody's opening ------------------------------------------------------------------------------------


def open_sum(
    opening: "Opening", outer: Outer, snapshots: Snapshots[Stored], robust: Robust | None = None
) -> Opened[Stored]:
    """Take the masks off, then the outer rule's step with the mean, or with what `robust` makes of the crowds' means.

    All sums are read and checked in any case. Raises what `Opening.parameters` does.
    """
    if robust is None and len(opening.crowds) != 1:
        raise LocalProtocolError(f"sums of {len(opening.crowds)} crowds, and no rule to compare them")
    mean = _mean(opening) if robust is None else _robust_mean(opening, robust)
    model, changed = take_step(outer, mean, opening.members, snapshots)
    return Opened(model, changed, sum(opening.weights))


class Opening:
    """Sums of all shards of each of the `crowds`, whose masks are to be taken off.

    Holds scratch memory for one chunk of each, so it is for one thread. Raises LocalProtocolError on a wrong number of
    sums or members.
    """

    def __init__(
        self, layout: ShardLayout, decoder: RingDecoder, sums: Sequence[Open], crowds: Sequence[Crowd]
    ) -> None:
        for crowd in crowds:
            _check_members(layout, crowd.members)
        if len(sums) != layout.shards:
            raise LocalProtocolError(f"sums of {len(sums)} shards, the layout has {layout.shards}")
        self.crowds, self.decoder = crowds, decoder
        self.weights = [0] * len(crowds)
        """Each crowd's sum of weights, once the first chunk was read."""
        self._layout, self._sums = layout, sums
        self._expanders = [Expander(layout, crowd.masks) for crowd in crowds]
        length = min(CHUNK_VALUES, layout.size)
        self._values = np.empty((len(crowds), length), dtype=layout.dtype)
        self._carries = np.empty(length, dtype=np.uint8)

    @property
    def members(self) -> int:
        """All of them."""
        return sum(crowd.members for crowd in self.crowds)

    @property
    def weighed(self) -> list[int]:
        """The crowds, by place, whose weights are such as their members can have."""
        pairs = enumerate(zip(self.weights, self.crowds, strict=True))
        return [place for place, (weight, crowd) in pairs if 1 <= weight <= MAX_WEIGHT * crowd.members]

    def parameters(self) -> Iterator[tuple[int, RingValues]]:
        """The open sums, modulo 2^b, (crowds, values) from a parameter on; to be used before the next is asked for.

        Raises RemoteProtocolError on a packed sum that so many masked values cannot have; LocalProtocolError on a wrong
        length.
        """
        for shard, source in enumerate(self._sums):
            reader = Reader(source(), f"sum of shard {shard}")
            for start, stop in self._layout.chunks(shard):
                values = self._strip(reader, start, stop)
                if start == 0:
                    self.weights = [self.decoder.total_weight(row[:BLOCK]) for row in values]
                first, end = self._layout.parameters_in(start, stop)
                if first < end:
                    offset = BLOCK + first - start
                    yield first, values[:, offset : offset + end - first]
            reader.finish()

    def _strip(self, reader: Reader, start: int, stop: int) -> RingValues:
        """The next chunk of sums without masks."""
        all_values, carries = self._values[:, : stop - start], self._carries[: stop - start]
        for values, crowd, expander in zip(all_values, self.crowds, self._expanders, strict=True):
            data = reader.take(self._layout.packed_bytes(len(values)))
            low = packing.unpack_low(self._layout, data, len(values))
            packing.unpack_carries(self._layout, data, carries)
            packing.check_range(self._layout, low, carries, crowd.members)
            np.copyto(values, low)
            expander.add(values, start, subtract=True)
        return all_values


def _mean(opening: Opening) -> Iterator[Float32s]:
    """The mean of the one crowd's updates, piece by piece; ends in `NoMeanError` on a weight that it cannot have."""
    mean = np.empty(CHUNK_VALUES, dtype="<f4")
    for first, (values,) in opening.parameters():
        if opening.weighed:
            piece = mean[: len(values)]
            opening.decoder.mean(values, opening.weights[0], first, piece)
            yield piece
    if not opening.weighed:
        raise NoMeanError


def _robust_mean(opening: Opening, robust: Robust) -> Iterator[Float32s]:
    """What the rule makes of the crowds' means, all alike, piece by piece; `NoMeanError` if none has one.

    Means are integers under the roster's scales, as updates are in open mode (`ring.FixedPoint`).
    """
    next(opening.parameters(), None)  # for the weights
    fixed, heard = FixedPoint(opening.decoder.tensors, opening.decoder.exponents), opening.weighed
    mean = np.empty(CHUNK_VALUES, dtype="<f4")

    def rows() -> Iterator[tuple[int, Float64s]]:
        integers = np.empty((len(heard), CHUNK_VALUES))
        for first, values in opening.parameters():
            piece = mean[: values.shape[1]]
            for row, place in zip(integers, heard, strict=True):
                opening.decoder.mean(values[place], opening.weights[place], first, piece)
                fixed.to_integers(piece.astype(np.float64), first, row[: len(piece)])
            yield first, integers[:, : len(piece)]

    if not heard:
        for _ in opening.parameters():
            pass  # every sum is checked in any case
        raise NoMeanError
    sums = RobustSums(rows, len(heard), fixed, robust)
    for first, chunk in sums.chunks():
        piece = mean[: len(chunk)]
        fixed.mean(chunk, sums.divisor, first, piece)
        yield piece


def _parameters(chunk: RingValues, start: int, first: int, end: int) -> RingValues:
    """The parameters [first, end) in a chunk that lies at ring position `start`."""
    offset = BLOCK + first - start if first < end else 0
    return chunk[offset : offset + end - first]


def _check_members(layout: ShardLayout, members: int) -> None:
    if not 1 <= members <= layout.members:
        raise LocalProtocolError(
            f"a sum over {members} members in a group of {layout.members}: it has 1 to {layout.members}"
        )
