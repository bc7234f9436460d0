"""The ledger of a simulation: `MemoryChain` with the contract's rules, and every node's way to it.

`Outbox` of the daemon needs trio and threads; this does the same without: look at the head, hand the next statement in
when it is one's turn, and again whenever it is gone from the chain.
"""

from collections.abc import Callable
from typing import Protocol

from folkmoot.ledger.calls import Finalize
from folkmoot.ledger.errors import LedgerRejected, LedgerReorganised, LedgerUnavailable
from folkmoot.ledger.identity import founding_of
from folkmoot.ledger.memory import MemoryChain, MemoryLedger
from folkmoot.ledger.port import LedgerHead
from folkmoot.ledger.port import Record as LedgerRecord
from folkmoot.protocol.closing import submitting_before
from folkmoot.protocol.effects import ReadRecord, Record
from folkmoot.protocol.events import Event, HeadAdvanced, RecordRead
from folkmoot.protocol.fork import RecordedRound
from folkmoot.protocol.messages import Signed, Statement
from folkmoot.protocol.record import RoundRecord
from folkmoot.protocol.typed_data import struct_hash
from folkmoot.protocol.types import Round
from folkmoot.testnet.simulation.charters import Charters, me
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.governing import Governing
from folkmoot.testnet.simulation.keys import DOMAIN, Keys, address_of
from folkmoot.testnet.simulation.node import Node

READ_SECONDS = 1.0
"""Pause before a node reads the rounds that contradict its own, as `node/engine.py` has it."""

POLL = 1.0
"""Seconds between two looks of a node that has something to record, or an RPC that does not answer."""


