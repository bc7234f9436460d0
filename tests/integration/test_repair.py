"""A daemon whose home was damaged, or whose journal is lost: it refuses, is repaired, and takes part again."""

import subprocess
import sys
from pathlib import Path

import pytest
from daemons import LIMIT, Daemons, founded

from folkmoot.node.store import Journal
from folkmoot.protocol.journal import SatOut, decode_entry
from folkmoot.testnet.home import Plan
from folkmoot.testnet.processes import stop_children

pytestmark = pytest.mark.integration


def repair(daemons: Daemons, name: str, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "folkmoot.node.cli", "repair", "--home", str(daemons.node(name).path)]
    return subprocess.run([*command, *words], capture_output=True, text=True, timeout=LIMIT)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_lost_journal_and_a_damaged_model_are_not_the_end(tmp_path: Path) -> None:
    plan = Plan(nodes=4, rounds=5000, example="breast-cancer", mode="secure")
    with founded(tmp_path / "testnet", plan) as daemons:
        names, home = plan.names, daemons.node("alice")
        children = {name: daemons.start(name) for name in names}
        daemons.await_rounds(names, 3)
        stop_children([children["alice"]])
        model = max(home.models.glob("*.f32"), key=lambda path: path.stat().st_mtime)
        damage(model)
        home.store.unlink()
        home.store.with_name("store.sqlite-wal").unlink(missing_ok=True)

        refused = daemons.run("alice")
        assert refused.returncode == 1 and "folkmoot repair" in refused.stderr, refused.stderr
        mended = repair(daemons, "alice", "--fix", "--yes")
        assert mended.returncode == 0, mended.stdout + mended.stderr
        assert str(model) in mended.stdout and str(home.store) in mended.stdout

        again = daemons.start("alice")
        daemons.wait(lambda: any("alice" in row.participants for row in daemons.histories()["bob"][-1:]))
        daemons.await_rounds(names, 2)
        daemons.histories()  # everybody holds the same models, and nobody was called a liar
        stop_children([again])
        with Journal.open(home.store, read_only=True) as journal:
            entries = [decode_entry(row[3]) for row in journal.entries() if row[2] == "sat-out"]
            assert not journal.is_replacement
        assert len(entries) == 1 and isinstance(entries[0], SatOut)
