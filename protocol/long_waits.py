"""Who is slow is waited for now and then, as long as the charter allows; who is never ready, ever more rarely.

After `STRETCH_AFTER` rounds in a row without it, after twice as many, and so on: one that never gets ready, or sits
out, holds up ever fewer rounds. A round in which its heartbeats are missing is no use for that: a long wait that is due
then is given in one of the next rounds. All nodes count alike; who was silent, each sees for itself.
"""

from collections import Counter
from collections.abc import Collection, Iterable

from folkmoot.protocol.types import MemberId

STRETCH_AFTER = 4
"""Rounds in a row without a slow (but connected) member until it is waited for; and how long it may claim that."""


class LongWaits:
    """Of one node, for all members."""

    def __init__(self) -> None:
        self.missed: Counter[MemberId] = Counter()
        """The rounds in a row that went on without a member."""
        self._given: dict[MemberId, int] = {}

    def note(self, members: Iterable[MemberId], participants: Collection[MemberId]) -> None:
        """A round is decided."""
        for member in members:
            if member in participants:
                self.missed[member] = 0
                self._given.pop(member, None)
            else:
                self.missed[member] += 1

    def give(self, heard: Iterable[MemberId]) -> set[MemberId]:
        """Of those who can be heard, whom to give a long wait in this round. Asked once a round."""
        given = {member for member in heard if self._is_due(member)}
        self._given.update((member, self._mark(member)) for member in given)
        return given

    def _is_due(self, member: MemberId) -> bool:
        mark = self._mark(member)
        is_fresh = self.missed[member] - mark < STRETCH_AFTER
        return mark >= STRETCH_AFTER and is_fresh and self._given.get(member) != mark

    def _mark(self, member: MemberId) -> int:
        """The last of 4, 8, 16, ... that the count has passed (below 4: 0, 1 or 2)."""
        return 1 << self.missed[member].bit_length() >> 1
