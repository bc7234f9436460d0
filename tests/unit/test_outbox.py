"""The outbox over the ledger in memory, in virtual time: outages, lost replies, crashes, rivals and undone blocks."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from audited_federation import AuditedFederation
from living_federation import Crash, crash_at, without_threads
from outbox_bench import ALICE, BOB, Bench, Watched
from structlog.testing import capture_logs
from trio.testing import MockClock

from folkmoot.ledger.errors import LedgerRejected, LedgerUnavailable, NonceUsed


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


async def test_statements_are_recorded_in_order_however_they_come(
    bench: Bench, autojump_clock: MockClock
) -> None:
    async with bench.running(bench.ledger()) as outbox:
        for round_ in (3, 1, 2, 2):
            outbox.add(bench.record(round_))
        assert outbox.backlog == 3
        await bench.until(lambda: outbox.backlog == 0)
        assert outbox.head is not None and outbox.head.height == 3
    assert [record.statement.round for record in bench.chain.records()] == [1, 2, 3]
    assert bench.heads[-1] == 3
    assert {row.state for row in bench.rows()} == {"final"}


async def test_a_long_outage_shows_and_then_drains_in_order(bench: Bench, autojump_clock: MockClock) -> None:
    ledger = bench.ledger()
    ledger.down = True
    with capture_logs() as lines:
        async with bench.running(ledger) as outbox:
            for round_ in (1, 2, 3):
                outbox.add(bench.record(round_))
            await trio.sleep(6 * 3600)
            assert (outbox.state, outbox.backlog) == ("unreachable", 3)
            ledger.down = False
            await bench.until_recorded(3)
            await bench.until(lambda: outbox.backlog == 0)
            assert outbox.state == "ok"
    assert [line["event"] for line in lines].count("ledger unreachable") == 1


async def test_single_failures_pass_unnoticed(bench: Bench, autojump_clock: MockClock) -> None:
    ledger = bench.ledger()
    async with bench.running(ledger) as outbox:
        for round_ in (1, 2, 3):
            outbox.add(bench.record(round_))
            ledger.fail_next = round_
            await bench.until_recorded(round_)


async def test_an_error_for_a_transaction_that_landed_sends_no_second_one(
    bench: Bench, autojump_clock: MockClock
) -> None:
    ledger = Watched(bench.chain)
    ledger.lose_replies = 1
    async with bench.running(ledger) as outbox:
        outbox.add(bench.record(1))
        await bench.until(lambda: outbox.head is not None and outbox.head.height == 1)
    assert len(set(ledger.sent)) == 1
    assert bench.chain.nonce(ALICE) == 1
    assert len(bench.rows()) == 1


async def test_an_error_for_a_pending_transaction_sends_the_same_bytes_again(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.chain.automine = False
    ledger = Watched(bench.chain)
    ledger.lose_replies = 2
    async with bench.running(ledger) as outbox:
        outbox.add(bench.record(1))
        await bench.until(lambda: len(ledger.sent) >= 3)
        bench.chain.mine()
        await bench.until_recorded(1)
    assert len(set(ledger.sent)) == 1


@pytest.mark.parametrize("call", range(1, 11))
async def test_a_crash_around_any_write_records_once(
    bench: Bench, autojump_clock: MockClock, call: int
) -> None:
    """Odd calls die before the commit, even ones after it: verifying, finality, writing the transaction down, finality
    again, settling."""
    before, after = Watched(bench.chain), Watched(bench.chain)
    with pytest.RaisesGroup(Crash, flatten_subgroups=True), bench.journal(on_write=crash_at(call)) as journal:
        outbox = bench.outbox(before, journal)
        outbox.add(bench.record(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
    async with bench.running(after) as outbox:
        outbox.add(bench.record(1))
        outbox.add(bench.record(2))
        await bench.until_recorded(2)
    assert len(bench.chain.records()) == bench.chain.nonce(ALICE) == 2
    assert len({*before.sent, *after.sent}) == 2


async def test_a_crash_after_sending_sends_the_same_bytes(bench: Bench, autojump_clock: MockClock) -> None:
    """The transaction is in the journal and perhaps under way: another one would take another nonce and pay twice."""
    bench.chain.automine = False
    first, second = Watched(bench.chain), Watched(bench.chain)
    async with bench.running(first) as outbox:
        outbox.add(bench.record(1))
        await bench.until(lambda: first.sent)
    async with bench.running(second) as outbox:
        outbox.add(bench.record(1))
        await bench.until(lambda: second.sent)
        bench.chain.mine()
        await bench.until_recorded(1)
    assert set(first.sent) == set(second.sent)


async def test_two_that_submit_the_same_round_record_it_once(bench: Bench, autojump_clock: MockClock) -> None:
    """The second transaction reverts; its sender goes on with the next round."""
    bench.chain.automine = False
    async with (
        bench.running(bench.ledger(ALICE), ALICE) as alice,
        bench.running(bench.ledger(BOB), BOB) as bob,
    ):
        for round_ in (1, 2, 3):
            alice.add(bench.record(round_))
            bob.add(bench.record(round_))
            await trio.sleep(3)
            bench.chain.mine(2)
            await bench.until(lambda: alice.backlog == bob.backlog == 0)
    assert [record.statement.round for record in bench.chain.records()] == [1, 2, 3]
    states = [row.state for submitter in (ALICE, BOB) for row in bench.rows(submitter)]
    assert states.count("final") == 3 and set(states) == {"final", "dropped"}


async def test_a_statement_that_others_recorded_is_dropped(bench: Bench, autojump_clock: MockClock) -> None:
    ledger = Watched(bench.chain)
    bench.federation.record_on(bench.ledger(BOB))
    async with bench.running(ledger) as outbox:
        for round_ in (1, 2, 3):
            outbox.add(bench.record(round_))
        await bench.until(lambda: outbox.head is not None)
        assert outbox.backlog == 0
        outbox.add(bench.record(2))
        await trio.sleep(60)
    assert ledger.sent == [] and bench.rows() == []


async def test_the_next_attester_steps_in_for_a_dead_one(bench: Bench, autojump_clock: MockClock) -> None:
    patience = bench.federation.charter.schedule.submit_after
    async with bench.running(bench.ledger(BOB), BOB) as bob:
        start = trio.current_time()
        for round_ in (1, 2, 3):
            bob.add(bench.record(round_, turn=1))
        await trio.sleep(patience * 0.9)
        assert bench.chain.head().height == 0
        await bench.until_recorded(3)
        # Each statement waits its own patience, counted from when it came to be next in line.
        assert 3 * patience <= trio.current_time() - start < 5 * patience


async def test_those_whose_turn_it_is_not_stay_quiet(bench: Bench, autojump_clock: MockClock) -> None:
    alice, bob = Watched(bench.chain, ALICE), Watched(bench.chain, BOB)
    async with bench.running(alice, ALICE) as first, bench.running(bob, BOB) as second:
        for round_ in (1, 2, 3):
            first.add(bench.record(round_, turn=0))
            second.add(bench.record(round_, turn=1))
            await bench.until_recorded(round_)
        await trio.sleep(60)
    assert (len(alice.sent), bob.sent) == (3, [])


async def test_a_nonce_that_another_transaction_took_means_a_new_one(
    bench: Bench, autojump_clock: MockClock
) -> None:
    ledger = Watched(bench.chain)

    def take_nonce() -> None:
        ledger.before_send = lambda: None
        raise NonceUsed("nonce too low", "prepare the statement again")

    ledger.before_send = take_nonce
    async with bench.running(ledger) as outbox:
        outbox.add(bench.record(1))
        await bench.until_recorded(1)
    assert [row.state for row in bench.rows()] == ["dropped", "final"]


async def test_a_refused_statement_is_logged_once_and_tried_again(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """No money on the gas key, say: the operator reads it, mends it, and nothing else is to be done."""
    ledger = Watched(bench.chain)

    def refuse() -> None:
        raise LedgerRejected("insufficient funds for gas * price + value")

    ledger.before_send = refuse
    with capture_logs() as lines:
        async with bench.running(ledger) as outbox:
            outbox.add(bench.record(1))
            await trio.sleep(600)
            assert bench.chain.head().height == 0 and len(ledger.sent) > 10
            ledger.before_send = lambda: None
            await bench.until_recorded(1)
    refusals = [line for line in lines if "refused" in line["event"]]
    assert len(refusals) == 1 and "insufficient funds" in refusals[0]["reason"]


async def test_a_reverted_transaction_is_not_sent_for_ever(bench: Bench, autojump_clock: MockClock) -> None:
    """Somebody else's came first and was undone later: what reverted then stays reverted, a new one is needed."""
    ledger = Watched(bench.chain)
    bench.chain.automine = False

    def overtake() -> None:
        ledger.before_send = lambda: None
        rival = bench.ledger(BOB)
        rival.send(rival.prepare(made.finalize))

    made = bench.federation.rounds[0]
    ledger.before_send = overtake
    async with bench.running(ledger) as outbox:
        outbox.add(bench.record(1))
        await bench.until(lambda: ledger.sent)
        bench.chain.mine(2)
        await bench.until(lambda: outbox.head is not None and outbox.head.height == 1)
    assert bench.chain.records()[0].submitter == BOB
    assert [row.state for row in bench.rows()] == ["dropped"]


