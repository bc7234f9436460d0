"""What takes long, beside the engine's loop: training, payloads, models. Each piece of work is a task that ends in an
event for the machine.

A disk that fails for the journal ends the node; whatever else goes wrong here costs this node its part in a round.
"""

from collections.abc import Awaitable, Callable
from typing import TypeAlias, assert_never

import trio

from folkmoot.node.archive import ArchiveError
from folkmoot.node.rooms import Rooms
from folkmoot.node.train.wire import TrainerError
from folkmoot.node.transfers import Transfers
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.effects import Aggregate, CancelFit, Encode, Fetch, FetchSnapshot, Finished, Fit
from folkmoot.protocol.events import (
    Encoded,
    Event,
    FetchFailed,
    FitFailed,
    PayloadArrived,
    SnapshotFailed,
    SnapshotReady,
)
from folkmoot.protocol.messages import Commitment, body_digest
from folkmoot.protocol.metrics import select_metrics
from folkmoot.protocol.parts import unshared_refs
from folkmoot.protocol.round import RoundMachine
from folkmoot.protocol.types import MemberId, Round

RETRY_SECONDS = 2.0
"""Pause between two tries to get a base model that is gone from the disk."""

DECLINED = {"budget": "its privacy budget is spent", "limit": "beyond its own limits"}
"""What the others are told of a member that takes no part."""

Put: TypeAlias = Callable[[Event], Awaitable[None]]
"""Hands an event to the machine."""

LongWork: TypeAlias = Fit | CancelFit | Encode | Fetch | FetchSnapshot | Aggregate | Finished


