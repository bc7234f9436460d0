"""The ballot of one round: vote, lock, open. At most one survivor set per round is ever opened.

A single-height Tendermint/PBFT ballot (PROTOCOL section 2, rules 5 and 6); the rules were model-checked. Signatures
are verified before anything gets here, and the caller journals what it signs before it tells the ballot.
"""

from collections import defaultdict

from folkmoot.protocol.groups import Groups
from folkmoot.protocol.messages import Certificate, Lock, Opening, Signed, SurvivorSet, Vote
from folkmoot.protocol.types import Attempt, Digest, MemberId


class Ballot:
    """What I know of everybody's votes and locks, and what I may still sign."""

    def __init__(self, me: MemberId, groups: Groups) -> None:
        self._me = me
        self._groups = groups
        self._sets: dict[Digest, SurvivorSet] = {}
        self._votes: defaultdict[tuple[Attempt, Digest], dict[MemberId, Signed]] = defaultdict(dict)
        self._locks: defaultdict[tuple[Attempt, Digest, Digest], dict[MemberId, Signed]] = defaultdict(dict)
        self._certified: set[tuple[Attempt, Digest]] = set()
        self.my_votes: dict[Attempt, Digest] = {}
        self.my_locks: dict[Attempt, tuple[Digest, Digest]] = {}

    # --- what was seen -------------------------------------------------------------------------------------------

    def add_set(self, survivors: SurvivorSet) -> None:
        """Learn what a digest stands for."""
        self._sets[survivors.digest] = survivors

    def known_sets(self) -> tuple[Digest, ...]:
        """The survivor sets that were ever shown, by digest."""
        return tuple(self._sets)

    def get_set(self, digest: Digest) -> SurvivorSet | None:
        """The survivor set of that digest, if it was ever shown."""
        return self._sets.get(digest)

    def add_vote(self, signed: Signed) -> None:
        """Count a verified vote (mine too)."""
        vote = signed.body
        assert isinstance(vote, Vote)
        self._votes[vote.attempt, vote.survivors][signed.member] = signed
        if signed.member == self._me:
            self.my_votes[vote.attempt] = vote.survivors

    def add_lock(self, signed: Signed) -> None:
        """Count a verified lock (mine too)."""
        lock = signed.body
        assert isinstance(lock, Lock)
        self._locks[lock.attempt, lock.survivors, lock.sums][signed.member] = signed
        if signed.member == self._me:
            self.my_locks[lock.attempt] = (lock.survivors, lock.sums)

    def certificates(self) -> list[tuple[Attempt, Digest]]:
        """(attempt, set) with a quorum's votes *of that attempt on that set*, highest attempt first.

        Only of sets that were shown: who is in a set decides what a quorum of it is (`Groups.are_quorum`).
        """
        return sorted(filter(self._is_full, self._votes), reverse=True)

    def _is_full(self, key: tuple[Attempt, Digest]) -> bool:
        if key not in self._certified and len(votes := self._votes.get(key, {})) >= self._groups.quorum:
            survivors = self._sets.get(key[1])
            if survivors is not None and self._groups.are_quorum(votes, survivors.members):
                self._certified.add(key)  # votes only become more
        return key in self._certified

    def certificate(self, attempt: Attempt, digest: Digest) -> Certificate | None:
        """The certificate itself."""
        if not self._is_full((attempt, digest)):
            return None
        return Certificate(self._sets[digest], _sorted(self._votes[attempt, digest]))

    def opening(self) -> Opening | None:
        """Q locks of one attempt on the same set and sums: final, whenever it turns up."""
        for (_, digest, _), locks in self._locks.items():
            survivors = self._sets.get(digest)
            if len(locks) >= self._groups.quorum and survivors is not None:
                return Opening(survivors, _sorted(locks))
        return None

    def mine(self) -> list[Signed]:
        """My votes and locks, to be said again."""
        kept = [*self._votes.values(), *self._locks.values()]
        return [signed[self._me] for signed in kept if self._me in signed]

    # --- what I may sign -----------------------------------------------------------------------------------------

    @property
    def my_lock(self) -> tuple[Attempt, Digest] | None:
        """My lock of the *highest* attempt; the latest in time would open two sets (found by the model checker)."""
        if not self.my_locks:
            return None
        attempt = max(self.my_locks)
        return attempt, self.my_locks[attempt][0]

    def is_certified(self, digest: Digest) -> bool:
        """Whether a certificate of any attempt was shown for this set."""
        return any(known == digest for _, known in self.certificates())

    def may_vote(self, attempt: Attempt, survivors: SurvivorSet) -> bool:
        """Whether rules 5 and 6 let me vote for `survivors` in `attempt` (payloads are the caller's matter)."""
        digest = survivors.digest
        if self.my_votes and attempt <= max(self.my_votes):
            return False
        return self._roster_rule(digest, survivors.roster) and self._lock_rule(digest)

    def _roster_rule(self, digest: Digest, roster: Digest) -> bool:
        # One survivor set per roster, ever; but a certificate for this set lifts the bar (else deadlock in 4 steps).
        # Of a set that was never shown here nobody knows the roster: it may be this one.
        others = [self._sets.get(mine) for mine in self.my_votes.values() if mine != digest]
        return self.is_certified(digest) or all(other and other.roster != roster for other in others)

    def _lock_rule(self, digest: Digest) -> bool:
        # Locked, I vote only for my set, unless a certificate on another set from an attempt above my lock frees me.
        if self.my_lock is None or self.my_lock[1] == digest:
            return True
        attempt, locked = self.my_lock
        return any(above > attempt and other != locked for above, other in self.certificates())

    def may_lock(self, attempt: Attempt, digest: Digest) -> bool:
        """Whether I may lock `digest` in `attempt`: certified there, and nothing of mine stands at or above it."""
        if attempt in self.my_locks or not self._is_full((attempt, digest)):
            return False
        return attempt >= max((*self.my_votes, *self.my_locks), default=0)


def _sorted(by_member: dict[MemberId, Signed]) -> tuple[Signed, ...]:
    return tuple(by_member[member] for member in sorted(by_member))
