"""Getting payloads and models from peers, and the content keys that do not open."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import trio

from folkmoot.node.archive import Archive, ArchiveError, BlobStore, Models
from folkmoot.node.logs import Once
from folkmoot.node.network.port import FetchError, Network
from folkmoot.node.payloads import Payloads
from folkmoot.protocol.blob import BlobRef, ref_of
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Commitment, KeyShared, KeyWanted, encode
from folkmoot.protocol.types import Digest, MemberId, Round

KEY_SECONDS = 3.0
"""How long to wait for a roster member to share a content key."""

ASK_SECONDS = 0.5
"""How often to ask: who has no key to share yet says nothing, and may have it a moment later."""

ROUNDS_KEPT = 3
"""Rounds behind mine for which keys are still shared: a slow member may have to finish one."""

EMPTY = ref_of(b"")

OnProgress: TypeAlias = Callable[[Round], None]
"""Called for every chunk that arrives, with the round that it is for."""

IsDecided: TypeAlias = Callable[[Round, Digest], bool]
"""Whether a quorum has settled on the roster of this round and digest."""


class Transfers:
    """Fetches by digest from whoever has it, one source after the other."""

    def __init__(
        self,
        network: Network,
        payloads: Payloads,
        archive: Archive,
        models: Models,
        once: Once,
        on_progress: OnProgress,
        is_decided: IsDecided,
    ) -> None:
        self._network = network
        self._payloads = payloads
        self._archive = archive
        self._models = models
        self._once = once
        self._on_progress = on_progress
        self._is_decided = is_decided
        self._known: dict[Digest, tuple[Commitment, tuple[MemberId, ...]]] = {}
        self._keys: dict[Digest, trio.Event] = {}

    async def fetch_payload(
        self,
        commitment: Commitment,
        name: Digest,
        recipients: tuple[MemberId, ...],
        sources: Sequence[MemberId],
    ) -> str | None:
        """Bring a payload and its content key here; None if both are, else why not. `name`: commitment digest."""
        self._forget_rounds_before(commitment.round - ROUNDS_KEPT)
        self._known[name] = (commitment, recipients)
        ref = BlobRef(commitment.root, commitment.size)
        missing = await self._fetch(ref, self._archive, sources, commitment.round)
        if missing is not None:
            return missing
        try:
            if await trio.to_thread.run_sync(self._payloads.open, commitment, recipients):
                return None
        except RemoteProtocolError as error:
            self._once.note("bad sealed key", str(commitment.member), error=str(error))
        return await self._ask_for_key(commitment, name, sources)

    async def fetch_model(self, model: BlobRef, sources: Sequence[MemberId], round_: Round) -> str | None:
        """Bring a model here, in the course of a round; None if it is here then, else why not."""
        return await self._fetch(model, self._models, sources, round_)

    async def fetch_blob(
        self, ref: BlobRef, store: BlobStore, sources: Sequence[MemberId], round_: Round
    ) -> str | None:
        """Bring a blob that needs no key into a store; None if it is here then, else why not."""
        if not ref.size:  # nothing to bring
            return None if ref == EMPTY else "an empty blob of another name"
        return await self._fetch(ref, store, sources, round_)

    async def _fetch(
        self, ref: BlobRef, store: BlobStore, sources: Sequence[MemberId], round_: Round
    ) -> str | None:
        reason: str | None = "no source is connected"
        for source in sources:
            if store.has(ref):
                return None
            if source not in self._network.peers():
                continue
            try:
                progress = partial(self._progress, round_)
                await self._network.fetch(ref, source, store.prepare(ref.root), progress)
            except ArchiveError as error:
                return str(error)
            except FetchError as error:
                reason = str(error)
                if error.blame is not None:
                    self._once.note("bad blob", str(error.blame), error=reason)
        return None if store.has(ref) else reason

    def _progress(self, round_: Round, done: int, total: int) -> None:
        self._on_progress(round_)

    # --- content keys -------------------------------------------------------------------------------------------

    async def _ask_for_key(
        self, commitment: Commitment, name: Digest, sources: Sequence[MemberId]
    ) -> str | None:
        """A sender that sealed nonsense to me alone cannot keep me from the key that the others have.

        Nor can being outside the roster, when a quorum has decided on it and I have to finish the round.
        """
        arrived = self._keys.setdefault(name, trio.Event())
        with trio.move_on_after(KEY_SECONDS):
            while not arrived.is_set():
                for source in sources:
                    if source != commitment.member and source in self._network.peers():
                        await self._network.send(source, encode(KeyWanted(name)))
                with trio.move_on_after(ASK_SECONDS):
                    await arrived.wait()
        self._keys.pop(name, None)
        return None if self._payloads.key(commitment) is not None else "its content key does not open here"

    async def on_key_frame(self, sender: MemberId, frame: KeyWanted | KeyShared) -> None:
        """Answer a member that asks, take a key that I asked for.

        A member outside the roster is answered once a quorum has settled on it: then it has to finish the round, and
        it is too late to profit from others' updates.
        """
        if frame.commitment not in self._known:
            return
        commitment, recipients = self._known[frame.commitment]
        if isinstance(frame, KeyWanted):
            key = await trio.to_thread.run_sync(self._payloads.key, commitment)
            entitled = sender in recipients or self._is_decided(commitment.round, commitment.roster)
            if key is not None and entitled:
                await self._network.send(sender, encode(KeyShared(frame.commitment, key)))
        elif (arrived := self._keys.get(frame.commitment)) is not None:
            try:
                await trio.to_thread.run_sync(self._payloads.keep_key, commitment, frame.key)
                arrived.set()
            except RemoteProtocolError as error:
                self._once.note("bad shared key", str(sender), error=str(error))

    def _forget_rounds_before(self, round_: Round) -> None:
        self._known = {name: known for name, known in self._known.items() if known[0].round >= round_}
