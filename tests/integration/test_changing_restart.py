"""A node that dies at any write of its journal around a change of the charter goes on under the right one.

Real engine, journal, archive, codec and governance; network, ledger and training in memory, virtual time. A member
leaves, and comes back two rounds later, while another one dies.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from changing_federation import ChangingFederation, ChangingHouse
from living_federation import House, in_virtual_time, survive

from folkmoot.protocol.charter_tables import Averaging, Schedule, Secrecy

pytestmark = pytest.mark.integration

SECURE = {"averaging": Averaging(mode="secure", weight_cap=100), "secrecy": Secrecy(ring=8)}
ROUNDS, LEAVES, RETURNS = 7, 3, 6
DAVE = 3
CALLS = 110
"""Calls of the write hook that a member makes at least."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where the system has such a folder."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as name:
        yield Path(name)


async def come_back(house: House) -> None:
    """Live until removed, and live on from the same home when taken back."""
    assert isinstance(house, ChangingHouse)
    while house.latest < ROUNDS:
        await house.live()
        await trio.sleep(1.0)


async def take_back(federation: ChangingFederation) -> None:
    """As soon as the ledger has him removed: it keeps one role to come for each member."""
    while federation.chain.head().height < LEAVES - 1:  # noqa: ASYNC110 - in virtual time
        await trio.sleep(0.05)
    federation.amend(federation.with_again("dave"), RETURNS)


def play(path: Path, deaths: Mapping[int, Iterable[int]], **terms: object) -> ChangingFederation:
    """All rounds, dave away in two of them; the members in `deaths` die at these writes of their lives."""

    async def story() -> ChangingFederation:
        schedule = Schedule(rounds=ROUNDS, max_ahead=1)
        federation = ChangingFederation(path, schedule=schedule, **terms)
        federation.amend(federation.without("dave"), LEAVES)
        lives = {member: partial(survive, calls=calls) for member, calls in deaths.items()}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_back, federation)
            await federation.run({DAVE: come_back, **lives})
        return federation

    try:
        return in_virtual_time(story)
    finally:
        shutil.rmtree(path)


def check(federation: ChangingFederation) -> None:
    """One model for each round, nobody contradicts himself, dave is in no model of the rounds without him."""
    recorded = {one.statement.round: one.statement for one in federation.chain.records()}
    assert sorted(recorded) == list(range(1, ROUNDS + 1))
    assert recorded[LEAVES].config != recorded[LEAVES - 1].config
    assert recorded[RETURNS].config != recorded[LEAVES].config
    for house in federation.houses:
        for number, promoted in house.watched.rounds.items():
            assert promoted.model.root == recorded[number].model
            if LEAVES <= number < RETURNS:
                assert DAVE not in promoted.participants
        assert house.watched.accusations == []


@pytest.mark.parametrize("terms", [{}, SECURE], ids=["open", "secure"])
def test_a_member_leaves_and_comes_back(folder: Path, terms: Mapping[str, object]) -> None:
    federation = play(folder / "run", {}, **terms)
    check(federation)
    houses = [house for house in federation.houses if isinstance(house, ChangingHouse)]
    assert [house.terms for house in houses[:3]] == [[1, LEAVES, RETURNS]] * 3
    assert houses[DAVE].left >= 1 and houses[DAVE].terms[-1] == RETURNS
    assert any(DAVE in promoted.participants for promoted in houses[0].watched.rounds.values())


@pytest.mark.parametrize("victim", [1, 2])
@pytest.mark.parametrize("terms", [{}, SECURE], ids=["open", "secure"])
def test_another_member_may_die_at_any_write(folder: Path, victim: int, terms: Mapping[str, object]) -> None:
    for call in range(1 + victim, CALLS, 13):
        federation = play(folder / "run", {victim: [call, call // 2 + 3]}, **terms)
        check(federation)
        assert federation.houses[victim].crashes >= 1
