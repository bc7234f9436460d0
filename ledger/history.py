"""The contract's events, read in order and kept: what was recorded, by whom it was signed, and who paid for it.

Entries in final blocks are read once; those above are looked for again whenever the chain has a new block.
"""

from collections.abc import Callable, Iterable

import msgspec

from folkmoot.ledger import codec
from folkmoot.ledger.answers import (
    LogAnswer,
    ReceiptAnswer,
    TransactionAnswer,
    parse,
    to_bytes,
    to_hex,
    to_int,
)
from folkmoot.ledger.calldata import decode_call
from folkmoot.ledger.calls import Amend, Checkpoint, Finalize
from folkmoot.ledger.errors import LedgerUnavailable
from folkmoot.ledger.port import AmendmentRecord, Receipt, Record
from folkmoot.ledger.rpc import Ask, RpcError
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.typed_data import Domain, struct_hash
from folkmoot.protocol.types import Digest, Round

_TOPICS = (codec.FINALIZED_TOPIC, codec.ATTESTED_TOPIC, codec.AMENDED_TOPIC)


class _Attestation(msgspec.Struct, frozen=True):
    """One attester's signature in a transaction of its own."""

    digest: Digest
    signature: bytes
    block: int


_Called = Finalize | Checkpoint | Amend | None
"""What a transaction asked of the contract; None for an attestation, or a call through another contract."""

_Entry = Record | AmendmentRecord | _Attestation


