"""The outbox: puts finished rounds on the ledger, and follows the ledger's head.

Rounds do not wait for the chain. Every attester hands every statement in; the one whose turn it is submits at once,
the others step in, one by one, if the head has not moved. What goes into the next transaction is `submissions.py`'s,
what is done to it until a block holds it `transactions.py`'s; here is decided what to do and say if the ledger is not
as it should be.
"""

import math
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress

import msgspec
import trio
from structlog.stdlib import BoundLogger

from folkmoot.ledger.calls import Amend, Attest
from folkmoot.ledger.errors import (
    LedgerRejected,
    LedgerReorganised,
    LedgerUnavailable,
    WrongLedger,
)
from folkmoot.ledger.identity import check_identity
from folkmoot.ledger.port import FinalBlock, Ledger, LedgerHead
from folkmoot.node.ledger_state import LedgerState
from folkmoot.node.pace import QUICK_SECONDS, Pace
from folkmoot.node.store import Journal
from folkmoot.node.submissions import Backlog, Job, Submissions
from folkmoot.node.transactions import LedgerCalls, Order, Progress, Transactions
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.effects import Record
from folkmoot.protocol.fork import RecordedRound
from folkmoot.protocol.messages import Signed
from folkmoot.protocol.typed_data import struct_hash
from folkmoot.protocol.types import Digest, Round

PAUSED_SECONDS = 1.0
"""The longest pause between two tries once rounds wait for a ledger that does not answer."""
COMPARE_SECONDS = 60.0
"""How often the endpoints are compared; besides, whenever a round becomes final."""
BUMP_SECONDS = 60.0

_ATTESTED = "attested"
"""The contract's word for an attestation that it has."""

JOIN_SECONDS, JOIN_POLL_SECONDS = 300.0, 1.0
"""How long, and how often, the ledger is asked for the model with which a member wants to begin."""
JOIN_ROUNDS = 100
"""How many rounds back that model may be."""

VERIFIED = "ledger verified"
"""Journal meta: digest of the charter that the contract was once found to fit. (A journal is tied to one contract.)"""
FINAL_BLOCK = "ledger final block"
"""Journal meta: the block that counted as final when a round last became so."""

