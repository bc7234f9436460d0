"""A node whose history lost: the ledger has another one, which more attesters than f signed as well.

Three of four members go back to a backup, on a chain that was undone as deep, and sign other rounds than before without
minding it; the fourth has the rounds that were. Real engines, journals, archives and outboxes; network, ledger and
training in memory, virtual time.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from living_federation import (
    Crash,
    House,
    LivingFederation,
    crash_after,
    in_virtual_time,
    signed_within,
    unequal_bodies,
)

from folkmoot.ledger.errors import LedgerReorganised
from folkmoot.ledger.memory import MemoryLedger
from folkmoot.node.ledger_start import accept_chain
from folkmoot.node.store import Journal
from folkmoot.node.trainer import FakeTrainer
from folkmoot.protocol.charter_tables import Averaging, Schedule, Secrecy
from folkmoot.protocol.fork import decode_fork
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.record import decode_record
from folkmoot.protocol.typed_data import struct_hash
from folkmoot.protocol.types import Round

pytestmark = pytest.mark.integration

SECURE = {"averaging": Averaging(mode="secure", weight_cap=100), "secrecy": Secrecy(ring=8)}
ROUNDS, SHARED, LOST = 9, 2, 4
"""All rounds; the last one that both histories have; the last that only dave's has."""
DAVE = 3


async def away(house: House) -> None:
    """Does not run."""
    await trio.sleep_forever()


def have(members: list[int], round_: Round) -> Callable[[LivingFederation], bool]:
    """These are beyond that round, and the ledger has it."""

    def reached(federation: LivingFederation) -> bool:
        done = all(federation.houses[member].latest >= round_ for member in members)
        return done and federation.chain.head().height >= round_

    return reached


async def part(federation: LivingFederation, keep: Path, lost: Round) -> None:
    """Rounds that all had; then the chain, and all homes but dave's, go back to `SHARED` and do other ones."""
    everybody, others = [0, 1, 2, DAVE], [0, 1, 2]
    await federation.run(until=have(everybody, SHARED))
    for member in others:
        shutil.copytree(federation.houses[member].path, keep / str(member))
    shared = federation.chain.head().block
    await federation.run(until=have(everybody, lost))
    federation.chain.reorg(federation.chain.head().block - shared)
    federation.chain.evict()
    for member in others:
        house = federation.houses[member]
        shutil.rmtree(house.path)
        shutil.copytree(keep / str(member), house.path)
        forget_ledger(house)
        house.forgets = True  # else it would sit out, as dave tells it what it had signed
        house.trainer = FakeTrainer(federation.charter.model.parameters, f"other {member}", seed=7, delay=1.0)
        house.watched.rounds = {
            number: one for number, one in house.watched.rounds.items() if number <= SHARED
        }
    await federation.run({DAVE: away}, until=have(others, lost - 1))


async def accept(house: House) -> None:
    """The node stops at a chain that lost what was final, until its operator accepts it."""
    with pytest.RaisesGroup(LedgerReorganised, flatten_subgroups=True, allow_unwrapped=True):
        await house.live()
    with Journal.open(house.store) as journal:
        accept_chain(journal, house.federation.chain.head(), house.federation.chain.records())
    forget_ledger(house)


def forget_ledger(house: House) -> None:
    """As a new process does."""
    house.ledger = MemoryLedger(house.federation.chain, bytes([house.me + 1]) * 20)


def play(
    path: Path, come_back: Callable[[House], object], lost: Round = LOST, **terms: object
) -> LivingFederation:
    """The whole story; dave comes back as `come_back` says, with rounds up to `lost` that nobody else has."""

    async def story() -> LivingFederation:
        schedule = Schedule(rounds=ROUNDS, max_ahead=20)
        federation = LivingFederation(path / "homes", schedule=schedule, **terms)
        await part(federation, path / "backups", lost)

        async def follow(house: House) -> None:
            await accept(house)
            await come_back(house)  # type: ignore[misc]

        await federation.run({DAVE: follow})
        return federation

    return in_virtual_time(story)


def check(federation: LivingFederation, lost: Round = LOST) -> None:
    """Dave follows the ledger, kept the proof, signed one word in each place, and takes part again."""
    dave = federation.houses[DAVE]
    recorded = {record.statement.round: record for record in federation.chain.records()}
    for house in federation.houses:
        assert house.latest == ROUNDS
        assert all(
            one.model.root == recorded[number].statement.model for number, one in house.watched.rounds.items()
        )
    assert dave.watched.rolled and set(dave.watched.rolled) == {SHARED + 1}

    own = [signed for signed in dave.signed() if signed.member == DAVE]
    assert unequal_bodies(own) == {}
    assert DAVE in dave.watched.rounds[ROUNDS].participants

    for number in dave.archive.rounds():
        statement = decode_record(dave.archive.record(number) or b"").attestations[0].body
        assert struct_hash(statement) == recorded[number].digest
    fork = decode_fork(dave.archive.forks()[0].read_bytes())
    assert fork.round == SHARED + 1 and struct_hash(fork.recorded.statement) == recorded[fork.round].digest
    assert fork.record is not None and fork.record.attestations
    mine = fork.record.attestations[0].body
    assert isinstance(mine, Statement) and struct_hash(mine) == fork.held != recorded[fork.round].digest
    assert mine.previous == fork.recorded.statement.previous
    twice = {one.member for one in fork.record.attestations} & {
        one.member for one in fork.recorded.attestations
    }
    names = {federation.charter.members[member].name for member in twice}
    assert names and {name for name, kind in dave.watched.accusations if kind == "equivocation"} >= names
    aside = list((dave.archive.root / "forks").glob("*.record"))
    assert len(aside) == lost - SHARED
    assert all(list(signed_within(decode_record(path.read_bytes()))) for path in aside)


@pytest.mark.parametrize("terms", [{}, SECURE], ids=["open", "secure"])
def test_a_node_whose_history_lost_follows_the_ledger(tmp_path: Path, terms: dict[str, object]) -> None:
    check(play(tmp_path, House.live, **terms))


@pytest.mark.parametrize("word", ["rolled-back", "began", "adopted"])
def test_it_may_die_while_it_rolls_back(tmp_path: Path, word: str) -> None:
    async def die_once(house: House) -> None:
        with pytest.RaisesGroup(Crash, flatten_subgroups=True, allow_unwrapped=True):
            await house.live(on_append=crash_after(word))
        await trio.sleep(1.0)
        await house.live()

    check(play(tmp_path, die_once))


def test_it_may_die_before_it_has_noted_that_it_rolls_back(tmp_path: Path) -> None:
    """The record is further than what is read again after a restart: it must not count as this node's own."""

    async def die_in_between(house: House) -> None:
        await house.live_until(lambda: house.engine is not None and house.engine.machine.contradicted)
        await trio.sleep(1.0)
        await house.live()

    check(play(tmp_path, die_in_between, lost=7), lost=7)
