"""A node that dies at any write of its journal goes on when it is started again, and never contradicts itself.

PROTOCOL 2.10: journal first, then send; after a restart the same bytes. Every point at which a process can die between
two writes is tried in one process (real engine, journal, archive and codec; network, ledger and training in memory,
virtual time), and a handful of them with real daemons and SIGKILL.
"""

import errno
import os
import random
import shutil
import signal
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from daemons import founded
from living_federation import House, LivingFederation, in_virtual_time, survive, unequal_bodies

from folkmoot.node.disk import DiskFull, run_unless_full
from folkmoot.node.learning import DISCLOSURE
from folkmoot.node.network.memory import Faults
from folkmoot.node.store import KILL_AT_WRITE, Journal
from folkmoot.protocol.charter_tables import Averaging, Secrecy
from folkmoot.protocol.journal import SatOut, decode_entry
from folkmoot.testnet.home import Plan

pytestmark = pytest.mark.integration

SECURE = {"averaging": Averaging(mode="secure", weight_cap=100), "secrecy": Secrecy(ring=8)}
"""Secure mode on the ring that keeps state from round to round."""

LEAST_CALLS = 50
"""Two rounds are at least so many calls of the write hook (two for each commit)."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where the system has such a folder: a hundred federations make tens of thousands of fsyncs."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as name:
        yield Path(name)


def play(
    path: Path,
    deaths: Mapping[int, Iterable[int]],
    *,
    pause: float = 1.0,
    seed: int = 0,
    faults: Faults | None = None,
    **terms: object,
) -> list[int]:
    """Two rounds in which each member in `deaths` dies at these writes of its lives; how often each really did.

    `terms` are fields of the charter.

    Raises if the federation does not come to its end, or anybody signed two different things.
    """

    async def story() -> list[int]:
        federation = LivingFederation(path, seed=seed, faults=faults, **terms)
        lives = {member: partial(survive, calls=calls, pause=pause) for member, calls in deaths.items()}
        await federation.run(lives)
        federation.check()
        return [house.crashes for house in federation.houses]

    try:
        return in_virtual_time(story)
    finally:
        shutil.rmtree(path)


def proposers(path: Path) -> list[int]:
    """Who names the roster in the first round's attempts, in order."""

    async def look() -> list[int]:
        federation = LivingFederation(path).made.federation
        return list(federation.proposers(1, bytes.fromhex(federation.charter.model.initial)))

    return in_virtual_time(look)


@pytest.mark.parametrize("terms", [{}, SECURE], ids=["open", "secure"])
def test_the_proposer_may_die_at_every_write(folder: Path, terms: Mapping[str, object]) -> None:
    victim, call = proposers(folder / "look")[0], 0
    while True:
        call += 1
        crashes = play(folder / "run", {victim: [call]}, **terms)
        if not crashes[victim]:
            break
    assert call > LEAST_CALLS


@pytest.mark.parametrize("pause", [0.01, 9.0], ids=["back at once", "back when given up"])
@pytest.mark.parametrize("terms", [{}, SECURE], ids=["open", "secure"])
def test_another_member_may_die_at_every_fifth_write(
    folder: Path, pause: float, terms: Mapping[str, object]
) -> None:
    victim = proposers(folder / "look")[-1]
    for call in range(1, LEAST_CALLS, 5):
        assert play(folder / "run", {victim: [call]}, pause=pause, **terms)[victim] == 1


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("terms", [{}, SECURE], ids=["open", "secure"])
def test_all_may_die_again_and_again_on_a_bad_network(
    folder: Path, seed: int, terms: Mapping[str, object]
) -> None:
    rng = random.Random(seed)
    deaths = {member: [rng.randint(1, 60) for _ in range(rng.randint(0, 3))] for member in range(4)}
    faults = Faults(latency=(0.001, 0.3), stream_break=0.002, gossip_loss=0.3, gossip_duplicate=0.3)
    play(folder / "run", deaths, pause=rng.uniform(0.1, 8.0), seed=seed, faults=faults, **terms)


@pytest.mark.parametrize("terms", [{}, SECURE], ids=["open", "secure"])
def test_a_node_whose_disk_is_full_goes_on_when_there_is_room(
    folder: Path, terms: Mapping[str, object]
) -> None:
    """In one process, without a death: whatever found no room was said to nobody."""

    async def story(call: int) -> None:
        federation = LivingFederation(folder / "run", **terms)
        federation.houses[1].crashes = 0

        def no_room(number: int) -> None:
            if number == call:
                raise OSError(errno.ENOSPC, "no space left")

        async def live(house: House) -> None:
            full = await run_unless_full(partial(house.live, no_room))
            assert isinstance(full, DiskFull) and full.path == house.store
            house.crashes += 1
            await trio.sleep(3.0)
            await house.live()

        await federation.run({1: live})
        federation.check()
        assert federation.houses[1].crashes == 1

    for call in range(1, LEAST_CALLS, 13):  # before commits, and after them
        in_virtual_time(partial(story, call))
        shutil.rmtree(folder / "run")


def test_a_journal_from_an_older_copy_makes_its_node_sit_out(folder: Path) -> None:
    """It would sign again what it does not remember; its peers remember, and it asks them first."""

    async def story() -> None:
        federation = LivingFederation(folder / "run", rounds=8)
        victim = federation.houses[1]
        copy = folder / "copy.sqlite"

        async def live(house: House) -> None:
            shutil.copy(house.store, copy)
            await house.live_until(lambda: house.latest >= 3)
            for file in house.path.glob("store.sqlite*"):
                file.unlink()
            shutil.copy(copy, house.store)
            await house.live()

        await federation.run({1: live})
        federation.check()
        with Journal.open(victim.store, read_only=True) as journal:
            kinds = [decode_entry(body) for _, _, kind, body in journal.entries() if kind != DISCLOSURE]
        assert any(isinstance(entry, SatOut) for entry in kinds)
        # It sat out what it could have signed, and took part again afterwards.
        took_part = [round_ for round_, done in victim.watched.rounds.items() if done.included]
        assert 8 in took_part and 4 not in took_part

    in_virtual_time(story)


# --- real processes -------------------------------------------------------------------------------------------------

KILLS = ((2, 17), (30, 40))
"""The writes at which two daemons are killed in their first lives: starting, training, exchanging, voting, attesting.

With two of four gone there is no quorum, so the rounds wait for them.
"""


def test_daemons_killed_by_sigkill_go_on(tmp_path: Path) -> None:
    plan = Plan(nodes=4, rounds=20, example="breast-cancer")
    with founded(tmp_path / "testnet", plan) as daemons:
        others, victims = plan.names[:2], plan.names[2:]
        for name in others:
            daemons.start(name)
        for calls in KILLS:
            children = [
                daemons.start(name, {KILL_AT_WRITE: str(call)})
                for name, call in zip(victims, calls, strict=True)
            ]
            daemons.wait(lambda children=children: all(child.poll() is not None for child in children))  # type: ignore[misc]
            assert [child.exit_code for child in children] == [-signal.SIGKILL] * 2
        for name in victims:
            daemons.start(name)
        daemons.wait(daemons.are_done)
        statuses = [daemons.status(name) for name in plan.names]
    assert len({status.model_digest for status in statuses if status is not None}) == 1
    assert unequal_bodies(signed for name in plan.names for signed in daemons.signed_by(name)) == {}
    assert {status.refused.get("equivocation", 0) for status in statuses if status is not None} == {0}
