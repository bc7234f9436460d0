"""The outbox on a real Ethereum node that is made to do what nodes do: it loses nothing and records nothing twice."""

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from audited_federation import AuditedFederation
from living_federation import Crash, crash_at
from outbox_bench import Bench
from real_chains import CHAIN_ID, GAS_KEY, PAYER, AnvilChain

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.errors import LedgerReorganised, LedgerUnavailable, WrongLedger
from folkmoot.ledger.evm import EvmLedger, deploy
from folkmoot.ledger.fees import GWEI
from folkmoot.ledger.identity import founding_of
from folkmoot.ledger.port import PreparedTransaction
from folkmoot.node.logs import logger
from folkmoot.node.outbox import Outbox
from folkmoot.testnet import anvil

pytestmark = pytest.mark.integration

OTHER_KEY = bytes(31) + b"\x08"
LIMIT = 30.0


class AnvilBench(Bench):
    """A federation whose contract is on a node of our own."""

    def __init__(self, chain: AnvilChain, path: Path) -> None:
        federation = AuditedFederation(chain_id=CHAIN_ID)
        contract = deploy([chain.url], GAS_KEY, founding_of(federation.charter)).contract
        federation.settle(contract, CHAIN_ID)
        for _ in range(3):
            federation.add_round()
        super().__init__(federation, path)
        self.node = chain
        self.paid_before = self.nonce()

    def connect(
        self, gas_key: bytes = GAS_KEY, timeout: float = 1.0, fee_cap: int | None = None
    ) -> EvmLedger:
        return EvmLedger(
            [self.node.url],
            self.federation.contract,
            gas_key,
            timeout=timeout,
            chain_id=CHAIN_ID,
            fee_cap=fee_cap,
        )

    def ask(self, method: str, *params: object) -> Any:
        return self.node.rpc.call(method, *params)

    def recorded(self) -> list[int]:
        return [
            record.statement.round
            for record in EvmLedger([self.node.url], self.federation.contract).records(1)
        ]

    def nonce(self) -> int:
        return int(self.ask("eth_getTransactionCount", f"0x{PAYER.hex()}", "latest"), 16)

    def paid(self) -> int:
        """How many transactions of the gas key blocks hold, besides the deployment."""
        return self.nonce() - self.paid_before

    def pending(self) -> int:
        return int(self.ask("txpool_status")["pending"], 16)

    @asynccontextmanager
    async def outbox_of(
        self, ledger: EvmLedger, submitter: bytes = PAYER, bump: float = 1.0
    ) -> AsyncIterator[Outbox]:
        with self.journal(submitter) as journal:
            outbox = Outbox(ledger, journal, self.federation.charter, self.note, logger(), bump)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(outbox.run)
                yield outbox
                nursery.cancel_scope.cancel()

    async def until(self, condition: Callable[[], object]) -> None:
        with trio.fail_after(LIMIT):
            while not await trio.to_thread.run_sync(condition):  # noqa: ASYNC110 - a chain rings no bell
                await trio.sleep(0.05)

    async def until_height(self, outbox: Outbox, height: int) -> None:
        await self.until(lambda: outbox.head is not None and outbox.head.height == height)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[AnvilBench]:
    chain = AnvilChain(tmp_path)
    yield AnvilBench(chain, tmp_path)
    chain.child.ref.signal(signal.SIGCONT)
    chain.stop()


async def test_rounds_are_recorded_until_they_are_final(bench: AnvilBench) -> None:
    async with bench.outbox_of(bench.connect()) as outbox:
        for round_ in (1, 2, 3):
            outbox.add(bench.record(round_))
        await bench.until_height(outbox, 3)
        bench.node.mine(3)
        await bench.until(lambda: {row.state for row in bench.rows(PAYER)} == {"final"})
    assert (bench.recorded(), bench.paid()) == ([1, 2, 3], 3)


async def test_a_node_that_hangs_and_comes_back(bench: AnvilBench) -> None:
    async with bench.outbox_of(bench.connect(timeout=0.5)) as outbox:
        await bench.until_height(outbox, 0)
        bench.node.child.ref.signal(signal.SIGSTOP)
        outbox.add(bench.record(1))
        await bench.until(lambda: outbox.state == "unreachable")
        assert outbox.counts().pending == 1
        bench.node.child.ref.signal(signal.SIGCONT)
        await bench.until_height(outbox, 1)
    assert bench.paid() == 1


