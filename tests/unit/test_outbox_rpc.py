"""The outbox over HTTP: real keys and contract, a real chain behind a server that misbehaves; in virtual time."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from audited_federation import AuditedFederation
from faulty_rpc import CHAIN_ID, Chain, Front, final_is, serving
from living_federation import without_threads
from outbox_bench import Bench
from trio.testing import MockClock

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.errors import LedgerReorganised, WrongLedger
from folkmoot.ledger.evm import EvmLedger
from folkmoot.ledger.fees import GWEI
from folkmoot.ledger.identity import founding_of

GAS_KEY = bytes(31) + b"\x0b"
PAYER = AuditKey(GAS_KEY).address


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No threads, and no real pauses between tries."""
    monkeypatch.setattr("folkmoot.ledger.rpc._BACKOFF", 0.001)
    with without_threads():
        yield


class RpcBench(Bench):
    """A founded federation, and two servers on its chain."""

    def __init__(self, federation: AuditedFederation, path: Path, fronts: list[Front]) -> None:
        super().__init__(federation, path)
        self.front, self.other = fronts

    def connect(self, *urls: str, timeout: float = 2.0, fee_cap: int | None = None) -> EvmLedger:
        return EvmLedger(
            urls or (self.front.url,),
            self.federation.contract,
            GAS_KEY,
            timeout=timeout,
            chain_id=CHAIN_ID,
            fee_cap=fee_cap,
        )

    def recorded(self) -> list[int]:
        """The rounds on the chain, asked of it directly."""
        view = EvmLedger([self.front.url], self.federation.contract)
        self.front.edit, self.front.instead = lambda request, reply: reply, lambda request: None
        return [record.statement.round for record in view.records(1)]

    def paid(self) -> int:
        """How many transactions of the gas key are in blocks."""
        return self.front.chain.devchain.nonce(PAYER)


def new_chain(federation: AuditedFederation, funded: bool = True) -> Chain:
    return Chain(founding_of(federation.charter), [PAYER] if funded else [])


@pytest.fixture(scope="module")
def federation() -> AuditedFederation:
    federation = AuditedFederation(chain_id=CHAIN_ID)
    federation.settle(new_chain(federation).contract, CHAIN_ID)
    for _ in range(3):
        federation.add_round()
    return federation


@pytest.fixture
def bench(federation: AuditedFederation, tmp_path: Path) -> Iterator[RpcBench]:
    chain = new_chain(federation)
    with ExitStack() as stack:
        fronts = [stack.enter_context(serving(Front(chain))) for _ in range(2)]
        yield RpcBench(federation, tmp_path, fronts)


def refusing(sentence: str, times: int = 1) -> Callable[..., Any]:
    """Refuse the first `times` transactions: as `Front.instead` they do not land, as `Front.edit` they do."""
    left = times

    def instead(request: dict[str, Any], reply: Any = None) -> Any:
        nonlocal left
        if request["method"] != "eth_sendRawTransaction" or left == 0:
            return reply
        left -= 1
        return {"error": {"code": -32000, "message": sentence}}

    return instead


async def record_all(bench: RpcBench, ledger: EvmLedger) -> None:
    async with bench.running(ledger) as outbox:
        for round_ in (1, 2, 3):
            outbox.add(bench.record(round_))
        await bench.until(lambda: outbox.backlog == 0)
        assert (outbox.state, outbox.reason) == ("ok", "")


async def test_rounds_are_recorded_over_http(bench: RpcBench, autojump_clock: MockClock) -> None:
    await record_all(bench, bench.connect())
    assert (bench.recorded(), bench.paid()) == ([1, 2, 3], 3)
    assert {row.state for row in bench.rows()} == {"final"}


async def test_the_second_endpoint_takes_over(bench: RpcBench, autojump_clock: MockClock) -> None:
    ledger = bench.connect(bench.front.url, bench.other.url)
    async with bench.running(ledger) as outbox:
        outbox.add(bench.record(1))
        await bench.until(lambda: outbox.backlog == 0)
        bench.front.status = 503
        outbox.add(bench.record(2))
        await bench.until(lambda: outbox.backlog == 0)
        assert (
            outbox.state == "ok"
            and f"{bench.front.server_port} does not answer (HTTP status 503)" in outbox.reason
        )
        bench.front.status = 200
    assert bench.recorded() == [1, 2]


async def test_an_endpoint_that_hangs_holds_nothing_up(bench: RpcBench, autojump_clock: MockClock) -> None:
    let_go = threading.Event()
    bench.front.instead = lambda request: let_go.wait(30) and None
    ledger = bench.connect(bench.front.url, bench.other.url, timeout=0.5)
    async with bench.running(ledger) as outbox:
        outbox.add(bench.record(1))
        await bench.until(lambda: outbox.backlog == 0)
        assert "no answer in time" in outbox.reason
    let_go.set()
    assert bench.recorded() == [1]


async def test_a_node_waits_for_an_rpc_that_is_down(bench: RpcBench, autojump_clock: MockClock) -> None:
    bench.front.status = 503
    async with bench.running(bench.connect()) as outbox:
        outbox.add(bench.record(1))
        await outbox.asked.wait()
        await trio.sleep(60)
        assert outbox.state == "unreachable" and "HTTP status 503" in outbox.reason
        assert not outbox.verified.is_set()
        bench.front.status = 200
        await outbox.verified.wait()
        await bench.until(lambda: outbox.backlog == 0)


