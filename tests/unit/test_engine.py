"""The engine among three others, in virtual time: what it does when disk, peers or training fail.

Real engines, journals, archives and payloads; network, ledger and training in memory (see `living_federation`).
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import trio
from living_federation import House, LivingFederation, in_virtual_time, signed_within
from structlog.testing import capture_logs

from folkmoot.node.engine import PROGRESS_SECONDS
from folkmoot.node.network.conduct import FAULTS
from folkmoot.node.payloads import Payloads
from folkmoot.node.store import PERMITTED, Journal, StoreError
from folkmoot.node.train.vectors import read_vector
from folkmoot.node.trainer import FakeTrainer, TrainerError
from folkmoot.protocol.charter_tables import Averaging
from folkmoot.protocol.effects import Effect
from folkmoot.protocol.equivocation import compute_slot
from folkmoot.protocol.events import Encoded, Event, PayloadArrived, TransferProgress
from folkmoot.protocol.journal import decode_entry
from folkmoot.protocol.messages import (
    Hello,
    KeyWanted,
    Ready,
    Roster,
    Signed,
    decode_frame,
    encode,
)
from folkmoot.protocol.round import RoundMachine
from folkmoot.protocol.types import Digest, MemberId, Round

ALICE, BOB, CAROL, DAVE = range(4)

Story = Callable[[LivingFederation], Awaitable[None]]


def tell(path: Path, story: Story, rounds: int = 2) -> None:
    """Run `story` with a new federation, whose updates are coded without loss."""

    async def begin() -> None:
        await story(LivingFederation(path / "federation", rounds=rounds, averaging=Averaging(codec="f32")))

    in_virtual_time(begin)


# --- the journal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", range(7, 40, 4))
def test_when_the_journal_fails_nothing_more_is_said_and_the_node_stops(tmp_path: Path, call: int) -> None:
    """Persist is a barrier: what could not be written down must not be known to anybody."""

    async def story(federation: LivingFederation) -> None:
        house = federation.houses[BOB]
        said_before: list[int] = []

        def disk_full(number: int) -> None:
            if number == call:
                said_before.append(len(house.said))
                raise StoreError("store.sqlite: disk full: check free space")

        async def live(house: House) -> None:
            with pytest.RaisesGroup(
                pytest.RaisesExc(StoreError, match="disk full"), flatten_subgroups=True, allow_unwrapped=True
            ):
                await house.live(disk_full)
            assert said_before == [len(house.said)]
            await house.live()

        await federation.run({BOB: live})
        federation.check()

    tell(tmp_path, story)


def test_everything_signed_is_in_the_journal_before_it_is_said(tmp_path: Path) -> None:
    async def story(federation: LivingFederation) -> None:
        for house in federation.houses:
            house.on_say = JournalFirst(house)
        await federation.run()

    tell(tmp_path, story)


class JournalFirst:
    """Fails where a house says something of its own that its journal lacks."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._known: set[Signed] = set()

    def __call__(self, data: bytes) -> None:
        mine = {
            signed
            for signed in signed_within(decode_frame(data))
            if signed.member == self._house.me
            and (isinstance(signed.body, Ready) or compute_slot(signed.body) is not None)
        }
        if not mine <= self._known:
            with Journal.open(self._house.store, read_only=True) as journal:
                rows = [body for _, _, kind, body in journal.entries() if kind != "disclosure"]
            self._known.update(signed for row in rows for signed in signed_within(decode_entry(row)))
        assert mine <= self._known


# --- peers ----------------------------------------------------------------------------------------------------------


def test_bad_frames_are_counted_logged_once_and_get_a_member_shut_out(tmp_path: Path) -> None:
    """Dave, a member, says nothing but nonsense; the others are a quorum without him."""

    async def babble(house: House) -> None:
        nonsense = [
            b"\x00",
            b"{}",
            b"\x93\xa5hello",
            bytes(1000),
            encode(Hello(1, 0, 0)) + b"!",
            *forged(house),
        ]
        async with house.federation.hub.open(house.me, lambda _: None, lambda *_: None) as network:
            for peer in (ALICE, BOB, CAROL):  # or his gossip has him shut out before a stream stands
                while "bad frame (control)" not in house.federation.houses[peer].once.counts():
                    await network.send(peer, nonsense[0])
                    await trio.sleep(0.1)
            while True:
                for data in nonsense:
                    for peer in (ALICE, BOB, CAROL):
                        await network.send(peer, data)
                    await network.publish(data)
                await trio.sleep(0.1)

    async def story(federation: LivingFederation) -> None:
        with capture_logs() as lines:
            await federation.run({DAVE: babble}, until=done_without_dave)
        federation.check((ALICE, BOB, CAROL))
        for house in federation.houses[:3]:
            counts = house.once.counts()
            assert counts["bad frame (control)"] + counts["bad frame (gossip)"] > FAULTS
        noted = [
            (line["event"], line["peer"])
            for line in lines
            if line["event"].startswith(("bad frame", "refused"))
        ]
        kinds = {(event, peer) for event, peer in noted}
        assert {("bad frame (control)", "dave"), ("bad frame (gossip)", "dave")} <= kinds
        assert all(noted.count(kind) <= 3 for kind in kinds)  # once by each of the three

    tell(tmp_path, story)


