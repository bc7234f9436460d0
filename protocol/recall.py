"""Before anything is signed after a start: ask Q-1 peers what they hold that I signed.

PROTOCOL section 2, rule 10: a journal that was rolled back (a restored disk, a copied machine) would make an honest
member sign two different things. If peers show a signature that the journal lacks, the node sits out.
"""

from folkmoot.protocol.context import Context
from folkmoot.protocol.errors import Reject
from folkmoot.protocol.messages import Body, Frame, Recalled, Signed, encode
from folkmoot.protocol.types import MemberId, Round

KEPT_FRAMES = 4096
"""Frames that are kept for after the recall; what is dropped will be repeated."""

SIT_OUT = 2
"""Rounds beyond the highest seen that a node sits out when its journal lacks a signature of its own: it could have
signed in the round after, but not further (a round begins only when the one before is decided)."""


class RecallGate:
    """Holds frames back until enough peers have answered."""

    def __init__(self, context: Context, said: set[bytes]) -> None:
        self._context = context
        self._said = said
        self._answered: set[MemberId] = set()
        self._kept: list[tuple[MemberId | None, Frame]] = []
        self.unknown: Signed | None = None
        self.highest: Round = 0

    @property
    def done(self) -> bool:
        """Whether Q-1 peers have answered."""
        return len(self._answered) >= self._context.charter.quorum - 1

    def keep(self, sender: MemberId | None, frame: Frame) -> None:
        """Hold a frame back."""
        if len(self._kept) < KEPT_FRAMES:
            self._kept.append((sender, frame))

    def release(self) -> list[tuple[MemberId | None, Frame]]:
        """The frames that were held back."""
        kept, self._kept = self._kept, []
        return kept

    def on_recalled(self, sender: MemberId, frame: Recalled) -> None:
        """A peer's answer; raises `Reject` if it shows signatures that are not mine."""
        for signed in frame.signed:
            # [REJECT] It shows what I signed, and I did sign it
            if signed.member != self._context.me:
                raise Reject("recalled somebody else's signature")
            self._context.verifier.verify(signed)
            if body_key(signed.body) not in self._said:
                self.unknown = signed
        self.highest = max(self.highest, frame.round)
        self._answered.add(sender)


def body_key(body: Body) -> bytes:
    """Identifies a body within one federation."""
    return type(body).__name__.encode() + encode(body)
