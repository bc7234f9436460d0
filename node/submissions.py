"""What stands in line for the ledger, and what of it goes next: a statement, or several at once.

Statements are recorded in order. Where rounds have piled up, or the charter wants them recorded every so many rounds
only (`ledger.cadence`), a checkpoint records several in one transaction. A round whose attestations cannot be gathered
is attested on the ledger itself, each attester by its own transaction.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from folkmoot.ledger.calls import Attest, Call, Checkpoint, Finalize
from folkmoot.ledger.port import Record as LedgerRecord
from folkmoot.node.transactions import Order
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import MAX_CHECKPOINT
from folkmoot.protocol.effects import Record
from folkmoot.protocol.messages import Signed, Statement
from folkmoot.protocol.typed_data import keccak256, struct_hash
from folkmoot.protocol.types import Digest, Round

BACKLOG = 4
"""So many statements that wait go together. Fewer go one by one: then each has its own signatures on the ledger."""

ATTEST_AFTER = 12.0
"""A round that lacks its quorum for so many of the charter's `submit_after` is attested on the ledger."""


class Backlog(NamedTuple):
    """Statements that are finished here and not on the ledger, by how far they are."""

    pending: int
    """Waiting for the rounds before them, for their turn or for the ledger to answer."""
    sent: int
    """The chain has taken the transaction; no block has it yet."""
    deferred: int
    """The ledger refuses it, or its fees are above the cap; tried again and again."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one transaction is to do, and when; `rounds` is what it records."""

    order: Order
    due_at: float
    rounds: Sequence[Round] = ()


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A statement under its quorum, signatures in ascending order of their signers' addresses."""

    record: Record
    signatures: tuple[bytes, ...]
    since: float

    @property
    def statement(self) -> Statement:
        return self.record.statement


@dataclass(slots=True)
class _Lone:
    """My own attestation of a decided round, and when a block was last seen to have it."""

    statement: Statement
    signature: bytes
    since: float
    mined_at: float = -math.inf


