"""The public record behind one RPC, with what proves it: all that an audit asks of a chain."""

from collections.abc import Iterable, Sequence
from typing import Any

from folkmoot.ledger.answers import parse, to_bytes, to_hex
from folkmoot.ledger.audit.governance import ReportRecord
from folkmoot.ledger.audit.headers import encode_header, read_header
from folkmoot.ledger.audit.report_events import read_reports
from folkmoot.ledger.audit.state import SLOTS, BlockShown, StateProof, Unproven, slot_of
from folkmoot.ledger.errors import LedgerReorganised, LedgerUnavailable
from folkmoot.ledger.port import AmendmentRecord, LedgerHead, LedgerIdentity, Record
from folkmoot.ledger.reader import LedgerReader
from folkmoot.ledger.rpc import RpcClient, RpcError
from folkmoot.protocol.charter_tables import FINALITY_DEPTH
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.types import Digest, Round

_DEVELOPMENT = ("folkmoot-embedded", "eth-tester", "ethereumtester", "anvil", "hardhat", "ganache")
"""How clients whose owner can rewrite the chain name themselves (`web3_clientVersion`)."""

_MAX_NODES = 256


class RpcRecord:
    """What one RPC shows of a federation's contract. See `LedgerReader` for the errors."""

    def __init__(
        self,
        url: str,
        contract: bytes,
        *,
        first_block: int | None = None,
        timeout: float = 10.0,
        finality_depth: int = FINALITY_DEPTH,
    ) -> None:
        """`contract`: 20 bytes. `timeout`: seconds for a call. `finality_depth`: see `LedgerReader`.

        `first_block`: where to begin to look for events (None: where the contract says that it was deployed).
        """
        self._url, self._first_block, self._timeout = url, first_block, timeout
        self._contract, self._depth = contract, finality_depth
        self._reader = self._new_reader()
        self._rpc = RpcClient([url], timeout)

    @property
    def name(self) -> str:
        """The URL without what may be secret in it."""
        return self._rpc.names

    def identity(self) -> LedgerIdentity:
        """See `Ledger.identity`."""
        return self._reader.identity()

    def head(self) -> LedgerHead:
        """See `Ledger.head`; whether what was final before still stands is for check (26) to say."""
        try:
            return self._reader.head()
        except LedgerReorganised:
            self._reader = self._new_reader()
            return self._reader.head()

    def records(self, first: Round, last: Round | None = None) -> list[Record]:
        """See `Ledger.records`."""
        return self._reader.records(first, last)

    def is_development(self) -> bool:
        """Whether the chain says that it is one for development; what does not answer says nothing."""
        try:
            version = str(self._rpc.call("web3_clientVersion"))
        except (LedgerUnavailable, RpcError):
            return False
        return version.lower().startswith(_DEVELOPMENT)

    def amendments(self) -> list[AmendmentRecord]:
        """See `Ledger.amendments`."""
        return self._reader.amendments()

    def reports(self) -> list[ReportRecord]:
        """See `Reporting.reports`."""
        start = self._reader.identity().founded_at if self._first_block is None else self._first_block
        with self._rpc.usable_answers():
            try:
                return read_reports(self._rpc.call, self._contract, start)
            except RpcError as error:
                raise LedgerUnavailable(f"{self.name} does not show what was reported: {error}") from error

    def prove(self, head: LedgerHead, members: Iterable[bytes]) -> StateProof | Unproven:
        """See `Provable.prove`."""
        with self._rpc.usable_answers():
            try:
                latest, final = self._block(head.block), self._block(head.final.number)
            except RpcError as error:
                return Unproven(f"the RPC does not show block {head.block}: {error}")
            names = [*SLOTS, *map(to_hex, members)]
            keys = [to_hex(slot_of(name)) for name in names]
            try:
                answer = self._rpc.call("eth_getProof", to_hex(self._contract), keys, hex(head.block))
            except RpcError as error:
                return Unproven(f"the RPC gives no state proofs (eth_getProof): {error}", latest, final)
            return _read_proof(answer, names, latest, final)

    def block_hash(self, number: int) -> Digest | None:
        """See `Provable.block_hash`."""
        try:
            with self._rpc.usable_answers():
                return read_header(self._block(number).header).hash
        except LedgerUnavailable:
            return None

    def _new_reader(self) -> LedgerReader:
        return LedgerReader(
            [self._url],
            self._contract,
            first_block=self._first_block,
            timeout=self._timeout,
            finality_depth=self._depth,
        )

    def _block(self, number: int) -> BlockShown:
        block = parse(self._rpc.call("eth_getBlockByNumber", hex(number), False), dict[str, Any])
        return BlockShown(to_bytes(block.get("hash"), 32), encode_header(block))


def _read_proof(answer: object, names: Sequence[str], latest: BlockShown, final: BlockShown) -> StateProof:
    shown = parse(answer, dict[str, Any])
    slots = parse(shown.get("storageProof"), list[dict[str, Any]])
    if len(slots) != len(names):
        raise RemoteProtocolError(f"{len(slots)} storage proofs, {len(names)} were asked for")
    return StateProof(
        latest=latest,
        final=final,
        account=_nodes(shown.get("accountProof")),
        slots={name: _nodes(slot.get("proof")) for name, slot in zip(names, slots, strict=True)},
    )


def _nodes(answer: object) -> tuple[bytes, ...]:
    nodes = parse(answer, list[str])
    if len(nodes) > _MAX_NODES:
        raise RemoteProtocolError(f"a proof of {len(nodes)} nodes")
    return tuple(map(to_bytes, nodes))
