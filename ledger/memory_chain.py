"""The chain behind `MemoryLedger`: the contract's rules, blocks, a pool of pending transactions, and faults on demand.

Faults: `automine`, `finality`, `base_fee`, `outbid_by`, `evict` and `reorg`. For tests and simulation.
"""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress

import msgspec

from folkmoot.ledger import rules
from folkmoot.ledger.calls import Call
from folkmoot.ledger.codec import recover_signers
from folkmoot.ledger.errors import LedgerRejected, NonceUsed, Underpriced
from folkmoot.ledger.port import AmendmentRecord, FinalBlock, LedgerHead, LedgerIdentity, Receipt, Record
from folkmoot.ledger.rules import SignerOf
from folkmoot.protocol.typed_data import Domain, struct_hash
from folkmoot.protocol.types import Digest

_GAS = 62_000


class Transaction(msgspec.Struct, frozen=True, array_like=True):
    """What a transaction's bytes say."""

    submitter: bytes
    nonce: int
    fee: int
    call: Call


class _Block(msgspec.Struct, frozen=True):
    """One block of at most one transaction, and the contract's state after it; `events` is None where it reverted."""

    hash: Digest
    state: rules.State
    name: Digest | None = None
    transaction: Transaction | None = None
    events: tuple[rules.Event, ...] | None = None


