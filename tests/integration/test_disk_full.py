"""A node whose disk runs full says so, signs nothing more, and goes on by itself once there is room.

The disk is real, and small: a tmpfs of its own, for which the system has to let us mount one.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from daemons import Daemons, founded

from folkmoot.node.config import Home
from folkmoot.testnet.home import Plan

pytestmark = pytest.mark.integration

SIZE = 8_000_000


@pytest.fixture(params=["secure", pytest.param("open", marks=pytest.mark.nightly)])
def daemons(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Daemons]:
    plan = Plan(nodes=4, rounds=5000, example="breast-cancer", mode=request.param)
    with founded(tmp_path / "testnet", plan) as daemons:
        yield daemons


@contextmanager
def on_small_disk(home: Home) -> Iterator[None]:
    """Move a home, all but its logs, onto a disk of `SIZE` bytes."""
    aside = home.path.with_name("aside")
    home.path.rename(aside)
    home.path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", str(home.path)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this system lets us mount no small disk: {mounted.stderr.strip()}")
    try:
        shutil.copytree(aside, home.path, dirs_exist_ok=True)
        shutil.rmtree(home.logs, ignore_errors=True)
        (aside / "logs").mkdir(exist_ok=True)
        home.logs.symlink_to(aside / "logs")
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(home.path)], check=True)


def fill(disk: Path) -> Path:
    """Use up all of its room; the file to remove again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return ballast


def test_a_full_disk_stops_a_node_until_there_is_room(daemons: Daemons) -> None:
    names, home = daemons.plan.names, daemons.node("alice")
    with on_small_disk(home):
        child = daemons.start("alice")
        for name in names[1:]:
            daemons.start(name)
        log = home.logs / "node.log"
        daemons.await_rounds(names, 2)

        ballast = fill(home.path)
        daemons.wait(lambda: '"disk full"' in log.read_text())
        assert child.poll() is None
        daemons.await_rounds(names[1:], 2)  # the others need nobody in particular

        ballast.unlink()
        daemons.wait(lambda: "there is room again" in log.read_text())
        daemons.await_rounds(names, 3)  # the first ones it may only learn of
        daemons.wait(lambda: "alice" in daemons.histories()["bob"][-1].participants)
        assert "Traceback" not in Path(child.ref.log).read_text()
        assert log.read_text().count('"disk full"') <= 3
