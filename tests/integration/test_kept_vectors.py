"""What a member keeps for itself outlives SIGKILL, and goes on only with rounds that it is in: real daemons.

A correction's vector (FedDyn, SCAFFOLD), what a coarse codec lost (int2, top3), personal tensors, a model beside.
"""

import hashlib
import os
import signal
from pathlib import Path

import pytest
from daemons import Daemons, founded

from folkmoot.node.member_state import round_kept
from folkmoot.node.recorded import RecordedModels
from folkmoot.testnet.home import Plan

pytestmark = pytest.mark.integration

VICTIM, NAMES = "bob", ("own", "personal", "ditto", "residual")


def kept(daemons: Daemons) -> dict[str, str]:
    """SHA-256 of each vector that the victim keeps, by the name of its file."""
    files = daemons.node(VICTIM).updates.glob("*-??????.f32")
    mine = (path for path in files if path.name.startswith(NAMES))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in mine}


def rounds_with(daemons: Daemons, name: str) -> list[int]:
    """Rounds that the victim knows and that `name` took part in."""
    status = daemons.status(VICTIM)
    return [row.round for row in status.history if name in row.participants] if status is not None else []


def newest(daemons: Daemons) -> dict[str, int]:
    """The round that each of the victim's vectors is from."""
    found: dict[str, int] = {}
    for path in map(Path, kept(daemons)):
        name = path.stem.split("-")[0]
        found[name] = max(found.get(name, 0), round_kept(path))
    return found


@pytest.mark.parametrize(("correction", "codec"), [("feddyn", "int2"), ("scaffold", "top3")])
def test_what_a_member_keeps_outlives_a_kill(tmp_path: Path, correction: str, codec: str) -> None:
    terms = ("model.shared=0.weight", f"training.correction={correction}")
    plan = Plan(
        nodes=4,
        rounds=60,
        example="breast-cancer",
        codec=codec,
        terms=terms,
        ditto=0.1,  # type: ignore[arg-type]
    )
    with founded(tmp_path / "testnet", plan) as daemons:
        # The starting weights are to be had from others.
        for path in daemons.node("dave").models.glob("*.*"):
            path.unlink()
        children = {name: daemons.start(name) for name in plan.names}
        daemons.wait(lambda: len(rounds_with(daemons, VICTIM)) >= 3 and rounds_with(daemons, "dave"))
        os.kill(children[VICTIM].ref.pid, signal.SIGKILL)
        daemons.wait(lambda: children[VICTIM].poll() is not None)
        before, reached = kept(daemons), daemons.rounds("alice")
        assert {name.split("-")[0] for name in before} == set(NAMES)
        daemons.wait(lambda: daemons.rounds("alice") >= reached + 2)
        children[VICTIM] = daemons.start(VICTIM)
        daemons.wait(lambda: any(number > reached + 2 for number in rounds_with(daemons, VICTIM)))
        os.kill(children[VICTIM].ref.pid, signal.SIGTERM)
        daemons.wait(lambda: children[VICTIM].poll() is not None)
        last = max(rounds_with(daemons, VICTIM))
        assert newest(daemons) == dict.fromkeys(NAMES, last)
        assert kept(daemons) != before
        recorded = RecordedModels(daemons.node(VICTIM))
        assert recorded.own_parts()[1] == last and recorded.own_model()[1] == last
        assert len(recorded.whole(last, print)) == 62
        daemons.histories()
