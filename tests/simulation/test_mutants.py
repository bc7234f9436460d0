"""Each rule of the ballot is needed: without it, some schedule opens two sets or breaks a member's word."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from folkmoot.protocol import pace
from folkmoot.protocol.ballot import Ballot
from folkmoot.protocol.charter import quorum
from folkmoot.protocol.context import Context
from folkmoot.protocol.effects import Effect, Persist
from folkmoot.protocol.groups import Groups
from folkmoot.protocol.journal import Entry, Voted
from folkmoot.protocol.messages import SurvivorSet
from folkmoot.protocol.types import Attempt, Digest, Round
from folkmoot.testnet.simulation.batch import run_seed
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.federation import Simulation, Violation
from folkmoot.testnet.simulation.invariants import Broken
from folkmoot.testnet.simulation.walks import Walk

WALKS = 5_000

Patch = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize("members", [4, 5, 7])
def test_the_ballot_survives_an_adversary_that_owns_everything_else(members: int) -> None:
    for seed in range(1500):
        Walk(seed, members).run()


def quorum_over_the_roster(patch: pytest.MonkeyPatch) -> None:
    original = Ballot.__init__

    def init(self: Ballot, me: int, groups: Groups) -> None:
        needed = quorum(len(groups.groups[0].members) - 1)
        whole = replace(groups.groups[0], quorum=needed)
        original(self, me, Groups((whole,), needed))

    patch.setattr(Ballot, "__init__", init)


def no_lock_rule(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ballot, "_lock_rule", lambda self, digest: True)


def unlocked_by_any_certificate(patch: pytest.MonkeyPatch) -> None:
    def lock_rule(self: Ballot, digest: Digest) -> bool:
        if self.my_lock is None or self.my_lock[1] == digest:
            return True
        return any(other != self.my_lock[1] for _, other in self.certificates())

    patch.setattr(Ballot, "_lock_rule", lock_rule)


def locks_below_what_was_signed(patch: pytest.MonkeyPatch) -> None:
    def may_lock(self: Ballot, attempt: Attempt, digest: Digest) -> bool:
        return self.certificate(attempt, digest) is not None and attempt not in self.my_locks

    patch.setattr(Ballot, "may_lock", may_lock)


def lock_of_the_latest_moment(patch: pytest.MonkeyPatch) -> None:
    """While no lock goes below a vote or lock, the latest in time is the highest: so that rule is lifted for locks."""

    def may_lock(self: Ballot, attempt: Attempt, digest: Digest) -> bool:
        certified = self.certificate(attempt, digest) is not None and attempt not in self.my_locks
        return certified and attempt >= max(self.my_votes, default=0)

    def my_lock(self: Ballot) -> tuple[Attempt, Digest] | None:
        return next(((attempt, self.my_locks[attempt][0]) for attempt in reversed(self.my_locks)), None)

    patch.setattr(Ballot, "may_lock", may_lock)
    patch.setattr(Ballot, "my_lock", property(my_lock))


def lock_before_the_certificate(patch: pytest.MonkeyPatch) -> None:
    def may_lock(self: Ballot, attempt: Attempt, digest: Digest) -> bool:
        return attempt not in self.my_locks and attempt >= max((*self.my_votes, *self.my_locks), default=0)

    patch.setattr(Ballot, "may_lock", may_lock)


def several_sets_of_one_roster(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ballot, "_roster_rule", lambda self, digest, roster: True)


def several_votes_in_one_attempt(patch: pytest.MonkeyPatch) -> None:
    def may_vote(self: Ballot, attempt: Attempt, survivors: SurvivorSet) -> bool:
        return self._roster_rule(survivors.digest, survivors.roster) and self._lock_rule(survivors.digest)

    patch.setattr(Ballot, "may_vote", may_vote)


@pytest.mark.parametrize(
    "mutate",
    [
        quorum_over_the_roster,
        no_lock_rule,
        unlocked_by_any_certificate,
        locks_below_what_was_signed,
        lock_of_the_latest_moment,
        lock_before_the_certificate,
        several_sets_of_one_roster,
        several_votes_in_one_attempt,
    ],
)
def test_a_walk_finds_the_ballot_without(mutate: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(Broken):
        for seed in range(WALKS):
            Walk(seed).run()


def votes_not_journalled(patch: pytest.MonkeyPatch) -> None:
    original = Context.persist

    def persist(self: Context, round_: Round, *entries: Entry) -> None:
        original(self, round_, *(entry for entry in entries if not isinstance(entry, Voted)))

    patch.setattr(Context, "persist", persist)


def journal_after_sending(patch: pytest.MonkeyPatch) -> None:
    original = Context.take_effects

    def take_effects(self: Context) -> list[Effect]:
        return sorted(original(self), key=lambda effect: isinstance(effect, Persist))

    patch.setattr(Context, "take_effects", take_effects)


def timers_that_never_grow(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pace, "GROWTH", 1.0)


@pytest.mark.parametrize("secure", [False, True], ids=["open", "secure"])
def test_only_timers_that_grow_get_over_long_lines(secure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages take longer than an attempt may at first."""

    def run() -> None:
        Simulation(1, 4, 2, Faults(latency=(5.0, 20.0)), secure=secure).run(1500.0)

    run()
    timers_that_never_grow(monkeypatch)
    with pytest.raises(Violation, match="not finished after"):
        run()


@pytest.mark.parametrize("mutate", [quorum_over_the_roster, votes_not_journalled, journal_after_sending])
def test_drawn_federations_find_the_machine_with(mutate: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    assert any(run_seed(seed).failure for seed in range(10))


@pytest.mark.parametrize("mutate", [votes_not_journalled, journal_after_sending])
def test_a_simulation_finds_the_machine_with(mutate: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)
    with pytest.raises(Violation, match="journal lacks"):
        Simulation(0, faults=Faults(broken_off=3)).run()


@pytest.mark.parametrize("mutate", [no_lock_rule, unlocked_by_any_certificate, locks_below_what_was_signed])
def test_attempts_that_cross_find_the_machine_with(mutate: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole machines, of which one signs every vote and lock that it hears."""
    faults = Faults(
        until=150.0, crossing=100.0, latency=(0.005, 0.3), loss=0.01, agreeing=(1,), contradicting=(1,)
    )
    mutate(monkeypatch)
    with pytest.raises(Violation, match="opened twice"):
        for seed in range(1500):  # one in two hundred finds the rarest
            Simulation(seed, 4, 1, faults).run(900.0)