async def test_blocks_undone_that_were_not_final(bench: AnvilBench) -> None:
    async with bench.outbox_of(bench.connect()) as outbox:
        outbox.add(bench.record(1))
        await bench.until_height(outbox, 1)
        bench.ask("anvil_reorg", 1, [])
        assert bench.recorded() == []  # and anvil puts nothing back into its pool
        await bench.until(lambda: bench.recorded() == [1])
        await bench.until_height(outbox, 1)
    assert bench.paid() == 1
    assert len(bench.rows(PAYER)) == 1


async def test_blocks_undone_that_were_final(bench: AnvilBench) -> None:
    with pytest.RaisesGroup(LedgerReorganised, flatten_subgroups=True):
        async with bench.outbox_of(bench.connect()) as outbox:
            outbox.add(bench.record(1))
            await bench.until_height(outbox, 1)
            bench.node.mine(4)
            await bench.until(lambda: outbox.head is not None and outbox.head.finalized_height == 1)
            bench.ask("anvil_reorg", 5, [])
            await trio.sleep(LIMIT)
    assert outbox.state == "reorganised"


async def test_a_transaction_beyond_a_gap_of_nonces_is_not_ours(bench: AnvilBench) -> None:
    """Something else used the key and left a gap: ours go in front of it, and it lands between them."""
    ledger = bench.connect()
    made = bench.federation.rounds[0]
    ledger.send(ledger.prepare(made.finalize, nonce=bench.nonce() + 1))
    assert int(bench.ask("txpool_status")["queued"], 16) == 1
    async with bench.outbox_of(ledger) as outbox:
        for round_ in (1, 2):
            outbox.add(bench.record(round_))
        await bench.until_height(outbox, 2)
    assert (bench.recorded(), bench.paid()) == ([1, 2], 3)


async def test_a_nonce_that_something_else_used(bench: AnvilBench) -> None:
    """Prepared, and not sent yet: meanwhile the key pays for something else."""
    ledger = bench.connect()
    sends = ledger.send

    def send(prepared: PreparedTransaction) -> None:
        ledger.send = sends  # type: ignore[method-assign]
        other = bench.connect()
        other.send(other.prepare(bench.federation.rounds[0].finalize, nonce=prepared.nonce))
        sends(prepared)

    ledger.send = send  # type: ignore[method-assign]
    async with bench.outbox_of(ledger) as outbox:
        for round_ in (1, 2):
            outbox.add(bench.record(round_))
        await bench.until_height(outbox, 2)
    assert bench.recorded() == [1, 2]


async def test_what_is_in_no_block_is_offered_for_more(bench: AnvilBench) -> None:
    bench.ask("evm_setAutomine", False)
    async with bench.outbox_of(bench.connect()) as outbox:
        outbox.add(bench.record(1))
        await bench.until(lambda: len(bench.rows(PAYER)) == 3)
        bench.node.mine()
        await bench.until_height(outbox, 1)
    fees = [row.nonce for row in bench.rows(PAYER)]
    assert len(set(fees)) == 1
    assert bench.paid() == 1


async def test_a_pool_that_forgets(bench: AnvilBench) -> None:
    bench.ask("evm_setAutomine", False)
    async with bench.outbox_of(bench.connect()) as outbox:
        outbox.add(bench.record(1))
        await bench.until(lambda: bench.pending() == 1)
        bench.ask("anvil_dropAllTransactions")
        assert bench.pending() == 0
        await bench.until(lambda: bench.pending() == 1)
        bench.node.mine()
        await bench.until_height(outbox, 1)
    assert bench.paid() == 1


async def test_a_base_fee_that_leaps(bench: AnvilBench) -> None:
    """What was offered is worth nothing any more (anvil even forgets it): more is offered, on the same nonce."""
    bench.ask("evm_setAutomine", False)
    async with bench.outbox_of(bench.connect()) as outbox:
        outbox.add(bench.record(1))
        await bench.until(lambda: bench.pending() == 1)
        bench.ask("anvil_setNextBlockBaseFeePerGas", hex(50 * GWEI))
        bench.node.mine()
        assert bench.recorded() == []
        bench.ask("evm_setAutomine", True)
        await bench.until_height(outbox, 1)
    assert bench.paid() == 1