async def test_endpoints_of_two_histories_are_not_believed(
    bench: RpcBench, autojump_clock: MockClock
) -> None:
    bench.other.chain = new_chain(bench.federation)
    for chain, salt in ((bench.front.chain, PAYER), (bench.other.chain, bytes(20))):
        chain.fund(salt)
    async with bench.running(bench.connect(bench.front.url, bench.other.url)) as outbox:
        outbox.add(bench.record(1))
        await trio.sleep(30)
        assert outbox.state == "disagreeing" and "shows block 2" in outbox.reason
    assert bench.recorded() == []


@pytest.mark.parametrize(
    ("method", "answer", "says"),
    [("eth_chainId", "0x1", "should be 99 but is 1"), ("eth_getCode", "0x", "a RoundLedger but is empty")],
)
async def test_another_chain_or_no_contract_ends_it(
    bench: RpcBench, autojump_clock: MockClock, method: str, answer: str, says: str
) -> None:
    """A transaction to an address without code "succeeds": none may be sent."""
    bench.front.instead = lambda request: {"result": answer} if request["method"] == method else None
    with bench.journal() as journal:
        outbox = bench.outbox(bench.connect(), journal)
        outbox.add(bench.record(1))
        with pytest.raises(WrongLedger, match=says) as caught:
            await outbox.run()
    assert caught.value.exit_code == 2 and outbox.state == "wrong"
    assert "eth_sendRawTransaction" not in bench.front.counts


@pytest.mark.parametrize(
    "sentence",
    ["internal error", "replacement transaction underpriced", "nonce too low", "insufficient funds for gas"],
)
async def test_an_error_for_what_landed(bench: RpcBench, autojump_clock: MockClock, sentence: str) -> None:
    bench.front.edit = refusing(sentence)  # after the chain has executed it
    await record_all(bench, bench.connect())
    assert (bench.recorded(), bench.paid()) == ([1, 2, 3], 3)


@pytest.mark.parametrize(
    "sentence",
    [
        "internal error",
        "replacement transaction underpriced",
        "max fee per gas less than block base fee",
        "nonce too low: next nonce 5, tx nonce 3",
        "insufficient funds for gas * price + value",
    ],
)
async def test_an_error_for_what_did_not_land(
    bench: RpcBench, autojump_clock: MockClock, sentence: str
) -> None:
    bench.front.instead = refusing(sentence, 2)
    await record_all(bench, bench.connect())
    assert (bench.recorded(), bench.paid()) == ([1, 2, 3], 3)


async def test_a_lost_reply_is_no_second_transaction(bench: RpcBench, autojump_clock: MockClock) -> None:
    def lose(request: dict[str, Any], reply: Any) -> Any:
        return "lost" if request["method"] == "eth_sendRawTransaction" else reply

    bench.front.edit = lose
    await record_all(bench, bench.connect())
    assert (bench.recorded(), bench.paid(), len(bench.rows())) == ([1, 2, 3], 3, 3)


async def test_a_base_fee_above_the_cap_defers(bench: RpcBench, autojump_clock: MockClock) -> None:
    base_fee = hex(80 * GWEI)

    def spike(request: dict[str, Any], reply: Any) -> Any:
        if request["method"] == "eth_getBlockByNumber" and reply["result"]:
            reply["result"]["baseFeePerGas"] = base_fee
        return reply

    bench.front.edit = spike
    async with bench.running(bench.connect(fee_cap=20 * GWEI)) as outbox:
        outbox.add(bench.record(1))
        await trio.sleep(120)
        assert (outbox.state, outbox.counts().deferred) == ("deferred", 1)
        assert "asks for 80 gwei, ledger.max_fee_gwei is 20" in outbox.reason
        base_fee = hex(5 * GWEI)
        await bench.until(lambda: outbox.backlog == 0)
    assert bench.recorded() == [1]


async def test_an_account_without_funds_is_named(bench: RpcBench, autojump_clock: MockClock) -> None:
    bench.front.chain = new_chain(bench.federation, funded=False)
    async with bench.running(bench.connect()) as outbox:
        outbox.add(bench.record(1))
        await trio.sleep(120)
        assert (outbox.state, outbox.counts().deferred) == ("deferred", 1)
        assert f"account 0x{PAYER.hex()} has 0.000000000" in outbox.reason.lower()
        assert bench.rows() == []
        bench.front.chain.fund(PAYER)
        await bench.until(lambda: outbox.backlog == 0)
    assert bench.recorded() == [1]


async def test_blocks_above_finality_that_are_undone_are_recorded_again(
    bench: RpcBench, autojump_clock: MockClock
) -> None:
    bench.front.edit = final_is(bench.front, 5)
    async with bench.running(bench.connect()) as outbox:
        for round_ in (1, 2):
            outbox.add(bench.record(round_))
        await bench.until(lambda: outbox.backlog == 0)
        fork = new_chain(bench.federation)
        for _ in range(3):
            fork.fund(bytes(20))
        bench.front.chain = fork
        await bench.until(lambda: outbox.backlog)
        await bench.until(lambda: outbox.backlog == 0)
    assert (bench.recorded(), bench.paid()) == ([1, 2], 2)
    assert len(bench.rows()) == 2  # the same bytes again


async def test_blocks_below_finality_that_are_undone_end_it(
    bench: RpcBench, autojump_clock: MockClock
) -> None:
    await record_all(bench, bench.connect())
    fork = new_chain(bench.federation)
    for _ in range(5):
        fork.fund(bytes(20))
    bench.front.chain = fork
    with bench.journal() as journal, pytest.raises(LedgerReorganised) as caught:
        await bench.outbox(bench.connect(), journal).run()
    assert caught.value.exit_code == 4