class History:
    """The events of one contract. Not thread-safe: its owner holds a lock."""

    def __init__(
        self, ask: Ask, domain: Callable[[], Domain], federation: Callable[[], Digest], span: int
    ) -> None:
        """`domain` and `federation` are asked for when they are needed. `span`: blocks searched at once, at most."""
        self._ask = ask
        self._domain = domain
        self._federation = federation
        self._span = span
        self._final: list[_Entry] = []
        self._recent: dict[tuple[str, str], _Entry] = {}
        self._next_block: int | None = None
        self._latest: tuple[tuple[str, str], Receipt, _Called] | None = None

    @property
    def records(self) -> list[Record]:
        """Records, in order, as of the last `sync`."""
        return [entry for entry in self._entries() if isinstance(entry, Record)]

    @property
    def amendments(self) -> list[AmendmentRecord]:
        """Amendments, in order, as of the last `sync`."""
        return [entry for entry in self._entries() if isinstance(entry, AmendmentRecord)]

    def sync(self, start: int, final: int, latest: int) -> None:
        """Read what is new; `start` is the first block that can hold any event."""
        first = start if self._next_block is None else self._next_block
        read: dict[tuple[str, str], _Entry] = {}
        for log in self.logs(first, latest, _TOPICS):
            # After a reorganisation the same log has another block hash, and is read anew.
            key = (log.block_hash, log.log_index)
            read[key] = self._recent.get(key) or self._read(log, read.values())
        # Nothing was raised: only now may what is kept change.
        self._final += [entry for entry in read.values() if entry.block <= final]
        self._recent = {key: entry for key, entry in read.items() if entry.block > final}
        self._next_block = max(first, final + 1)

    def last_round(self, first: int, last: int) -> Round | None:
        """The round of the last record in these blocks."""
        while last >= first:
            begin = max(first, last - self._span + 1)
            if logs := self.logs(begin, last, (codec.FINALIZED_TOPIC,)):
                return codec.decode_uint(to_bytes(logs[-1].topics[1]), 63)
            last = begin - 1
        return None

    def logs(self, first: int, last: int, topics: tuple[bytes, ...]) -> list[LogAnswer]:
        """The contract's events in blocks `first` to `last`, in order; in smaller spans where the RPC refuses one."""
        logs: list[LogAnswer] = []
        span = self._span
        while first <= last:
            to = min(last, first + span - 1)
            query = {
                "address": to_hex(self._domain().contract),
                "topics": [[to_hex(topic) for topic in topics]],
                "fromBlock": hex(first),
                "toBlock": hex(to),
            }
            try:
                logs += parse(self._ask("eth_getLogs", query), list[LogAnswer])
            except RpcError:
                if span == 1:
                    raise
                span = max(1, span // 4)
                continue
            first = to + 1
        return sorted(logs, key=lambda log: (to_int(log.block_number), to_int(log.log_index)))

    # --- one event --------------------------------------------------------------------------------------------------

    def _entries(self) -> Iterable[_Entry]:
        return [*self._final, *self._recent.values()]

    def _read(self, log: LogAnswer, before: Iterable[_Entry]) -> _Entry:
        if to_bytes(log.address, 20) != self._domain().contract:
            raise RemoteProtocolError("an event of another contract")
        topics, data = [to_bytes(topic, 32) for topic in log.topics], to_bytes(log.data)
        if topics[:1] == [codec.ATTESTED_TOPIC]:
            digest, _, signature = codec.decode_attested(topics, data)
            return _Attestation(digest, signature, to_int(log.block_number))
        if topics[:1] == [codec.AMENDED_TOPIC]:
            return self._read_amendment(log, topics, data)
        return self._read_record(log, topics, data, before)

    def _read_record(
        self, log: LogAnswer, topics: list[bytes], data: bytes, before: Iterable[_Entry]
    ) -> Record:
        statement, digest, submitter = codec.decode_finalized(self._federation(), topics, data)
        receipt, call = self._transaction(log)
        match call:
            case Finalize(called, signatures) if called == statement:
                signed = digest
            case Checkpoint((*_, last) as statements, signatures) if statement in statements:
                signed = struct_hash(last)
            case None:
                # Of attestations the events tell all; of a call through another contract nothing is known.
                signed, signatures = digest, self._attested(digest, before)
            case _:
                raise RemoteProtocolError("a transaction that does not fit its event")
        return Record(
            statement=statement,
            digest=digest,
            signed=signed,
            signatures=signatures,
            signers=codec.recover_signers(self._domain(), signed, signatures),
            transaction=receipt.transaction,
            block=receipt.block,
            block_hash=receipt.block_hash,
            gas_used=receipt.gas_used,
            submitter=submitter,
        )

    def _attested(self, digest: Digest, before: Iterable[_Entry]) -> tuple[bytes, ...]:
        """The signatures that attesters gave a statement in transactions of their own."""
        return tuple(
            entry.signature
            for entry in (*self._final, *before)
            if isinstance(entry, _Attestation) and entry.digest == digest
        )

    def _read_amendment(self, log: LogAnswer, topics: list[bytes], data: bytes) -> AmendmentRecord:
        amendment, digest, submitter = codec.decode_amended(self._federation(), topics, data)
        receipt, call = self._transaction(log)
        match call:
            case Amend(called, signatures) if called == amendment:
                pass
            case None:
                signatures = ()
            case _:
                raise RemoteProtocolError("a transaction that does not fit its event")
        return AmendmentRecord(
            amendment=amendment,
            digest=digest,
            signatures=signatures,
            signers=codec.recover_signers(self._domain(), digest, signatures),
            transaction=receipt.transaction,
            block=receipt.block,
            block_hash=receipt.block_hash,
            gas_used=receipt.gas_used,
            submitter=submitter,
        )

    def _transaction(self, log: LogAnswer) -> tuple[Receipt, _Called]:
        """An event's transaction; a checkpoint's many events ask for it once."""
        if self._latest is None or self._latest[0] != (log.block_hash, log.transaction_hash):
            place = log.block_hash, log.transaction_hash
            self._latest = place, self._receipt(log), self._called(log.transaction_hash)
        return self._latest[1:]

    def _called(self, transaction: str) -> _Called:
        found = parse(self._ask("eth_getTransactionByHash", transaction), TransactionAnswer)
        if found.to is None or to_bytes(found.to, 20) != self._domain().contract:
            return None
        return decode_call(to_bytes(found.input))

    def _receipt(self, log: LogAnswer) -> Receipt:
        transaction = to_bytes(log.transaction_hash, 32)
        found = self._ask("eth_getTransactionReceipt", log.transaction_hash)
        receipt = read_receipt(transaction, found) if found is not None else None
        if receipt is None or receipt.block_hash != to_bytes(log.block_hash, 32):
            raise LedgerUnavailable("the chain was reorganised while it was read; ask again")
        return receipt


def read_receipt(transaction: Digest, found: object) -> Receipt:
    """What `eth_getTransactionReceipt` answered."""
    answer = parse(found, ReceiptAnswer)
    return Receipt(
        transaction=transaction,
        block=to_int(answer.block_number),
        block_hash=to_bytes(answer.block_hash, 32),
        gas_used=to_int(answer.gas_used),
        succeeded=to_int(answer.status) == 1,
    )
