"""A ledger that is away for long, under a whole federation: rounds go on as far as `max_ahead`, and nothing is lost."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
from living_federation import House, LivingFederation, in_virtual_time

from folkmoot.ledger.errors import LedgerReorganised
from folkmoot.ledger.memory import MemoryLedger
from folkmoot.node.ledger_start import accept_chain, read_final_block
from folkmoot.node.outbox import PAUSED_SECONDS
from folkmoot.node.store import Journal
from folkmoot.protocol.charter_tables import Averaging, Schedule

ROUNDS, AHEAD = 7, 3
OUTAGE = 600.0


def tell(path: Path, story: Callable[[LivingFederation], Awaitable[None]]) -> None:
    async def begin() -> None:
        schedule = Schedule(rounds=ROUNDS, max_ahead=AHEAD)
        await story(
            LivingFederation(path / "federation", schedule=schedule, averaging=Averaging(codec="f32"))
        )

    in_virtual_time(begin)


async def live_through_outage(house: House, began: int) -> None:
    """Live; the ledger goes after round `began` and comes back `OUTAGE` seconds later."""
    house.ledger.down = began == 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.live)
        # Not before this very node has seen that round on the ledger: it counts from there how far it may go ahead.
        while house.recorded < began:  # noqa: ASYNC110 - in virtual time
            await trio.sleep(0.05)
        house.ledger.down = True
        await trio.sleep(OUTAGE)
        assert house.latest <= house.federation.chain.head().height + AHEAD
        house.ledger.down = False


@pytest.mark.parametrize("began", [0, 2])
def test_rounds_go_on_without_the_ledger_until_they_are_too_far_ahead(tmp_path: Path, began: int) -> None:
    async def story(federation: LivingFederation) -> None:
        stopped_at = heard_again = 0.0

        async def watch() -> None:
            nonlocal stopped_at, heard_again
            await _until(lambda: min(house.latest for house in federation.houses) >= began + AHEAD)
            stopped_at = trio.current_time()
            await _until(lambda: not federation.houses[0].ledger.down)
            back = trio.current_time()
            await _until(lambda: federation.chain.head().height > began + 1)
            heard_again = trio.current_time() - back

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            life = partial(live_through_outage, began=began)
            await federation.run(dict.fromkeys(range(4), life))
        assert stopped_at < OUTAGE / 2
        # Rounds stand still, and their time is nobody's to sleep away.
        assert heard_again <= PAUSED_SECONDS + 0.5
        federation.check()
        assert [record.statement.round for record in federation.chain.records()] == list(range(1, ROUNDS + 1))

    tell(tmp_path, story)


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - in virtual time
        await trio.sleep(0.05)


def test_what_a_deep_reorganisation_undid_is_recorded_again_once_it_is_accepted(tmp_path: Path) -> None:
    """Nothing was lost with the chain: statements and signatures lie in every attester's archive."""

    async def story(federation: LivingFederation) -> None:
        await federation.run()
        federation.chain.reorg(federation.chain.head().block)
        assert federation.chain.head().height == 0
        with pytest.raises(ExceptionGroup) as caught:
            await federation.run()
        assert caught.group_contains(LedgerReorganised) and caught.value.split(LedgerReorganised)[1] is None
        for house in federation.houses:
            house.ledger = MemoryLedger(federation.chain, bytes([house.me + 1]) * 20)
            with Journal.open(house.store) as journal:
                assert read_final_block(journal) is not None
                assert (
                    accept_chain(journal, federation.chain.head(), federation.chain.records()) >= ROUNDS - 2
                )
        await federation.run()
        federation.check()
        assert [record.statement.round for record in federation.chain.records()] == list(range(1, ROUNDS + 1))

    tell(tmp_path, story)
