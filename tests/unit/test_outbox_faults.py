"""What a chain and its endpoints do to an outbox: fees, nonces, lost transactions, reorganisations, disagreement.

In virtual time over the ledger in memory. Whatever happens: nothing is lost, nothing recorded twice.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
import trio
from audited_federation import AuditedFederation
from hypothesis import given, settings
from hypothesis import strategies as st
from living_federation import in_virtual_time, without_threads
from outbox_bench import ALICE, BOB, Bench, Watched
from structlog.testing import capture_logs
from trio.testing import MockClock

from folkmoot.ledger.errors import LedgerRejected, LedgerReorganised, NoFunds, WrongLedger
from folkmoot.ledger.fees import GWEI
from folkmoot.ledger.port import PreparedTransaction
from folkmoot.node.outbox import BUMP_SECONDS, PAUSED_SECONDS
from folkmoot.node.pace import BACKOFF_SECONDS
from folkmoot.node.submissions import Backlog
from folkmoot.protocol.charter_tables import Schedule


@pytest.fixture(autouse=True)
def in_place() -> Iterator[None]:
    with without_threads():
        yield


@pytest.fixture(scope="module")
def federation() -> AuditedFederation:
    federation = AuditedFederation()
    for _ in range(3):
        federation.add_round()
    return federation


@pytest.fixture
def bench(federation: AuditedFederation, tmp_path: Path) -> Bench:
    return Bench(federation, tmp_path)


def transactions(ledger: Watched) -> list[PreparedTransaction]:
    """What was sent, each once, in order, as the ledger in memory writes it."""
    calls = [msgspec.msgpack.decode(raw) for raw in dict.fromkeys(ledger.sent)]
    return [PreparedTransaction(b"", b"", call[1], call[2], call[2]) for call in calls]


def record_by(bench: Bench, submitter: bytes, round_: int) -> None:
    made = bench.federation.rounds[round_ - 1]
    rival = bench.ledger(submitter)
    rival.send(rival.prepare(made.finalize))


# --- fees -----------------------------------------------------------------------------------------------------------


async def test_what_no_block_takes_is_sent_again_with_higher_fees(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.chain.automine = False
    ledger = Watched(bench.chain)
    async with bench.running(ledger) as outbox:
        outbox.add(bench.record(1))
        await trio.sleep(2.5 * BUMP_SECONDS)
        assert bench.chain.pending == 1
        assert outbox.counts() == Backlog(pending=0, sent=1, deferred=0)
        bench.chain.mine()
        await bench.until(lambda: outbox.backlog == 0)
    sent = transactions(ledger)
    assert [one.nonce for one in sent] == [0, 0, 0]
    assert all(8 * after.max_fee >= 9 * before.max_fee for before, after in pairwise(sent))
    assert [row.state for row in bench.rows()] == ["dropped", "dropped", "final"]


async def test_a_spike_above_the_cap_defers_and_says_so(bench: Bench, autojump_clock: MockClock) -> None:
    bench.chain.base_fee = 200 * GWEI
    ledger = Watched(bench.chain, fee_cap=50 * GWEI)
    with capture_logs() as lines:
        async with bench.running(ledger) as outbox:
            for round_ in (1, 2):
                outbox.add(bench.record(round_))
            await trio.sleep(3600)
            assert outbox.state == "deferred"
            assert "asks for 201 gwei, ledger.max_fee_gwei is 50" in outbox.reason
            assert outbox.counts() == Backlog(pending=1, sent=0, deferred=1)
            assert ledger.sent == [] and bench.rows() == []
            bench.chain.base_fee = 30 * GWEI
            await bench.until(lambda: outbox.backlog == 0)
            assert (outbox.state, outbox.reason) == ("ok", "")
    assert all(one.max_fee == 50 * GWEI for one in transactions(ledger))
    assert len([line for line in lines if "refused" in line["event"]]) == 1


async def test_a_spike_after_sending_leaves_the_offer_open(bench: Bench, autojump_clock: MockClock) -> None:
    """Within the cap it cannot be outbid: it stays on offer, is shown to forgetful nodes, and is taken in the end."""
    bench.chain.automine = False
    ledger = Watched(bench.chain, fee_cap=50 * GWEI)
    async with bench.running(ledger) as outbox:
        outbox.add(bench.record(1))
        await bench.until(lambda: ledger.sent)
        bench.chain.base_fee = 200 * GWEI
        bench.chain.evict()
        await trio.sleep(2 * BUMP_SECONDS)
        assert (outbox.state, outbox.counts()) == ("deferred", Backlog(pending=0, sent=1, deferred=0))
        bench.chain.base_fee = 0
        await bench.until(lambda: bench.chain.pending)
        bench.chain.mine()
        await bench.until(lambda: outbox.backlog == 0)
    assert bench.chain.nonce(ALICE) == 1


async def test_an_underpriced_replacement_is_raised_until_it_is_taken(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.chain.automine = False
    bench.chain.outbid_by = 2.0
    ledger = Watched(bench.chain)
    async with bench.running(ledger) as outbox:
        outbox.add(bench.record(1))
        await trio.sleep(BUMP_SECONDS + 10)
        bench.chain.mine()
        await bench.until(lambda: outbox.backlog == 0)
    sent = transactions(ledger)
    assert sent[-1].max_fee >= 2 * sent[0].max_fee
    assert len(sent) == 7  # an eighth more each time: 1.125^6 > 2
    assert bench.chain.nonce(ALICE) == 1


async def test_an_empty_account_is_said_and_filled(bench: Bench, autojump_clock: MockClock) -> None:
    ledger = Watched(bench.chain)

    def refuse() -> None:
        raise NoFunds("insufficient funds for gas * price + value", "send some")

    ledger.before_send = refuse
    async with bench.running(ledger) as outbox:
        outbox.add(bench.record(1))
        await trio.sleep(600)
        assert outbox.state == "deferred" and "insufficient funds" in outbox.reason
        ledger.before_send = lambda: None
        await bench.until(lambda: outbox.backlog == 0)
    assert {one.max_fee for one in transactions(ledger)} == {GWEI}  # refused is not outbid


# --- nonces and lost transactions -----------------------------------------------------------------------------------


async def test_an_evicted_transaction_comes_back(bench: Bench, autojump_clock: MockClock) -> None:
    bench.chain.automine = False
    ledger = Watched(bench.chain)
    async with bench.running(ledger) as outbox:
        outbox.add(bench.record(1))
        await bench.until(lambda: bench.chain.pending)
        bench.chain.evict()
        await bench.until(lambda: bench.chain.pending)
        bench.chain.mine()
        await bench.until(lambda: outbox.backlog == 0)
    assert len(bench.chain.records()) == bench.chain.nonce(ALICE) == 1


async def test_the_next_statement_takes_the_place_of_one_that_others_recorded(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """No transaction of ours is left to revert, and no nonce is skipped."""
    bench.chain.automine = False
    async with bench.running(bench.ledger()) as outbox:
        for round_ in (1, 2):
            outbox.add(bench.record(round_))
        await bench.until(lambda: bench.chain.pending)
        mine = list(bench.chain._pending.items())
        bench.chain.evict()
        record_by(bench, BOB, 1)
        bench.chain.mine()
        bench.chain._pending.update(mine)  # the pool had it all the time
        await bench.until(lambda: outbox.head is not None and outbox.head.height == 1)
        await bench.until(lambda: list(bench.chain._pending.items()) != mine)
        bench.chain.mine()
        await bench.until(lambda: outbox.backlog == 0)
    assert [record.submitter for record in bench.chain.records()] == [BOB, ALICE]
    assert bench.chain.nonce(ALICE) == 1


async def test_no_nonce_is_skipped_after_blocks_were_undone(bench: Bench, autojump_clock: MockClock) -> None:
    """Two of ours are undone, and somebody else records the first anew: the second's nonce would wait for ever."""
    bench.chain.finality = 10
    async with bench.running(bench.ledger()) as outbox:
        for round_ in (1, 2):
            outbox.add(bench.record(round_))
        await bench.until(lambda: outbox.backlog == 0)
        assert bench.chain.nonce(ALICE) == 2
        bench.chain.reorg(2)
        record_by(bench, BOB, 1)
        await bench.until_recorded(2)
    assert [record.submitter for record in bench.chain.records()] == [BOB, ALICE]
    assert bench.chain.nonce(ALICE) == 1


