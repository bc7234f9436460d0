"""Secure mode's common half on this node's disk: sum masked shards, take fingerprints, take the masks off.

Everything here blocks and is meant for a worker thread. Masked shards lie by epoch in the archive, their sums among its
blobs. Whatever is read is held to its name: a failing disk must not make an honest node sign a wrong sum.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from folkmoot.node.archive import Archive, ArchiveError, BlobStore, MaskedShards, Models
from folkmoot.protocol import merkle
from folkmoot.protocol.blob import CHUNK, BlobRef
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.effects import Check, Measure, SumParts, Unmask
from folkmoot.protocol.events import Aggregated, Checked, Measured, PartsSummed, Value
from folkmoot.protocol.messages import Commitment, Signed
from folkmoot.protocol.outer import Outer
from folkmoot.protocol.pieces import Open
from folkmoot.protocol.reader import Reader
from folkmoot.protocol.robust import Robust
from folkmoot.protocol.secure import packing
from folkmoot.protocol.secure.dealing import shard_layout
from folkmoot.protocol.secure.encoding import RingDecoder
from folkmoot.protocol.secure.fingerprint import Challenge, challenge_seed
from folkmoot.protocol.secure.layout import ShardLayout
from folkmoot.protocol.secure.stream import Opening, open_sum, sum_crowds
from folkmoot.protocol.types import Digest, Round


class MaskedSums:
    """The sums of a federation's masked shards, from archive to models. All raise `ArchiveError`."""

    def __init__(self, charter: Charter, archive: Archive, models: Models) -> None:
        self._charter = charter
        self._archive = archive
        self._models = models

    @property
    def _layout(self) -> ShardLayout:
        return shard_layout(self._charter)

    def part(self, commitment: Commitment, shard: int) -> BlobRef:
        """What a masked shard is called."""
        return BlobRef(commitment.shards[shard], self._layout.shard_bytes(shard))

    def parts_of(self, round_: Round) -> MaskedShards:
        """Where the masked shards of a round are."""
        return self._archive.masked(self._charter.epoch_of(round_))

    # --- sums -------------------------------------------------------------------------------------------------------

    def sum_parts(self, effect: SumParts) -> PartsSummed:
        """Add up the survivors' masked shards of one number; the sum lies in the archive when this returns."""
        sources = [[self._open_part(signed, effect.shard) for signed in crowd] for crowd in effect.crowds]
        with self._archive.writer() as blob:
            for piece in sum_crowds(self._layout, effect.shard, sources):
                blob.write(piece)
        assert blob.ref is not None
        return PartsSummed(effect.survivors.round, effect.survivors.digest, effect.shard, blob.ref)

    def check_sum(self, shard: int, ref: BlobRef) -> None:
        """Raise `RemoteProtocolError` unless the sums that came could be of as many shards as a sum has at most."""
        layout, size = self._layout, self._layout.sum_bytes(shard)
        crowds = ref.size // size if size else 0
        reader = Reader(_pieces(self._archive, ref), f"sum of shard {shard}")
        for start, stop in layout.chunks(shard):
            count = stop - start
            for _ in range(crowds):
                data = reader.take(layout.packed_bytes(count))
                carries = np.empty(count, dtype=np.uint8)
                packing.unpack_carries(layout, data, carries)
                packing.check_range(layout, packing.unpack_low(layout, data, count), carries, layout.members)
        reader.finish()

    # --- fingerprints -----------------------------------------------------------------------------------------------

    def check(self, effect: Check) -> Checked:
        """The fingerprints of all sums, and of my own shards if I am a survivor."""
        challenge = self._challenge(effect.survivors.digest, effect.sums)
        totals, mine = list[tuple[Value, ...]](), list[Value]()
        for shard, ref in enumerate(effect.sums):
            own = [] if effect.mine is None else [self._open_part(effect.mine, shard)]
            opened = partial(_pieces, self._archive, ref)
            values, of_sums = challenge.of_shards_and_sums(shard, own, opened, effect.crowds)
            totals.append(of_sums)
            mine += values
        names = (effect.survivors.round, effect.survivors.digest, effect.sums_digest)
        return Checked(*names, tuple(totals), tuple(mine))

    def measure(self, effect: Measure) -> Measured:
        """The fingerprints of others' masked shards, under the same challenge."""
        challenge = self._challenge(effect.survivors.digest, effect.sums)
        values = tuple(
            (signed.member, shard, challenge.of_shard(shard, self._open_part(signed, shard)))
            for signed, shard in effect.wanted
        )
        return Measured(effect.survivors.round, effect.survivors.digest, effect.sums_digest, values)

    def _challenge(self, survivors: Digest, sums: Sequence[BlobRef]) -> Challenge:
        return Challenge(self._layout, challenge_seed(survivors, [ref.root for ref in sums]))

    # --- opening ----------------------------------------------------------------------------------------------------

    def unmask(self, effect: Unmask) -> Aggregated:
        """Take the masks off and make the outer step from the base; the new model lies in the models on return.

        Raises `RemoteProtocolError` if a sum is none, which the fingerprints exclude.
        """
        self._models.leaves(effect.base)
        decoder = RingDecoder(self._layout, self._charter.update_sizes, effect.roster.exponents)
        sums = [partial(_pieces, self._archive, ref) for ref in effect.sums]
        opening = Opening(self._layout, decoder, sums, effect.crowds)
        snapshots = self._models.snapshots(effect.base)
        opened = open_sum(
            opening, Outer.of(self._charter, effect.survivors.round), snapshots, Robust.of(self._charter)
        )
        survivors = effect.survivors
        return Aggregated(survivors.round, survivors.digest, effect.sums_digest, opened.model)

    def _open_part(self, signed: Signed, shard: int) -> Open:
        assert isinstance(signed.body, Commitment)
        return partial(_pieces, self.parts_of(signed.body.round), self.part(signed.body, shard))


def _pieces(store: BlobStore, ref: BlobRef) -> Iterator[bytes]:
    """A blob chunk by chunk; raises `ArchiveError` at the end if it is not what its name says."""
    if not ref.size:
        return
    leaves = list[Digest]()
    with store.open(ref) as file:
        while chunk := file.read(CHUNK):
            leaves.append(merkle.leaf_hash(chunk))
            yield chunk
    if merkle.root(leaves) != ref.root:
        store.place(ref.root).unlink(missing_ok=True)  # so that it is fetched again
        raise ArchiveError(
            f"{store.place(ref.root)}: the contents are not {ref}: the file was damaged, removed"
        )
