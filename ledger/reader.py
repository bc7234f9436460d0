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
from folkmoot.ledger.build import contract_build
from folkmoot.ledger.compare import compare_endpoints
from folkmoot.ledger.errors import LedgerDisagrees, LedgerReorganised, LedgerUnavailable, WrongLedger
from folkmoot.ledger.finality import Finality
from folkmoot.ledger.port import FinalBlock, LedgerHead, LedgerIdentity, Receipt, Record
from folkmoot.ledger.rpc import Ask, RpcClient, RpcError
from folkmoot.ledger.views import ContractView
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import Domain
from folkmoot.protocol.types import Digest, Round


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
        chain_id: int | None = None,
    ) -> None:
        """`contract`: 20 bytes. `timeout`: seconds for one call to the RPC.

        `chain_id`: the chain that is meant; then a URL that shows another one, or other code at the contract's address,
        is not used, and `WrongLedger` is raised only when no other is left. Without it all must show one chain.

        `first_block`: where to begin to look for records (None: where the contract says that it was deployed; on some
        second layers that is a block of the first, much too early). `span`: blocks searched at once, at most.
        """
        self._rpc = RpcClient(rpc_urls, timeout, self._check_endpoint if chain_id is not None else None)
        self._view = ContractView(self._rpc.call, contract)
        self._contract = contract
        self._chain_id = chain_id
        self._finality = Finality()
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
        # What `_height_at` knows: the first block that it has not searched, and the height before it.
        self._counted: tuple[int, Round] | None = None

    def identity(self) -> LedgerIdentity:
        """Read once; see `Ledger.identity`."""
        with self._lock, self._rpc.usable_answers():
            return self._known_identity()

    def head(self) -> LedgerHead:
        """See `Ledger.head`. One light call while the chain has no new block."""
        with self._lock, self._rpc.usable_answers():
            latest = self._view.block("latest")
            if self._head is None or self._head[0] != latest.hash:
                self._check_finality(latest)
                head = self._read_head(latest)
                self._finality.advance(head.final)
                self._head = (latest.hash, head)
            return self._head[1]

    def expect(self, final: FinalBlock) -> None:
        """See `Ledger.expect`."""
        self._finality.advance(final)

    def compare(self) -> tuple[str, ...]:
        """See `Ledger.compare`. Nothing is asked where there is one URL only."""
        endpoints = self._rpc.each()
        return compare_endpoints(endpoints, self._contract) if len(endpoints) > 1 else ()

    def records(self, first: Round, last: Round | None = None) -> list[Record]:
        """See `Ledger.records`. Records in final blocks are read once."""
        with self._lock, self._rpc.usable_answers():
            latest = self._view.block("latest")
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
        view = self._view
        chain_id = view.chain_id()
        return LedgerIdentity(
            chain_id=chain_id,
            contract=self._contract,
            code_hash=view.code_hash(f"on chain {chain_id}"),
            charter_digest=exactly(view.state("charter_digest"), 32),
            attesters=codec.decode_addresses(view.state("attesters")),
            quorum=codec.decode_uint(view.state("quorum"), 32),
            founded_at=codec.decode_uint(view.state("founded_at"), 63),
        )

    def _read_head(self, latest: BlockAnswer) -> LedgerHead:
        self._known_identity()  # a view of an address without code "succeeds" with nothing
        view, number = self._view, to_int(latest.number)
        height, final = view.height(latest.number), view.final(latest)
        return LedgerHead(
            height=height,
            digest=view.head(latest.number),
            block=number,
            finalized_height=height if final.number == number else self._height_at(final.number),
            final=final,
        )

    def _height_at(self, final: int) -> Round:
        """Rounds recorded as of a final block; from the events where the node has forgotten so old a state."""
        try:
            return self._view.height(hex(final))
        except RpcError:
            first, height = self._counted or (self._start(), 0)
        last = final
        while last >= first:
            begin = max(first, last - self._span + 1)
            if logs := self._logs(begin, last):
                height = codec.decode_uint(to_bytes(logs[-1].topics[1]), 63)
                break
            last = begin - 1
        self._counted = (max(first, final + 1), height)
        return height

    def _check_endpoint(self, name: str, ask: Ask) -> None:
        """Raise `WrongLedger` for a URL of another chain, or where another contract or none is at the address."""
        view = ContractView(ask, self._contract)
        found = view.chain_id()
        if found != self._chain_id:
            advice = "set ledger.rpc to RPCs of the charter's chain"
            raise WrongLedger(f"the chain id at {name}", self._chain_id, found, advice)
        view.code_hash(f"at {name}")

    def _check_finality(self, latest: BlockAnswer) -> None:
        """Raise unless the chain has the last block that was final; one URL's word is not enough for that."""
        try:
            self._finality.check(to_int(latest.number), self._view.hash_of)
        except LedgerUnavailable:
            self._rpc.use_next()
            raise
        except LedgerReorganised as error:
            self._rpc.use_next()
            keeping = [name for name, ask in self._rpc.each() if self._keeps(ask, error)]
            if keeping:
                raise LedgerDisagrees(
                    f"the RPC endpoints disagree on the ledger: {error}; but {', '.join(keeping)} still has that block"
                ) from error
            raise

    def _keeps(self, ask: Ask, error: LedgerReorganised) -> bool:
        """Whether a URL shows the block that another one lost."""
        try:
            return ContractView(ask, self._contract).hash_of(error.number) == error.expected
        except (LedgerUnavailable, WrongLedger, RpcError, RemoteProtocolError):
            return False

    # --- records ----------------------------------------------------------------------------------------------------

    def _sync(self, latest: BlockAnswer) -> None:
        final = self._view.final(latest).number
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
            self._federation = exactly(self._view.state("federation"), 32)
        return self._federation