def forged(house: House) -> list[bytes]:
    """READYs in the name of somebody else, and of a member that does not exist."""
    base = bytes.fromhex(house.federation.charter.model.initial)
    body = Ready(1, base, bytes(2), bytes(32), bytes(32), bytes(32), 1)
    return [encode(Signed(member, body, bytes(64))) for member in (ALICE, 9_999)]


def done_without_dave(federation: LivingFederation) -> bool:
    houses = federation.houses[:DAVE]
    finished = all(house.engine is not None and house.engine.machine.finished for house in houses)
    return finished and federation.chain.head().height == federation.charter.schedule.rounds


class SealsWrongly(Payloads):
    """Seals to Carol what only Alice can open: Carol gets a payload without a key."""

    def _public_keys(self, recipients: Sequence[MemberId]) -> list[bytes]:
        keys = super()._public_keys(recipients)
        places = {member: place for place, member in enumerate(recipients)}
        if CAROL in places:
            keys[places[CAROL]] = keys[places[ALICE]]
        return keys


def test_a_node_tells_its_machine_at_most_once_a_second_that_payloads_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the chunks of a large model would fill the machine's queue."""
    told: defaultdict[RoundMachine, list[float]] = defaultdict(list)
    arrived: Counter[RoundMachine] = Counter()
    handle = RoundMachine.handle

    def watched(machine: RoundMachine, event: Event, now: float) -> list[Effect]:
        if isinstance(event, TransferProgress):
            told[machine].append(now)
        arrived[machine] += isinstance(event, PayloadArrived)
        return handle(machine, event, now)

    monkeypatch.setattr(RoundMachine, "handle", watched)
    tell(tmp_path, LivingFederation.run, rounds=3)
    assert len(told) == 4
    for machine, times in told.items():
        assert 2 <= len(times) < arrived[machine]
        assert all(later - earlier >= PROGRESS_SECONDS for earlier, later in pairwise(times))


def test_a_member_gets_the_key_that_its_sender_kept_from_it(tmp_path: Path) -> None:
    async def story(federation: LivingFederation) -> None:
        federation.houses[BOB].payloads = SealsWrongly
        await federation.run()
        federation.check()
        carol = federation.houses[CAROL]
        assert carol.once.counts()["bad sealed key"] >= 1
        assert any(isinstance(decode_frame(data), KeyWanted) for data in carol.said)
        for round_ in (1, 2):
            assert set(carol.watched.rounds[round_].participants) == {ALICE, BOB, CAROL, DAVE}

    tell(tmp_path, story)


class SpoilsFrames(Payloads):
    """Commits to a payload whose last frame fails its authentication."""

    def encode(
        self, round_: Round, roster: Digest, terms: Roster, recipients: Sequence[MemberId], update: Path
    ) -> Encoded:
        done = super().encode(round_, roster, terms, recipients, update)
        blob = bytearray(self._archive.read(done.payload))
        blob[-1] ^= 1
        return Encoded(round_, roster, self._archive.add_bytes(blob), done.key)


def test_an_ill_formed_payload_counts_as_zero_everywhere(tmp_path: Path) -> None:
    async def story(federation: LivingFederation) -> None:
        federation.houses[BOB].payloads = SpoilsFrames
        await federation.run()
        federation.check()
        for house in federation.houses:
            assert house.once.counts()["ill-formed payload"] == 2
        first = federation.houses[ALICE].watched.rounds[1]
        assert set(first.participants) == {ALICE, BOB, CAROL, DAVE}
        honest = [house for house in federation.houses if house.me != BOB]
        expected = await mean_of_updates(federation, honest, tmp_path)
        model = np.frombuffer(honest[0].models.read(first.model), dtype="<f4")
        assert np.abs(model - expected).max() < 1e-6

    tell(tmp_path, story, rounds=2)


async def mean_of_updates(
    federation: LivingFederation, houses: Sequence[House], path: Path
) -> "np.typing.NDArray[np.float64]":
    """The first model, from the updates that these houses' trainers make once more."""
    (path / "base").write_bytes(federation.initial)
    updates = []
    for house in houses:
        await house.trainer.fit(1, path / "base", path / "update")
        updates.append(read_vector(path / "update", federation.charter.model.parameters).astype(np.float64))
    return np.asarray(federation.made.base + np.mean(updates, axis=0), np.float64)


# --- training -------------------------------------------------------------------------------------------------------


def fake(federation: LivingFederation, member: MemberId, **kind: object) -> FakeTrainer:
    return FakeTrainer(federation.charter.model.parameters, str(member), **kind)  # type: ignore[arg-type]


