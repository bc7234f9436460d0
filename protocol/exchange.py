"""The payloads of one roster: who committed to what, what I hold, and what others say they hold."""

from collections.abc import Collection

from folkmoot.protocol.certificates import roster_members
from folkmoot.protocol.groups import Groups
from folkmoot.protocol.messages import (
    Commitment,
    Omission,
    Receipt,
    Roster,
    Signed,
    Survivor,
    SurvivorSet,
    body_digest,
    roster_digest,
)
from folkmoot.protocol.types import Attempt, Digest, MemberId


class Exchange:
    """Every roster member pulls every other's payload (open mode; for secure mode see `secure/exchange.py`)."""

    def __init__(self, me: MemberId, roster: Signed) -> None:
        assert isinstance(roster.body, Roster)
        self._me = me
        self.signed = roster
        self.roster = roster.body
        self.digest = roster_digest(roster.member, roster.body)
        self.members = roster_members(roster.body)
        self.commitments: dict[MemberId, Signed] = {}
        self.held: set[MemberId] = set()
        self.fetching: set[MemberId] = set()
        self._digests: dict[MemberId, Digest] = {}
        self._receipts: dict[MemberId, frozenset[Digest]] = {}
        self._forwarded: set[tuple[Digest, MemberId]] = set()

    @property
    def me(self) -> MemberId:
        """Whose view this is."""
        return self._me

    @property
    def attempt(self) -> Attempt:
        """The attempt that this roster belongs to."""
        return self.roster.attempt

    def add_commitment(self, signed: Signed) -> None:
        """The first (verified) commitment of a roster member counts."""
        if signed.member not in self.commitments:
            self.commitments[signed.member] = signed
            self._digests[signed.member] = body_digest(signed.body)

    def replace_commitment(self, signed: Signed) -> None:
        """A member committed to two payloads, and a quorum voted for the one that I did not see first."""
        self.commitments[signed.member] = signed
        self._digests[signed.member] = body_digest(signed.body)
        self.held.discard(signed.member)
        self.fetching.discard(signed.member)

    def commitment_digest(self, member: MemberId) -> Digest:
        """Names the member's commitment."""
        return self._digests[member]

    def member_of(self, commitment: Digest) -> MemberId | None:
        """Whose commitment that is."""
        return next((who for who, known in self._digests.items() if known == commitment), None)

    def add_receipt(self, member: MemberId, receipt: Receipt) -> None:
        """What another member holds (perhaps payloads whose commitments have yet to come here); only ever more."""
        held = frozenset(receipt.held)
        if len(held) > len(self._receipts.get(member, ())):
            self._receipts[member] = held

    def add_forwarded(self, root: Digest, member: MemberId) -> None:
        """I delivered this payload to that member, if it is one of this exchange."""
        bodies = (signed.body for signed in self.commitments.values())
        if any(isinstance(body, Commitment) and body.root == root for body in bodies):
            self._forwarded.add((root, member))

    def receipt(self) -> Receipt:
        """What I hold, for the proposer."""
        held = tuple(self.commitment_digest(member) for member in sorted(self.held))
        return Receipt(self.roster.round, self.roster.attempt, self.digest, held)

    def knows(self, survivors: SurvivorSet) -> bool:
        """Whether exactly the commitments that the set names are known."""
        return all(self._digests.get(one.member) == one.commitment for one in survivors.survivors)

    def holds(self, survivors: SurvivorSet) -> bool:
        """Whether I hold exactly the payloads that the set names."""
        return self.knows(survivors) and all(one.member in self.held for one in survivors.survivors)

    def commitments_of(self, survivors: SurvivorSet) -> tuple[Signed, ...]:
        """The survivors' commitments, ascending; only those that are known."""
        return tuple(self.commitments[member] for member in survivors.members if member in self.commitments)

    def choose_survivors(
        self, groups: Groups, down: Collection[MemberId], patient: bool
    ) -> tuple[MemberId, ...] | None:
        """Whom to propose: everybody whose payload a quorum holds, or, when it is time, the most it has in common.

        Of each group enough to survive, or nobody, and a quorum of holders; else None. `patient` is set until the grace
        for late payloads is over; members in `down` are not waited for.
        """
        if patient and any(member not in self.held and member not in down for member in self.members):
            return None
        candidates = groups.whole(self.candidates(down))
        while len(candidates) >= groups.quorum:
            if groups.are_quorum(self._holders(candidates), candidates):
                return tuple(sorted(candidates))
            if patient:
                return None
            self._give_up_one(candidates, groups)
            candidates = groups.whole(candidates)
        return None

    def candidates(self, down: Collection[MemberId]) -> set[MemberId]:
        """Whom I could propose: of whom I hold what is mine to hold (a payload outlives its sender)."""
        return set(self.held)

    def _give_up_one(self, candidates: set[MemberId], groups: Groups) -> None:
        """Take away a group of which too few answered, else the member whose payload the fewest hold."""
        answered = [self._me, *self._receipts]
        if silent := groups.lacking(answered, candidates):
            candidates.difference_update(silent[0].members)
        else:
            candidates.remove(min(candidates, key=self._spread))

    def _holders(self, payloads: Collection[MemberId]) -> list[MemberId]:
        wanted, nothing = {self._digests.get(member) for member in payloads}, frozenset[Digest]()
        others = [
            one for one in self.members if one != self._me and wanted <= self._receipts.get(one, nothing)
        ]
        i_hold = self._me in self.members and self.held.issuperset(payloads)
        return [*others, self._me] if i_hold else others

    def _is_held_by(self, holder: MemberId, member: MemberId) -> bool:
        if holder == self._me:
            return member in self.held
        return self._digests.get(member) in self._receipts.get(holder, frozenset())

    def _spread(self, member: MemberId) -> tuple[int, MemberId]:
        # How many hold it; ties go by member, so that a schedule replays.
        return sum(self._is_held_by(holder, member) for holder in self.members), member

    def survivors_of(self, members: Collection[MemberId]) -> tuple[Survivor, ...]:
        """The survivor entries of these members, ascending."""
        return tuple(Survivor(member, self.commitment_digest(member)) for member in sorted(members))

    def omissions(self, survivors: Collection[MemberId]) -> tuple[Omission, ...]:
        """Each roster member left out, with a member (I, before others) that lacks its payload."""
        left_out = [member for member in self.members if member not in survivors]
        return tuple(Omission(member, self._lacking(member)) for member in left_out)

    def _lacking(self, member: MemberId) -> MemberId:
        holders = (self._me, *self.members)
        return next((one for one in holders if not self._is_held_by(one, member)), self._me)

    def contradicts(self, omitted: Collection[Omission]) -> bool:
        """Whether I delivered a payload that the proposer says was lacking: then I do not vote (rule 4)."""
        return any(
            isinstance(body := self.commitments[omission.member].body, Commitment)
            and (body.root, omission.lacking) in self._forwarded
            for omission in omitted
            if omission.member in self.commitments
        )
