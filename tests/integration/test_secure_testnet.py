"""Secure mode with real daemons: it learns what open mode learns, and goes on without a member killed at any step."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from daemons import Daemons, founded
from living_federation import unequal_bodies

from folkmoot.node.store import KILL_AFTER_ENTRY
from folkmoot.testnet.home import Plan

pytestmark = pytest.mark.integration

ROUNDS = 4
LIMIT = 240.0

SUCCESSORS = 2
"""Rounds that the others finish before a killed member comes back: the one in work then is without it."""

DEATHS = (
    "ready",
    "commitment",
    "share-taken",
    "voted",
    "sum",
    "fingerprint",
    "locked",
    "released",
    "attested",
)
"""What stands last in a killed member's journal, and was told to nobody."""


def run_testnet(home: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "folkmoot.node.cli", "testnet", "run", "--home", str(home), *options]
    ran = subprocess.run(
        [*command, "--nodes", "4", "--rounds", str(ROUNDS), "--example", "digits"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report: dict[str, Any] = json.loads((home / "report.json").read_text())
    return report


def test_it_learns_what_open_mode_learns_and_passes_its_audit(tmp_path: Path) -> None:
    secure = run_testnet(tmp_path / "secure", "--mode", "secure")
    open_ = run_testnet(tmp_path / "open", "--mode", "open", "--codec", "f32")
    assert (secure["mode"], open_["mode"]) == ("secure", "open")
    assert secure["audit"]["status"] == "PASS"
    assert {node["model_digest"] for node in secure["nodes"]} == {secure["rounds"][-1]["model_digest"]}
    assert secure["rounds"][-1]["metrics"]["examples"] == open_["rounds"][-1]["metrics"]["examples"]
    assert abs(secure["rounds"][-1]["accuracy"] - open_["rounds"][-1]["accuracy"]) <= 0.005
    # Two bytes a value, and the sums a little more, against four from every other member.
    assert secure["nodes"][0]["bytes_sent"] < 0.4 * open_["nodes"][0]["bytes_sent"]


def test_rounds_are_completed_without_a_member_that_is_killed_at_any_step(tmp_path: Path) -> None:
    plan = Plan(nodes=4, rounds=10_000, example="breast-cancer", mode="secure")
    with founded(tmp_path / "testnet", plan) as daemons:
        victim, *others = plan.names
        for name in others:
            daemons.start(name)
        for word in DEATHS:
            child = daemons.start(victim, {KILL_AFTER_ENTRY: word})
            daemons.wait(lambda child=child: child.poll() is not None)  # type: ignore[misc]
            assert child.exit_code == -signal.SIGKILL
            before = max(rounds(daemons, name) for name in others)
            daemons.wait(
                lambda before=before: all(rounds(daemons, name) >= before + SUCCESSORS for name in others)  # type: ignore[misc]
            )
        before = rounds(daemons, others[0])
        daemons.start(victim)
        daemons.wait(lambda: rounds(daemons, victim) > before + SUCCESSORS)
        check(daemons)
    assert unequal_bodies(signed for name in plan.names for signed in daemons.signed_by(name)) == {}


def rounds(daemons: Daemons, name: str) -> int:
    status = daemons.status(name)
    return status.rounds if status is not None else 0


def check(daemons: Daemons) -> None:
    """Everybody holds the same model after every round, and nobody was called a liar."""
    statuses = [status for name in daemons.plan.names if (status := daemons.status(name)) is not None]
    models: dict[int, set[str]] = {}
    for status in statuses:
        assert status.misbehaviour == []
        for row in status.history:
            models.setdefault(row.round, set()).add(row.model_digest)
    assert len(models) > len(DEATHS) * SUCCESSORS
    assert {len(digests) for digests in models.values()} == {1}
    without = [row for row in statuses[1].history if daemons.plan.names[0] not in row.participants]
    assert len(without) >= len(DEATHS)
