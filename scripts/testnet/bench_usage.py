"""What processes use, sampled from /proc, and when their rounds ended, from their logs. Linux only."""

import os
import re
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np

from folkmoot.node.logs import FILE_NAME
from folkmoot.testnet.processes import TestnetError

_TICK = os.sysconf("SC_CLK_TCK")
_PEAK = re.compile(rb"^VmHWM:\s*(\d+) kB$", re.MULTILINE)


class RoundEnd(msgspec.Struct, frozen=True):
    """A round that all nodes have finished: the last one's Unix time, and how many updates the model has."""

    time: float
    participants: int


class _Line(msgspec.Struct, frozen=True):
    """What we read of a line in a node's log."""

    event: str = ""
    round: int = 0
    model: str = ""
    participants: list[str] = []
    timestamp: str = ""


class Usage:
    """CPU time and memory of processes and their children, the daemons first."""

    def __init__(self, pids: Sequence[int], daemons: int) -> None:
        self._pids = pids
        self._daemons = pids[:daemons]
        self._cpu: dict[int, float] = {}
        self._times: list[float] = []
        self._totals: list[float] = []

    def sample(self) -> None:
        """Note the CPU time so far. A process that has ended keeps what it had when last seen."""
        for pid in self._pids:
            for one in (pid, *_children(pid)):
                self._cpu[one] = max(self._cpu.get(one, 0.0), _cpu_seconds(one))
        self._times.append(time.time())
        self._totals.append(sum(self._cpu.values()))

    def cpu_seconds(self, begin: float, end: float) -> float:
        """User and system time of all processes between two Unix times, interpolated between samples."""
        first, last = np.interp([begin, end], self._times, self._totals)
        return float(last - first)

    def peak_rss_mb(self) -> float:
        """The highest resident set that any living daemon has had, in MB (10^6 bytes)."""
        return max(_peak_rss(pid) for pid in self._daemons)


def read_round_ends(logs: Sequence[Path]) -> list[RoundEnd]:
    """The rounds that every node's log (in the folders `logs`) calls done; raises `TestnetError` if models differ."""
    done = [_rounds_done(folder / FILE_NAME) for folder in logs]
    ends = []
    for lines in zip(*done, strict=False):
        if len({(line.round, line.model) for line in lines}) != 1:
            raise TestnetError(f"the nodes disagree on the model of round {lines[0].round}: see {logs[0]}")
        last = max(datetime.fromisoformat(line.timestamp).timestamp() for line in lines)
        ends.append(RoundEnd(last, max(len(line.participants) for line in lines)))
    return ends


def _rounds_done(path: Path) -> list[_Line]:
    if not path.is_file():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    lines = [msgspec.json.decode(line, type=_Line) for line in whole.splitlines() if b'"round done"' in line]
    return [line for line in lines if line.event == "round done"]


def _children(pid: int) -> list[int]:
    """Started by any of its threads."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in path.read_text(encoding="ascii").split()]
        except OSError:  # the thread has ended
            continue
    return found


def _cpu_seconds(pid: int) -> float:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    # proc_pid_stat(5), fields 14 to 17: its own user and system ticks, and those of children that it waited for.
    return sum(int(ticks) for ticks in stat.rpartition(")")[2].split()[11:15]) / _TICK


def _peak_rss(pid: int) -> float:
    try:
        found = _PEAK.search(Path(f"/proc/{pid}/status").read_bytes())
    except OSError:
        found = None
    return int(found[1]) * 1024 / 1e6 if found else 0.0