class Surroundings(Protocol):
    """What the ledger needs of the simulation around it."""

    charters: Charters
    governing: Governing
    faults: Faults
    nodes: list[Node]

    def mined(self) -> None:
        """There is another block."""
        ...

    def stop(self, node: Node) -> None:
        """A node's chain lost what was final: it ends until somebody accepts that."""
        ...

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Do that later."""
        ...

    def note_progress(self) -> None:
        """Something was finished somewhere."""
        ...

    def tell(self, node: Node, event: Event, delay: float) -> None:
        """Let the node know later."""
        ...

    def while_alive(self, node: Node, delay: float, action: Callable[[], None]) -> None:
        """Do that later, unless the node is gone or has begun anew."""
        ...


class SimulatedLedger:
    """Mines while there is something to mine."""

    def __init__(self, around: Surroundings, keys: Keys) -> None:
        self._around = around
        founding = founding_of(around.charters.founding)
        code_hash = bytes.fromhex(around.charters.founding.ledger.code_hash)
        self.chain = MemoryChain(
            founding.identity(DOMAIN.chain_id, DOMAIN.contract, code_hash),
            keys.signer_of(),
            others=founding.others,
            finality=around.faults.finality,
            automine=False,
        )
        self._mining = False
        self.on_block: Callable[[], None] = lambda: None
        """Who else is to hear of every block, before the nodes do."""

    def account(self, node: Node) -> MemoryLedger:
        """A node's view of the chain; its RPC may fail on its own. The faces of a liar pay from different accounts."""
        return MemoryLedger(self.chain, b"%19d%d" % (node.person, node.face))

    @property
    def recorded(self) -> Round:
        """Up to where the record is final."""
        return self.chain.head().finalized_height

    # --- blocks ---------------------------------------------------------------------------------------------

    def keep_mining(self) -> None:
        """There is something to mine."""
        if not self._mining:
            self._mining = True
            self._around.at(self._around.faults.ledger, self._mine)

    def _mine(self) -> None:
        self.chain.mine()
        head = self.chain.head()
        self._mining = False
        self._around.mined()
        self.on_block()
        if self.chain.pending or head.finalized_height < head.height:
            self.keep_mining()
        self._show()

    def _show(self) -> None:
        for node in self._around.nodes:
            if node.machine is not None:
                self._around.while_alive(node, 0.01, lambda node=node: self.look(node))  # type: ignore[misc]

    def reorganise(self, depth: int) -> None:
        """Undo blocks, as far as they are not final."""
        final = self.chain.head().final.number
        undone = min(depth, self.chain.head().block - final)
        if undone > 0:
            self.undo(undone)

    def undo(self, depth: int) -> None:
        """Undo so many blocks, final or not."""
        self.chain.reorg(depth)
        self.chain.evict()
        self.keep_mining()
        self._show()

    # --- a node ---------------------------------------------------------------------------------------------

    def record(self, node: Node, record: Record) -> None:
        """Take a statement under its quorum in, and hand it to the chain when that is due."""
        if record.statement.round > node.finalised:
            node.outbox.setdefault(record.statement.round, record)
            self.look(node)

    def hand_in_again(self, node: Node) -> None:
        """Rounds under earlier charters that the ledger lacks, as `node/backlog.py` finds them."""
        assert node.era is not None
        for round_, record in sorted(node.records.items()):
            if node.finalised < round_ < node.era.first:
                node.outbox[round_] = self._record_of(node, record)

    def _record_of(self, node: Node, record: RoundRecord) -> Record:
        statement = record.attestations[0].body
        assert isinstance(statement, Statement)
        charter = self._around.charters.known_to(node).charter_at(statement.round)
        turn = len(submitting_before(charter, me(charter, node), record.opening))
        return Record(statement, struct_hash(statement), record.attestations, turn)

    def look(self, node: Node) -> None:
        """A node looks at its ledger: first which amendments are final, then how far the record is."""
        try:
            head = self._ledger(node).head()
            if head.amendments > len(node.amendments):
                records = self._ledger(node).amendments()
                final = [one.amendment for one in records if one.block <= head.final.number]
                self._around.governing.learn(node, tuple(final))
        except LedgerUnavailable:
            self._around.while_alive(node, POLL, lambda: self.look(node))
            return
        except LedgerReorganised:
            self._around.stop(node)
            return
        if head.finalized_height > node.finalised or not node.looked:
            self._settle(node, head)
        if (record := node.outbox.get(head.height + 1)) is not None:
            patience = record.turn * node.charter.schedule.submit_after
            self._around.while_alive(node, patience, lambda: self._submit(node, record))
        self._around.governing.looked(node, head)

    def _settle(self, node: Node, head: LedgerHead) -> None:
        node.finalised = head.finalized_height
        self._around.note_progress()
        node.outbox = {round_: one for round_, one in node.outbox.items() if round_ > node.finalised}
        self._around.tell(node, HeadAdvanced(node.finalised, head.finalized_digest), 0.0)

    def _submit(self, node: Node, record: Record) -> None:
        ledger = self._ledger(node)
        try:
            if ledger.head().height + 1 != record.statement.round or self.chain.pending:
                return  # somebody was quicker; a block will come, and a look with it
            ledger.send(ledger.prepare(Finalize(record.statement, self._signatures(record))))
            self.keep_mining()
        except LedgerRejected:
            return
        except LedgerUnavailable:
            self._around.while_alive(node, POLL, lambda: self.look(node))
        except LedgerReorganised:
            self._around.stop(node)

    def read(self, node: Node, wanted: ReadRecord) -> None:
        """A node reads the record: as soon as its RPC answers."""
        contradicted = node.machine is not None and node.machine.contradicted
        delay = READ_SECONDS if contradicted else 0.1
        self._around.while_alive(node, delay, lambda: self._read(node, wanted))

    def _read(self, node: Node, wanted: ReadRecord) -> None:
        try:
            records = self._ledger(node).records(wanted.first, wanted.last)
        except LedgerUnavailable:
            self._around.while_alive(node, POLL, lambda: self._read(node, wanted))
            return
        recorded = (RecordedRound(one.statement, self._attestations(one)) for one in records)
        self._around.tell(node, RecordRead(tuple(recorded)), 0.0)

    def _attestations(self, record: LedgerRecord) -> tuple[Signed, ...]:
        charter = self._around.charters.at(record.statement.round).federation.charter
        ids = {address_of(charter, member): member for member in charter.attesters}
        signed = zip(record.signers, record.signatures, strict=True)
        return tuple(Signed(ids[signer], record.statement, one) for signer, one in signed if signer in ids)

    def _ledger(self, node: Node) -> MemoryLedger:
        assert node.ledger is not None
        return node.ledger

    def _signatures(self, record: Record) -> tuple[bytes, ...]:
        charter = self._around.charters.at(record.statement.round).federation.charter
        by_address = {address_of(charter, one.member): one.signature for one in record.attestations}
        return tuple(by_address[address] for address in sorted(by_address))
