"""Deadlines that follow the federation's own speed; the charter only bounds them."""

from collections import deque

from folkmoot.protocol.charter_tables import Schedule
from folkmoot.protocol.types import Attempt

GROWTH = 1.5
"""Factor by which time-outs grow per attempt, so that some attempt is long enough for any delay."""

PATIENCE = 3.0
"""An attempt may take this many times the slowest of the last rounds before it is given up."""


class Pace:
    """How long the last rounds took from a quorum of READYs to the opening, in seconds.

    Of a round with several attempts only the last counts: else whoever makes attempts fail makes all time-outs long.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._recent: deque[float] = deque(maxlen=5)

    def note(self, seconds: float) -> None:
        """A round was opened this long after its (last) attempt began."""
        self._recent.append(seconds)

    def grace(self, elapsed: float) -> float:
        """How much longer to wait for the rest when a quorum took `elapsed`: max(2 s, half), within the charter."""
        return min(max(self._schedule.grace_min, elapsed / 2), self._schedule.grace_max)

    def attempt_timeout(self, attempt: Attempt) -> float:
        """When to give an attempt up."""
        usual = PATIENCE * max(self._recent, default=0.0)
        bounded = min(max(usual, self._schedule.attempt_min), self._schedule.attempt_max)
        return bounded * GROWTH ** min(attempt, 40)
