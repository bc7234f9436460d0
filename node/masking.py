"""Secure mode's own half on this node's disk: the epoch's mask secret, and my update as masked shards.

Everything here blocks and is meant for a worker thread. Nothing but the epoch's secret has to be remembered: masks,
shares and commitments follow from it and the roster (`protocol/secure/masks.py`), so that a node that crashed deals the
same again. One mask must never meet two updates: only the update that READY was said for is encoded.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import msgspec

from folkmoot.node.archive import Archive, BlobStore
from folkmoot.node.disk import raise_if_full
from folkmoot.node.learning import DISCLOSURE, Disclosure
from folkmoot.node.member_state import Residuals
from folkmoot.node.store import Journal
from folkmoot.node.train.vectors import read_pieces
from folkmoot.node.train.wire import TrainerError
from folkmoot.protocol.blob import BlobRef, ref_of
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.events import Encoded
from folkmoot.protocol.messages import Ready, Roster
from folkmoot.protocol.ring import CHUNK_VALUES, Float32s
from folkmoot.protocol.secure.circles import Circles
from folkmoot.protocol.secure.dealing import NO_KEY, shard_layout, shards_root
from folkmoot.protocol.secure.encoding import RingEncoder, member_weight
from folkmoot.protocol.secure.keystream import SEED_SIZE
from folkmoot.protocol.secure.masked_noise import noise_seed, plan_noise
from folkmoot.protocol.secure.masks import (
    KEY_SIZE,
    Mask,
    MaskContext,
    pair_mask,
    pair_seed,
    public_key,
    seed_commitment,
    self_mask,
    self_polynomial,
    self_seed,
)
from folkmoot.protocol.secure.noise import SkellamNoise
from folkmoot.protocol.secure.sharing import commit, share
from folkmoot.protocol.secure.stream import masked_shards
from folkmoot.protocol.types import Digest, MemberId, Round

NO_SEED = bytes(SEED_SIZE)
"""Stands where a member would have a pair seed with itself."""

FEEDBACK_BITS = 8
"""The ring on which rounding loses enough to be made up for in the next round."""

EMPTY = ref_of(b"")
"""A shard without values: there are more members than blocks of 64 parameters."""


class Masking:
    """One member's masks and masked updates."""

    def __init__(
        self, federation: Federation, me: MemberId, journal: Journal, archive: Archive, residuals: Residuals
    ) -> None:
        self._federation = federation
        self._charter = federation.charter
        self._me = me
        self._journal = journal
        self._archive = archive
        self._residuals = residuals

    # --- the epoch's key --------------------------------------------------------------------------------------------

    def mask_key(self, round_: Round) -> bytes:
        """My public key for the round, whose secret is journalled when this returns; raises `StoreError`.

        Secrets of epochs about which nothing can be disputed any more are erased, with the shards under their masks.
        """
        epoch = self._charter.epoch_of(round_)
        self._erase(epoch - self._charter.secrecy.dispute_epochs)
        secret = self._journal.epoch_secret(epoch)
        if secret is None:
            secret = secrets.token_bytes(KEY_SIZE)
            self._journal.add_epoch(epoch, secret)
        return public_key(secret)

    def _erase(self, before_epoch: int) -> None:
        if any(epoch < before_epoch for epoch in self._journal.epochs()):
            self._journal.erase_epochs(before_epoch)
        self._archive.erase_masked(before_epoch)

    # --- my update --------------------------------------------------------------------------------------------------

    def encode(
        self, round_: Round, roster: Digest, terms: Roster, update: Path
    ) -> tuple[Encoded, tuple[MemberId, ...]]:
        """Mask the update in file `update` for a roster, into the archive, and deal what unmasks its sums.

        Also returns whose mask keys are unusable. Raises `TrainerError` for an update that cannot be read, or is not
        the one that my READY was said for; `ArchiveError`, `StoreError`.
        """
        disclosure, secret = self._promised(terms)
        circles = Circles.of_roster(self._federation, roster, terms)
        context, circle = circles.context(self._me), circles.circle(self._me)
        seeds, unusable = self._pair_seeds(context, secret, circle, terms)
        polynomial = self_polynomial(context, secret, self._me, circles.group(self._me).threshold)
        masks = (
            self_mask(self_seed(context, self._me, polynomial[0])),
            *(pair_mask(seed, self._me, peer) for peer, seed in seeds.items()),
        )
        refs = self._write_shards(round_, roster, terms, masks, disclosure, update)
        roots = tuple(ref.root for ref in refs)
        encoded = Encoded(
            round=round_,
            roster=roster,
            payload=BlobRef(shards_root(roots), sum(ref.size for ref in refs)),
            key=NO_KEY,
            shards=roots,
            shares=commit(polynomial),
            seeds=tuple(self._seed_commitment(context, peer, seeds.get(peer)) for peer in circle),
            dealt=tuple(share(polynomial, member + 1) for member in circle),
            pair_seeds=tuple(seeds.get(peer, NO_SEED) for peer in circle),
        )
        return encoded, unusable

    def _promised(self, terms: Roster) -> tuple[Disclosure, bytes]:
        """What my READY in the roster stands for, and the secret of the mask key in it."""
        mine = next(signed.body for signed in terms.readies if signed.member == self._me)
        assert isinstance(mine, Ready)
        secret = self._journal.epoch_secret(self._charter.epoch_of(mine.round))
        if secret is None or public_key(secret) != mine.mask_key:
            raise TrainerError("model", "the secret of the mask key that READY named is not in the journal")
        for row in self._journal.entries_of(mine.round, DISCLOSURE):
            disclosure = msgspec.msgpack.decode(row, type=Disclosure)
            if disclosure.salted_manifest == mine.manifest:
                return disclosure, secret
        raise TrainerError("model", "the journal does not say which update READY was said for")

    def _pair_seeds(
        self, context: MaskContext, secret: bytes, circle: Sequence[MemberId], terms: Roster
    ) -> tuple[dict[MemberId, bytes], tuple[MemberId, ...]]:
        """The seed that I have in common with each other member of my circle, and whose keys give none.

        For such a key there is a seed that only I know (with my own key in its place), to which its owner cannot commit
        as well: it disagrees with me, as with all others, so it is left out of the sum, and this seed is released like
        any other. Refusing to encode would let one bad key stop everybody.
        """
        seeds, unusable = dict[MemberId, bytes](), list[MemberId]()
        for signed in terms.readies:
            assert isinstance(signed.body, Ready)
            peer = signed.member
            if peer == self._me or peer not in circle:
                continue
            try:
                seeds[peer] = pair_seed(context, secret, self._me, peer, signed.body.mask_key)
            except RemoteProtocolError:
                unusable.append(peer)
                seeds[peer] = pair_seed(context, secret, self._me, peer, public_key(secret))
        return seeds, tuple(unusable)

    def _seed_commitment(self, context: MaskContext, peer: MemberId, seed: bytes | None) -> Digest:
        if seed is None:
            return NO_KEY
        return seed_commitment(context, min(self._me, peer), max(self._me, peer), seed)

    # --- shards -----------------------------------------------------------------------------------------------------

    def _write_shards(
        self,
        round_: Round,
        roster: Digest,
        terms: Roster,
        masks: tuple[Mask, ...],
        disclosure: Disclosure,
        update: Path,
    ) -> tuple[BlobRef, ...]:
        layout = shard_layout(self._charter)
        store = self._archive.masked(self._charter.epoch_of(round_))
        residuals = self._residuals.stage(round_, roster) if layout.bits == FEEDBACK_BITS else None
        try:
            weight = member_weight(disclosure.num_examples, self._charter.averaging.weight_cap)
            encoder = RingEncoder(layout, self._charter.update_sizes, terms.exponents, weight)
            noise = self._noise(round_, disclosure, terms)
            pieces = masked_shards(
                layout, encoder, self._checked(update, disclosure), masks, residuals, noise
            )
            refs = {
                shard: _write(store, (data for _, data in group))
                for shard, group in groupby(pieces, key=itemgetter(0))
            }
        except LocalProtocolError as error:
            raise TrainerError("non_finite", str(error)) from error
        except OSError as error:
            raise_if_full(error, Path(error.filename or update))
            raise TrainerError("model", f"{error.filename}: {error.strerror}") from error
        return tuple(refs.get(shard, EMPTY) for shard in range(layout.shards))

    def _noise(self, round_: Round, disclosure: Disclosure, terms: Roster) -> SkellamNoise | None:
        """My share of the noise, where the charter has it under the masks: always the same for the same update."""
        plan = plan_noise(self._charter)
        if plan is None:
            return None
        if set(terms.exponents) != {plan.exponent % 256}:
            raise TrainerError("model", "the roster has other scales than the charter's noise is meant for")
        secret = self._journal.epoch_secret(self._charter.epoch_of(round_))
        assert secret is not None  # it was there a moment ago, see `_promised`
        seed = noise_seed(secret, self._federation.id, round_, disclosure.update)
        return SkellamNoise(seed, plan.deviation**2)

    def _checked(self, update: Path, disclosure: Disclosure) -> Iterator[Float32s]:
        """The update in pieces; raises `TrainerError` at the end if it is not the one that was disclosed.

        By then its shards are on this disk, but nobody learns what they are called.
        """
        state = sha256()
        for piece in read_pieces(update, self._charter.update_values, CHUNK_VALUES):
            state.update(piece.data)
            yield piece
        if state.digest() != disclosure.update:
            raise TrainerError("model", f"{update} is not the update that READY was said for")


def _write(store: BlobStore, pieces: Iterable[memoryview]) -> BlobRef:
    with store.writer() as blob:
        for piece in pieces:
            blob.write(piece)
    assert blob.ref is not None
    return blob.ref
