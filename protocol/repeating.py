"""Who repeats what to whom. Everybody repeats its own words to all; what others said, to a few, in turn.

If each of n members answered each announcement with all that it knows, n commitments, n^3 frames would be under way at
once. With a few at a time, others each time, everything still comes to everybody, past whoever is away or lies.
"""

from collections import Counter
from collections.abc import Iterable

from folkmoot.protocol.messages import Frame, Propose, Seeds, Shares, Signed
from folkmoot.protocol.types import MemberId

FEW = 8
"""Members to whom one announcement repeats what others said, and who answer it so. Up to nine members, all."""


class Repeating:
    """Whose turn it is, in one round."""

    def __init__(self, me: MemberId, members: int) -> None:
        self._me, self._members = me, members
        self._greetings: Counter[MemberId] = Counter()

    def is_told_all(self, member: MemberId, announcement: int) -> bool:
        """Whether my announcement of that number (from 0) repeats others' words to this member."""
        return self._is_turn(self._me, member, announcement)

    def answers_all(self, member: MemberId) -> bool:
        """Whether I answer this member, which greets me once more, with others' words."""
        self._greetings[member] += 1
        return self._is_turn(member, self._me, self._greetings[member] - 1)

    def _is_turn(self, teller: MemberId, listener: MemberId, number: int) -> bool:
        """The `FEW` members after the teller come first, then the next ones, round and round."""
        turns = max(1, -(-(self._members - 1) // FEW))
        place = (listener - teller - 1) % self._members
        return place // FEW == number % turns


def own_words(frames: Iterable[Frame], me: MemberId) -> list[Frame]:
    """Those of `frames` that I said."""
    return [frame for frame in frames if _speaker(frame) == me]


def _speaker(frame: Frame) -> MemberId | None:
    match frame:
        case Signed(member=member) | Seeds(member=member) | Shares(member=member):
            return member
        case Propose(proposal=proposal):
            return proposal.member
        case _:
            return None
