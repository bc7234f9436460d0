"""Amendments go through the outbox too: before statements, once, and given up where the ledger refuses them."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
import trio
from audited_federation import AuditedFederation
from living_federation import in_virtual_time
from msgspec.structs import replace
from outbox_bench import BOB, Bench, Watched

from folkmoot.ledger.calls import Amend, Finalize
from folkmoot.ledger.memory_chain import Transaction
from folkmoot.protocol.amending import compute_changes, make_amendment
from folkmoot.protocol.typed_data import signing_digest, struct_hash


def call(federation: AuditedFederation, effective: int = 100, number: int = 1) -> Amend:
    """Dave leaves; signed by everybody."""
    before = federation.charter
    after = replace(before, members=before.members[:3])
    changes = compute_changes(before, after)
    amendment = make_amendment(
        federation.federation.id, number, federation.federation.id, effective, after, changes
    )
    digest = signing_digest(federation.domain, amendment)
    keys = sorted((keys.audit for keys in federation.keys), key=lambda key: key.address)
    return Amend(amendment, tuple(key.sign(digest) for key in keys))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    federation = AuditedFederation()
    for _ in range(2):
        federation.add_round()
    return Bench(federation, tmp_path)


def play(story: Callable[[], Awaitable[None]]) -> None:
    in_virtual_time(story)


def kinds(ledger: Watched) -> list[type]:
    return [type(msgspec.msgpack.decode(raw, type=Transaction).call) for raw in ledger.sent]


def test_it_comes_before_statements_and_leaves_a_row(bench: Bench) -> None:
    async def story() -> None:
        ledger, order = Watched(bench.chain), call(bench.federation)
        async with bench.running(ledger) as outbox:
            outbox.amend(order)
            outbox.amend(order)
            outbox.add(bench.record(1))
            assert outbox.is_amending
            await bench.until(lambda: not outbox.is_amending)
            await bench.until_recorded(1)
        assert [record.amendment for record in bench.chain.amendments()] == [order.amendment]
        assert kinds(ledger) == [Amend, Finalize]
        with bench.journal() as journal:
            assert len(journal.outbox_of(struct_hash(order.amendment))) == 1

    play(story)


def test_what_the_ledger_refuses_is_given_up_and_statements_go_on(bench: Bench) -> None:
    async def story() -> None:
        ledger = Watched(bench.chain)
        async with bench.running(ledger) as outbox:
            outbox.amend(call(bench.federation, effective=3))
            outbox.add(bench.record(1))
            await bench.until_recorded(1)
            assert not outbox.is_amending
        assert bench.chain.amendments() == []

    play(story)


def test_one_that_somebody_else_has_recorded_is_done(bench: Bench) -> None:
    async def story() -> None:
        order = call(bench.federation)
        other = bench.ledger(BOB)
        other.send(other.prepare(order))
        ledger = Watched(bench.chain)
        async with bench.running(ledger) as outbox:
            outbox.amend(order)
            await bench.until(lambda: not outbox.is_amending)
        assert ledger.sent == []

    play(story)


def test_after_a_crash_the_same_bytes_are_sent_again(bench: Bench) -> None:
    async def story() -> None:
        bench.chain.automine = False
        order, sent = call(bench.federation), []
        for _ in range(2):
            ledger = Watched(bench.chain)
            async with bench.running(ledger) as outbox:
                outbox.amend(order)
                await bench.until(lambda seen=ledger: seen.sent)  # type: ignore[misc]
            sent += ledger.sent[:1]
            bench.chain.evict()
        assert sent[0] == sent[1]

    play(story)


def test_a_model_is_waited_for_until_the_ledger_has_it(bench: Bench) -> None:
    async def story() -> None:
        model = bench.federation.rounds[0].statement.model
        async with bench.running(bench.ledger()) as outbox, trio.open_nursery() as nursery:
            found: list[bool] = []

            async def wait(wanted: bytes) -> None:
                found.append(await outbox.await_model(wanted))

            nursery.start_soon(wait, model)
            await trio.sleep(10)
            assert found == []
            outbox.add(bench.record(1))
            await bench.until(lambda: found)
            await wait(b"\x09" * 32)
            assert found == [True, False]

    play(story)