def test_failed_training_costs_its_round_only(tmp_path: Path) -> None:
    async def story(federation: LivingFederation) -> None:
        dave = federation.houses[DAVE]
        dave.trainer = fake(federation, DAVE, delay=1.0, faults={1: TrainerError("crash", "out of memory")})
        with capture_logs() as lines:
            await federation.run()
        federation.check()
        included = {round_: done.included for round_, done in dave.watched.rounds.items()}
        # Round 1 ends late for dave: in some federations the proposer of round 2 has not waited for him.
        assert (included[1], included[3]) == (False, True)
        failures = [line for line in lines if line["event"] == "training failed"]
        assert failures and all("out of memory" in line["error"] for line in failures)

    tell(tmp_path, story, rounds=3)


def test_a_trainer_that_hangs_does_not_hold_the_others(tmp_path: Path) -> None:
    async def story(federation: LivingFederation) -> None:
        federation.houses[DAVE].trainer = fake(federation, DAVE, delay=1e9)
        await federation.run()
        federation.check()
        assert not any(done.included for done in federation.houses[DAVE].watched.rounds.values())

    tell(tmp_path, story)


def test_an_update_that_is_gone_after_a_restart_costs_its_round_only(tmp_path: Path) -> None:
    async def story(federation: LivingFederation) -> None:
        async def live(house: House) -> None:
            await house.live_until(lambda: has_said(house, Ready))
            shutil.rmtree(house.path / "updates")
            await house.live()

        await federation.run({DAVE: live})
        federation.check()

    tell(tmp_path, story)


def has_said(house: House, kind: type) -> bool:
    return any(
        isinstance(frame, Signed) and frame.member == house.me and isinstance(frame.body, kind)
        for frame in map(decode_frame, house.said)
    )


# --- falling behind -------------------------------------------------------------------------------------------------


def test_a_member_that_was_away_for_rounds_catches_up_by_snapshot(tmp_path: Path) -> None:
    async def story(federation: LivingFederation) -> None:
        alice, dave = federation.houses[ALICE], federation.houses[DAVE]

        async def live(house: House) -> None:
            await house.live_until(lambda: house.latest >= 1)
            while alice.latest < 4:  # noqa: ASYNC110 - in virtual time
                await trio.sleep(0.1)
            await house.live()

        await federation.run({DAVE: live})
        federation.check()
        assert 2 not in dave.watched.rounds and 3 not in dave.watched.rounds
        assert dave.watched.rounds[8].included
        assert dave.models.has(dave.watched.rounds[8].model)

    tell(tmp_path, story, rounds=8)


def test_lost_and_damaged_models_are_fetched_again(tmp_path: Path) -> None:
    async def story(federation: LivingFederation) -> None:
        alice, bob = federation.houses[ALICE], federation.houses[BOB]

        async def lose(house: House, how: Callable[[Path], None]) -> None:
            await house.live_until(lambda: house.latest >= 2)
            for path in house.models.root.glob("*.f32"):
                how(path)
            await house.live()

        def damage(path: Path) -> None:
            path.write_bytes(bytes(path.stat().st_size))

        await federation.run({ALICE: partial(lose, how=Path.unlink), BOB: partial(lose, how=damage)})
        federation.check()
        assert alice.watched.rounds[6].included and bob.watched.rounds[6].included

    tell(tmp_path, story, rounds=6)


def test_without_a_quorum_the_rounds_wait_and_then_go_on(tmp_path: Path) -> None:
    async def story(federation: LivingFederation) -> None:
        async def live(house: House) -> None:
            await house.live_until(lambda: house.latest >= 1)
            await trio.sleep(10)
            stopped_at = federation.houses[ALICE].latest
            await trio.sleep(300)
            assert federation.houses[ALICE].latest == stopped_at
            await house.live()

        await federation.run({CAROL: live, DAVE: live})
        federation.check()

    tell(tmp_path, story, rounds=4)


def test_permits_that_were_answered_between_two_lives_are_no_affair_of_the_machine(tmp_path: Path) -> None:
    async def story(federation: LivingFederation) -> None:
        async def live(house: House) -> None:
            await house.live_until(lambda: house.latest >= 2)
            with Journal.open(house.store) as journal:
                journal.append([(house.latest, PERMITTED, b"not an entry of the machine")])
            await house.live()

        await federation.run({ALICE: live})
        federation.check()

    tell(tmp_path, story, rounds=4)


def test_rounds_that_wait_for_the_ledger_survive_a_restart_of_everybody(tmp_path: Path) -> None:
    """Nobody remembers the attestations of so many rounds: they come back from the archive."""

    async def story(federation: LivingFederation) -> None:
        restarted = 0

        async def live(house: House) -> None:
            nonlocal restarted
            house.ledger.down = True
            # Not each for itself: whoever is last could not finish the round any more once the others are gone.
            await house.live_until(lambda: all(one.latest >= 8 for one in federation.houses))
            restarted += 1
            while restarted < len(federation.houses):  # noqa: ASYNC110 - in virtual time
                await trio.sleep(0.1)
            house.ledger.down = False
            await house.live()

        await federation.run(dict.fromkeys((ALICE, BOB, CAROL, DAVE), live))
        federation.check()
        assert [record.statement.round for record in federation.chain.records()] == list(range(1, 11))

    tell(tmp_path, story, rounds=10)
