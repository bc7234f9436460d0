"""Secure mode's long work, beside the engine's loop: masked shards and sums from peers, sums, fingerprints, openings.

Each piece of work is a task that ends in an event for the machine. Whatever goes wrong on the disk here costs this node
its part in a round, which goes on without it.
"""

from collections.abc import Awaitable, Callable
from typing import TypeAlias, assert_never

import trio

from folkmoot.node.archive import ArchiveError
from folkmoot.node.rooms import Rooms
from folkmoot.node.transfers import Transfers
from folkmoot.node.workshop import Put
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.effects import Check, FetchPart, FetchSum, Measure, SumParts, Unmask
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.events import (
    GatheringFailed,
    PartArrived,
    PartFailed,
    SumArrived,
    SumFailed,
)
from folkmoot.protocol.messages import Commitment, body_digest
from folkmoot.protocol.types import Round

MaskedEffect: TypeAlias = FetchPart | SumParts | FetchSum | Check | Measure | Unmask

BringBase: TypeAlias = Callable[[BlobRef, Round], Awaitable[None]]
"""Returns when a base model is on the disk, or its round is over."""


class MaskedWork:
    """Carries out the effects of secure mode."""

    def __init__(self, rooms: Rooms, transfers: Transfers, put: Put, bring_base: BringBase) -> None:
        self._rooms = rooms
        self._transfers = transfers
        self._put = put
        self._bring_base = bring_base

    async def do(self, effect: MaskedEffect) -> None:
        """Carry one effect out and answer it, unless the disk fails."""
        try:
            match effect:
                case FetchPart():
                    await self._fetch_part(effect)
                case FetchSum():
                    await self._fetch_sum(effect)
                case SumParts():
                    await self._put(await trio.to_thread.run_sync(self._rooms.sums.sum_parts, effect))
                case Check():
                    await self._put(await trio.to_thread.run_sync(self._rooms.sums.check, effect))
                case Measure():
                    await self._put(await trio.to_thread.run_sync(self._rooms.sums.measure, effect))
                case Unmask():
                    await self._unmask(effect)
                case _:
                    assert_never(effect)
        except ArchiveError as error:
            self._rooms.log.error("secure mode: cannot go on", work=type(effect).__name__, error=str(error))
            if isinstance(effect, SumParts | Check | Measure | Unmask):
                survivors = effect.survivors
                await self._put(GatheringFailed(survivors.round, survivors.digest))

    async def _fetch_part(self, effect: FetchPart) -> None:
        commitment = effect.commitment.body
        assert isinstance(commitment, Commitment)
        rooms, round_ = self._rooms, commitment.round
        ref = rooms.sums.part(commitment, effect.shard)
        reason = await self._transfers.fetch_blob(ref, rooms.sums.parts_of(round_), effect.sources, round_)
        names = (round_, commitment.roster, body_digest(commitment), effect.shard)
        if reason is None:
            await self._put(PartArrived(*names))
            return
        rooms.once.note("masked shard missing", rooms.name(commitment.member), round=round_, reason=reason)
        await self._put(PartFailed(*names, reason))

    async def _fetch_sum(self, effect: FetchSum) -> None:
        rooms = self._rooms
        reason = await self._transfers.fetch_blob(effect.sum, rooms.archive, effect.sources, effect.round)
        names = (effect.round, effect.survivors, effect.shard, effect.sum)
        if reason is None:
            try:
                await trio.to_thread.run_sync(rooms.sums.check_sum, effect.shard, effect.sum)
                await self._put(SumArrived(*names))
                return
            except RemoteProtocolError as error:
                reason = str(error)
        rooms.once.note(
            "masked sum missing", rooms.name(effect.sources[0]), round=effect.round, reason=reason
        )
        await self._put(SumFailed(*names, reason))

    async def _unmask(self, effect: Unmask) -> None:
        rooms = self._rooms
        await self._bring_base(effect.base, effect.survivors.round)
        try:
            await self._put(await trio.to_thread.run_sync(rooms.sums.unmask, effect))
        except RemoteProtocolError as error:
            rooms.log.error("sums that were checked cannot be opened", error=str(error))
        except ArchiveError:
            if not await trio.to_thread.run_sync(rooms.models.drop_damaged, effect.base):
                raise  # a sum is damaged: a later snapshot brings the model
            await self._unmask(effect)
