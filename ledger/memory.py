"""A ledger without a chain: the contract's rules in memory, and the chain's faults on demand.

`MemoryChain` is what all share, `MemoryLedger` one account's view of it (the `Ledger` port). Faults of the view:
`down`, `fail_next`, `lose_replies` and `disagreement`. For tests and simulation.
"""

import msgspec

from folkmoot.ledger.calls import Call
from folkmoot.ledger.errors import LedgerDisagrees, LedgerUnavailable
from folkmoot.ledger.fees import GWEI, choose_fees
from folkmoot.ledger.finality import Finality
from folkmoot.ledger.memory_chain import MemoryChain, Transaction, transaction_hash
from folkmoot.ledger.port import (
    AmendmentRecord,
    FinalBlock,
    LedgerHead,
    LedgerIdentity,
    PreparedTransaction,
    Receipt,
    Record,
)
from folkmoot.protocol.types import Digest, Round

__all__ = ["MemoryChain", "MemoryLedger"]


class MemoryLedger:
    """The `Ledger` port on a `MemoryChain`, as the account `submitter` (20 bytes) sees it."""

    def __init__(self, chain: MemoryChain, submitter: bytes, fee_cap: int | None = None) -> None:
        """`fee_cap`: the most wei that it pays for one gas."""
        self._chain = chain
        self._submitter = submitter
        self._fee_cap = fee_cap
        self._finality = Finality()
        self.down = False
        """While True, every method raises `LedgerUnavailable`."""
        self.fail_next = 0
        """So many of the next calls raise `LedgerUnavailable`; nothing reaches the chain."""
        self.lose_replies = 0
        """So many of the next `send`s raise `LedgerUnavailable` although the transaction has arrived."""
        self.disagreement = ""
        """While not empty, `compare` raises `LedgerDisagrees` with it."""

    def identity(self) -> LedgerIdentity:
        """See `Ledger.identity`."""
        self._reach()
        return self._chain.identity

    def head(self) -> LedgerHead:
        """See `Ledger.head`."""
        self._reach()
        with self._chain.lock:
            head = self._chain.head()
            self._finality.check(head.block, self._chain.block_hash)
        self._finality.advance(head.final)
        return head

    def expect(self, final: FinalBlock) -> None:
        """See `Ledger.expect`."""
        self._finality.advance(final)

    def compare(self) -> tuple[str, ...]:
        """See `Ledger.compare`."""
        self._reach()
        if self.disagreement:
            raise LedgerDisagrees(self.disagreement)
        return ()

    def records(self, first: Round, last: Round | None = None) -> list[Record]:
        """See `Ledger.records`."""
        self._reach()
        return self._chain.records()[max(0, first - 1) : last]

    def amendments(self) -> list[AmendmentRecord]:
        """See `Ledger.amendments`."""
        self._reach()
        return self._chain.amendments()

    def nonce(self) -> int:
        """See `Ledger.nonce`."""
        self._reach()
        return self._chain.nonce(self._submitter)

    def prepare(
        self, call: Call, nonce: int | None = None, replaces: PreparedTransaction | None = None
    ) -> PreparedTransaction:
        """See `Ledger.prepare`."""
        self._reach()
        self._chain.check(call)
        fee = choose_fees(self._chain.base_fee, GWEI, self._fee_cap, replaces).max_fee
        if replaces is not None:
            nonce = replaces.nonce
        elif nonce is None:
            nonce = self._chain.next_nonce(self._submitter)
        raw = msgspec.msgpack.encode(Transaction(self._submitter, nonce, fee, call))
        return PreparedTransaction(raw=raw, hash=transaction_hash(raw), nonce=nonce, max_fee=fee, tip=fee)

    def send(self, prepared: PreparedTransaction) -> None:
        """See `Ledger.send`."""
        self._reach()
        self._chain.submit(prepared.raw)
        if self.lose_replies:
            self.lose_replies -= 1
            raise LedgerUnavailable("the memory ledger's reply was lost")

    def receipt(self, transaction: Digest) -> Receipt | None:
        """See `Ledger.receipt`."""
        self._reach()
        return self._chain.receipt(transaction)

    def _reach(self) -> None:
        if self.down:
            raise LedgerUnavailable("the memory ledger is down")
        if self.fail_next:
            self.fail_next -= 1
            raise LedgerUnavailable("the memory ledger failed once")
