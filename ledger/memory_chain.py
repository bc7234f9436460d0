"""The chain behind `MemoryLedger`: the contract's rules, blocks, a pool of pending transactions, and faults on demand.

Faults: `automine`, `finality`, `base_fee`, `outbid_by`, `evict` and `reorg`. For tests and simulation.
"""

import hashlib
import threading
from collections.abc import Callable, Sequence

import msgspec

from folkmoot.ledger.codec import NO_ADDRESS, recover_signers
from folkmoot.ledger.errors import LedgerRejected, NonceUsed, Underpriced
from folkmoot.ledger.port import FinalBlock, LedgerHead, LedgerIdentity, Receipt, Record
from folkmoot.protocol.charter import federation_id
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import Domain, struct_hash
from folkmoot.protocol.types import Digest

SignerOf = Callable[[Statement, bytes], bytes]
"""(statement, signature) -> 20-byte address of who signed, or `NO_ADDRESS`."""

_GAS = 62_000


class Call(msgspec.Struct, frozen=True, array_like=True):
    """What a transaction's bytes say."""

    submitter: bytes
    nonce: int
    fee: int
    statement: Statement
    signatures: tuple[bytes, ...]


class _Block(msgspec.Struct, frozen=True):
    """One block of at most one transaction; `record` is None where it reverted or the block is empty."""

    hash: Digest
    transaction: Digest | None
    call: Call | None
    record: Record | None


class MemoryChain:
    """Blocks, pending transactions and the contract's state (which is a function of the blocks). Thread-safe."""

    def __init__(
        self,
        identity: LedgerIdentity,
        signer_of: SignerOf | None = None,
        *,
        finality: int = 0,
        automine: bool = True,
    ) -> None:
        """`signer_of`: who made a signature (default: EIP-712, as on a chain; simulation injects a cheap fake).

        `finality`: blocks on top of a block until it is final. `automine`: a block for each transaction, at once.
        """
        self.identity = identity
        self.finality = finality
        self.automine = automine
        self.base_fee = 0
        """Wei per gas: what offers less is neither taken in nor, if it is pending, put into a block."""
        self.outbid_by = 1.1
        """By what factor both fees of a replacement must be above those of the transaction that it replaces."""
        self.federation = federation_id(identity.charter_digest, identity.chain_id, identity.contract)
        self.lock = threading.RLock()
        self._signer_of = signer_of or self._recover
        self._forks = 0
        self._blocks: list[_Block] = [_Block(self._block_hash(0, None), None, None, None)]
        self._pending: dict[Digest, Call] = {}

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
                self._append(None, None, None)

    def evict(self) -> None:
        """Forget all pending transactions, as a full pool or a restarted node does."""
        with self.lock:
            self._pending.clear()

    def submit(self, raw: bytes) -> None:
        """Take a transaction's bytes in, as a node does. Raises `NonceUsed`, `Underpriced`."""
        with self.lock:
            name = transaction_hash(raw)
            call = msgspec.msgpack.decode(raw, type=Call)
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
            final = max(1, len(self._blocks) - self.finality)
            return LedgerHead(
                height=len(self._records(len(self._blocks))),
                digest=self._digest(),
                block=len(self._blocks) - 1,
                finalized_height=len(self._records(final)),
                final=FinalBlock(final - 1, self.block_hash(final - 1)),
            )

    def block_hash(self, number: int) -> Digest:
        """The hash of a block that there is."""
        with self.lock:
            return self._blocks[number].hash

    def records(self) -> list[Record]:
        """All records, in order."""
        with self.lock:
            return self._records(len(self._blocks))

    def receipt(self, transaction: Digest) -> Receipt | None:
        """See `Ledger.receipt`."""
        with self.lock:
            for number, block in enumerate(self._blocks):
                if block.transaction == transaction:
                    return Receipt(transaction, number, block.hash, _GAS, block.record is not None)
            return None

    def nonce(self, address: bytes) -> int:
        """How many of an account's transactions are in blocks."""
        with self.lock:
            return sum(block.call is not None and block.call.submitter == address for block in self._blocks)

    def next_nonce(self, address: bytes) -> int:
        """The first nonce that neither a block nor a pending transaction of the account uses."""
        with self.lock:
            taken = [call.nonce for call in self._pending.values() if call.submitter == address]
            return max([self.nonce(address), *(nonce + 1 for nonce in taken)])

    @property
    def pending(self) -> int:
        """How many transactions wait for a block."""
        return len(self._pending)

    def check(self, statement: Statement, signatures: Sequence[bytes]) -> tuple[bytes, ...]:
        """The rules of `RoundLedger.finalize`; returns the signers. Raises `LedgerRejected` with the same words."""
        with self.lock:
            if statement.round != len(self.records()) + 1:
                raise LedgerRejected("round")
            if statement.previous != self._digest():
                raise LedgerRejected("previous")
        if statement.federation != self.federation:
            raise LedgerRejected("federation")
        if len(signatures) < self.identity.quorum:
            raise LedgerRejected("quorum")
        signers = tuple(self._signer_of(statement, signature) for signature in signatures)
        last = NO_ADDRESS
        for signer in signers:
            if signer <= last:
                raise LedgerRejected("order")
            if signer not in self.identity.attesters:
                raise LedgerRejected("attester")
            last = signer
        return signers

    # --- inside -----------------------------------------------------------------------------------------------------

    def _recover(self, statement: Statement, signature: bytes) -> bytes:
        domain = Domain(self.identity.chain_id, self.identity.contract)
        return recover_signers(domain, statement, [signature])[0]

    def _records(self, blocks: int) -> list[Record]:
        return [block.record for block in self._blocks[:blocks] if block.record is not None]

    def _digest(self) -> Digest:
        records = self._records(len(self._blocks))
        return records[-1].digest if records else self.federation

    def _mine_one(self) -> None:
        """The first pending transaction whose nonce is its account's next and whose fee suffices, or an empty block."""
        for name, call in self._pending.items():
            if call.nonce == self.nonce(call.submitter) and call.fee >= self.base_fee:
                del self._pending[name]
                try:
                    signers = self.check(call.statement, call.signatures)
                except LedgerRejected:
                    signers = None
                self._append(name, call, signers)
                return
        self._append(None, None, None)

    def _append(self, name: Digest | None, call: Call | None, signers: tuple[bytes, ...] | None) -> None:
        number = len(self._blocks)
        block_hash = self._block_hash(number, name)
        record = None
        if name is not None and call is not None and signers is not None:
            record = Record(
                statement=call.statement,
                digest=struct_hash(call.statement),
                signatures=call.signatures,
                signers=signers,
                transaction=name,
                block=number,
                block_hash=block_hash,
                gas_used=_GAS,
                submitter=call.submitter,
            )
        self._blocks.append(_Block(block_hash, name, call, record))

    def _block_hash(self, number: int, transaction: Digest | None) -> Digest:
        parent = self._blocks[-1].hash if number else b""
        return hashlib.sha256(
            b"%d %d\n" % (number, self._forks if number else 0) + parent + (transaction or b"")
        ).digest()


def transaction_hash(raw: bytes) -> Digest:
    """What a transaction is called: the hash of its bytes."""
    return hashlib.sha256(raw).digest()
