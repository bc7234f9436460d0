"""The outbox: puts finished rounds on the ledger, and follows the ledger's head.

Rounds do not wait for the chain. Every attester hands every statement in; the one whose turn it is submits at once,
the others step in, one by one, if the head has not moved. What is done to a statement until a block holds it is
`transactions.py`'s; here is decided when, and what to do and say if the ledger is not as it should be.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import trio
from structlog.stdlib import BoundLogger

from folkmoot.ledger.calls import Amend, Finalize
from folkmoot.ledger.errors import (
    LedgerDisagrees,
    LedgerRejected,
    LedgerReorganised,
    LedgerUnavailable,
    WrongLedger,
)
from folkmoot.ledger.identity import check_identity
from folkmoot.ledger.port import FinalBlock, Ledger, LedgerHead
from folkmoot.node.store import Journal
from folkmoot.node.transactions import LedgerCalls, Order, Transactions
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.effects import Record
from folkmoot.protocol.typed_data import struct_hash
from folkmoot.protocol.types import Round

POLL_SECONDS = (0.1, 5.0)
"""Bounds of the pause between two looks at the head; within them, a quarter of the chain's own pace. The longer one
while nothing waits to be recorded: a provider counts every call."""
QUICK_SECONDS = (0.05, 0.5)
"""The same while a statement of ours is on its way: from the first look to the later ones."""
BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0)
"""Pauses between two tries while the ledger does not answer: in the end as rarely as a healthy one is polled."""
PAUSED_SECONDS = 1.0
"""The longest of these pauses once rounds wait for the ledger."""
REFUSED_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Pauses between two tries while the ledger, or the fee cap, refuses a statement."""
COMPARE_SECONDS = 60.0
"""How often the endpoints are compared; besides, whenever a round becomes final."""
BUMP_SECONDS = 60.0

VERIFIED = "ledger verified"
"""Journal meta: digest of the charter that the contract was once found to fit. (A journal is tied to one contract.)"""
FINAL_BLOCK = "ledger final block"
"""Journal meta: the block that counted as final when a round last became so."""

OnHead = Callable[[LedgerHead], Awaitable[None]]


class Backlog(NamedTuple):
    """Statements that are finished here and not on the ledger, by how far they are."""

    pending: int
    """Waiting for the rounds before them, for their turn or for the ledger to answer."""
    sent: int
    """The chain has taken the transaction; no block has it yet."""
    deferred: int
    """The ledger refuses it, or its fees are above the cap; tried again and again."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A statement under its quorum, signatures in ascending order of their signers' addresses."""

    record: Record
    signatures: tuple[bytes, ...]
    since: float