class Submissions:
    """For one task. Times are `trio.current_time()`."""

    def __init__(self, charter_at: Callable[[Round], Charter]) -> None:
        """`charter_at` tells the charter that is in force at a round."""
        self._charter_at = charter_at
        self._waiting: dict[Round, _Waiting] = {}
        self._lone: dict[Round, _Lone] = {}
        self._begun: Job | None = None

    def add(self, record: Record, now: float) -> None:
        """Take a statement in; the same one again does no harm."""
        round_ = record.statement.round
        if round_ not in self._waiting:
            self._waiting[round_] = _Waiting(record, self._in_contract_order(record), now)
        self.gathered(round_)
        if self._begun is not None and isinstance(self._begun.order.call, Attest):
            self._begun = None  # the whole quorum is better than one signature

    def add_lone(self, attestation: Signed, now: float) -> None:
        """Take in my own attestation of a round that is decided here, and may lack others'."""
        statement = attestation.body
        assert isinstance(statement, Statement)
        self._lone.setdefault(statement.round, _Lone(statement, attestation.signature, now))

    def gathered(self, round_: Round) -> None:
        """The round's quorum is here, or all of it that the ledger has."""
        self._lone.pop(round_, None)

    def forget(self, height: Round) -> None:
        """Rounds up to `height` are final. What still lacks its quorum here is kept: the ledger may have it."""
        self._waiting = {round_: one for round_, one in self._waiting.items() if round_ > height}

    def give_up(self, statements: Collection[Digest]) -> None:
        """Forget these: the final record has others in their place."""
        self._waiting = {
            round_: one for round_, one in self._waiting.items() if one.record.digest not in statements
        }
        self._lone = {
            round_: one for round_, one in self._lone.items() if struct_hash(one.statement) not in statements
        }
        self._begun = None

    def statement_of(self, round_: Round) -> Digest | None:
        """The digest of the statement that this node has for a round."""
        waiting = self._waiting.get(round_)
        return waiting.record.digest if waiting is not None else None

    def after(self, height: Round) -> list[Round]:
        """The rounds that are finished here and come after `height`."""
        return sorted(round_ for round_ in self._waiting if round_ > height)

    # --- what goes next ---------------------------------------------------------------------------------------------

    def begin(self, job: Job) -> None:
        """A transaction is made for it: rounds that come in meanwhile wait for the next, and do not change this one."""
        self._begun = job

    def rethink(self) -> None:
        """The record has moved, or the ledger refuses what was begun."""
        self._begun = None

    def note_attested(self, round_: Round, now: float) -> None:
        """A block has my attestation. The head does not show that, nor if it is undone: look again after a while."""
        self._begun = None
        if round_ in self._lone:
            self._lone[round_].mined_at = now

    def next(self, height: Round, moved_at: float) -> Job | None:
        """What continues the record at `height`, where it has stood since `moved_at`; it may not be due yet."""
        return self._begun or self._record(height, moved_at) or self._attest(height, moved_at)

    def _record(self, height: Round, moved_at: float) -> Job | None:
        batch = self._batch(height)
        if not batch:
            return None
        last = batch[-1]
        statements = tuple(one.statement for one in batch)
        call: Call = Checkpoint(statements, last.signatures)
        if len(batch) == 1:
            call = Finalize(last.statement, last.signatures)
        # Mine at once, another's turn after as many patiences; counted from when it came to be next in line.
        turns = last.record.turn * self._patience(last.statement.round)
        return Job(
            Order(call, last.record.digest, last.statement.round),
            max(last.since, moved_at) + turns,
            [statement.round for statement in statements],
        )

    def _batch(self, height: Round) -> list[_Waiting]:
        """The statements to record together: under one charter, up to a round at which it wants the record."""
        found: list[_Waiting] = []
        for round_ in range(height + 1, height + 1 + MAX_CHECKPOINT):
            waiting = self._waiting.get(round_)
            if waiting is None or (found and waiting.statement.config != found[0].statement.config):
                break
            found.append(waiting)
        if not found or self._charter_at(height + 1).ledger.cadence == 1:
            return found if len(found) >= BACKLOG else found[:1]
        while found and len(found) < MAX_CHECKPOINT and not self._ends_at(found[-1].statement):
            found.pop()
        return found

    def _ends_at(self, statement: Statement) -> bool:
        """Whether the record is to be brought up to this round: every `cadence`, at the end, and before a change."""
        charter, later = self._charter_at(statement.round), self._waiting.get(statement.round + 1)
        if statement.round % charter.ledger.cadence == 0 or statement.round == charter.schedule.rounds:
            return True
        return later is not None and later.statement.config != statement.config

    def _attest(self, height: Round, moved_at: float) -> Job | None:
        lone = self._lone.get(height + 1)
        if lone is None:
            return None
        # Not the statement's own digest: under that the journal keeps what records it whole.
        name = keccak256(struct_hash(lone.statement) + lone.signature)
        order = Order(Attest(lone.statement, lone.signature), name, lone.statement.round)
        since = max(lone.since, lone.mined_at, moved_at)
        return Job(order, since + ATTEST_AFTER * self._patience(height + 1))

    def lacking(self, height: Round, now: float) -> dict[Round, Digest]:
        """Recorded rounds whose quorum has not come here for long, with their statements' digests."""
        return {
            round_: struct_hash(lone.statement)
            for round_, lone in self._lone.items()
            if round_ <= height and now >= lone.since + ATTEST_AFTER * self._patience(round_)
        }

    def attestations(self, record: LedgerRecord) -> list[Signed]:
        """Those that the ledger has on a statement itself, by their members."""
        if record.signed != record.digest:
            return []  # a checkpoint's are on its last statement
        members = self._charter_at(record.statement.round).members
        ids = {bytes.fromhex(member.audit_key[2:]): index for index, member in enumerate(members)}
        return [
            Signed(ids[signer], record.statement, signature)
            for signer, signature in zip(record.signers, record.signatures, strict=True)
            if signer in ids
        ]

    def _patience(self, round_: Round) -> float:
        return self._charter_at(round_).schedule.submit_after

    def _in_contract_order(self, record: Record) -> tuple[bytes, ...]:
        members = self._charter_at(record.statement.round).members
        by_address = {
            bytes.fromhex(members[signed.member].audit_key[2:]): signed.signature
            for signed in record.attestations
        }
        return tuple(by_address[address] for address in sorted(by_address))
