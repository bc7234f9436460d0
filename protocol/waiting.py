"""Frames that came before their time: kept for later, but never more of them than an honest neighbour would bring."""

from folkmoot.protocol.messages import Frame, encode
from folkmoot.protocol.types import MemberId

BUDGET = 2 * 1024 * 1024
"""Bytes kept per neighbour. A round of 256 members takes 0.5 MB: a roster, and a commitment, vote and lock each."""

SMALLEST = 256
"""Bytes that a frame counts at least: in memory even a tiny one takes about as much."""


class Waiting:
    """An ordered buffer without repetitions, bounded per neighbour: nobody can crowd the others out, or the memory.

    What does not fit is dropped; honest members repeat what they said.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[MemberId | None, Frame], None] = {}
        self._used: dict[MemberId | None, int] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, sender: MemberId | None, frame: Frame) -> None:
        """Hold a frame back; `sender` is the neighbour that brought it, None for gossip."""
        used = self._used.get(sender, 0) + max(SMALLEST, len(encode(frame)))
        if used <= BUDGET and (sender, frame) not in self._kept:
            self._kept[sender, frame] = None
            self._used[sender] = used

    def take(self) -> list[tuple[MemberId | None, Frame]]:
        """Everything that was kept, in the order in which it came; the buffer is empty afterwards."""
        kept, self._kept = list(self._kept), {}
        self._used = {}
        return kept