class Workshop:
    """Carries out the effects that open and secure mode share, and those of open mode."""

    def __init__(self, machine: RoundMachine, rooms: Rooms, transfers: Transfers, put: Put) -> None:
        self._machine = machine
        self._rooms = rooms
        self._transfers = transfers
        self._put = put
        self._fit_scope = trio.CancelScope()

    def take_on(self, effect: LongWork, nursery: trio.Nursery) -> None:
        """Start the work in a task of `nursery`; a new training ends the one before it."""
        match effect:
            case Fit():
                self._fit_scope.cancel()
                self._fit_scope = trio.CancelScope()
                nursery.start_soon(self._fit, effect, self._fit_scope)
            case CancelFit():
                self._fit_scope.cancel()
            case Encode():
                nursery.start_soon(self._encode, effect)
            case Fetch():
                nursery.start_soon(self._fetch, effect)
            case FetchSnapshot():
                nursery.start_soon(self._fetch_snapshot, effect)
            case Aggregate():
                nursery.start_soon(self._aggregate, effect)
            case Finished():
                nursery.start_soon(self._measure_last)
            case _:
                assert_never(effect)

    # --- training ---------------------------------------------------------------------------------------------------

    async def _fit(self, effect: Fit, scope: trio.CancelScope) -> None:
        with scope:
            for blob in (effect.base, *unshared_refs(self._rooms.charter.model)):
                await self.bring_base(blob, effect.round)
            try:
                trained, beside = await self._rooms.learning.fit(
                    effect.round, effect.base, self._rooms.models.place(effect.base.root)
                )
            except TrainerError as error:
                self._rooms.log.error(
                    "training failed", round=effect.round, kind=error.kind, error=error.detail
                )
                declines = DECLINED.get(error.kind, "")
                self._rooms.watcher.spent(
                    self._rooms.learning.spent(effect.round), error.detail if error.kind == "budget" else ""
                )
                self._rooms.watcher.withheld(error.detail)
                await self._put(FitFailed(effect.round, effect.base.root, str(error), declines))
                return
            self._rooms.watcher.withheld("")
            self._rooms.watcher.measured(effect.base.root, trained.metrics, beside)
            self._rooms.watcher.spent(self._rooms.learning.spent(effect.round))
            await self._put(trained)

    async def _measure_last(self) -> None:
        """The last model is trained on by nobody, so nobody measures it on the way."""
        rooms, current = self._rooms, self._machine.current
        try:
            measured = await rooms.learning.evaluate(current.round, rooms.models.place(current.base.root))
            rooms.watcher.measured(current.base.root, select_metrics(measured.metrics), measured.beside)
        except TrainerError as error:
            rooms.log.error("cannot measure the last model", error=error.detail)
        rooms.watcher.finished()

    # --- payloads ---------------------------------------------------------------------------------------------------

    async def _encode(self, effect: Encode) -> None:
        try:
            encoded, unusable = await trio.to_thread.run_sync(self._encode_here, effect)
        except TrainerError as error:
            # After a crash the update may be gone: sit this roster out; it was never committed to.
            self._rooms.log.error("cannot encode my update", round=effect.round, error=error.detail)
            return
        for member in unusable:
            self._rooms.once.note("unusable mask key", self._rooms.name(member), round=effect.round)
        await self._put(encoded)

    def _encode_here(self, effect: Encode) -> tuple[Encoded, tuple[MemberId, ...]]:
        """Also returns whose mask keys are unusable."""
        self._rooms.learning.check_upload(effect.round)
        rooms, update = self._rooms, self._rooms.learning.update_path(effect.round)
        if rooms.charter.is_secure:
            return rooms.masking.encode(effect.round, effect.roster, effect.terms, update)
        return rooms.payloads.encode(effect.round, effect.roster, effect.terms, effect.recipients, update), ()

    async def _fetch(self, effect: Fetch) -> None:
        commitment = effect.commitment.body
        assert isinstance(commitment, Commitment)
        name = body_digest(commitment)
        reason = await self._transfers.fetch_payload(commitment, name, effect.recipients, effect.sources)
        if reason is not None:
            member = self._rooms.name(commitment.member)
            self._rooms.once.note("payload missing", member, round=commitment.round, reason=reason)
        names = (commitment.round, commitment.roster, name)
        await self._put(PayloadArrived(*names) if reason is None else FetchFailed(*names, reason))

    async def _aggregate(self, effect: Aggregate) -> None:
        rooms, round_ = self._rooms, effect.survivors.round
        await self.bring_base(effect.base, round_)
        try:
            done, ill_formed = await trio.to_thread.run_sync(
                rooms.payloads.aggregate, effect.base, effect.survivors, effect.roster, effect.commitments
            )
        except ArchiveError as error:
            rooms.log.error("cannot sum", round=round_, error=str(error))
            if await trio.to_thread.run_sync(rooms.models.drop_damaged, effect.base):
                await self._aggregate(effect)
            # Else a payload is damaged: the round goes on without me, and a later snapshot brings the model.
            return
        for member in ill_formed:
            rooms.once.note("ill-formed payload", rooms.name(member), round=effect.survivors.round)
        await self._put(done)

    # --- models -----------------------------------------------------------------------------------------------------

    async def _fetch_snapshot(self, effect: FetchSnapshot) -> None:
        reason: str | None = "the ledger has no such model"
        if not self._machine.is_joining or await self._rooms.outbox.await_model(effect.model.root):
            round_ = self._machine.current.round
            reason = await self._transfers.fetch_model(effect.model, effect.sources, round_)
        await self._put(
            SnapshotReady(effect.model) if reason is None else SnapshotFailed(effect.model, reason)
        )

    async def bring_base(self, base: BlobRef, round_: Round) -> None:
        """A model that is not on the disk is fetched by its digest, again and again while the round lasts."""
        rooms, everyone = self._rooms, tuple(range(len(self._rooms.charter.members)))
        while not rooms.models.has(base) and self._machine.current.round == round_:
            reason = await self._transfers.fetch_model(base, everyone, round_)
            if reason is not None:
                rooms.once.note("base model missing", "self", round=round_, reason=reason)
                await trio.sleep(RETRY_SECONDS)
