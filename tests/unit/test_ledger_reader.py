"""`LedgerReader` and its RPC client against an HTTP server that misbehaves on demand."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faulty_rpc import CHAIN_ID, KEYS, Chain, Front, failing, final_is, serving

from folkmoot.ledger.errors import LedgerUnavailable, WrongLedger
from folkmoot.ledger.reader import LedgerReader
from folkmoot.ledger.rpc import BadRpcUrl, RpcClient, RpcError


@pytest.fixture
def front() -> Iterator[Front]:
    with serving(Front()) as server:
        yield server


@pytest.fixture
def reader(front: Front) -> LedgerReader:
    return LedgerReader([front.url], front.chain.contract, timeout=2.0)


@pytest.fixture
def usual_recursion_limit() -> Iterator[None]:
    """Other tests import what raises it (see `evm._web3`)."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


def test_polls_are_one_call_while_nothing_happens(front: Front, reader: LedgerReader) -> None:
    front.chain.record()
    first = reader.head()
    front.counts.clear()
    for _ in range(5):
        assert reader.head() == first
    assert front.counts == {"eth_getBlockByNumber": 5}


def test_records_in_final_blocks_are_read_once(front: Front, reader: LedgerReader) -> None:
    made = [front.chain.record() for _ in range(3)]
    assert [record.statement for record in reader.records(1)] == made
    front.counts.clear()
    made.append(front.chain.record())
    assert [record.statement for record in reader.records(1)] == made
    assert front.counts["eth_getTransactionByHash"] == 1
    assert [record.statement for record in reader.records(2, 3)] == made[1:3]


def test_the_search_starts_where_the_contract_was_deployed(front: Front, reader: LedgerReader) -> None:
    asked = []

    def edit(request: dict[str, Any], reply: Any) -> Any:
        if request["method"] == "eth_getLogs":
            asked.append(int(request["params"][0]["fromBlock"], 16))
        return reply

    front.edit = edit
    front.chain.record()
    reader.records(1)
    LedgerReader([front.url], front.chain.contract, first_block=0).records(1)
    assert asked == [reader.identity().founded_at, 0] == [1, 0]


def test_a_reorganisation_above_finality_is_followed(front: Front, reader: LedgerReader) -> None:
    front.edit = final_is(front, 2)
    forked = Chain()
    for chain in (front.chain, forked):
        chain.record()
    for salt in (b"", b""):
        front.chain.record(salt)
    before = reader.records(1)
    assert (reader.head().height, reader.head().finalized_height) == (3, 1)
    lost = before[1:]
    forked.record(b"fork")
    front.chain = forked
    after = reader.records(1)
    assert after[0] == before[0]
    assert [record.statement.round for record in after] == [1, 2]
    assert after[1].statement != lost[0].statement
    assert reader.head().digest == after[1].digest
    assert reader.receipt(lost[1].transaction) is None


def test_a_node_that_limits_the_span_of_searches(front: Front, reader: LedgerReader) -> None:
    made = [front.chain.record() for _ in range(5)]

    def edit(request: dict[str, Any], reply: Any) -> Any:
        if request["method"] != "eth_getLogs":
            return reply
        query = request["params"][0]
        if int(query["toBlock"], 16) - int(query["fromBlock"], 16) > 2:
            return {"error": {"code": -32005, "message": "query returned more than 3 blocks"}}
        return reply

    front.edit = edit
    assert [record.statement for record in reader.records(1)] == made
    front.edit = failing("eth_getLogs")
    front.chain.record()
    with pytest.raises(LedgerUnavailable, match="no usable answer"):
        reader.records(1)


def test_without_a_finalized_tag_old_blocks_are_final(front: Front, reader: LedgerReader) -> None:
    front.chain.record()

    def edit(request: dict[str, Any], reply: Any) -> Any:
        if request["params"][:1] == ["finalized"]:
            return {"error": {"code": -32602, "message": "unknown tag"}}
        return reply

    front.edit = edit
    head = reader.head()
    assert (head.height, head.finalized_height) == (1, 0)


LIES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a null block": ("eth_getBlockByNumber", lambda result: None),
    "a block of the wrong shape": ("eth_getBlockByNumber", lambda result: {"number": 7, "hash": []}),
    "a number that is none": ("eth_getBlockByNumber", lambda result: result | {"number": "latest"}),
    "an empty view": ("eth_call", lambda result: "0x"),
    "a view of odd length": ("eth_call", lambda result: "0x123"),
    "a view of one byte": ("eth_call", lambda result: "0xff"),
    "no logs but a word": ("eth_getLogs", lambda result: "none"),
    "logs without topics": ("eth_getLogs", lambda result: [log | {"topics": []} for log in result]),
    "logs of another contract": (
        "eth_getLogs",
        lambda result: [log | {"address": "0x" + "11" * 20} for log in result],
    ),
    "logs with short data": ("eth_getLogs", lambda result: [log | {"data": "0x00"} for log in result]),
    "a forged model": (
        "eth_getLogs",
        lambda result: [log | {"topics": [*log["topics"][:3], "0x" + "11" * 32]} for log in result],
    ),
    "no receipt": ("eth_getTransactionReceipt", lambda result: None),
    "another block's receipt": (
        "eth_getTransactionReceipt",
        lambda result: result | {"blockHash": "0x" + "11" * 32},
    ),
    "no transaction": ("eth_getTransactionByHash", lambda result: None),
    "a cut transaction": (
        "eth_getTransactionByHash",
        lambda result: result | {"input": result["input"][:300]},
    ),
    "an error": ("eth_getTransactionByHash", lambda result: 1 / 0),
}


