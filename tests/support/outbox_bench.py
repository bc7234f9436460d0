"""Outboxes of some members over one ledger in memory, in virtual time."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from audited_federation import AuditedFederation

from folkmoot.ledger.memory import MemoryChain, MemoryLedger
from folkmoot.ledger.port import Ledger, LedgerHead, PreparedTransaction
from folkmoot.node.logs import logger
from folkmoot.node.outbox import Outbox
from folkmoot.node.store import Journal, OutboxRow
from folkmoot.protocol.effects import Record
from folkmoot.protocol.typed_data import struct_hash

ALICE, BOB = b"\x01" * 20, b"\x02" * 20


class Bench:
    """Some members' outboxes on one chain."""

    def __init__(self, federation: AuditedFederation, path: Path) -> None:
        self.federation = federation
        self.chain = MemoryChain(federation.identity)
        self.heads: list[int] = []
        self._path = path

    def record(self, round_: int, turn: int = 0) -> Record:
        made = self.federation.rounds[round_ - 1]
        return Record(made.statement, struct_hash(made.statement), made.record.attestations, turn)

    def ledger(self, submitter: bytes = ALICE, fee_cap: int | None = None) -> MemoryLedger:
        return MemoryLedger(self.chain, submitter, fee_cap)

    async def note(self, head: LedgerHead) -> None:
        self.heads.append(head.height)

    def store(self, submitter: bytes = ALICE) -> Path:
        return self._path / f"{submitter.hex()}.sqlite"

    def journal(self, submitter: bytes = ALICE, on_write: Callable[[int], None] | None = None) -> Journal:
        store = self.store(submitter)
        if not store.exists():
            Journal.create(store)
        return Journal.open(store, on_write=on_write)

    def outbox(self, ledger: Ledger, journal: Journal) -> Outbox:
        return Outbox(ledger, journal, self.federation.charter, self.note, logger())

    @asynccontextmanager
    async def running(self, ledger: Ledger, submitter: bytes = ALICE) -> AsyncIterator[Outbox]:
        with self.journal(submitter) as journal:
            outbox = self.outbox(ledger, journal)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(outbox.run)
                yield outbox
                nursery.cancel_scope.cancel()

    async def until(self, condition: Callable[[], object]) -> None:
        with trio.fail_after(3600):
            while not condition():  # noqa: ASYNC110 - in virtual time
                await trio.sleep(0.05)

    async def until_recorded(self, height: int) -> None:
        await self.until(lambda: self.chain.head().height >= height)

    def rows(self, submitter: bytes = ALICE) -> list[OutboxRow]:
        with Journal.open(self.store(submitter), read_only=True) as journal:
            statements = [struct_hash(made.statement) for made in self.federation.rounds]
            return [row for statement in statements for row in journal.outbox_of(statement)]


class Watched(MemoryLedger):
    """Notes what is sent, in order, and lets a test spoil it."""

    def __init__(self, chain: MemoryChain, submitter: bytes = ALICE, fee_cap: int | None = None) -> None:
        super().__init__(chain, submitter, fee_cap)
        self.sent: list[bytes] = []
        self.before_send: Callable[[], None] = lambda: None

    def send(self, prepared: PreparedTransaction) -> None:
        self.sent.append(prepared.raw)
        self.before_send()
        super().send(prepared)