async def test_an_error_for_what_landed_is_paid_once(bench: Bench, autojump_clock: MockClock) -> None:
    """The node says no, and passes the transaction on all the same."""
    ledger = Watched(bench.chain)
    bench.chain.automine = False

    def refuse_and_pass_on() -> None:
        ledger.before_send = lambda: None
        bench.chain.submit(ledger.sent[-1])
        raise LedgerRejected("exceeds the configured cap")

    ledger.before_send = refuse_and_pass_on
    async with bench.running(ledger) as outbox:
        outbox.add(bench.record(1))
        await trio.sleep(20)
        bench.chain.mine(2)
        await bench.until(lambda: outbox.backlog == 0)
        await trio.sleep(600)
        bench.chain.mine(5)
    assert len(bench.chain.records()) == bench.chain.nonce(ALICE) == 1


# --- outages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds_wait", [False, True])
async def test_the_end_of_an_outage_is_noticed_soon(
    bench: Bench, autojump_clock: MockClock, rounds_wait: bool
) -> None:
    """At once, nearly, when rounds wait for it: they would be stopped by our sleep instead of the ledger."""
    terms = bench.federation.charter
    if rounds_wait:
        terms = msgspec.structs.replace(terms, schedule=Schedule(rounds=3, max_ahead=2))
    ledger = bench.ledger()
    ledger.down = True
    with bench.journal() as journal:
        outbox = bench.outbox(ledger, journal)
        outbox._charter = msgspec.structs.replace(bench.federation.charter, schedule=terms.schedule)
        async with trio.open_nursery() as nursery:
            for round_ in (1, 2):
                outbox.add(bench.record(round_))
            # It has been verified before: only the schedule differs here, which the contract would not accept.
            outbox.verified.set()
            nursery.start_soon(outbox.run)
            await trio.sleep(3600 * 5.3)
            ledger.down = False
            began = trio.current_time()
            await bench.until_recorded(1)
            assert (
                trio.current_time() - began <= (PAUSED_SECONDS if rounds_wait else BACKOFF_SECONDS[-1]) + 0.1
            )
            nursery.cancel_scope.cancel()


