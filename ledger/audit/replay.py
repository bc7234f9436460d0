"""Check 22: aggregate again, and compare with what was locked and recorded.

The functions are those that every node runs (`folkmoot.protocol.aggregate`), so the bits must be the same. In open mode
the payloads are opened with the keys given; in secure mode `secure_checks.py` takes the masks off their sums.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol

from nacl.public import PrivateKey

from folkmoot.ledger.audit.round_checks import Case, Frame, commitments_of, recipients_of
from folkmoot.ledger.audit.sources import Lacking, NotJudged, Source, read_pieces
from folkmoot.protocol.aggregate import Aggregate, Method, aggregate
from folkmoot.protocol.blob import ref_of
from folkmoot.protocol.codec import codec_named
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Commitment, Lock, Ready, Roster
from folkmoot.protocol.outer import Outer
from folkmoot.protocol.payload_sums import Payload
from folkmoot.protocol.pieces import Buffer
from folkmoot.protocol.ring import Float32s, weight_of
from folkmoot.protocol.sealing import (
    SEALED_KEY_SIZE,
    PayloadContext,
    frames_offset,
    open_frames,
    unseal_key,
    verify_key,
)
from folkmoot.protocol.types import Digest, MemberId, Round

_What = tuple[Digest, Digest, Digest]
"""What a replay depends on and must give: survivor set, sums, model."""


class Aggregation(Protocol):
    """How a mode gets from a record that passed its checks, and the model before it, to the round's model."""

    def __call__(self, case: Case, base: Float32s) -> Aggregate[Float32s]:
        """Raises `RemoteProtocolError` where something is wrong, `Lacking` where something is not there."""
        ...


class Replay:
    """Replays rounds in ascending order, carrying the model from one to the next."""

    def __init__(self, frame: Frame, aggregation: Aggregation, after: "Replay | None" = None) -> None:
        """`after`: the replay of the rounds before, under another charter."""
        self._frame = frame
        self._aggregation = aggregation
        self._last: tuple[Digest, Float32s] | None = after._last if after is not None else None
        self._done: set[_What] = set()
        self.ill_formed: dict[Round, tuple[MemberId, ...]] = {}
        """Whose payload opened to nonsense and counted as zero, in the rounds where there are some."""

    @property
    def model(self) -> Float32s | None:
        """The model of the last round that passed `check`; None before the first."""
        return self._last[1] if self._last is not None else None

    def check(self, case: Case) -> None:
        """(22) Aggregate again a round that passed the checks before this one.

        Raises `RemoteProtocolError` where sums or model differ, `Lacking` where something is not there, `NotJudged`
        where the round before would have to be replayed first.
        """
        lock = case.record.opening.locks[0].body
        assert isinstance(lock, Lock)
        what = (lock.survivors, lock.sums, case.record.model.root)
        if what in self._done:  # the same round from another archive
            return
        result = self._aggregation(case, self._base(case))
        # dtype "<f4": the digest is over little-endian bytes, whatever this machine's order.
        model = ref_of(result.model.astype("<f4", copy=False).data)
        if result.sums_digest != lock.sums:
            raise RemoteProtocolError("the replayed sums are not those that a quorum locked")
        if model != case.record.model:
            raise RemoteProtocolError(f"the replayed model is {model.root.hex()}, the recorded one is not")
        self._last = (model.root, result.model)
        self._done.add(what)
        if result.ill_formed:
            self.ill_formed[case.round] = tuple(result.ill_formed)

    def _base(self, case: Case) -> Float32s:
        root = case.survivors.base
        if self._last is not None and self._last[0] == root:
            return self._last[1]
        # The round before was not replayed. A stored model will do: its digest is what the ledger names.
        charter = self._frame.federation.charter
        for source in self._frame.sources:
            vector = source.vector(root, charter.model.shared, Outer.of(charter).sections)
            if vector is not None:
                return vector
        if case.round > 1:
            raise NotJudged(
                "rests on the replay of the round before it, which gives the model that it starts from"
            )
        raise Lacking(f"the starting weights ({root.hex()}) are in no home or archive given")


class OpenedPayloads:
    """Open mode: opens the survivors' payloads with the keys of homes, and sums them."""

    def __init__(self, frame: Frame, secrets: dict[str, bytes]) -> None:
        """`secrets`: X25519 secret keys by the hex of their public halves; see `sealing_secrets`."""
        self._frame = frame
        self._secrets = secrets

    def __call__(self, case: Case, base: Float32s) -> Aggregate[Float32s]:
        """The sums, the model, and whose payload did not count. Raises `Lacking`."""
        charter = self._frame.federation.charter
        payloads = [self._payload(case, commitment) for commitment in commitments_of(case)]
        return aggregate(Method.of(charter, case.round), case.roster.exponents, payloads, base)

    def _payload(self, case: Case, commitment: Commitment) -> Payload:
        charter, roster = self._frame.federation.charter, case.roster
        weight = weight_of(_ready_of(roster, commitment.member).num_examples, charter.averaging.weight_cap)
        context = PayloadContext(self._frame.federation.id, case.round, commitment.roster, commitment.member)
        path = self._path(commitment.root)
        key = self._content_key(case, commitment, context, path)
        plaintext = codec_named(charter.averaging.codec).encoded_size(charter.update_values)
        start = frames_offset(len(recipients_of(roster, self._frame.federation)))
        return Payload(commitment.member, weight, partial(_plaintext, context, key, path, start, plaintext))

    def _path(self, root: Digest) -> Path:
        path = next((found for source in self._frame.sources if (found := source.blob(root))), None)
        if path is None:
            raise Lacking(f"the payload {root.hex()} has gone while it was audited")
        return path

    def _content_key(self, case: Case, commitment: Commitment, context: PayloadContext, path: Path) -> bytes:
        """The payload's key; a sender may have sealed rubbish to some, who then have it from others."""
        for key in chain(self._unsealed(case, path), self._kept(context)):
            try:
                verify_key(context, key, commitment.key)
            except RemoteProtocolError:
                continue
            return key
        raise Lacking(f"no key given opens the payload of {self._frame.name(commitment.member)}")

    def _unsealed(self, case: Case, path: Path) -> Iterator[bytes]:
        """What our sealing keys find at the payload's beginning."""
        with path.open("rb") as file:
            for place, recipient in enumerate(recipients_of(case.roster, self._frame.federation)):
                if recipient in self._secrets:
                    file.seek(SEALED_KEY_SIZE * place)
                    with suppress(RemoteProtocolError):
                        yield unseal_key(file.read(SEALED_KEY_SIZE), self._secrets[recipient])

    def _kept(self, context: PayloadContext) -> Iterator[bytes]:
        """What the nodes themselves kept."""
        for source in self._frame.sources:
            key = source.content_key(context.round, context.roster, context.sender)
            if key is not None:
                yield key


def sealing_secrets(sources: Iterable[Source]) -> dict[str, bytes]:
    """All sealing keys of the homes among `sources`, by the hex of their public halves; raises `Lacking`."""
    secrets = (secret for source in sources for secret in source.sealing_secrets())
    return {bytes(PrivateKey(secret).public_key).hex(): secret for secret in secrets}


def _ready_of(roster: Roster, member: MemberId) -> Ready:
    body = next(signed.body for signed in roster.readies if signed.member == member)
    assert isinstance(body, Ready)
    return body


def _plaintext(context: PayloadContext, key: bytes, path: Path, start: int, size: int) -> Iterator[Buffer]:
    return open_frames(context, key, read_pieces(path, start), size)
