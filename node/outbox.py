"""The outbox: puts finished rounds on the ledger, and follows the ledger's head.

Rounds do not wait for the chain. Every attester hands every statement in; the one whose turn it is submits at once,
the others step in, one by one, if the head has not moved. A transaction stands in the journal before it is sent, so
that a crash sends the same bytes again.
"""

import itertools
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple

import msgspec
import trio
from structlog.stdlib import BoundLogger

from folkmoot.ledger.errors import LedgerRejected, LedgerUnavailable, NonceUsed
from folkmoot.ledger.port import Ledger, LedgerHead, PreparedTransaction, Receipt
from folkmoot.node.store import Journal, OutboxRow
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.effects import Record
from folkmoot.protocol.types import Digest, Round

POLL_SECONDS = (0.1, 5.0)
"""Bounds of the pause between two looks at the head; within them, a quarter of the chain's own pace."""
RECEIPT_SECONDS = 0.5
"""Longest pause between two looks for a receipt."""
BACKOFF_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

OnHead = Callable[[LedgerHead], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A statement under its quorum, signatures in ascending order of their signers' addresses."""

    record: Record
    signatures: tuple[bytes, ...]
    since: float


class Outbox:
    """One task (`run`) owns the gas key's transactions."""

    def __init__(
        self, ledger: Ledger, journal: Journal, charter: Charter, on_head: OnHead, log: BoundLogger
    ) -> None:
        self._ledger = ledger
        self._journal = journal
        self._charter = charter
        self._on_head = on_head
        self._log = log
        # Blocking calls only, few at a time: more threads make the event loop late (they hold the GIL).
        self._limiter = trio.CapacityLimiter(4)
        self._waiting: dict[Round, _Waiting] = {}
        self._settled: Round = 0
        self._refusals = 0
        self._again_at = -math.inf
        self._failures = 0
        self._changed = trio.Event()
        self._pause = 0.5
        self._block_at = self._moved_at = trio.current_time()
        self.head: LedgerHead | None = None
        self.state = "starting"

    @property
    def backlog(self) -> int:
        """Statements that are finished here and not on the ledger."""
        height = self.head.height if self.head is not None else 0
        return sum(round_ > height for round_ in self._waiting)

    def add(self, record: Record) -> None:
        """Take a statement in; the same one again does no harm."""
        if self.head is not None and record.statement.round <= self.head.finalized_height:
            return
        if record.statement.round not in self._waiting:
            signatures = self._in_contract_order(record)
            self._waiting[record.statement.round] = _Waiting(record, signatures, trio.current_time())
        self._changed.set()

    async def run(self) -> None:
        """Follow the head and submit, until cancelled."""
        while True:
            self._changed = trio.Event()
            try:
                await self.step()
            except LedgerUnavailable as error:
                await self._back_off(error)
                continue
            self._failures, self.state = 0, "ok"
            with trio.move_on_after(self._pause):
                await self._changed.wait()

    async def _back_off(self, error: LedgerUnavailable) -> None:
        if self.state != "unreachable":
            self._log.warning("ledger unreachable", error=str(error), backlog=self.backlog)
        self.state = "unreachable"
        self._failures += 1
        await trio.sleep(_back_off(self._failures))

    async def step(self) -> None:
        """Look at the head once, and submit the next statement if it is due. Raises `LedgerUnavailable`."""
        await self._look()
        waiting = self._next()
        if waiting is not None and self._is_due(waiting):
            await self._submit(waiting)
            await self._look()

    async def drain(self) -> None:
        """Before the end: submit what is mine to submit now, as far as the ledger takes it.

        Cancel it when the patience is over: the rest is submitted after the next start, or by others.
        """
        try:
            while (waiting := self._next()) is not None and self._is_due(waiting):
                await self.step()
                if self._next() is waiting:
                    return
        except LedgerUnavailable as error:
            self._log.warning("stopping with rounds unrecorded", backlog=self.backlog, error=str(error))

    async def _look(self) -> None:
        head = await self._call(self._ledger.head)
        if head == self.head:
            return
        now, moved = trio.current_time(), self.head is None or head.height != self.head.height
        shortest, longest = POLL_SECONDS
        self._pause = min(max((now - self._block_at) / 4, shortest), longest)
        self._block_at, self.head = now, head
        if moved:
            self._moved_at, self._refusals, self._again_at = now, 0, -math.inf
            self._log.info("ledger", height=head.height, block=head.block)
        await self._put_away(head)
        await self._on_head(head)

    async def _put_away(self, head: LedgerHead) -> None:
        """Recorded statements need no transaction; only final ones are forgotten, for a block may yet be undone."""
        for round_ in [round_ for round_ in self._waiting if round_ <= head.height]:
            if round_ > self._settled:
                await self._settle(self._waiting[round_].record.digest)
            if round_ <= head.finalized_height:
                del self._waiting[round_]
        self._settled = head.height

    def _next(self) -> _Waiting | None:
        return self._waiting.get(self.head.height + 1) if self.head is not None else None

    def _is_due(self, waiting: _Waiting) -> bool:
        """Mine at once, another's turn after as many patiences; counted from when it came to be next in line."""
        turns = waiting.record.turn * self._charter.schedule.submit_after
        return trio.current_time() >= max(self._again_at, max(waiting.since, self._moved_at) + turns)

    async def _submit(self, waiting: _Waiting) -> None:
        record, log = waiting.record, self._log.bind(round=waiting.record.statement.round)
        try:
            prepared = await self._resumed(record.digest) or await self._prepare(waiting)
            await self._call(self._ledger.send, prepared)
            log.info("submitted", transaction=prepared.hash.hex())
            receipt = await self._await_receipt(prepared)
            if receipt is not None and not receipt.succeeded:  # somebody else's came first
                await self._settle(record.digest)
        except NonceUsed:
            await self._settle(record.digest)
        except LedgerRejected as error:
            await self._settle(record.digest)
            if not error.stale:
                self._put_off(error, log)

    def _put_off(self, error: LedgerRejected, log: BoundLogger) -> None:
        """Something that time or the operator may mend, as an empty gas account: try again, ever more rarely."""
        if self._refusals == 0:
            log.error("statement refused by the ledger, which will be asked again", reason=str(error))
        self._refusals += 1
        self._again_at = trio.current_time() + _back_off(self._refusals)

    async def _prepare(self, waiting: _Waiting) -> PreparedTransaction:
        record = waiting.record
        prepared = await self._call(self._ledger.prepare, record.statement, waiting.signatures)
        row = OutboxRow(
            round=record.statement.round,
            statement=record.digest,
            nonce=prepared.nonce,
            raw=msgspec.msgpack.encode(prepared),
            hash=prepared.hash,
            state="sent",
            first_seen=time.time(),
        )
        await trio.to_thread.run_sync(self._journal.outbox_insert, row)
        return prepared

    async def _resumed(self, statement: Digest) -> PreparedTransaction | None:
        """The transaction that was made for this statement before a crash, if it may still be pending."""
        rows = await trio.to_thread.run_sync(self._journal.outbox_of, statement)
        open_rows = [row for row in rows if row.state == "sent" and row.raw is not None]
        if not open_rows or open_rows[-1].raw is None:
            return None
        return msgspec.msgpack.decode(open_rows[-1].raw, type=PreparedTransaction)

    async def _await_receipt(self, prepared: PreparedTransaction) -> Receipt | None:
        """The receipt, or None if no block takes the transaction for so long that others step in."""
        with trio.move_on_after(self._charter.schedule.submit_after):
            for attempt in itertools.count(1):
                if (receipt := await self._call(self._ledger.receipt, prepared.hash)) is not None:
                    return receipt
                await trio.sleep(min(0.05 * attempt, RECEIPT_SECONDS))
        return None

    async def _settle(self, statement: Digest) -> None:
        """The statement is on the ledger, by whomever, or its transaction is void: do not send it again."""
        for row in await trio.to_thread.run_sync(self._journal.outbox_of, statement):
            if row.state == "sent":
                settled = msgspec.structs.replace(row, state="final")
                await trio.to_thread.run_sync(self._journal.outbox_update, settled)

    def _in_contract_order(self, record: Record) -> tuple[bytes, ...]:
        by_address = {
            bytes.fromhex(self._charter.members[signed.member].audit_key[2:]): signed.signature
            for signed in record.attestations
        }
        return tuple(by_address[address] for address in sorted(by_address))

    async def _call(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """A call to the ledger in a thread; abandoned, not awaited, when this task is cancelled."""
        return await trio.to_thread.run_sync(function, *args, limiter=self._limiter, abandon_on_cancel=True)


def _back_off(failures: int) -> float:
    """Seconds to wait after the `failures`-th failure in a row."""
    return BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1]
