"""Reading a `RoundLedger` over JSON-RPC: what nodes poll and auditors check. No web3, no keys.

An RPC may be wrong or lie. Here its answers are parsed strictly and that is all: an answer that makes no sense is
`LedgerUnavailable`. Whether what it shows is true is the audit's question.
"""

import threading
from collections.abc import Sequence

from folkmoot.ledger import codec
from folkmoot.ledger.answers import BlockAnswer, exactly, to_hex, to_int
from folkmoot.ledger.compare import compare_endpoints
from folkmoot.ledger.errors import LedgerDisagrees, LedgerReorganised, LedgerUnavailable, WrongLedger
from folkmoot.ledger.finality import Finality
from folkmoot.ledger.history import History, read_receipt
from folkmoot.ledger.port import AmendmentRecord, FinalBlock, LedgerHead, LedgerIdentity, Receipt, Record
from folkmoot.ledger.rpc import Ask, RpcClient, RpcError
from folkmoot.ledger.views import ContractView
from folkmoot.protocol.charter import federation_id, quorum
from folkmoot.protocol.charter_tables import FINALITY_DEPTH
from folkmoot.protocol.errors import RemoteProtocolError
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
        finality_depth: int = FINALITY_DEPTH,
    ) -> None:
        """`contract`: 20 bytes. `timeout`: seconds for one call to the RPC.

        `chain_id`: the chain that is meant; then a URL that shows another one, or other code at the contract's address,
        is not used, and `WrongLedger` is raised only when no other is left. Without it all must show one chain.

        `finality_depth`: how many blocks on top make one final, on a chain that does not say it itself; the charter's.

        `first_block`: where to begin to look for records (None: where the contract says that it was deployed; on some
        second layers that is a block of the first, much too early). `span`: blocks searched at once, at most.
        """
        self._rpc = RpcClient(rpc_urls, timeout, self._check_endpoint if chain_id is not None else None)
        self._view = ContractView(self._rpc.call, contract, finality_depth)
        self._depth = finality_depth
        self._contract = contract
        self._chain_id = chain_id
        self._finality = Finality()
        self._lock = threading.Lock()
        self._identity: LedgerIdentity | None = None
        self._head: tuple[str, LedgerHead] | None = None
        self._history = History(self._rpc.call, self._domain, self._federation, span)
        self._first_block = first_block
        self._synced_at: str | None = None
        # What `_final_at` knows: the first block that it has not searched, and the height before it.
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
        return compare_endpoints(endpoints, self._contract, self._depth) if len(endpoints) > 1 else ()

    def records(self, first: Round, last: Round | None = None) -> list[Record]:
        """See `Ledger.records`. Records in final blocks are read once."""
        with self._lock, self._rpc.usable_answers():
            self._sync()
            return [
                record
                for record in self._history.records
                if record.statement.round >= first and (last is None or record.statement.round <= last)
            ]

    def amendments(self) -> list[AmendmentRecord]:
        """See `Ledger.amendments`."""
        with self._lock, self._rpc.usable_answers():
            self._sync()
            return self._history.amendments

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
        code_hash = view.code_hash(f"on chain {chain_id}")
        attesters = codec.decode_addresses(view.state("founders"))
        return LedgerIdentity(
            chain_id=chain_id,
            contract=self._contract,
            code_hash=code_hash,
            charter_digest=exactly(view.state("charter_digest"), 32),
            attesters=attesters,
            quorum=quorum(len(attesters)),
            lead=codec.decode_uint(view.state("lead"), 63),
            members=exactly(view.state("founding_members"), 32),
            founded_at=codec.decode_uint(view.state("founded_at"), 63),
        )

    def _domain(self) -> Domain:
        return Domain(self._known_identity().chain_id, self._contract)

    def _federation(self) -> Digest:
        identity = self._known_identity()
        return federation_id(identity.charter_digest, identity.chain_id, identity.contract)

    def _read_head(self, latest: BlockAnswer) -> LedgerHead:
        self._known_identity()  # a view of an address without code "succeeds" with nothing
        number, final = to_int(latest.number), self._view.final(latest)
        position = self._view.position(latest.number)
        settled = (position.height, position.head) if final.number == number else self._final_at(final.number)
        return LedgerHead(
            height=position.height,
            digest=position.head,
            block=number,
            finalized_height=settled[0],
            final=final,
            config=position.config,
            amendments=position.amendments,
            governance=position.governance,
            finalized_digest=settled[1],
        )

    def _final_at(self, final: int) -> tuple[Round, Digest]:
        """Rounds recorded as of a final block, and the last statement.

        Only the number, from the events, where the node has forgotten so old a state.
        """
        try:
            position = self._view.position(hex(final))
            return position.height, position.head
        except RpcError:
            first, height = self._counted or (self._start(), 0)
        found = self._history.last_round(first, final)
        height = height if found is None else found
        self._counted = (max(first, final + 1), height)
        return height, b""

    def _start(self) -> int:
        return self._known_identity().founded_at if self._first_block is None else self._first_block

    def _sync(self) -> None:
        """Read what is new, if the chain has a new block."""
        latest = self._view.block("latest")
        if self._synced_at != latest.hash:
            self._history.sync(self._start(), self._view.final(latest).number, to_int(latest.number))
            self._synced_at = latest.hash

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

    def _receipt(self, transaction: Digest) -> Receipt | None:
        found = self._rpc.call("eth_getTransactionReceipt", to_hex(transaction))
        return read_receipt(transaction, found) if found is not None else None
