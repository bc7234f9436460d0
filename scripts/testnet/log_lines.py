"""`testnet logs`: what the processes of a testnet have written, in the order of its time stamps, and what follows."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

from folkmoot.testnet.home import TestnetHome, read_testnet
from folkmoot.testnet.processes import TestnetError, last_lines

SHARED = ("chain", "trainers", "relay")
"""Processes that are no node's; those that this testnet has can be named too."""

_POLL_SECONDS = 0.1
_STAMP = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")


def show_logs(
    home: TestnetHome, name: str | None, lines: int, *, follow: bool, say: Callable[[str], None]
) -> None:
    """Print the last `lines` of one process, or of all together, and with `follow` what comes, for ever.

    Raises `TestnetError` if there is no testnet or no such process.
    """
    logs = _logs(home, name)
    width = max(map(len, logs)) if len(logs) > 1 else 0
    followed = {owner: _Follower(path) for owner, path in logs.items()} if follow else {}
    for owner, line in _merge({owner: last_lines(path, lines) for owner, path in logs.items()})[-lines:]:
        say(_show(owner, line, width))
    while followed:
        for owner, follower in followed.items():
            for line in follower.new_lines():
                say(_show(owner, line, width))
        time.sleep(_POLL_SECONDS)


def _logs(home: TestnetHome, name: str | None) -> dict[str, Path]:
    """Where each process writes what is meant for people."""
    nodes = {node: home.node(node).logs / "output.log" for node in read_testnet(home).names}
    shared = {other: home.logs / f"{other}.log" for other in SHARED}
    logs = {**nodes, **{other: path for other, path in shared.items() if path.exists()}}
    if name is None:
        return logs
    if name not in logs:
        raise TestnetError(f"{name}: no such process: there are {', '.join(logs)}")
    return {name: logs[name]}


def _merge(tails: dict[str, Sequence[str]]) -> list[tuple[str, str]]:
    """(process, line) by time; a line without a stamp belongs to the one before it."""
    entries = [
        (stamp, owner, line)
        for owner, lines in tails.items()
        for stamp, line in zip(_stamps(lines), lines, strict=True)
    ]
    return [(owner, line) for _, owner, line in sorted(entries, key=lambda entry: entry[0])]


def _stamps(lines: Sequence[str]) -> Iterator[str]:
    own = (found.group() if (found := _STAMP.match(line)) else "" for line in lines)
    return accumulate(own, lambda before, stamp: stamp or before)


def _show(owner: str, line: str, width: int) -> str:
    return f"{owner:<{width}} | {line}" if width else line


class _Follower:
    """Reads what is appended to a file from now on; the file may appear later."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = path.stat().st_size if path.exists() else 0

    def new_lines(self) -> list[str]:
        """The whole lines that came since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        return whole.decode(errors="replace").splitlines()
