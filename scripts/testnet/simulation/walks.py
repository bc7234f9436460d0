"""Random walks of honest ballots against an adversary that owns everything else.

It puts any survivor set to any member in any attempt (so every proposer lies), decides who hears of which votes and
locks, and votes and locks for f members as it likes. A simulation needs thousands of runs to come near such schedules;
a walk needs milliseconds. PROTOCOL section 2, rules 5 and 6.
"""

import itertools
import random
from collections import defaultdict

from folkmoot.protocol.ballot import Ballot
from folkmoot.protocol.charter import max_faults, quorum
from folkmoot.protocol.groups import one_group
from folkmoot.protocol.messages import Lock, Signed, Survivor, SurvivorSet, Vote
from folkmoot.protocol.types import Attempt, Digest, MemberId
from folkmoot.testnet.simulation.invariants import Broken

ATTEMPTS = 3
"""How far a walk goes: three are enough for two openings in every ballot that lacks a rule."""

FEDERATION = bytes(32)
SIGNATURE = bytes(64)
ELSEWHERE = 255


class Walk:
    """One walk of `members - f` honest ballots. `run` raises `Broken`."""

    def __init__(self, seed: int, members: int = 4) -> None:
        self.steps: list[str] = []
        self._random = random.Random(seed)
        honest = members - max_faults(members)
        self._ballots = {member: Ballot(member, one_group(members)) for member in range(honest)}
        self._liars = range(honest, members)
        self._groups, self._quorum = one_group(members), quorum(members)
        self._attempt = dict.fromkeys(self._ballots, 0)
        self._sets = [_survivor_set(roster, members) for roster in (1, 1, 2)]
        self._sets[1] = _survivor_set(1, members - 1)
        self._favourites = self._random.choices(self._sets, k=ATTEMPTS)
        self._votes: defaultdict[tuple[Attempt, Digest], dict[MemberId, Signed]] = defaultdict(dict)
        self._locks: defaultdict[tuple[Attempt, Digest], dict[MemberId, Signed]] = defaultdict(dict)
        self._voted: dict[tuple[MemberId, Attempt], Digest] = {}
        self._opened: set[Digest] = set()

    def run(self, steps: int = 200) -> None:
        """Walk; raises `Broken` if two sets are opened, or if a member votes twice where it may only once."""
        actions = (self._go_on, self._vote, self._vote, self._show_votes, self._lock, self._lock)
        for _ in range(steps):
            self._random.choice(actions)(self._random.choice(list(self._ballots)))
        for attempt, survivors in itertools.product(range(ATTEMPTS), self._sets):
            self._show_locks(attempt, survivors)

    # --- what a member may do -------------------------------------------------------------------------------

    def _go_on(self, member: MemberId) -> None:
        self._attempt[member] = min(self._attempt[member] + 1, ATTEMPTS - 1)

    def _vote(self, member: MemberId) -> None:
        ballot, attempt = self._ballots[member], self._attempt[member]
        # Mostly the same set to everybody: else hardly any certificate comes to be.
        survivors = self._random.choice((*self._sets, *(self._favourites[attempt],) * 6))
        ballot.add_set(survivors)
        if not ballot.may_vote(attempt, survivors):
            return
        self._note(f"{member} votes {self._name(survivors)} in {attempt}")
        if self._voted.setdefault((member, attempt), survivors.digest) != survivors.digest:
            raise Broken(f"member {member} votes twice in attempt {attempt}: {self.steps}")
        self._check_rosters(member, survivors)
        signed = Signed(member, Vote(FEDERATION, 1, attempt, survivors.digest), SIGNATURE)
        self._votes[attempt, survivors.digest][member] = signed
        ballot.add_vote(signed)

    def _lock(self, member: MemberId) -> None:
        ballot = self._ballots[member]
        certified = [(attempt, ballot.get_set(digest)) for attempt, digest in ballot.certificates()]
        anything = (self._random.randrange(ATTEMPTS), self._random.choice(self._sets))
        attempt, survivors = self._random.choice((*certified * 3, anything))
        if survivors is None or not ballot.may_lock(attempt, survivors.digest):
            return
        self._note(f"{member} locks {self._name(survivors)} in {attempt}")
        signed = _lock(member, attempt, survivors)
        self._locks[attempt, survivors.digest][member] = signed
        ballot.add_set(survivors)
        ballot.add_lock(signed)

    # --- what the adversary shows it ------------------------------------------------------------------------

    def _show_votes(self, member: MemberId) -> None:
        """All votes on one set of one attempt, the liars' too."""
        full = [key for key, votes in self._votes.items() if len(votes) + len(self._liars) >= self._quorum]
        if not full:
            return
        ballot, (attempt, digest) = self._ballots[member], self._random.choice(full)
        survivors = next(one for one in self._sets if one.digest == digest)
        ballot.add_set(survivors)
        vote = Vote(FEDERATION, 1, attempt, digest)
        liars = (Signed(liar, vote, SIGNATURE) for liar in self._liars)
        for signed in (*self._votes[attempt, digest].values(), *liars):
            ballot.add_vote(signed)
        if ballot.certificate(attempt, digest) is not None:
            self._note(f"{member} is shown the certificate of {self._name(survivors)} in {attempt}")

    def _show_locks(self, attempt: Attempt, survivors: SurvivorSet) -> None:
        """All locks on one set of one attempt, the liars' too, to a newcomer (of the same quorum)."""
        newcomer = Ballot(ELSEWHERE, self._groups)
        newcomer.add_set(survivors)
        liars = (_lock(liar, attempt, survivors) for liar in self._liars)
        for signed in (*self._locks[attempt, survivors.digest].values(), *liars):
            newcomer.add_lock(signed)
        if newcomer.opening() is not None:
            self._opened.add(survivors.digest)
        if len(self._opened) > 1:
            raise Broken(f"two openings: {self.steps}")

    # --- bookkeeping ----------------------------------------------------------------------------------------

    def _check_rosters(self, member: MemberId, survivors: SurvivorSet) -> None:
        voted = {digest for (who, _), digest in self._voted.items() if who == member}
        others = {
            one.digest for one in self._sets if one.roster == survivors.roster and one != survivors
        } & voted
        if others and not self._ballots[member].is_certified(survivors.digest):
            raise Broken(f"member {member} votes for two sets of one roster: {self.steps}")

    def _name(self, survivors: SurvivorSet) -> str:
        return "ABC"[self._sets.index(survivors)]

    def _note(self, step: str) -> None:
        if step not in self.steps:
            self.steps.append(step)


def _lock(member: MemberId, attempt: Attempt, survivors: SurvivorSet) -> Signed:
    return Signed(member, Lock(FEDERATION, 1, attempt, survivors.digest, bytes(32)), SIGNATURE)


def _survivor_set(roster: int, size: int) -> SurvivorSet:
    survivors = tuple(Survivor(member, bytes(32)) for member in range(size))
    return SurvivorSet(1, bytes(32), FEDERATION, bytes(32), bytes([roster]) * 32, survivors)