class Outbox:
    """One task (`run`) owns the gas key's transactions."""

    def __init__(
        self,
        ledger: Ledger,
        journal: Journal,
        charter: Charter,
        on_head: OnHead,
        log: BoundLogger,
        bump_seconds: float = BUMP_SECONDS,
        charter_at: Callable[[Round], Charter] | None = None,
    ) -> None:
        """`charter` is the founding one, `charter_at` tells the one in force; `bump_seconds`: see `Transactions`."""
        self._ledger = ledger
        self._journal = journal
        self._charter = charter
        self._charter_at = charter_at or (lambda round_: charter)
        self._on_head = on_head
        self._log = log
        self._call = LedgerCalls()
        self._transactions = Transactions(ledger, journal, self._call, log, bump_seconds)
        self._waiting: dict[Round, _Waiting] = {}
        self._amending: Amend | None = None
        self._refusal: LedgerRejected | None = None
        self._refusals = 0
        self._again_at = -math.inf
        self._failures = 0
        self._changed = trio.Event()
        self._pause, self._quick = 0.5, QUICK_SECONDS[0]
        self._block_at = self._moved_at = trio.current_time()
        self._compared_at = -math.inf
        self._notes: tuple[str, ...] = ()
        self.asked = trio.Event()
        """Set once the ledger was asked for the first time, whatever it answered."""
        self.verified = trio.Event()
        """Set once the ledger has shown, in this life of the node, that it is the charter's."""
        self.head: LedgerHead | None = None
        self.state = "starting"
        """starting · ok · unreachable · disagreeing (endpoints) · deferred · reorganised · wrong"""
        self.reason = ""
        """The state in words, and what is to be said of single endpoints."""

    @property
    def backlog(self) -> int:
        """Statements that are finished here and not on the ledger."""
        return sum(self.counts())

    def counts(self) -> Backlog:
        """The backlog by how far its statements are."""
        height = self.head.height if self.head is not None else 0
        unrecorded = [one.record for round_, one in self._waiting.items() if round_ > height]
        sent = sum(self._transactions.is_out(record.digest) for record in unrecorded)
        first = self._next() if self._refusal is not None else None
        deferred = int(first is not None and not self._transactions.is_out(first.record.digest))
        return Backlog(len(unrecorded) - sent - deferred, sent, deferred)

    def add(self, record: Record) -> None:
        """Take a statement in; the same one again does no harm."""
        if self.head is not None and record.statement.round <= self.head.finalized_height:
            return
        if record.statement.round not in self._waiting:
            signatures = self._in_contract_order(record)
            self._waiting[record.statement.round] = _Waiting(record, signatures, trio.current_time())
        self._changed.set()

    def amend(self, call: Amend) -> None:
        """Submit an amendment, before any statement: it is rare, and too late after so many rounds.

        Whoever asks looks at the ledger himself whether it was recorded; asking again does no harm.
        """
        if self._amending is None:
            self._amending = call
            self._changed.set()

    @property
    def is_amending(self) -> bool:
        """Whether an amendment is being submitted: until the ledger has it, or refuses it."""
        return self._amending is not None

    async def run(self) -> None:
        """Follow the head and submit, until cancelled. Raises `WrongLedger`, `LedgerReorganised`."""
        while True:
            self._changed = trio.Event()
            try:
                await self.step()
            except LedgerUnavailable as error:
                await self._back_off(error)
                continue
            except (WrongLedger, LedgerReorganised) as error:
                self.state = "wrong" if isinstance(error, WrongLedger) else "reorganised"
                self.reason = str(error)
                self._log.error("the ledger cannot be gone on with", error=str(error), backlog=self.backlog)
                raise
            self.asked.set()
            self._recover()
            with trio.move_on_after(self._rest()):
                await self._changed.wait()

    async def step(self) -> None:
        """Look at the head once, do what is due for the next statement. Raises as `run`, and `LedgerUnavailable`."""
        if not self.verified.is_set():
            await self._verify()
        await self._look()
        if self._amending is not None:
            await self._amend(self._amending)
        waiting = self._next()
        if self._amending is None and waiting is not None and self._is_due(waiting):
            await self._submit(waiting)
            await self._look()

    async def drain(self) -> None:
        """Before the end: submit what is mine to submit now, as far as the ledger takes it.

        Cancel it when the patience is over: the rest is submitted after the next start, or by others.
        """
        try:
            while (waiting := self._next()) is not None and self._is_due(waiting):
                await self.step()
                await trio.sleep(QUICK_SECONDS[0])
        except LedgerUnavailable as error:
            self._log.warning("stopping with rounds unrecorded", backlog=self.backlog, error=str(error))

    # --- how the ledger is ------------------------------------------------------------------------------------------

    async def _verify(self) -> None:
        """Before anything the ledger says is believed: is it the charter's, and does it still have what was final?"""
        identity = await self._call(self._ledger.identity)
        check_identity(identity, self._charter)
        if (kept := await trio.to_thread.run_sync(self._journal.meta, FINAL_BLOCK)) is not None:
            self._ledger.expect(msgspec.msgpack.decode(kept, type=FinalBlock))
        await trio.to_thread.run_sync(self._journal.set_meta, VERIFIED, self._charter.digest)
        self.verified.set()

    async def _back_off(self, error: LedgerUnavailable) -> None:
        state = "disagreeing" if isinstance(error, LedgerDisagrees) else "unreachable"
        if self.state != state:
            self._log.warning(f"ledger {state}", error=str(error), backlog=self.backlog)
        self.state, self.reason = state, str(error)
        self.asked.set()
        self._failures += 1
        # What is not recorded by now stops the rounds: be quick to notice when the ledger is back.
        paused = self.backlog >= self._charter.schedule.max_ahead
        longest = PAUSED_SECONDS if paused else math.inf
        await trio.sleep(min(_nth(BACKOFF_SECONDS, self._failures), longest))
        self._block_at = trio.current_time()  # silence says nothing of the chain's pace

    def _recover(self) -> None:
        if self._failures:
            self._log.info("ledger answers again", backlog=self.backlog)
        self._failures = 0
        self.state = "ok" if self._refusal is None else "deferred"
        self.reason = "; ".join((*([] if self._refusal is None else [str(self._refusal)]), *self._notes))

    def _rest(self) -> float:
        """Seconds until the next look."""
        waiting = self._next()
        if self._amending is None and (waiting is None or not self._is_due(waiting)):
            self._quick = QUICK_SECONDS[0]
            return self._pause if self.backlog else POLL_SECONDS[1]
        self._quick = min(2 * self._quick, QUICK_SECONDS[1])
        return self._quick

    # --- the head -----------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        head = await self._call(self._ledger.head)
        before, now = self.head, trio.current_time()
        if before is not None:
            # A block that was final is still there, even if this endpoint does not call it so yet.
            settled = max(head.finalized_height, before.finalized_height)
            head = msgspec.structs.replace(head, finalized_height=settled)
        grown = before is None or head.finalized_height > before.finalized_height
        if grown or now - self._compared_at >= COMPARE_SECONDS:
            self._notes = await self._call(self._ledger.compare)
            self._compared_at = now
        if head == before:
            return
        self._check_record(head)
        if grown:
            await self._put_away(head)
        shortest, longest = POLL_SECONDS
        self._pause = min(max((now - self._block_at) / 4, shortest), longest)
        self._block_at, self.head = now, head
        if before is None or head.height != before.height:
            self._on_moved(head, before)
        await self._on_head(head)

    def _on_moved(self, head: LedgerHead, before: LedgerHead | None) -> None:
        self._moved_at = trio.current_time()
        self._refusal, self._refusals, self._again_at = None, 0, -math.inf
        self._log.info("ledger", height=head.height, block=head.block)
        if before is not None and head.height < before.height:
            self._log.warning("blocks were undone", height=head.height, before=before.height)
            self._transactions.undone()

    def _check_record(self, head: LedgerHead) -> None:
        """Only more faulty attesters than the rules allow for can make two statements of one round: say it loudly."""
        mine = self._waiting.get(head.height)
        if mine is not None and mine.record.digest != head.digest:
            ours, theirs = mine.record.digest.hex(), head.digest.hex()
            self._log.error("the ledger has another statement", round=head.height, theirs=theirs, mine=ours)

    async def _put_away(self, head: LedgerHead) -> None:
        """Only what is final is forgotten, for any other block may yet be undone."""
        final = msgspec.msgpack.encode(head.final)
        await trio.to_thread.run_sync(self._journal.set_meta, FINAL_BLOCK, final)
        await self._transactions.settle(head.finalized_height)
        for round_ in [round_ for round_ in self._waiting if round_ <= head.finalized_height]:
            del self._waiting[round_]

    # --- the next statement -------------------------------------------------------------------------------------

    def _next(self) -> _Waiting | None:
        return self._waiting.get(self.head.height + 1) if self.head is not None else None

    def _is_due(self, waiting: _Waiting) -> bool:
        """Mine at once, another's turn after as many patiences; counted from when it came to be next in line."""
        turns = waiting.record.turn * self._charter.schedule.submit_after
        return trio.current_time() >= max(self._again_at, max(waiting.since, self._moved_at) + turns)

    async def _submit(self, waiting: _Waiting) -> None:
        record = waiting.record
        try:
            call = Finalize(record.statement, waiting.signatures)
            if await self._transactions.push(Order(call, record.digest, record.statement.round)):
                self._refusal = None
        except LedgerRejected as error:
            if not error.stale:  # else somebody else's came first: the next look shows it
                self._put_off(error, record.statement.round)

    async def _amend(self, call: Amend) -> None:
        """One step; it is given up, not put off, where the ledger refuses it: then something has to be signed anew."""
        assert self.head is not None
        number = call.amendment.number
        if number > self.head.amendments:
            order = Order(call, struct_hash(call.amendment), self.head.height + 1)
            try:
                await self._transactions.push(order)
            except LedgerRejected as error:
                self._log.error("amendment refused", number=number, reason=str(error))
            else:
                return
        self._amending = None

    def _put_off(self, error: LedgerRejected, round_: Round) -> None:
        """Something that time or the operator may mend, as an empty gas account: try again, ever more rarely."""
        if self._refusal is None or type(self._refusal) is not type(error):
            self._log.error("statement refused, to be tried again", round=round_, reason=str(error))
        self._refusal = error
        self._refusals += 1
        self._again_at = trio.current_time() + _nth(REFUSED_SECONDS, self._refusals)

    def _in_contract_order(self, record: Record) -> tuple[bytes, ...]:
        members = self._charter_at(record.statement.round).members
        by_address = {
            bytes.fromhex(members[signed.member].audit_key[2:]): signed.signature
            for signed in record.attestations
        }
        return tuple(by_address[address] for address in sorted(by_address))


def _nth(pauses: tuple[float, ...], number: int) -> float:
    """The pause after the `number`-th time (from 1) in a row; the last one for all later ones."""
    return pauses[min(number, len(pauses)) - 1]
