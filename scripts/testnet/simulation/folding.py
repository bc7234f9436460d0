"""A trace that a person can read: what comes in one breath stands on one line.

Frames that a node sends to the same members at one moment, and frames that reach it and from which nothing follows.
What something does follow from stands alone, before it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

SPAN = 1.0
"""Seconds that one line may be about."""

SHOWN = 6
"""Different things that one line names."""

LEGEND = """\
seconds    node  what
           <- FROM: came, -> TO: was said; `Vote 3.1 6080519f of 2`: member 2's, round 3, attempt 1, set 6080519f
           a node is a member and its face; `since`: when the first on that line came
"""


@dataclass(slots=True)
class _Breath:
    way: str
    first: float
    last: float
    said: list[str] = field(default_factory=list)


class Folding:
    """Takes lines as `Simulation` traces them, and says fewer."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._open: dict[str, _Breath] = {}

    def take(self, line: str) -> None:
        """The next line."""
        moment, name, what = line.split(maxsplit=2)
        now, way = float(moment), _way(what)
        for other in [one for one, breath in self._open.items() if one != name and _is_over(breath, now)]:
            self._close(other)
        breath = self._open.get(name)
        if breath is not None and (way != breath.way or _is_over(breath, now)):
            self._close(name, is_cause=breath.way == "<-" and way != "<-")
        if way is None:
            self._say(line)
            return
        breath = self._open.setdefault(name, _Breath(way, now, now))
        breath.last = now
        breath.said.append(what[len(way) :].strip(": "))

    def end(self) -> None:
        """No more will come."""
        for name in list(self._open):
            self._close(name)

    def _close(self, name: str, *, is_cause: bool = False) -> None:
        breath = self._open.pop(name)
        cause = breath.said.pop() if is_cause else None
        if breath.said:
            together = _together(breath.said)
            more = f"; and {len(together) - SHOWN} more" if len(together) > SHOWN else ""
            self._line(breath, name, "; ".join(together[:SHOWN]) + more)
        if cause is not None:
            self._say(f"{breath.last:9.3f}  {name}  <- {cause}")

    def _line(self, breath: _Breath, name: str, text: str) -> None:
        since = f"  (since {breath.first:.3f})" if breath.last > breath.first else ""
        separator = " " if breath.way == "<-" else ": "
        self._say(f"{breath.last:9.3f}  {name}  {breath.way}{separator}{text}{since}")


def _way(what: str) -> str | None:
    """From anybody, or to whom; None for what is no frame."""
    if what.startswith("<- ") and ": " in what:
        return "<-"
    return what.partition(": ")[0] if what.startswith("-> ") else None


def _is_over(breath: _Breath, now: float) -> bool:
    return now > breath.first if breath.way != "<-" else now - breath.first > SPAN


def _together(said: list[str]) -> list[str]:
    """`Commitment 4 of 0`, `Commitment 4 of 2` and `Commitment 4 of 2`: `Commitment 4 of 0+2+2`."""
    by_head: dict[str, list[str]] = {}
    for one in said:
        head, of, tail = one.rpartition(" of ")
        by_head.setdefault(head + of if of else one, []).append(tail if of else "")
    return [
        head + "+".join(tails) if tails[0] else head + (f" (x{len(tails)})" if len(tails) > 1 else "")
        for head, tails in by_head.items()
    ]
