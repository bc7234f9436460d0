"""Full disks: one error for all who write, and how a running node waits for room.

Whatever a node was doing when a write found no room, it had not said yet: the journal comes first. So it stops working
as if it had been killed, waits, and goes on from its journal as if it had been started again.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio

from folkmoot.protocol.errors import FolkmootError

LOOK_SECONDS = 2.0
"""Pause between two looks whether there is room again."""

LEAST_ROOM = 1_000_000
"""Bytes that have to be free before a node goes on, besides those of its models."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

T = TypeVar("T")


class DiskFull(FolkmootError):
    """There is no room (or no quota) for `path`. Nothing that stood on the disk before is lost."""

    exit_code = 3

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: the disk is full, or a quota or limit is used up: make room")
        self.path = path


def raise_if_full(error: OSError, path: Path) -> None:
    """Raise `DiskFull` if that is what was wrong when `path` was written."""
    if error.errno in _FULL:
        raise DiskFull(path) from error


def has_room(folder: Path, size: int) -> bool:
    """Whether `size` more bytes can be had in `folder` (or, if it is not there, where it would be).

    Tried out and not asked for: quotas are in no statistics.
    """
    folder = next(one for one in (folder, *folder.parents) if one.is_dir())
    if not hasattr(os, "posix_fallocate"):  # macOS
        return shutil.disk_usage(folder).free >= size
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        return error.errno not in _FULL
    return True


async def run_unless_full(run: Callable[[], Awaitable[T]]) -> T | DiskFull:
    """What `run` returns, or the full disk that ended it, and nothing else with it."""
    full: list[DiskFull] = []
    result: list[T] = []
    try:
        result.append(await run())
    except* DiskFull as group:
        full += _leaves(group)
    return full[0] if full else result[0]


async def await_room(full: DiskFull, size: int, stop: trio.Event) -> None:
    """Return once there is room for `size` bytes where there was none, or `stop` is set."""
    while not stop.is_set():
        with trio.move_on_after(LOOK_SECONDS):
            await stop.wait()
        if await trio.to_thread.run_sync(has_room, full.path.parent, size):
            return


def _leaves(group: BaseExceptionGroup[DiskFull]) -> list[DiskFull]:
    found: list[DiskFull] = []
    for one in group.exceptions:
        found += _leaves(one) if isinstance(one, BaseExceptionGroup) else [one]
    return found
