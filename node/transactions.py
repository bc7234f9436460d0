"""The gas key's transactions: at most one nonce is in use at a time, and each is written down before it is sent.

A new transaction takes a new nonce only when a block has used up the one before. So however often a statement is sent,
or the next one in the place of one that somebody else recorded, one transaction of each nonce is mined and paid for.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, TypeVar, TypeVarTuple

import msgspec
import trio
from structlog.stdlib import BoundLogger

from folkmoot.ledger.calls import Call
from folkmoot.ledger.errors import FeesTooHigh, LedgerRejected, LedgerUnavailable, NonceUsed, Underpriced
from folkmoot.ledger.port import Ledger, PreparedTransaction
from folkmoot.node.store import Journal, OutboxRow
from folkmoot.protocol.types import Digest, Round

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

THREADS = 4
"""Blocking calls at a time: more threads make the event loop late (they hold the GIL)."""


class Order(NamedTuple):
    """What is to be asked of the contract; `name` is the digest of what it would record.

    Once the record is final up to `round`, the order is of no more use.
    """

    call: Call
    name: Digest
    round: Round


class Progress(Enum):
    """What a step came to."""

    WAITING = auto()
    """Nothing to do but wait: the chain has taken the transaction."""
    MOVED = auto()
    MINED = auto()
    """A block has it, and it succeeded."""


class LedgerCalls:
    """Calls to the ledger in threads; abandoned, not awaited, when the calling task is cancelled."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(THREADS)

    async def __call__(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """What `function` returns or raises."""
        return await trio.to_thread.run_sync(function, *args, limiter=self._limiter, abandon_on_cancel=True)


@dataclass(slots=True)
class _Offer:
    """A transaction that may be pending somewhere."""

    row: OutboxRow
    prepared: PreparedTransaction
    taken_at: float | None = None
    """When the chain took it, in this life of the node; None as long as it is to be sent, or sent again."""
    is_outbid: bool = False
    """The chain wants higher fees."""


class Transactions:
    """For one task, which owns the gas key."""

    def __init__(
        self, ledger: Ledger, journal: Journal, call: LedgerCalls, log: BoundLogger, bump_seconds: float
    ) -> None:
        """`bump_seconds`: how long a transaction may be in no block before it is sent again with higher fees."""
        self._ledger = ledger
        self._journal = journal
        self._call = call
        self._log = log
        self._bump_seconds = bump_seconds
        self._offers: list[_Offer] | None = None

    def is_out(self, statement: Digest) -> bool:
        """Whether the chain has taken a transaction for this statement, and no answer has come yet."""
        return any(
            offer.row.statement == statement and offer.taken_at is not None for offer in self._offers or ()
        )

    def undone(self) -> None:
        """Blocks were undone, and their transactions may be forgotten: send what is still of use again."""
        for offer in self._offers or ():
            offer.taken_at = None

    async def push(self, order: Order) -> Progress:
        """Bring what is asked for one step closer to a block; to be called again and again until the ledger has it.

        Raises `LedgerUnavailable` (whatever was under way stays so)
        and `LedgerRejected` where nothing more can be done now; `FeesTooHigh` leaves what was sent before on offer.
        """
        offers = await self._load()
        nonce = await self._call(self._ledger.nonce)
        if await self._has_receipt(order.name, nonce):
            return Progress.MINED
        # Also one of another statement: if somebody else recorded that, ours takes its place and saves the fee.
        rivals = [offer for offer in offers if offer.prepared.nonce == nonce]
        dearest = max(rivals, key=lambda offer: offer.prepared.max_fee, default=None)
        mine = [offer for offer in rivals if offer.row.statement == order.name]
        if not mine:
            await self._send(await self._prepare(order, nonce, dearest))
        elif mine[-1].is_outbid or self._is_overdue(mine[-1]):
            await self._outbid(order, mine[-1], dearest)
        elif mine[-1].taken_at is None:
            await self._send(mine[-1])
        else:
            return Progress.WAITING
        return Progress.MOVED

    async def settle(self, height: Round) -> None:
        """Rounds up to `height` are final: close the books on their transactions."""
        for offer in [offer for offer in await self._load() if offer.row.round <= height]:
            receipt = await self._call(self._ledger.receipt, offer.prepared.hash)
            await self._close(offer, "final" if receipt is not None and receipt.succeeded else "dropped")

    def _is_overdue(self, offer: _Offer) -> bool:
        return offer.taken_at is not None and trio.current_time() - offer.taken_at >= self._bump_seconds

    # --- one transaction ----------------------------------------------------------------------------------------

    async def _has_receipt(self, statement: Digest, nonce: int) -> bool:
        """Whether one of the statement's transactions is in a block and recorded it; others of used nonces are void."""
        for offer in [one for one in await self._load() if one.row.statement == statement]:
            if offer.prepared.nonce < nonce:
                receipt = await self._call(self._ledger.receipt, offer.prepared.hash)
                if receipt is not None and receipt.succeeded:
                    return True  # the head will show it
                await self._close(
                    offer, "dropped"
                )  # somebody else's statement came first, or another transaction
        return False

    async def _outbid(self, order: Order, stuck: _Offer, dearest: _Offer | None) -> None:
        try:
            offer = await self._prepare(order, stuck.prepared.nonce, dearest)
        except FeesTooHigh:
            # Within the cap nothing better can be offered: see that nodes have not forgotten what was.
            with suppress(LedgerRejected):
                await self._send(stuck)
            raise
        await self._send(offer)

    async def _prepare(self, order: Order, nonce: int, dearest: _Offer | None) -> _Offer:
        """A new transaction with this nonce, in the journal; it outbids the dearest of its rivals."""
        replaces = dearest.prepared if dearest is not None else None
        prepared = await self._call(self._ledger.prepare, order.call, nonce, replaces)
        row = OutboxRow(
            round=order.round,
            statement=order.name,
            nonce=prepared.nonce,
            raw=msgspec.msgpack.encode(prepared),
            hash=prepared.hash,
            state="sent",
            first_seen=time.time(),
        )
        offer = _Offer(await trio.to_thread.run_sync(self._journal.outbox_insert, row), prepared)
        (await self._load()).append(offer)
        return offer

    async def _send(self, offer: _Offer) -> None:
        log = self._log.bind(round=offer.row.round, transaction=offer.prepared.hash.hex())
        try:
            await self._call(self._ledger.send, offer.prepared)
        except LedgerUnavailable:
            raise  # it may have arrived: the same bytes again
        except Underpriced as error:
            log.info("fees too low", reason=error.reason, max_fee=offer.prepared.max_fee)
            offer.is_outbid = True
            return
        except LedgerRejected as error:
            await self._close(offer, "dropped")
            if isinstance(error, NonceUsed):
                log.info("nonce used by another transaction", nonce=offer.prepared.nonce)
            raise
        if offer.taken_at is None:
            log.info("submitted", nonce=offer.prepared.nonce, max_fee=offer.prepared.max_fee)
        offer.taken_at = trio.current_time()

    async def _close(self, offer: _Offer, state: str) -> None:
        settled = msgspec.structs.replace(offer.row, state=state)
        await trio.to_thread.run_sync(self._journal.outbox_update, settled)
        (await self._load()).remove(offer)

    async def _load(self) -> list[_Offer]:
        """The open transactions; at first those of earlier lives."""
        if self._offers is None:
            rows = await trio.to_thread.run_sync(self._journal.outbox_pending)
            self._offers = [
                _Offer(row, msgspec.msgpack.decode(row.raw, type=PreparedTransaction))
                for row in rows
                if row.raw is not None
            ]
        return self._offers
