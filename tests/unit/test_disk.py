"""Full disks: told from other faults, and waited for."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from folkmoot.node.disk import LOOK_SECONDS, DiskFull, await_room, has_room, raise_if_full, run_unless_full
from folkmoot.protocol.errors import FolkmootError


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_by_whatever_name(code: int) -> None:
    with pytest.raises(DiskFull, match="/some/file: the disk is full"):
        raise_if_full(OSError(code, os.strerror(code)), Path("/some/file"))


def test_other_faults_are_left_to_the_caller() -> None:
    raise_if_full(OSError(errno.EIO, "broken"), Path("/some/file"))


def test_room_is_tried_out(tmp_path: Path) -> None:
    assert has_room(tmp_path / "not" / "there" / "yet", 100_000)
    with files_of_at_most(50_000):
        assert not has_room(tmp_path, 100_000)
    assert list(tmp_path.iterdir()) == []


async def test_the_full_disk_that_ended_something_is_given_back(tmp_path: Path) -> None:
    async def fill() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise DiskFull(tmp_path)

    full = await run_unless_full(fill)
    assert isinstance(full, DiskFull) and full.path == tmp_path


async def test_a_fault_beside_it_is_not_lost(tmp_path: Path) -> None:
    async def fail() -> None:
        raise BaseExceptionGroup("both", [DiskFull(tmp_path), FolkmootError("and this")])

    with pytest.raises(BaseExceptionGroup) as caught:
        await run_unless_full(fail)
    assert caught.group_contains(FolkmootError, match="and this")
    assert not caught.group_contains(DiskFull)


async def test_room_is_waited_for_until_the_node_stops(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    full, stop = DiskFull(tmp_path / "file"), trio.Event()
    await await_room(full, 1000, stop)
    assert trio.current_time() == pytest.approx(LOOK_SECONDS)
    with files_of_at_most(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(await_room, full, 1000, stop)
            await trio.sleep(10 * LOOK_SECONDS)
            stop.set()
