"""Reading a `RoundLedger` over JSON-RPC: what nodes poll and auditors check. No web3, no keys.

An RPC may be wrong or lie. Here its answers are parsed strictly and that is all: an answer that makes no sense is
`LedgerUnavailable`. Whether what it shows is true is the audit's question.
"""

import threading
from collections.abc import Sequence

from folkmoot.ledger import codec
from folkmoot.ledger.answers import (
    BlockAnswer,
    LogAnswer,
    ReceiptAnswer,
    TransactionAnswer,
    exactly,
    parse,
    to_bytes,
    to_hex,
    to_int,
)
from folkmoot.ledger.build import contract_build, expected_code_hash
from folkmoot.ledger.errors import LedgerUnavailable, WrongLedger
from folkmoot.ledger.port import LedgerHead, LedgerIdentity, Receipt, Record
from folkmoot.ledger.rpc import RpcClient, RpcError
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import Domain, keccak256
from folkmoot.protocol.types import Digest, Round

_FINALITY_DEPTH = 64
"""Blocks that count as final on a chain that has no `finalized` tag (two epochs of Ethereum)."""


class LedgerReader:
    """The reading half of the `Ledger` port. Thread-safe."""

    def __init__(
        self,
        rpc_urls: Sequence[str],
        contract: bytes,
        *,
        timeout: float = 10.0,
        first_block: int | None = None,
        span: int = 2000,
    ) -> None:
        """`contract`: 20 bytes. `timeout`: seconds for one call to the RPC.

        `first_block`: where to begin to look for records (None: where the contract says that it was deployed; on some
        second layers that is a block of the first, much too early). `span`: blocks searched at once, at most.
        """
        self._rpc = RpcClient(rpc_urls, timeout)
        self._contract = contract
        self._span = span
        self._lock = threading.Lock()
        self._identity: LedgerIdentity | None = None
        self._federation: Digest | None = None
        self._head: tuple[str, LedgerHead] | None = None
        # Records in final blocks are kept; those above are looked for again whenever the chain has a new block.
        self._final: list[Record] = []
        self._first_block = first_block
        self._next_block: int | None = None
        self._recent: dict[tuple[str, str], Record] = {}
        self._synced_at: str | None = None

    def identity(self) -> LedgerIdentity:
        """Read once; see `Ledger.identity`."""
        with self._lock, self._rpc.usable_answers():
            return self._known_identity()

    def head(self) -> LedgerHead:
        """See `Ledger.head`. One light call while the chain has no new block."""
        with self._lock, self._rpc.usable_answers():
            latest = self._block("latest")
            if self._head is None or self._head[0] != latest.hash:
                self._head = (latest.hash, self._read_head(latest))
            return self._head[1]

    def records(self, first: Round, last: Round | None = None) -> list[Record]:
        """See `Ledger.records`. Records in final blocks are read once."""
        with self._lock, self._rpc.usable_answers():
            latest = self._block("latest")
            if self._synced_at != latest.hash:
                self._sync(latest)
                self._synced_at = latest.hash
            known = [*self._final, *self._recent.values()]
        return [
            record
            for record in known
            if record.statement.round >= first and (last is None or record.statement.round <= last)
        ]

    def receipt(self, transaction: Digest) -> Receipt | None:
        """See `Ledger.receipt`."""
        with self._rpc.usable_answers():
            return self._receipt(transaction)

    # --- identity and head ------------------------------------------------------------------------------------------

    def _known_identity(self) -> LedgerIdentity:
        if self._identity is None:
            self._identity = self._read_identity()
        return self._identity

    def _read_identity(self) -> LedgerIdentity:
        chain_id = to_int(self._rpc.call("eth_chainId"))
        where = f"the code at {to_hex(self._contract)} on chain {chain_id}"
        code = to_bytes(self._rpc.call("eth_getCode", to_hex(self._contract), "latest"))
        if not code:
            raise WrongLedger(where, "a RoundLedger", "empty", "check ledger.contract and ledger.rpc")
        code_hash, expected = keccak256(code), expected_code_hash()
        if code_hash != expected:
            advice = "check ledger.contract, or use the release of Folkmoot that the charter was made with"
            raise WrongLedger(f"the hash of {where}", to_hex(expected), to_hex(code_hash), advice)
        return LedgerIdentity(
            chain_id=chain_id,
            contract=self._contract,
            code_hash=code_hash,
            charter_digest=exactly(self._view("charter_digest", "latest"), 32),
            attesters=codec.decode_addresses(self._view("attesters", "latest")),
            quorum=codec.decode_uint(self._view("quorum", "latest"), 32),
            founded_at=codec.decode_uint(self._view("founded_at", "latest"), 63),
        )

    def _read_head(self, latest: BlockAnswer) -> LedgerHead:
        self._known_identity()  # a view of an address without code "succeeds" with nothing
        height = self._height(latest.number)
        number, final = to_int(latest.number), self._finalized(latest)
        return LedgerHead(
            height=height,
            digest=exactly(self._view("head", latest.number), 32),
            block=number,
            finalized_height=height if final == number else self._height(hex(final)),
        )

    def _height(self, block: str) -> Round:
        answer = self._view("height", block)
        # Nothing: the contract was not there yet.
        return codec.decode_uint(answer, 63) if answer else 0

    def _finalized(self, latest: BlockAnswer) -> int:
        """The number of the newest block that counts as final."""
        number = to_int(latest.number)
        try:
            found = self._rpc.call("eth_getBlockByNumber", "finalized", False)
        except RpcError:
            found = None
        if found is None:
            return max(0, number - _FINALITY_DEPTH)
        return min(number, to_int(parse(found, BlockAnswer).number))

    # --- records ----------------------------------------------------------------------------------------------------

    def _sync(self, latest: BlockAnswer) -> None:
        final = self._finalized(latest)
        first = self._start() if self._next_block is None else self._next_block
        settled: list[Record] = []
        recent: dict[tuple[str, str], Record] = {}
        for log in self._logs(first, to_int(latest.number)):
            # After a reorganisation the same log has another block hash, and is read anew.
            key = (log.block_hash, log.log_index)
            record = self._recent.get(key) or self._read_record(log)
            if record.block <= final:
                settled.append(record)
            else:
                recent[key] = record
        # Nothing was raised: only now may what is kept change.
        self._final += settled
        self._recent = recent
        self._next_block = max(first, final + 1)

    def _start(self) -> int:
        return self._known_identity().founded_at if self._first_block is None else self._first_block

    def _logs(self, first: int, last: int) -> list[LogAnswer]:
        """The contract's events in blocks `first` to `last`, in order; in smaller spans where the RPC refuses one."""
        logs: list[LogAnswer] = []
        span = self._span
        while first <= last:
            to = min(last, first + span - 1)
            try:
                logs += parse(self._rpc.call("eth_getLogs", self._query(first, to)), list[LogAnswer])
            except RpcError:
                if span == 1:
                    raise
                span = max(1, span // 4)
                continue
            first = to + 1
        return sorted(logs, key=lambda log: (to_int(log.block_number), to_int(log.log_index)))

    def _query(self, first: int, last: int) -> dict[str, object]:
        return {
            "address": to_hex(self._contract),
            "topics": [to_hex(codec.FINALIZED_TOPIC)],
            "fromBlock": hex(first),
            "toBlock": hex(last),
        }

    def _read_record(self, log: LogAnswer) -> Record:
        if to_bytes(log.address, 20) != self._contract:
            raise RemoteProtocolError("an event of another contract")
        topics = [to_bytes(topic, 32) for topic in log.topics]
        statement, digest, submitter = codec.decode_finalized(
            self._federation_id(), topics, to_bytes(log.data)
        )
        transaction = to_bytes(log.transaction_hash, 32)
        receipt = self._receipt(transaction)
        if receipt is None or receipt.block_hash != to_bytes(log.block_hash, 32):
            raise LedgerUnavailable("the chain was reorganised while it was read; ask again")
        signatures = self._signatures(transaction, statement)
        domain = Domain(self._known_identity().chain_id, self._contract)
        return Record(
            statement=statement,
            digest=digest,
            signatures=signatures,
            signers=codec.recover_signers(domain, statement, signatures),
            transaction=transaction,
            block=receipt.block,
            block_hash=receipt.block_hash,
            gas_used=receipt.gas_used,
            submitter=submitter,
        )

    def _signatures(self, transaction: Digest, statement: Statement) -> tuple[bytes, ...]:
        """Those in the transaction's input; none if it reached us through another contract."""
        found = parse(self._rpc.call("eth_getTransactionByHash", to_hex(transaction)), TransactionAnswer)
        if found.to is None or to_bytes(found.to, 20) != self._contract:
            return ()
        selector = contract_build().selector("finalize")
        called, signatures = codec.decode_finalize_input(selector, to_bytes(found.input))
        if called != statement:
            raise RemoteProtocolError("a transaction that does not fit its event")
        return signatures

    def _receipt(self, transaction: Digest) -> Receipt | None:
        found = self._rpc.call("eth_getTransactionReceipt", to_hex(transaction))
        if found is None:
            return None
        answer = parse(found, ReceiptAnswer)
        return Receipt(
            transaction=transaction,
            block=to_int(answer.block_number),
            block_hash=to_bytes(answer.block_hash, 32),
            gas_used=to_int(answer.gas_used),
            succeeded=to_int(answer.status) == 1,
        )

    def _federation_id(self) -> Digest:
        if self._federation is None:
            self._federation = exactly(self._view("federation", "latest"), 32)
        return self._federation

    # --- calls ------------------------------------------------------------------------------------------------------

    def _block(self, tag: str) -> BlockAnswer:
        return parse(self._rpc.call("eth_getBlockByNumber", tag, False), BlockAnswer)

    def _view(self, method: str, block: str) -> bytes:
        """What a view of the contract returns at `block` (a number in hex, or a tag)."""
        call = {"to": to_hex(self._contract), "data": to_hex(contract_build().selector(method))}
        return to_bytes(self._rpc.call("eth_call", call, block))