@pytest.mark.parametrize("lie", LIES)
def test_answers_that_make_no_sense_are_unavailable(front: Front, lie: str) -> None:
    method, change = LIES[lie]
    front.chain.record()

    def edit(request: dict[str, Any], reply: Any) -> Any:
        if request["method"] != method:
            return reply
        try:
            return {"result": change(reply["result"])}
        except ZeroDivisionError:
            return {"error": {"code": -32603, "message": "internal"}}

    reader = LedgerReader([front.url], front.chain.contract, timeout=2.0)
    front.edit = edit
    with pytest.raises(LedgerUnavailable) as caught:
        reader.head()
        reader.records(1)
    assert "secret-key" not in str(caught.value)
    front.edit = lambda request, reply: reply
    assert len(reader.records(1)) == 1


def test_a_call_through_another_contract_has_no_signatures(front: Front, reader: LedgerReader) -> None:
    front.chain.record()
    front.edit = lambda request, reply: (
        {"result": reply["result"] | {"to": "0x" + "22" * 20}}
        if request["method"] == "eth_getTransactionByHash"
        else reply
    )
    (record,) = reader.records(1)
    assert record.signatures == record.signers == ()


def test_a_broken_signature_has_no_signer(front: Front, reader: LedgerReader) -> None:
    front.chain.record()

    def edit(request: dict[str, Any], reply: Any) -> Any:
        if request["method"] == "eth_getTransactionByHash":
            reply["result"]["input"] = reply["result"]["input"][:-128] + "ff" * 64
        return reply

    front.edit = edit
    (record,) = reader.records(1)
    assert record.signers == (KEYS[0].address, KEYS[1].address, bytes(20))


def test_other_code_is_the_wrong_ledger(front: Front) -> None:
    front.edit = lambda request, reply: {"result": "0x6001"} if request["method"] == "eth_getCode" else reply
    with pytest.raises(WrongLedger, match="hash of the code") as caught:
        LedgerReader([front.url], front.chain.contract).identity()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "raw", [b"", b"<html>", b"[]", b"\xff", b'{"error":7}', b"[" * 100_000, b'{"result":' * 50_000]
)
def test_replies_that_are_not_json_rpc(front: Front, raw: bytes) -> None:
    client = RpcClient([front.url], timeout=0.5)
    front.raw = raw
    with pytest.raises(LedgerUnavailable, match="not JSON-RPC"):
        client.call("eth_chainId")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_overloaded_server_is_asked_again(front: Front, status: int) -> None:
    client = RpcClient([front.url], timeout=5.0)
    front.status = status

    def recover(request: dict[str, Any], reply: Any) -> Any:
        if front.counts["eth_chainId"] > 1:
            front.status = 200
        return reply

    front.edit = recover
    assert client.call("eth_chainId") == hex(CHAIN_ID)


def test_errors_of_the_node_are_not_asked_again(front: Front) -> None:
    front.edit = failing("eth_call", 3)
    with pytest.raises(RpcError) as caught:
        RpcClient([front.url], timeout=5.0).call("eth_call", {}, "latest")
    assert caught.value.code == 3
    assert front.counts["eth_call"] == 1


def test_all_urls_must_show_one_chain(front: Front) -> None:
    client = RpcClient([front.url, front.url + "2"], timeout=2.0)
    assert client.call("eth_chainId") == hex(CHAIN_ID)

    def broken(request: dict[str, Any], reply: Any) -> Any:
        return {"result": "0x5"} if request["method"] == "eth_chainId" else "not an object"

    front.edit = broken
    with pytest.raises(WrongLedger, match="chain id"):
        client.call("eth_blockNumber")


def test_the_timeout_holds_for_the_whole_call(front: Front) -> None:
    done = threading.Event()
    front.edit = lambda request, reply: done.wait(5) and reply
    started = time.monotonic()
    with pytest.raises(LedgerUnavailable, match="no answer in time"):
        RpcClient([front.url] * 3, timeout=0.3).call("eth_chainId")
    assert time.monotonic() - started < 1.2
    done.set()


@pytest.mark.parametrize(
    "url", ["", "chain", "ftp://host", "http://", "ws://host:1", "http://127.0.0.1:99999", "http://[::1"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(BadRpcUrl, match="not an RPC URL"):
        RpcClient([url], 1.0)


def test_importing_web3_leaves_the_recursion_limit_alone() -> None:
    """py_ecc raises it to 100000, with which a deeply nested message kills the process."""
    script = (
        "import sys; before = sys.getrecursionlimit(); from folkmoot.ledger import evm; evm._web3();"
        "assert sys.getrecursionlimit() == before, sys.getrecursionlimit()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
