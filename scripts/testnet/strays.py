"""Nodes of a testnet that somebody started by hand, with `folkmoot run`: they belong to it all the same."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from folkmoot.node.config import Home
from folkmoot.node.logs import FILE_NAME
from folkmoot.node.status_file import StatusError, read_status
from folkmoot.testnet.processes import ProcessRef, start_mark


def find_strays(homes: Iterable[tuple[str, Home]]) -> tuple[ProcessRef, ...]:
    """Those of these nodes (by name) that run and have their journals open, whoever started them."""
    found = (_find_stray(name, home) for name, home in homes)
    return tuple(process for process in found if process is not None)


def _find_stray(name: str, home: Home) -> ProcessRef | None:
    try:
        status = read_status(home.status)
    except StatusError:
        return None
    mark = None if status is None else start_mark(status.pid)
    if status is None or mark is None or not _has_open(status.pid, home.store):
        return None
    return ProcessRef(name=name, pid=status.pid, started=mark, log=str(home.logs / FILE_NAME))


def _has_open(pid: int, path: Path) -> bool:
    """A pid in an old file may be another process by now."""
    wanted = path.resolve()
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):  # closed in between
            if descriptor.readlink() == wanted:
                return True
    return False
