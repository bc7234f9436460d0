"""How members behave at this node's edge: how much each may ask for, and for how long who breaks rules is left alone.

Two different things. More than its allowance is no fault: such a member waits, or what it announces is dropped, and
nothing else happens to it. A fault is what no honest node sends, whatever the link does to it: bytes that cannot be
read, frames that break a rule, more than the room that it was given. Broken, slow and half-open connections are
nobody's.

A fault now and then is forgiven. Beyond that, or after a grave one, a member is shut out: its connections end, none is
accepted and none is made, for five seconds, and twice as long every further time, up to an hour; ten minutes of good
conduct take one doubling back. Pure: times are seconds on any clock that only goes forward.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from folkmoot.protocol.types import MemberId

FAULTS = 8
"""Faults that are forgiven at once; another one every `FORGIVEN_SECONDS`."""
FORGIVEN_SECONDS = 30.0
FIRST_SECONDS = 5.0
LAST_SECONDS = 3600.0
CALM_SECONDS = 600.0


class Bucket:
    """Lets `rate` a second pass, and up to `burst` at once after a rest."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._level = burst
        self._at = -float("inf")

    def take(self, amount: float, now: float) -> bool:
        """Take `amount` if so much is there."""
        self._fill(now)
        if amount > self._level:
            return False
        self._level -= amount
        return True

    def owe(self, amount: float, now: float) -> float:
        """Take `amount` whatever is there; returns the seconds to wait for what was not."""
        self._fill(now)
        self._level -= amount
        return max(0.0, -self._level / self.rate)

    def _fill(self, now: float) -> None:
        passed = max(0.0, now - self._at)
        self._level = min(self.burst, self._level + passed * self.rate)
        self._at = max(self._at, now)


class Allowance:
    """What one member may take of this node, far above what an honest one needs."""

    def __init__(self) -> None:
        self.bytes = Bucket(4 << 20, 32 << 20)
        """Of its control stream."""
        self.messages = Bucket(200, 4000)
        """On its control stream."""
        self.questions = Bucket(1, 30)
        """Where do you stand, what did I sign: a few bytes whose answer may be everything of a round."""
        self.requests = Bucket(100, 1000)
        """For blobs: each answer is up to 4 MiB, read from disk."""
        self.announcements = Bucket(10, 100)
        """Of its own, whoever passes them on."""


@dataclass(frozen=True, slots=True)
class ShutOut:
    """A member that is left alone until a time, why, and how often lately."""

    member: MemberId
    until: float
    reason: str
    times: int


@dataclass(slots=True)
class _Record:
    faults: Bucket = field(default_factory=lambda: Bucket(1 / FORGIVEN_SECONDS, FAULTS))
    until: float = -float("inf")
    reason: str = ""
    times: int = 0


class Conduct:
    """The record of every member that gave cause for one."""

    def __init__(self) -> None:
        self._records: dict[MemberId, _Record] = {}

    def fault(self, member: MemberId, reason: str, now: float, *, grave: bool = False) -> bool:
        """Take down a fault; returns whether the member is to be shut out for it now."""
        record = self._records.setdefault(member, _Record())
        if now < record.until or (record.faults.take(1, now) and not grave):
            return False
        calm = 0 if record.times == 0 else int((now - record.until) // CALM_SECONDS)
        record.times = max(0, record.times - calm) + 1
        record.until = now + min(LAST_SECONDS, FIRST_SECONDS * 2.0 ** (record.times - 1))
        record.reason = reason
        return True

    def until(self, member: MemberId) -> float:
        """The time until which the member is shut out; in the past if it is not."""
        record = self._records.get(member)
        return record.until if record is not None else -float("inf")

    def shut_out(self, now: float) -> list[ShutOut]:
        """Who is shut out, by member."""
        return [
            ShutOut(member, record.until, record.reason, record.times)
            for member, record in sorted(self._records.items())
            if now < record.until
        ]