async def test_endpoints_that_disagree_stop_the_record_until_they_agree(
    bench: Bench, autojump_clock: MockClock
) -> None:
    ledger = bench.ledger()
    ledger.disagreement = "the RPC endpoints disagree on the ledger: a shows 1; b shows 2"
    with capture_logs() as lines:
        async with bench.running(ledger) as outbox:
            outbox.add(bench.record(1))
            await trio.sleep(60)
            assert (outbox.state, outbox.reason) == ("disagreeing", ledger.disagreement)
            assert outbox.head is None and bench.heads == [] and bench.chain.head().height == 0
            ledger.disagreement = ""
            await bench.until(lambda: outbox.backlog == 0)
            assert outbox.state == "ok"
    assert [line["event"] for line in lines].count("ledger disagreeing") == 1


async def test_a_contract_of_another_charter_ends_it(bench: Bench, autojump_clock: MockClock) -> None:
    bench.chain.identity = msgspec.structs.replace(bench.chain.identity, chain_id=1)
    with bench.journal() as journal:
        outbox = bench.outbox(bench.ledger(), journal)
        outbox.add(bench.record(1))
        with pytest.raises(WrongLedger, match="chain id"):
            await outbox.run()
    assert (outbox.state, outbox.verified.is_set()) == ("wrong", False)
    assert "chain id" in outbox.reason and bench.chain.head().height == 0


# --- reorganisations ------------------------------------------------------------------------------------------------


async def test_what_was_undone_is_sent_again_as_it_was(bench: Bench, autojump_clock: MockClock) -> None:
    bench.chain.finality = 10
    ledger = Watched(bench.chain)
    async with bench.running(ledger) as outbox:
        for round_ in (1, 2, 3):
            outbox.add(bench.record(round_))
        await bench.until(lambda: outbox.backlog == 0)
        bench.chain.reorg(2)
        await bench.until(lambda: outbox.backlog)
        began = trio.current_time()
        await bench.until_recorded(3)
        assert trio.current_time() - began < 5
    assert (len(set(ledger.sent)), len(ledger.sent)) == (3, 5)


