"""How long the outbox pauses between two looks at the ledger, or two tries."""

POLL_SECONDS = (0.1, 5.0)
"""Bounds of the pause between two looks at the head; within them, a quarter of the chain's own pace. The longer one
while nothing waits to be recorded: a provider counts every call."""
QUICK_SECONDS = (0.05, 0.5)
"""The same while a statement of ours is on its way: from the first look to the later ones."""
BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0)
"""Pauses between two tries while the ledger does not answer: in the end as rarely as a healthy one is polled."""
REFUSED_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Pauses between two tries while the ledger, or the fee cap, refuses a statement."""


class Pace:
    """The chain's pace, as far as looks at its head show it. Times are seconds of one clock."""

    def __init__(self, now: float) -> None:
        self._block_at = now
        self._pause, self._quick = 0.5, QUICK_SECONDS[0]

    def note_block(self, now: float) -> None:
        """The head has moved since the last look."""
        shortest, longest = POLL_SECONDS
        self._pause = min(max((now - self._block_at) / 4, shortest), longest)
        self._block_at = now

    def note_silence(self, now: float) -> None:
        """The ledger did not answer, which says nothing of the chain's pace."""
        self._block_at = now

    def rest(self, *, is_busy: bool, has_backlog: bool) -> float:
        """Seconds until the next look; busy is who has a transaction on its way, or to send."""
        if not is_busy:
            self._quick = QUICK_SECONDS[0]
            return self._pause if has_backlog else POLL_SECONDS[1]
        self._quick = min(2 * self._quick, QUICK_SECONDS[1])
        return self._quick


def nth(pauses: tuple[float, ...], number: int) -> float:
    """The pause after the `number`-th time (from 1) in a row; the last one for all later ones."""
    return pauses[min(number, len(pauses)) - 1]