async def test_an_undone_block_is_recorded_again(bench: Bench, autojump_clock: MockClock) -> None:
    bench.chain.finality = 5
    async with bench.running(bench.ledger()) as outbox:
        for round_ in (1, 2, 3):
            outbox.add(bench.record(round_))
        await bench.until(lambda: outbox.head is not None and outbox.head.height == 3)
        assert outbox.backlog == 0
        bench.chain.reorg(2)
        assert bench.chain.head().height == 1
        await bench.until_recorded(3)
        bench.chain.mine(6)
        await bench.until(lambda: outbox.head is not None and outbox.head.finalized_height == 3)
        bench.chain.finality = 0
    assert [record.statement.round for record in bench.chain.records()] == [1, 2, 3]


@pytest.mark.parametrize("turn", [0, 1])
async def test_draining_submits_what_is_mine_and_ends(
    bench: Bench, autojump_clock: MockClock, turn: int
) -> None:
    with bench.journal() as journal:
        outbox = bench.outbox(bench.ledger(), journal)
        await outbox.step()
        for round_ in (1, 2, 3):
            outbox.add(bench.record(round_, turn))
        await outbox.drain()
    assert bench.chain.head().height == (3 if turn == 0 else 0)


@pytest.mark.parametrize("error", [LedgerUnavailable("down"), LedgerRejected("insufficient funds")])
async def test_draining_ends_without_an_error_when_the_ledger_takes_nothing(
    bench: Bench, autojump_clock: MockClock, error: Exception
) -> None:
    ledger = Watched(bench.chain)

    def fail() -> None:
        raise error

    ledger.before_send = fail
    with bench.journal() as journal:
        outbox = bench.outbox(ledger, journal)
        await outbox.step()
        outbox.add(bench.record(1))
        await outbox.drain()
    assert len(ledger.sent) == 1