async def test_a_base_fee_above_the_cap_is_waited_out(bench: AnvilBench) -> None:
    bench.ask("anvil_setNextBlockBaseFeePerGas", hex(50 * GWEI))
    bench.node.mine()
    async with bench.outbox_of(bench.connect(fee_cap=10 * GWEI)) as outbox:
        outbox.add(bench.record(1))
        await bench.until(lambda: outbox.state == "deferred")
        assert "max_fee_gwei is 10" in outbox.reason
        assert outbox.counts().deferred == 1
        bench.ask("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
        bench.node.mine()
        await bench.until_height(outbox, 1)
    assert bench.paid() == 1


async def test_no_funds_are_said_and_waited_for(bench: AnvilBench) -> None:
    account = f"0x{PAYER.hex()}"
    bench.ask("anvil_setBalance", account, "0x1")
    async with bench.outbox_of(bench.connect()) as outbox:
        outbox.add(bench.record(1))
        await bench.until(lambda: outbox.state == "deferred")
        assert "insufficient funds" in outbox.reason
        bench.ask("anvil_setBalance", account, hex(anvil.FUNDS))
        await bench.until_height(outbox, 1)
    assert bench.paid() == 1


@pytest.mark.parametrize("what", ["chain", "code", "other code"])
async def test_another_ledger_ends_it(bench: AnvilBench, what: str) -> None:
    """At the first start nothing is believed; a transaction to an address without code would "succeed"."""
    contract = f"0x{bench.federation.contract.hex()}"
    if what == "chain":
        bench.ask("anvil_setChainId", CHAIN_ID + 1)
    else:
        bench.ask("anvil_setCode", contract, "0x" if what == "code" else "0x6001")
    with pytest.RaisesGroup(WrongLedger, flatten_subgroups=True):
        async with bench.outbox_of(bench.connect()) as outbox:
            outbox.add(bench.record(1))
            await trio.sleep(LIMIT)
    assert bench.paid() == 0


async def test_an_error_for_a_transaction_that_landed(bench: AnvilBench) -> None:
    ledger = bench.connect()
    sends, lost = ledger.send, [1, 1]

    def send(prepared: PreparedTransaction) -> None:
        sends(prepared)
        if lost:
            lost.pop()
            raise LedgerUnavailable("the reply was lost")

    ledger.send = send  # type: ignore[method-assign]
    async with bench.outbox_of(ledger) as outbox:
        for round_ in (1, 2):
            outbox.add(bench.record(round_))
        await bench.until_height(outbox, 2)
    assert (bench.recorded(), bench.paid()) == ([1, 2], 2)


@pytest.mark.parametrize("call", range(3, 9))
async def test_a_crash_around_any_write(bench: AnvilBench, call: int) -> None:
    """Odd calls die before the commit, even ones after it."""
    crashed = pytest.RaisesGroup(Crash, flatten_subgroups=True)
    with crashed, bench.journal(PAYER, on_write=crash_at(call)) as journal:
        outbox = Outbox(bench.connect(), journal, bench.federation.charter, bench.note, logger())
        outbox.add(bench.record(1))
        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(outbox.run)
                await bench.until_height(outbox, 1)
                bench.node.mine(3)
                await trio.sleep_forever()
    async with bench.outbox_of(bench.connect()) as outbox:
        for round_ in (1, 2):
            outbox.add(bench.record(round_))
        await bench.until_height(outbox, 2)
    assert (bench.recorded(), bench.paid()) == ([1, 2], 2)


async def test_two_members_submit_the_same_rounds(bench: AnvilBench) -> None:
    anvil.fund(bench.node.url, [f"0x{AuditKey(OTHER_KEY).address.hex()}"])
    async with (
        bench.outbox_of(bench.connect()) as first,
        bench.outbox_of(bench.connect(OTHER_KEY), b"\x08" * 20) as second,
    ):
        for round_ in (1, 2, 3):
            for outbox in (first, second):
                outbox.add(bench.record(round_))
        for outbox in (first, second):
            await bench.until_height(outbox, 3)
            assert outbox.backlog == 0
    assert bench.recorded() == [1, 2, 3]