class MemoryChain:
    """Blocks, pending transactions and the contract's state. Thread-safe."""

    def __init__(
        self,
        identity: LedgerIdentity,
        signer_of: SignerOf | None = None,
        *,
        others: Sequence[bytes] = (),
        finality: int = 0,
        automine: bool = True,
    ) -> None:
        """`signer_of`: who made a signature (default: EIP-712, as on a chain; simulation injects a cheap fake).

        `others`: members that are no attesters (addresses). `finality`: blocks on top of a block until it is final.
        `automine`: a block for each transaction, at once.
        """
        self.identity = identity
        self.finality = finality
        self.automine = automine
        self.base_fee = 0
        """Wei per gas: what offers less is neither taken in nor, if it is pending, put into a block."""
        self.outbid_by = 1.1
        """By what factor both fees of a replacement must be above those of the transaction that it replaces."""
        self.lock = threading.RLock()
        self._signer_of = signer_of or self._recover
        self._forks = 0
        founded = rules.found(identity, others)
        self.federation = founded.federation
        self._blocks: list[_Block] = [_Block(hashlib.sha256(b"founding").digest(), founded)]
        self._pending: dict[Digest, Transaction] = {}

    # --- what happens to a chain ------------------------------------------------------------------------------------

    def mine(self, blocks: int = 1) -> None:
        """Put pending transactions (in order of arrival) into blocks, or add empty ones."""
        with self.lock:
            for _ in range(blocks):
                self._mine_one()

    def reorg(self, depth: int) -> None:
        """Replace the last `depth` blocks by as many empty ones; their transactions are lost, not pending again."""
        with self.lock:
            if not 0 < depth < len(self._blocks):
                raise ValueError(f"cannot replace {depth} of {len(self._blocks) - 1} blocks")
            del self._blocks[-depth:]
            self._forks += 1
            for _ in range(depth):
                self._append_empty()

    def evict(self) -> None:
        """Forget all pending transactions, as a full pool or a restarted node does."""
        with self.lock:
            self._pending.clear()

    def submit(self, raw: bytes) -> None:
        """Take a transaction's bytes in, as a node does. Raises `NonceUsed`, `Underpriced`."""
        with self.lock:
            name = transaction_hash(raw)
            call = msgspec.msgpack.decode(raw, type=Transaction)
            if name in self._pending or self.receipt(name):
                return
            if call.nonce < self.nonce(call.submitter):
                raise NonceUsed("nonce too low", "prepare the statement again")
            if call.fee < self.base_fee:
                raise Underpriced("max fee per gas less than block base fee", "outbid it")
            for other, pending in list(self._pending.items()):
                if (pending.submitter, pending.nonce) == (call.submitter, call.nonce):
                    if call.fee < pending.fee * self.outbid_by:
                        raise Underpriced("replacement transaction underpriced", "outbid it")
                    del self._pending[other]
            self._pending[name] = call
            if self.automine:
                self._mine_one()

    # --- what can be read of it -------------------------------------------------------------------------------------

    def head(self) -> LedgerHead:
        """See `Ledger.head`."""
        with self.lock:
            final, state = max(1, len(self._blocks) - self.finality) - 1, self.state
            return LedgerHead(
                height=state.height,
                digest=state.head,
                block=len(self._blocks) - 1,
                finalized_height=self._blocks[final].state.height,
                final=FinalBlock(final, self.block_hash(final)),
                config=state.config,
                amendments=state.amendments,
                governance=state.governance,
                finalized_digest=self._blocks[final].state.head,
            )

    @property
    def state(self) -> rules.State:
        """What the contract holds after the last block."""
        return self._blocks[-1].state

    def block_hash(self, number: int) -> Digest:
        """The hash of a block that there is."""
        with self.lock:
            return self._blocks[number].hash

    def records(self) -> list[Record]:
        """All records, in order."""
        with self.lock:
            return [
                Record(
                    statement=event.statement,
                    digest=event.digest,
                    signed=event.signed,
                    signatures=event.signatures,
                    signers=event.signers,
                    transaction=receipt.transaction,
                    block=receipt.block,
                    block_hash=receipt.block_hash,
                    gas_used=receipt.gas_used,
                    submitter=submitter,
                )
                for receipt, submitter, event in self._events()
                if isinstance(event, rules.Finalized)
            ]

    def amendments(self) -> list[AmendmentRecord]:
        """All amendments, in order."""
        with self.lock:
            return [
                AmendmentRecord(
                    amendment=event.amendment,
                    digest=event.digest,
                    signatures=event.signatures,
                    signers=event.signers,
                    transaction=receipt.transaction,
                    block=receipt.block,
                    block_hash=receipt.block_hash,
                    gas_used=receipt.gas_used,
                    submitter=submitter,
                )
                for receipt, submitter, event in self._events()
                if isinstance(event, rules.Amended)
            ]

    def receipt(self, transaction: Digest) -> Receipt | None:
        """See `Ledger.receipt`."""
        with self.lock:
            for number, block in enumerate(self._blocks):
                if block.name == transaction:
                    return _receipt(number, block)
            return None

    def nonce(self, address: bytes) -> int:
        """How many of an account's transactions are in blocks."""
        with self.lock:
            sent = (block.transaction for block in self._blocks)
            return sum(one is not None and one.submitter == address for one in sent)

    def next_nonce(self, address: bytes) -> int:
        """The first nonce that neither a block nor a pending transaction of the account uses."""
        with self.lock:
            taken = [call.nonce for call in self._pending.values() if call.submitter == address]
            return max([self.nonce(address), *(nonce + 1 for nonce in taken)])

    @property
    def pending(self) -> int:
        """How many transactions wait for a block."""
        return len(self._pending)

    def check(self, call: Call) -> None:
        """Raise `LedgerRejected` with the contract's words if it would revert."""
        with self.lock:
            rules.apply(self.state, call, self._signer_of)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _recover(self, body: object, signature: bytes) -> bytes:
        domain = Domain(self.identity.chain_id, self.identity.contract)
        return recover_signers(domain, struct_hash(body), [signature])[0]

    def _events(self) -> Iterator[tuple[Receipt, bytes, rules.Event]]:
        """Every event, with its transaction's receipt and submitter."""
        for number, block in enumerate(self._blocks):
            if block.transaction is not None:
                for event in block.events or ():
                    yield _receipt(number, block), block.transaction.submitter, event

    def _mine_one(self) -> None:
        """The first pending transaction whose nonce is its account's next and whose fee suffices, or an empty block."""
        for name, transaction in self._pending.items():
            if transaction.nonce == self.nonce(transaction.submitter) and transaction.fee >= self.base_fee:
                del self._pending[name]
                self._append(name, transaction)
                return
        self._append_empty()

    def _append(self, name: Digest, transaction: Transaction) -> None:
        state, events = self.state, None
        with suppress(LedgerRejected):  # then it is in a block, and without effect
            state, events = rules.apply(state, transaction.call, self._signer_of)
        self._blocks.append(_Block(self._next_hash(name), state, name, transaction, events))

    def _append_empty(self) -> None:
        self._blocks.append(_Block(self._next_hash(b""), self.state))

    def _next_hash(self, name: bytes) -> Digest:
        place = b"%d %d\n" % (len(self._blocks), self._forks)
        return hashlib.sha256(place + self._blocks[-1].hash + name).digest()


def _receipt(number: int, block: _Block) -> Receipt:
    return Receipt(block.name or b"", number, block.hash, _GAS, block.events is not None)


def transaction_hash(raw: bytes) -> Digest:
    """What a transaction is called: the hash of its bytes."""
    return hashlib.sha256(raw).digest()
