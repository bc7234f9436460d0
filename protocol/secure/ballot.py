"""The ballot of secure mode: between vote and lock, a quorum names the masked sums with its fingerprints.

PROTOCOL section 2, rule 6, last paragraph: without it one survivor set could be opened with two different sums.
"""

from collections import defaultdict

from folkmoot.protocol.ballot import Ballot
from folkmoot.protocol.groups import Groups
from folkmoot.protocol.messages import Fingerprint, Signed
from folkmoot.protocol.types import Attempt, Digest, MemberId


class FingerprintBallot(Ballot):
    """A `Ballot` that counts fingerprints too, and knows which I may sign."""

    def __init__(self, me: MemberId, groups: Groups) -> None:
        super().__init__(me, groups)
        self._prints: defaultdict[tuple[Attempt, Digest, Digest], dict[MemberId, Signed]] = defaultdict(dict)
        self.my_prints: dict[Attempt, tuple[Digest, Digest]] = {}

    def add_print(self, signed: Signed) -> None:
        """Count a verified fingerprint (mine too)."""
        body = signed.body
        assert isinstance(body, Fingerprint)
        self._prints[body.attempt, body.survivors, body.sums][signed.member] = signed
        if signed.member == self._me:
            self.my_prints[body.attempt] = (body.survivors, body.sums)

    def prints(
        self, survivors: Digest, sums: Digest, preferred: Attempt | None = None
    ) -> dict[MemberId, Signed]:
        """Everybody's fingerprint on these sums: of the preferred attempt, else of the highest in which it was given.

        The challenge follows from set and sums, so the attempt makes no difference to the values.
        """
        keys = sorted(key for key in self._prints if key[1:] == (survivors, sums))
        keys.sort(key=lambda key: key[0] == preferred)
        latest: dict[MemberId, Signed] = {}
        for key in keys:
            latest.update(self._prints[key])
        return latest

    def is_printed(self, attempt: Attempt, survivors: Digest, sums: Digest) -> bool:
        """Whether a quorum gave its fingerprints on these sums in that attempt."""
        return len(self._prints.get((attempt, survivors, sums), {})) >= self._groups.quorum

    def may_print(self, attempt: Attempt, survivors: Digest, sums: Digest) -> bool:
        """Whether I may sign a fingerprint on these sums: certified in that attempt, and nothing of mine forbids it."""
        certified = self.certificate(attempt, survivors)
        if certified is None or attempt in self.my_prints or attempt < self._latest:
            return False
        return self._lock_rule(survivors) and self._sums_rule(survivors, sums)

    def _sums_rule(self, survivors: Digest, sums: Digest) -> bool:
        # Locked on (V, s), I sign only s for V, unless shown a quorum's fingerprints on another from a higher attempt.
        if self.my_lock is None or self.my_lock[1] != survivors:
            return True
        locked_in, locked = self.my_lock[0], self.my_locks[self.my_lock[0]][1]
        return sums == locked or any(
            attempt > locked_in and key == survivors and other == sums and len(prints) >= self._groups.quorum
            for (attempt, key, other), prints in self._prints.items()
        )

    def may_lock(self, attempt: Attempt, digest: Digest) -> bool:
        """As in open mode, and no fingerprint of mine stands above."""
        return super().may_lock(attempt, digest) and attempt >= self._latest

    @property
    def _latest(self) -> Attempt:
        return max((*self.my_votes, *self.my_prints, *self.my_locks), default=0)

    def mine(self) -> list[Signed]:
        """My votes, fingerprints and locks, to be said again."""
        prints = [signed[self._me] for signed in self._prints.values() if self._me in signed]
        return [*super().mine(), *prints]
