"""`Equivocated` events and the transactions behind them, read strictly, because an RPC may lie."""

from folkmoot.ledger.answers import LogAnswer, TransactionAnswer, parse, to_bytes, to_hex, to_int
from folkmoot.ledger.audit.governance import ReportRecord
from folkmoot.ledger.build import contract_build
from folkmoot.ledger.codec import WORD, decode_address, decode_uint, words
from folkmoot.ledger.rpc import Ask, RpcError
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.typed_data import keccak256
from folkmoot.protocol.types import Digest

TOPIC = keccak256(b"Equivocated(address,uint256,bytes32[],bytes32[],address)")
_MAX_WORDS = 10
_SPAN = 100_000


def read_reports(ask: Ask, contract: bytes, first: int) -> list[ReportRecord]:
    """All reports from block `first` on, in order. Raises `RpcError`, `RemoteProtocolError`."""
    last, span, reports = to_int(ask("eth_blockNumber")), _SPAN, list[ReportRecord]()
    while first <= last:
        to = min(last, first + span - 1)
        query = {
            "address": to_hex(contract),
            "topics": [to_hex(TOPIC)],
            "fromBlock": hex(first),
            "toBlock": hex(to),
        }
        try:
            logs = parse(ask("eth_getLogs", query), list[LogAnswer])
        except RpcError:
            if span == 1:
                raise
            span = max(1, span // 4)
            continue
        reports += [_read(ask, contract, log) for log in sorted(logs, key=_place)]
        first = to + 1
    return reports


def _place(log: LogAnswer) -> tuple[int, int]:
    return to_int(log.block_number), to_int(log.log_index)


def _read(ask: Ask, contract: bytes, log: LogAnswer) -> ReportRecord:
    topics = [to_bytes(topic, 32) for topic in log.topics]
    if to_bytes(log.address, 20) != contract or len(topics) != 3 or topics[0] != TOPIC:
        raise RemoteProtocolError("not an Equivocated event of the contract")
    data, transaction = to_bytes(log.data), to_bytes(log.transaction_hash, 32)
    return ReportRecord(
        member=decode_address(topics[1]),
        kind=decode_uint(topics[2], 8),
        first=_words(data, 0),
        second=_words(data, WORD),
        signatures=_signatures(ask, contract, transaction),
        transaction=transaction,
        block=to_int(log.block_number),
    )


def _words(data: bytes, place: int) -> tuple[bytes, ...]:
    """The list whose offset stands at `place`."""
    start = decode_uint(data[place : place + WORD], 32)
    count = decode_uint(data[start : start + WORD], 32)
    listed = words(data[start + WORD : start + WORD + count * WORD])
    if count > _MAX_WORDS or len(listed) != count:
        raise RemoteProtocolError("an Equivocated event without its words")
    return tuple(listed)


def _signatures(ask: Ask, contract: bytes, transaction: Digest) -> tuple[bytes, ...]:
    """The two in the transaction's input; none if it reached us through another contract."""
    found = parse(ask("eth_getTransactionByHash", to_hex(transaction)), TransactionAnswer)
    data = to_bytes(found.input)
    if (
        found.to is None
        or to_bytes(found.to, 20) != contract
        or data[:4] != contract_build().selector("report")
    ):
        return ()
    # kind, two offsets, then two signatures of two words each.
    arguments = words(data[4 : 4 + 7 * WORD])
    if len(arguments) != 7:
        raise RemoteProtocolError("the call of report is too short")
    return arguments[3] + arguments[4], arguments[5] + arguments[6]
