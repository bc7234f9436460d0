"""The port through which everything else sees the public record: synchronous, a few methods, plain values.

`EvmLedger` is the real one, `MemoryLedger` the one for tests and simulation. Methods block (call them from a worker
thread), may be called from several threads, and raise only errors of `folkmoot.ledger.errors` and `LocalProtocolError`.
"""

from typing import Protocol

import msgspec

from folkmoot.ledger.calls import Call
from folkmoot.protocol.governance import Amendment
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.types import Digest, Round


class LedgerIdentity(msgspec.Struct, frozen=True):
    """Which ledger this is, as it was founded; what amendments changed since is not in it.

    Addresses are 20 bytes; `attesters` ascend; `code_hash` is Keccak-256 of the code. `lead` is the charter's
    `max_ahead`; `members` the hash chain over all members' addresses (`identity.founding_members`). `founded_at` is the
    number of the block that holds the deployment.
    """

    chain_id: int
    contract: bytes
    code_hash: Digest
    charter_digest: Digest
    attesters: tuple[bytes, ...]
    quorum: int
    lead: int
    members: Digest
    founded_at: int = 0


class FinalBlock(msgspec.Struct, frozen=True):
    """A block that counts as final. Its number alone would not tell one history from another."""

    number: int
    hash: Digest


class LedgerHead(msgspec.Struct, frozen=True):
    """Where the record stands, as of the chain's block number `block`.

    `digest` is that of the last statement (the federation id at height 0); rounds up to `finalized_height` are in
    blocks that the chain calls finalized, the newest of which is `final`. `config` is the digest of the charter in
    force at the next round; there are `amendments`, the last of which (the federation id before the first) has the
    digest `governance`.
    """

    height: Round
    digest: Digest
    block: int
    finalized_height: Round
    final: FinalBlock
    config: Digest
    amendments: int
    governance: Digest
    finalized_digest: Digest = b""
    """That of the statement at `finalized_height`; empty where the chain's node has forgotten it."""


class Record(msgspec.Struct, frozen=True):
    """One recorded statement and how it got there.

    `signatures` and `signers` (addresses recovered from them; 20 zero bytes where there is none) are in the order of
    the transaction, or, if attesters signed in a transaction each, of those; empty if the contract was called through
    another one. They are on the statement with the digest `signed`: this one, or of a checkpoint the last one.
    """

    statement: Statement
    digest: Digest
    signed: Digest
    signatures: tuple[bytes, ...]
    signers: tuple[bytes, ...]
    transaction: Digest
    block: int
    block_hash: Digest
    gas_used: int
    submitter: bytes


class AmendmentRecord(msgspec.Struct, frozen=True):
    """One recorded amendment and how it got there; `signatures` and `signers` as in `Record`."""

    amendment: Amendment
    digest: Digest
    signatures: tuple[bytes, ...]
    signers: tuple[bytes, ...]
    transaction: Digest
    block: int
    block_hash: Digest
    gas_used: int
    submitter: bytes


class PreparedTransaction(msgspec.Struct, frozen=True):
    """A signed transaction: keep it before sending it, send the same bytes after a crash. Fees are wei per gas."""

    raw: bytes
    hash: Digest
    nonce: int
    max_fee: int
    tip: int


class Receipt(msgspec.Struct, frozen=True):
    """A transaction is in a block; `succeeded` is False if the contract reverted it."""

    transaction: Digest
    block: int
    block_hash: Digest
    gas_used: int
    succeeded: bool


class Ledger(Protocol):
    """A federation's public record, as one node sees it."""

    def identity(self) -> LedgerIdentity:
        """Which chain, contract, charter and attesters; raises `WrongLedger` if no contract of ours is there."""
        ...

    def head(self) -> LedgerHead:
        """Where the record stands now. Cheap: made to be polled.

        Raises `LedgerReorganised` if the chain no longer has a block that was final at an earlier call, or that
        `expect` named.
        """
        ...

    def expect(self, final: FinalBlock) -> None:
        """Tell of a block that was final in an earlier life of this node."""
        ...

    def compare(self) -> tuple[str, ...]:
        """Ask every RPC endpoint, where there are several, and compare what they show.

        Returns what the operator should know of them (one is silent, one is behind). Raises `LedgerDisagrees` if they
        show different histories.
        """
        ...

    def records(self, first: Round, last: Round | None = None) -> list[Record]:
        """Records of rounds `first` to `last` (both included; None: all there are), in ledger order."""
        ...

    def amendments(self) -> list[AmendmentRecord]:
        """All amendments, in order, those included that are not in force yet or in blocks not yet final."""
        ...

    def nonce(self) -> int:
        """The first nonce of the gas key that no block has used."""
        ...

    def prepare(
        self, call: Call, nonce: int | None = None, replaces: PreparedTransaction | None = None
    ) -> PreparedTransaction:
        """Make, but do not send, a transaction.

        `replaces` is a transaction that is stuck: the new one takes its nonce and outbids it. Raises `LedgerRejected`
        if the contract would refuse, `FeesTooHigh` if the operator's cap does not allow for what the chain asks,
        `NoFunds`.
        """
        ...

    def send(self, prepared: PreparedTransaction) -> None:
        """Hand a transaction to the chain; doing it again is no error.

        Raises `NonceUsed`, `Underpriced`, `NoFunds`, or another `LedgerRejected`. After any error, `LedgerUnavailable`
        too, the transaction may have arrived all the same.
        """
        ...

    def receipt(self, transaction: Digest) -> Receipt | None:
        """The receipt of a transaction, or None while it is in no block."""
        ...
