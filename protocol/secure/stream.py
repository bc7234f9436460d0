"""From an update to masked shards, from shards to their sum, from sums to the new model; all chunk by chunk.

Memory: a few chunks. Every function is for one thread; run several of them for several shards, numpy and OpenSSL let
go of the interpreter's lock.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np

from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.outer import NoMeanError, Outer, Snapshots, Stored, take_step
from folkmoot.protocol.pieces import Open
from folkmoot.protocol.reader import Reader
from folkmoot.protocol.ring import CHUNK_VALUES, Float32s
from folkmoot.protocol.secure import packing
from folkmoot.protocol.secure.encoding import RingDecoder, RingEncoder
from folkmoot.protocol.secure.layout import BLOCK, MAX_WEIGHT, RingValues, ShardLayout
from folkmoot.protocol.secure.masks import Expander, Mask


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
) -> Iterator[tuple[int, memoryview]]:
    """Encode an update, given in pieces of any size, and mask it: (shard, bytes) in order, in chunks.

    What is yielded is to be used before the next is asked for. A shard without values (more shards than blocks) does
    not occur. With `residuals` (what earlier rounds lost, in pieces as long as the update's), those are changed in
    place into the new ones: a piece is done when the one after it is asked for. Raises LocalProtocolError on an update
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
            source.encode(first, _parameters(chunk, start, first, end))
            expander.add(chunk, start)
            yield shard, chunk.data.cast("B")
    source.finish()


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
    """The packed, unreduced sum of one shard of several members (`packing.py`), in chunks.

    What is yielded is to be used before the next is asked for. Raises LocalProtocolError on a source of another length
    than `layout.shard_bytes(shard)`, and on more sources than the group has members.
    """
    _check_members(layout, len(sources))
    readers = [
        Reader(source(), f"masked shard {shard} (source {index})") for index, source in enumerate(sources)
    ]
    length = min(CHUNK_VALUES, layout.shard_values(shard))
    low, carries = np.empty(length, dtype=layout.dtype), np.empty(length, dtype=np.uint8)
    packed = np.empty(layout.packed_bytes(length), dtype=np.uint8)
    for start, stop in layout.chunks(shard):
        count = stop - start
        low[:count], carries[:count] = 0, 0
        for reader in readers:
            values = np.frombuffer(reader.take(count * layout.value_bytes), dtype=layout.dtype)
            packing.accumulate(low[:count], carries[:count], values)
        out = packed[: layout.packed_bytes(count)]
        packing.pack(layout, low[:count], carries[:count], out)
        yield out.data
    for reader in readers:
        reader.finish()


# --- everybody's opening ------------------------------------------------------------------------------------


def open_sum(opening: "Opening", outer: Outer, snapshots: Snapshots[Stored]) -> Opened[Stored]:
    """Strip the masks off the sums of all shards, then the outer rule's step with their mean.

    Raises what `Opening.means` does.
    """
    model, changed = take_step(outer, opening.means(), opening.members, snapshots)
    return Opened(model, changed, opening.total_weight)


class Opening:
    """Sums of all shards of `members` members, and the masks that did not vanish in them, as they were added.

    Those are the self masks of the members, and for each that dropped out the pair mask of every summed member with it
    (`pair_mask(seed, survivor, dropped)`). Holds scratch memory for one chunk, so it is for one thread. Raises
    LocalProtocolError on a wrong number of sums or members.
    """

    def __init__(
        self,
        layout: ShardLayout,
        decoder: RingDecoder,
        sums: Sequence[Open],
        masks: Sequence[Mask],
        members: int,
    ) -> None:
        _check_members(layout, members)
        if len(sums) != layout.shards:
            raise LocalProtocolError(f"sums of {len(sums)} shards, the layout has {layout.shards}")
        self.members, self.total_weight = members, 0
        self._layout, self._decoder, self._sums = layout, decoder, sums
        self._expander = Expander(layout, masks)
        length = min(CHUNK_VALUES, layout.size)
        self._values = np.empty(length, dtype=layout.dtype)
        self._carries = np.empty(length, dtype=np.uint8)
        self._mean = np.empty(length, dtype="<f4")

    def means(self) -> Iterator[Float32s]:
        """The mean of the updates, piece by piece; ends in `NoMeanError` on a total weight that members cannot have.

        All sums are read and checked in any case. Raises RemoteProtocolError on a packed sum that so many masked values
        cannot have; LocalProtocolError on a wrong length.
        """
        is_weighed = True
        for shard, source in enumerate(self._sums):
            reader = Reader(source(), f"sum of shard {shard}")
            for start, stop in self._layout.chunks(shard):
                values = self._strip(reader, start, stop)
                if start == 0:
                    self.total_weight = self._decoder.total_weight(values[:BLOCK])
                    is_weighed = 1 <= self.total_weight <= MAX_WEIGHT * self.members
                first, end = self._layout.parameters_in(start, stop)
                if is_weighed and first < end:
                    mean = self._mean[: end - first]
                    self._decoder.mean(_parameters(values, start, first, end), self.total_weight, first, mean)
                    yield mean
            reader.finish()
        if not is_weighed:
            raise NoMeanError

    def _strip(self, reader: Reader, start: int, stop: int) -> RingValues:
        """The next chunk of sums, modulo 2^b and without masks."""
        values, carries = self._values[: stop - start], self._carries[: stop - start]
        data = reader.take(self._layout.packed_bytes(len(values)))
        low = packing.unpack_low(self._layout, data, len(values))
        packing.unpack_carries(self._layout, data, carries)
        packing.check_range(self._layout, low, carries, self.members)
        np.copyto(values, low)
        self._expander.add(values, start, subtract=True)
        return values


def _parameters(chunk: RingValues, start: int, first: int, end: int) -> RingValues:
    """The parameters [first, end) in a chunk that lies at ring position `start`."""
    offset = BLOCK + first - start if first < end else 0
    return chunk[offset : offset + end - first]


def _check_members(layout: ShardLayout, members: int) -> None:
    if not 1 <= members <= layout.members:
        raise LocalProtocolError(
            f"a sum over {members} members in a group of {layout.members}: it has 1 to {layout.members}"
        )
