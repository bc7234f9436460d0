"""Checkpoints of several rounds, by backlog and by cadence, and attesting one by one; in virtual time."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from audited_federation import AuditedFederation
from living_federation import without_threads
from outbox_bench import ALICE, BOB, Bench, Watched
from trio.testing import MockClock

from folkmoot.ledger.calls import Attest, Call, Checkpoint, Finalize
from folkmoot.ledger.errors import NoFunds
from folkmoot.ledger.memory_chain import Transaction
from folkmoot.ledger.port import Ledger, PreparedTransaction
from folkmoot.node.logs import logger
from folkmoot.node.outbox import Outbox
from folkmoot.node.submissions import ATTEST_AFTER
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.messages import Signed

ROUNDS = 7
CAROL, DAVE = b"\x03" * 20, b"\x04" * 20


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """No threads: the autojump clock would let hours pass while one works."""
    with without_threads():
        yield


@pytest.fixture(scope="module")
def federation() -> AuditedFederation:
    federation = AuditedFederation()
    for _ in range(ROUNDS):
        federation.add_round()
    return federation


@pytest.fixture
def bench(federation: AuditedFederation, tmp_path: Path) -> Bench:
    return Bench(federation, tmp_path)


def calls(ledger: Watched) -> list[Call]:
    """What was sent, each transaction once."""
    sent = dict.fromkeys(ledger.sent)
    return [msgspec.msgpack.decode(raw, type=Transaction).call for raw in sent]


def rounds(call: Call) -> list[int]:
    assert isinstance(call, Checkpoint)
    return [statement.round for statement in call.statements]


def recorded(bench: Bench) -> list[int]:
    return [record.statement.round for record in bench.chain.records()]


@asynccontextmanager
async def living(
    bench: Bench, ledger: Ledger, submitter: bytes = ALICE, charter: Charter | None = None
) -> AsyncIterator[Outbox]:
    """An outbox under a charter that differs from the federation's."""
    founding = bench.federation.charter
    with bench.journal(submitter) as journal:
        outbox = Outbox(
            ledger, journal, founding, bench.note, logger(), charter_at=lambda _: charter or founding
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            yield outbox
            nursery.cancel_scope.cancel()


def with_cadence(charter: Charter, cadence: int, last: int = ROUNDS) -> Charter:
    return msgspec.structs.replace(
        charter,
        ledger=msgspec.structs.replace(charter.ledger, cadence=cadence),
        schedule=msgspec.structs.replace(charter.schedule, rounds=last),
    )


async def test_a_backlog_is_recorded_in_one_transaction(bench: Bench, autojump_clock: MockClock) -> None:
    ledger = Watched(bench.chain)
    ledger.down = True
    async with bench.running(ledger) as outbox:
        for round_ in range(1, 7):
            outbox.add(bench.record(round_))
        await trio.sleep(60)
        assert outbox.counts() == (6, 0, 0)
        ledger.down = False
        await bench.until(lambda: outbox.backlog == 0)
        outbox.add(bench.record(7))
        await bench.until_recorded(7)
    assert recorded(bench) == [1, 2, 3, 4, 5, 6, 7]
    assert [type(call) for call in calls(ledger)] == [Checkpoint, Finalize]
    assert bench.chain.nonce(ALICE) == 2


async def test_rounds_that_come_in_meanwhile_wait_for_the_next_transaction(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """Else each of them would replace what is pending, by an eighth more each time."""
    bench.chain.automine = False
    ledger = Watched(bench.chain)
    async with bench.running(ledger) as outbox:
        for round_ in range(1, 5):
            outbox.add(bench.record(round_))
        await bench.until(lambda: outbox.counts() == (0, 4, 0))
        for round_ in range(5, 8):
            outbox.add(bench.record(round_))
        await trio.sleep(10)
        assert outbox.counts() == (3, 4, 0)
        assert len(calls(ledger)) == 1
        bench.chain.mine()
        await bench.until(lambda: len(calls(ledger)) == 2)
        for _ in range(3):
            await trio.sleep(2)
            bench.chain.mine()
        await bench.until_recorded(7)


async def test_a_crash_with_a_checkpoint_under_way_records_once(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.chain.automine = False
    first, second = Watched(bench.chain), Watched(bench.chain)
    async with bench.running(first) as outbox:
        for round_ in range(1, 6):
            outbox.add(bench.record(round_))
        await bench.until(lambda: first.sent)
    async with bench.running(second) as outbox:
        for round_ in range(1, 6):
            outbox.add(bench.record(round_))
        await bench.until(lambda: second.sent)
        bench.chain.mine()
        await bench.until_recorded(5)
    assert set(first.sent) == set(second.sent)
    assert bench.chain.nonce(ALICE) == 1


async def test_a_checkpoint_that_came_too_late_is_made_anew(bench: Bench, autojump_clock: MockClock) -> None:
    bench.chain.automine = False
    ledger, rival = Watched(bench.chain), bench.ledger(BOB)
    async with bench.running(ledger) as outbox:
        for round_ in range(1, 6):
            outbox.add(bench.record(round_))
        await bench.until(lambda: outbox.counts().sent == 5)
        bench.chain.evict()
        rival.send(rival.prepare(bench.federation.rounds[0].finalize))
        bench.chain.mine()
        bench.chain.automine = True
        await bench.until_recorded(5)
    assert [rounds(call) for call in calls(ledger)] == [[1, 2, 3, 4, 5], [2, 3, 4, 5]]


async def test_a_reorganisation_of_a_checkpoint_is_mended(bench: Bench, autojump_clock: MockClock) -> None:
    bench.chain.finality = 3
    ledger = Watched(bench.chain)
    async with bench.running(ledger) as outbox:
        for round_ in range(1, 6):
            outbox.add(bench.record(round_))
        await bench.until(lambda: outbox.head is not None and outbox.head.height == 5)
        bench.chain.reorg(1)
        await bench.until_recorded(5)
    assert recorded(bench) == [1, 2, 3, 4, 5]
    assert len(calls(ledger)) == 1


async def test_the_charters_cadence_is_kept(bench: Bench, autojump_clock: MockClock) -> None:
    """Every third round, and the last one."""
    ledger = Watched(bench.chain)
    charter = with_cadence(bench.federation.charter, 3)
    async with living(bench, ledger, charter=charter) as outbox:
        heights = []
        for round_ in range(1, 8):
            outbox.add(bench.record(round_))
            await trio.sleep(30)
            heights.append(bench.chain.head().height)
    assert heights == [0, 0, 3, 3, 3, 6, 7]
    assert [type(call) for call in calls(ledger)] == [Checkpoint, Checkpoint, Finalize]


async def test_with_a_cadence_what_piled_up_goes_to_the_last_multiple(
    bench: Bench, autojump_clock: MockClock
) -> None:
    ledger = Watched(bench.chain)
    async with living(bench, ledger, charter=with_cadence(bench.federation.charter, 2, 100)) as outbox:
        for round_ in range(1, 8):
            outbox.add(bench.record(round_))
        await trio.sleep(30)
        assert outbox.counts() == (1, 0, 0)
    assert [rounds(call) for call in calls(ledger)] == [[1, 2, 3, 4, 5, 6]]


# --- attesting one by one ------------------------------------------------------------------------------------------

SUBMITTERS = (ALICE, BOB, CAROL, DAVE)


def lone(bench: Bench, member: int, round_: int = 1) -> Signed:
    """A member's own attestation."""
    return bench.federation.say(member, bench.federation.rounds[round_ - 1].statement)


@asynccontextmanager
async def outboxes(bench: Bench, ledgers: list[Watched]) -> AsyncIterator[list[Outbox]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(living(bench, ledger, submitter))
            for ledger, submitter in zip(ledgers, SUBMITTERS, strict=False)
        ]


def patience(bench: Bench) -> float:
    return ATTEST_AFTER * bench.federation.charter.schedule.submit_after


async def test_members_that_cannot_gather_signatures_attest_on_the_ledger(
    bench: Bench, autojump_clock: MockClock
) -> None:
    ledgers = [Watched(bench.chain, submitter) for submitter in SUBMITTERS[:3]]
    async with outboxes(bench, ledgers) as boxes:
        for member, outbox in enumerate(boxes):
            outbox.add_lone(lone(bench, member))
        await trio.sleep(patience(bench) - 10)
        assert not any(ledger.sent for ledger in ledgers)
        await bench.until_recorded(1)
        await trio.sleep(600)
    (record,) = bench.chain.records()
    assert record.statement == bench.federation.rounds[0].statement
    assert len(record.signers) == 3
    # Each paid for one transaction.
    assert [len(calls(ledger)) for ledger in ledgers] == [1, 1, 1]
    assert [bench.chain.nonce(submitter) for submitter in SUBMITTERS] == [1, 1, 1, 0]


async def test_one_attestation_is_sent_once_however_long_the_others_take(
    bench: Bench, autojump_clock: MockClock
) -> None:
    ledger = Watched(bench.chain)
    async with living(bench, ledger) as outbox:
        outbox.add_lone(lone(bench, 0))
        await trio.sleep(24 * 3600)
        assert outbox.state == "ok"
        assert (bench.chain.nonce(ALICE), bench.chain.head().height) == (1, 0)
        # A quorum's signatures after all: the whole statement at once.
        outbox.add(bench.record(1))
        await bench.until_recorded(1)
    assert [type(call) for call in calls(ledger)] == [Attest, Finalize]


async def test_a_restart_does_not_attest_again(bench: Bench, autojump_clock: MockClock) -> None:
    for _ in range(2):
        async with living(bench, bench.ledger()) as outbox:
            outbox.add_lone(lone(bench, 0))
            await trio.sleep(3600)
            assert outbox.state == "ok"
    assert bench.chain.nonce(ALICE) == 1


async def test_an_attestation_that_was_undone_is_sent_again(bench: Bench, autojump_clock: MockClock) -> None:
    bench.chain.finality = 5
    ledger = Watched(bench.chain)
    async with bench.running(ledger) as outbox:
        outbox.add(bench.record(1))
        await bench.until_recorded(1)
        outbox.add_lone(lone(bench, 0, round_=2))
        await bench.until(lambda: bench.chain.nonce(ALICE) == 2)
        await trio.sleep(5)
        bench.chain.reorg(1)
        assert bench.chain.nonce(ALICE) == 1
        await bench.until(lambda: bench.chain.nonce(ALICE) == 2)
    assert bench.chain.head().height == 1


class Poor(Watched):
    """An account that has nothing."""

    def prepare(
        self, call: Call, nonce: int | None = None, replaces: PreparedTransaction | None = None
    ) -> PreparedTransaction:
        raise NoFunds("insufficient funds", "send it some")


async def test_who_has_no_funds_leaves_it_to_the_others(bench: Bench, autojump_clock: MockClock) -> None:
    ledgers = [Poor(bench.chain, ALICE), *(Watched(bench.chain, one) for one in SUBMITTERS[1:])]
    async with outboxes(bench, ledgers) as boxes:
        for member, outbox in enumerate(boxes):
            outbox.add_lone(lone(bench, member))
        await bench.until_recorded(1)
        await bench.until(lambda: boxes[0].head is not None and boxes[0].head.height == 1)
        await bench.until(lambda: boxes[0].state == "ok")
    assert bench.chain.nonce(ALICE) == 0


async def test_attestations_do_not_count_for_a_round_that_is_recorded(
    bench: Bench, autojump_clock: MockClock
) -> None:
    ledger = Watched(bench.chain)
    async with living(bench, ledger) as outbox:
        outbox.add_lone(lone(bench, 0))
        outbox.add(bench.record(1))
        await bench.until_recorded(1)
        await trio.sleep(3600)
    assert [type(call) for call in calls(ledger)] == [Finalize]