OnHead = Callable[[LedgerHead], Awaitable[None]]
OnAttested = Callable[[Signed], Awaitable[None]]


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
        on_attested: OnAttested | None = None,
    ) -> None:
        """`charter` is the founding one, `charter_at` tells the one in force; `bump_seconds`: see `Transactions`.

        `on_attested` is told attestations that were found on the ledger where this node lacks a quorum's.
        """
        self._ledger = ledger
        self._journal = journal
        self._charter = charter
        self._on_head = on_head
        self._on_attested = on_attested or _forget
        self._log = log
        self._call = LedgerCalls()
        self._transactions = Transactions(ledger, journal, self._call, log, bump_seconds)
        self._submissions = Submissions(charter_at or (lambda round_: charter))
        self._amending: Amend | None = None
        self._state = LedgerState(log)
        self._changed = trio.Event()
        self._pace = Pace(trio.current_time())
        self._moved_at = trio.current_time()
        self._compared_at = -math.inf
        self.asked = trio.Event()
        """Set once the ledger was asked for the first time, whatever it answered."""
        self.verified = trio.Event()
        """Set once the ledger has shown, in this life of the node, that it is the charter's."""
        self.head: LedgerHead | None = None

    @property
    def state(self) -> str:
        """See `LedgerState.word`."""
        return self._state.word

    @property
    def reason(self) -> str:
        """The state in words, and what is to be said of single endpoints."""
        return self._state.reason

    @property
    def backlog(self) -> int:
        """Statements that are finished here and not on the ledger."""
        return sum(self.counts())

    def counts(self) -> Backlog:
        """The backlog by how far its statements are."""
        height = self.head.height if self.head is not None else 0
        unrecorded, job = len(self._submissions.after(height)), self._next()
        recording = len(job.rounds) if job is not None else 0
        if job is not None and self._transactions.is_out(job.order.name):
            return Backlog(unrecorded - recording, recording, 0)
        deferred = recording if self._state.is_refusing else 0
        return Backlog(unrecorded - deferred, 0, deferred)

    def add(self, record: Record) -> None:
        """Take a statement in; the same one again does no harm."""
        if self.head is not None and record.statement.round <= self.head.finalized_height:
            self._submissions.gathered(record.statement.round)
            return
        self._submissions.add(record, trio.current_time())
        self._changed.set()

    def add_lone(self, attestation: Signed) -> None:
        """Take in my own attestation of a round: if no quorum's come together, the ledger has to gather them."""
        self._submissions.add_lone(attestation, trio.current_time())

    async def final_record(self, first: Round, last: Round) -> tuple[RecordedRound, ...]:
        """Final rounds as the ledger has them; waits until it answers."""
        while True:
            with suppress(LedgerUnavailable):
                records = await self._call(self._ledger.records, first, last)
                return tuple(
                    RecordedRound(one.statement, tuple(self._submissions.attestations(one)))
                    for one in records
                )
            await trio.sleep(PAUSED_SECONDS)

    def give_up(self, statements: Collection[Digest]) -> None:
        """The final record has others in their place: hand in none of these any more."""
        self._submissions.give_up(statements)
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

    async def await_model(self, model: Digest) -> bool:
        """Wait until the ledger has a statement with this model; False if it has none for `JOIN_SECONDS`.

        For who was no member when it was made: the keys that attest it are not of its own time.
        """
        with trio.move_on_after(JOIN_SECONDS):
            while True:
                with suppress(LedgerUnavailable):
                    recent = await self._call(self._ledger.head)
                    records = await self._call(self._ledger.records, max(1, recent.height - JOIN_ROUNDS))
                    if any(record.statement.model == model for record in records):
                        return True
                await trio.sleep(JOIN_POLL_SECONDS)
        return False

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
                self._state.broken(error, self.backlog)
                raise
            self.asked.set()
            self._state.answered(self.backlog)
            with trio.move_on_after(self._rest()):
                await self._changed.wait()

    async def step(self) -> None:
        """Look at the head once, do what is due for the next statement. Raises as `run`, and `LedgerUnavailable`."""
        if not self.verified.is_set():
            await self._verify()
        await self._look()
        await self._gather()
        if self._amending is not None:
            await self._amend(self._amending)
        job = self._next()
        if self._amending is None and job is not None and self._is_due(job):
            await self._submit(job)
            await self._look()

    async def drain(self) -> None:
        """Before the end: submit what is mine to submit now, as far as the ledger takes it.

        Cancel it when the patience is over: the rest is submitted after the next start, or by others.
        """
        try:
            while (job := self._next()) is not None and self._is_due(job):
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
        pause = self._state.silent(error, self.backlog)
        self.asked.set()
        # What is not recorded by now stops the rounds: be quick to notice when the ledger is back.
        if self.backlog >= self._charter.schedule.max_ahead:
            pause = min(pause, PAUSED_SECONDS)
        await trio.sleep(pause)
        self._pace.note_silence(trio.current_time())

    def _rest(self) -> float:
        """Seconds until the next look."""
        job = self._next()
        is_busy = self._amending is not None or (job is not None and self._is_due(job))
        return self._pace.rest(is_busy=is_busy, has_backlog=self.backlog > 0)

    # --- the head -----------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        head = await self._call(self._ledger.head)
        before, now = self.head, trio.current_time()
        if before is not None:
            # A block that was final is still there, even if this endpoint does not call it so yet.
            newer = max(head, before, key=lambda one: one.finalized_height)
            head = msgspec.structs.replace(
                head, finalized_height=newer.finalized_height, finalized_digest=newer.finalized_digest
            )
        grown = before is None or head.finalized_height > before.finalized_height
        if grown or now - self._compared_at >= COMPARE_SECONDS:
            self._state.notes = await self._call(self._ledger.compare)
            self._compared_at = now
        if head == before:
            return
        self._check_record(head)
        if grown:
            await self._put_away(head)
        self._pace.note_block(now)
        self.head = head
        if before is None or head.height != before.height:
            self._on_moved(head, before)
        await self._on_head(head)

    async def _gather(self) -> None:
        """Attestations that reached the ledger and not this node: without them its round has no quorum, no record."""
        assert self.head is not None
        lacking = self._submissions.lacking(self.head.height, trio.current_time())
        if not lacking:
            return
        for record in await self._call(self._ledger.records, min(lacking), max(lacking)):
            if lacking.get(record.statement.round) == record.digest:
                for attestation in self._submissions.attestations(record):
                    await self._on_attested(attestation)
        for round_ in lacking:
            self._submissions.gathered(round_)

    def _on_moved(self, head: LedgerHead, before: LedgerHead | None) -> None:
        self._moved_at = trio.current_time()
        self._state.moved()
        self._submissions.rethink()
        self._log.info("ledger", height=head.height, block=head.block)
        if before is not None and head.height < before.height:
            self._log.warning("blocks were undone", height=head.height, before=before.height)
            self._transactions.undone()

    def _check_record(self, head: LedgerHead) -> None:
        """Only more faulty attesters than the rules allow for can make two statements of one round: say it loudly.

        Once the ledger's is final, the machine gives up this node's own (`protocol/fork.py`).
        """
        mine = self._submissions.statement_of(head.height)
        if mine is not None and mine != head.digest:
            ours, theirs = mine.hex(), head.digest.hex()
            self._log.error("the ledger has another statement", round=head.height, theirs=theirs, mine=ours)

    async def _put_away(self, head: LedgerHead) -> None:
        """Only what is final is forgotten, for any other block may yet be undone."""
        final = msgspec.msgpack.encode(head.final)
        await trio.to_thread.run_sync(self._journal.set_meta, FINAL_BLOCK, final)
        await self._transactions.settle(head.finalized_height)
        self._submissions.forget(head.finalized_height)

    # --- the next transaction ---------------------------------------------------------------------------------------

    def _next(self) -> Job | None:
        return self._submissions.next(self.head.height, self._moved_at) if self.head is not None else None

    def _is_due(self, job: Job) -> bool:
        return trio.current_time() >= max(self._state.again_at, job.due_at)

    async def _submit(self, job: Job) -> None:
        self._submissions.begin(job)
        is_lone = isinstance(job.order.call, Attest)
        try:
            progress = await self._transactions.push(job.order)
        except LedgerRejected as error:
            self._submissions.rethink()
            if is_lone and error.reason == _ATTESTED:
                self._submissions.note_attested(job.order.round, trio.current_time())
            elif not error.stale:  # else somebody else's came first: the next look shows it
                self._state.refused(error, job.order.round, trio.current_time())
            return
        if progress is not Progress.WAITING:
            self._state.taken()
        if is_lone and progress is Progress.MINED:
            self._submissions.note_attested(job.order.round, trio.current_time())

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


async def _forget(attestation: Signed) -> None:
    """For who has no machine to tell."""