async def test_a_reorganisation_below_finality_ends_it_for_good(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """Running or started again: the operators have to find out what happened."""
    bench.chain.finality = 2
    async with bench.running(bench.ledger()) as outbox:
        for round_ in (1, 2, 3):
            outbox.add(bench.record(round_))
        await bench.until(lambda: outbox.backlog == 0)
        bench.chain.mine(2)
        await bench.until(lambda: outbox.head is not None and outbox.head.finalized_height == 3)
    with bench.journal() as journal:
        outbox = bench.outbox(bench.ledger(), journal)
        with pytest.RaisesGroup(LedgerReorganised), capture_logs() as lines:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(outbox.run)
                await bench.until(lambda: outbox.head is not None)
                bench.chain.reorg(4)
    assert outbox.state == "reorganised" and "docs/ledger.md" in outbox.reason
    assert [line["log_level"] for line in lines if "gone on with" in line["event"]] == ["error"]
    bench.chain.mine(10)
    with bench.journal() as journal, pytest.raises(LedgerReorganised):
        await bench.outbox(bench.ledger(), journal).run()


async def test_another_statement_on_the_ledger_is_said(bench: Bench, autojump_clock: MockClock) -> None:
    """It takes more than f faulty attesters, but then nobody shall overlook it."""
    other = AuditedFederation()
    other.random.normal(size=3)
    other.add_round(survivors=(0, 1, 2))
    ledger = bench.ledger(BOB)
    made = other.rounds[0]
    with capture_logs() as lines:
        async with bench.running(bench.ledger()) as outbox:
            outbox.add(bench.record(1, turn=9))
            ledger.send(ledger.prepare(made.finalize))
            await bench.until(lambda: outbox.head is not None and outbox.head.height == 1)
    assert [line["round"] for line in lines if line["event"] == "the ledger has another statement"] == [1]


# --- everything at once ---------------------------------------------------------------------------------------------

FAULTS = ("down", "up", "fail", "lose", "mine", "evict", "reorg", "spike", "calm", "rival", "restart", "wait")


@settings(max_examples=30)
@given(story=st.lists(st.tuples(st.sampled_from(FAULTS), st.floats(0, 90)), max_size=25))
def test_nothing_is_lost_or_recorded_twice(story: list[tuple[str, float]]) -> None:
    with TemporaryDirectory() as path:
        in_virtual_time(lambda: _live_through(story, Bench(THREE_ROUNDS, Path(path))))


THREE_ROUNDS = AuditedFederation()
for _ in range(3):
    THREE_ROUNDS.add_round()


async def _live_through(story: list[tuple[str, float]], bench: Bench) -> None:
    """One attester alone with its chain; afterwards the chain behaves, and everything has to be there."""
    chain, ledger = bench.chain, Watched(bench.chain, fee_cap=100 * GWEI)
    chain.finality, chain.automine = 6, False
    steps = iter(story)
    done = False
    while not done:
        async with bench.running(ledger) as outbox:
            for round_ in (1, 2, 3):
                outbox.add(bench.record(round_))
            for fault, seconds in steps:
                _strike(fault, bench, ledger)
                await trio.sleep(seconds)
                if fault == "restart":
                    break
            else:
                await _calm_down(bench, ledger)
                done = True
    records = chain.records()
    assert [record.statement.round for record in records] == [1, 2, 3]
    used = [msgspec.msgpack.decode(raw)[1] for raw in ledger.sent]
    assert set(used) <= set(range(max(used, default=0) + 1)) and max(used, default=0) <= 5
    assert not [row for row in bench.rows() if row.state == "sent"]


def _strike(fault: str, bench: Bench, ledger: Watched) -> None:
    chain = bench.chain
    match fault:
        case "down" | "up":
            ledger.down = fault == "down"
        case "fail":
            ledger.fail_next = 3
        case "lose":
            ledger.lose_replies = 2
        case "mine":
            chain.mine()
        case "evict":
            chain.evict()
        case "reorg":
            depth = min(3, chain.head().block - chain.head().final.number)
            if depth:
                chain.reorg(depth)
        case "spike" | "calm":
            chain.base_fee = 150 * GWEI if fault == "spike" else GWEI
        case "rival" if chain.head().height < 3:
            record_by(bench, BOB, chain.head().height + 1)


async def _calm_down(bench: Bench, ledger: Watched) -> None:
    ledger.down, bench.chain.base_fee = False, GWEI
    with trio.fail_after(3600):
        while bench.chain.head().finalized_height < 3 or any(row.state == "sent" for row in bench.rows()):
            await trio.sleep(12)
            bench.chain.mine()
