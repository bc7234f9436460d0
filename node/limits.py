"""What this member's machine and line are to bear: `limits` in node.toml."""

from collections.abc import Callable
from dataclasses import dataclass

from folkmoot.node.train.wire import TrainerError
from folkmoot.protocol.types import Round


@dataclass
class Uploads:
    """How much this node may send in a round: `most` bytes, 0 for no bound.

    `sent` tells what it has sent in all. Everything counts, messages too; but only updates are held back for it, and
    models that others could have from somebody else.
    """

    most: int
    sent: Callable[[], int]
    _round: Round = 0
    _before: int = 0

    def used(self, round_: Round) -> int:
        """Bytes sent since this was first asked of that round."""
        if round_ != self._round:
            self._round, self._before = round_, self.sent()
        return max(0, self.sent() - self._before)

    def check(self, round_: Round, needed: int) -> None:
        """Raise `TrainerError` of kind `limit` if an update that takes so many bytes goes beyond what is left."""
        used = self.used(round_)
        if self.most and used + needed > self.most:
            raise TrainerError(
                "limit",
                f"its update takes up to {needed / 1e6:,.2f} MB of upload, and of limits.max_upload = "
                f"{self.most / 1e6:,.2f} MB {used / 1e6:,.2f} are used in this round",
            )

    @property
    def are_spent(self) -> bool:
        """Whether the round at hand has taken all."""
        return bool(self.most) and self.used(self._round) >= self.most
