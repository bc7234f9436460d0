"""The system's clock may jump by hours, in the middle of anything: every duration is measured by another one."""

import ast
import random
import time
from pathlib import Path

import pytest
from living_federation import House, LivingFederation, in_virtual_time

from folkmoot.protocol.charter_tables import Averaging

ROOT = Path(__file__).resolve().parents[2]

SHOWN_ONLY = {
    "node/archive.py": "how old a half-fetched blob is: one that is removed too early is fetched again",
    "node/cli/doctor.py": "how old the status is",
    "node/cli/status.py": "how old the status is",
    "node/doctor/examine.py": "how old the status is",
    "node/network/libp2p_gossip.py": "where a node's message numbers begin: each once",
    "node/network/libp2p_dialling.py": "when a member was called last",
    "node/network/libp2p_transport.py": "when a member was called last",
    "node/network/libp2p_views.py": "how old another member's view is",
    "node/transactions.py": "when a transaction was made",
    "node/watch.py": "when the status was written",
}
"""Files that ask what time it is, and what for: people read it, and nothing is lost if it is wrong."""

WALL_CLOCK = {
    ("time", "time"),
    ("time", "time_ns"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("date", "today"),
}


def asks_the_time(path: Path) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return any(isinstance(one.value, ast.Name) and (one.value.id, one.attr) in WALL_CLOCK for one in names)


def test_only_what_people_read_depends_on_the_time_of_day() -> None:
    files = [path for folder in ("node", "protocol") for path in (ROOT / folder).rglob("*.py")]
    assert {str(path.relative_to(ROOT)) for path in files if asks_the_time(path)} <= set(SHOWN_ONLY)


@pytest.mark.parametrize("mode", ["open", "secure"])
def test_rounds_go_on_while_the_clock_jumps_by_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """At every look it is another time, up to a day before or after; one node is started anew meanwhile."""
    rng, true = random.Random(3), time.time
    monkeypatch.setattr(time, "time", lambda: true() + rng.uniform(-86_400, 86_400))
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))

    async def story() -> None:
        federation = LivingFederation(tmp_path, rounds=5, averaging=Averaging(mode=mode, weight_cap=100))  # type: ignore[arg-type]

        async def live(house: House) -> None:
            await house.live_until(lambda: house.latest >= 2)
            await house.live()

        await federation.run({1: live})
        federation.check()

    in_virtual_time(story)
