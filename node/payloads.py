"""Open-mode payloads on this node's disk: encode and seal mine, open the others', sum the survivors'.

Everything here blocks (hashing, encryption, disk) and is meant for a worker thread. The archive holds ciphertext, the
journal the content keys (PROTOCOL section 3).
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from folkmoot.node.archive import Archive, Models
from folkmoot.node.member_state import Residuals
from folkmoot.node.store import Journal, Secret
from folkmoot.node.train.vectors import read_pieces
from folkmoot.protocol.aggregate import Method, aggregate_stream
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.codec import Codec, codec_named
from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.events import Aggregated, Encoded
from folkmoot.protocol.feedback import encode_with_feedback
from folkmoot.protocol.messages import Commitment, Ready, Roster, Signed, SurvivorSet
from folkmoot.protocol.payload_sums import Payload
from folkmoot.protocol.pieces import Buffer
from folkmoot.protocol.ring import CHUNK_VALUES, FixedPoint, Float32s, Layout, weight_of
from folkmoot.protocol.sealing import (
    FRAME,
    KEY_SIZE,
    SEALED_KEY_SIZE,
    TAG_SIZE,
    PayloadContext,
    frames_offset,
    key_commitment,
    open_frames,
    seal_payload,
    unseal_key,
    verify_key,
)
from folkmoot.protocol.types import Digest, MemberId, Round

_WHOLE_FRAMES = 16 * (FRAME + TAG_SIZE)
"""Bytes read at a time: of whole frames, so that none has to be put together from two reads."""


class Payloads:
    """One member's payloads. `sealing` is its X25519 secret key (32 bytes)."""

    def __init__(
        self,
        federation: Federation,
        me: MemberId,
        sealing: bytes,
        journal: Journal,
        archive: Archive,
        models: Models,
        residuals: Residuals,
    ) -> None:
        self._residuals = residuals
        self._federation = federation
        self._charter = federation.charter
        self._me = me
        self._sealing = sealing
        self._journal = journal
        self._archive = archive
        self._models = models

    def encode(
        self, round_: Round, roster: Digest, terms: Roster, recipients: Sequence[MemberId], update: Path
    ) -> Encoded:
        """Seal the update in file `update` to the recipients and the charter's auditors, into the archive.

        `terms` is the roster of that digest. The content key is journalled first, so that a node that crashes in
        between writes the same bytes again. Raises `TrainerError` for an unreadable update, `ArchiveError`,
        `StoreError`.
        """
        context = self._context(round_, roster, self._me)
        key = self._journal.secret(round_, roster, self._me) or self._new_key(context)
        values = self._charter.update_values
        pieces = self._encoded(round_, roster, terms, read_pieces(update, values, CHUNK_VALUES))
        size = self._codec().encoded_size(values)
        with self._archive.writer() as blob:
            for piece in seal_payload(context, key, self._public_keys(recipients), pieces, size):
                blob.write(piece)
        assert blob.ref is not None
        return Encoded(round_, roster, blob.ref, key_commitment(context, key))

    def _encoded(
        self, round_: Round, roster: Digest, terms: Roster, update: Iterator[Float32s]
    ) -> Iterable[Buffer]:
        codec = self._codec()
        if not self._charter.has_feedback:
            return map(codec.encode, update)
        fixed = FixedPoint(Layout(self._charter.update_sizes), terms.exponents)
        return encode_with_feedback(codec, fixed, update, self._residuals.stage(round_, roster))

    def open(self, commitment: Commitment, recipients: Sequence[MemberId]) -> bool:
        """Find the content key of a payload that is in the archive and keep it; False if none was sealed to me.

        Raises `RemoteProtocolError` if the key that was sealed to me is not the one that its sender committed to.
        """
        if self.key(commitment) is not None:
            return True
        if self._me not in recipients:
            return False
        place = list(recipients).index(self._me)
        with self._archive.open(_ref(commitment)) as file:
            file.seek(SEALED_KEY_SIZE * place)
            sealed = file.read(SEALED_KEY_SIZE)
        self.keep_key(commitment, unseal_key(sealed, self._sealing))
        return True

    def key(self, commitment: Commitment) -> bytes | None:
        """The content key of a payload, if it is known here."""
        return self._journal.secret(commitment.round, commitment.roster, commitment.member)

    def keep_key(self, commitment: Commitment, key: bytes) -> None:
        """Journal a content key, from whomever; raises `RemoteProtocolError` unless the sender committed to it."""
        verify_key(self._context(commitment.round, commitment.roster, commitment.member), key, commitment.key)
        self._journal.append([], [Secret(commitment.round, commitment.roster, commitment.member, key)])

    def aggregate(
        self, base: BlobRef, survivors: SurvivorSet, roster: Roster, commitments: Sequence[Signed]
    ) -> tuple[Aggregated, tuple[MemberId, ...]]:
        """Sum the survivors' updates onto `base`; the new model lies in the models when this returns.

        Also returns whose payloads were ill-formed (they counted as zero). Raises `ArchiveError`, also for a base that
        is not what its name says: nobody may attest a model that follows from a damaged file.
        """
        self._models.leaves(base)
        examples = {
            one.member: one.body.num_examples for one in roster.readies if isinstance(one.body, Ready)
        }
        payloads = [
            self._payload(one.body, examples[one.member], len(roster.readies))
            for one in commitments
            if isinstance(one.body, Commitment)
        ]
        method, snapshots = Method.of(self._charter, survivors.round), self._models.snapshots(base)
        result = aggregate_stream(method, roster.exponents, payloads, snapshots)
        done = Aggregated(survivors.round, survivors.digest, result.sums_digest, result.model)
        return done, result.ill_formed

    def _codec(self) -> Codec:
        # A new one for each thread that works: codecs hold scratch memory.
        return codec_named(self._charter.averaging.codec)

    def _payload(self, commitment: Commitment, num_examples: int, recipients: int) -> Payload:
        key = self.key(commitment)
        if key is None:
            raise LocalProtocolError(
                f"no content key of member {commitment.member} in round {commitment.round}"
            )
        weight = weight_of(num_examples, self._charter.averaging.weight_cap)
        return Payload(commitment.member, weight, partial(self._plaintext, commitment, key, recipients))

    def _plaintext(self, commitment: Commitment, key: bytes, recipients: int) -> Iterator[bytearray]:
        context = self._context(commitment.round, commitment.roster, commitment.member)
        size = self._codec().encoded_size(self._charter.update_values)
        skip = frames_offset(recipients + len(self._charter.auditors))
        with self._archive.open(_ref(commitment), for_the_last_time=True) as file:
            file.seek(skip)
            yield from open_frames(context, key, iter(partial(file.read, _WHOLE_FRAMES), b""), size)

    def _context(self, round_: Round, roster: Digest, sender: MemberId) -> PayloadContext:
        return PayloadContext(self._federation.id, round_, roster, sender)

    def _new_key(self, context: PayloadContext) -> bytes:
        key = secrets.token_bytes(KEY_SIZE)
        self._journal.append([], [Secret(context.round, context.roster, context.sender, key)])
        return key

    def _public_keys(self, recipients: Sequence[MemberId]) -> list[bytes]:
        keys = [self._charter.members[member].sealing_key for member in recipients]
        return [
            bytes.fromhex(key)
            for key in (*keys, *(auditor.sealing_key for auditor in self._charter.auditors))
        ]


def _ref(commitment: Commitment) -> BlobRef:
    return BlobRef(commitment.root, commitment.size)
