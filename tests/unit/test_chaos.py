"""What chaos does is drawn from its seed alone; what it reports is what was found."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.console import Console

from folkmoot.ledger.audit import AuditReport, Check, Status
from folkmoot.node.status_file import NodeStatus, RoundStatus
from folkmoot.testnet.chaos import Chaos
from folkmoot.testnet.chaos_report import ChaosReport, NodeMemory, compare_models, show_chaos_report
from folkmoot.testnet.disturbances import draw
from folkmoot.testnet.home import NAMES, Plan, Testnet, TestnetHome, write_testnet
from folkmoot.testnet.processes import TestnetError

HELD = ChaosReport(
    seed=1,
    seconds=60.0,
    disturbances=draw(1, NAMES[:4], 60.0, shaped=True),
    rounds=40,
    deaths=(),
    seconds_to_heal=1.5,
    disagreement=[],
    audit=AuditReport(status=Status.PASS, checks=()),
    memory=[NodeMemory(name="alice", start_mb=100.0, end_mb=101.0)],
)
FAILED = AuditReport(
    status=Status.FAIL, checks=(Check(id="sums", status=Status.FAIL, detail="round 3 is wrong"),)
)


@given(st.integers(0, 2**31 - 1), st.integers(1, 10), st.floats(6, 600), st.booleans())
def test_disturbances_follow_one_another_and_end_in_time(
    seed: int, nodes: int, seconds: float, shaped: bool
) -> None:
    names = NAMES[:nodes]
    plan = draw(seed, names, seconds, shaped=shaped)
    assert plan == draw(seed, names, seconds, shaped=shaped)
    over = 0.0
    for one in plan:
        assert one.at > over and one.seconds > 0
        over = one.at + one.seconds
        assert set(one.nodes) <= set(names) and one.nodes
        if one.kind in ("kill", "pause"):
            assert len(one.nodes) <= max(1, (nodes - 1) // 3)
        else:
            assert shaped and len(one.nodes) < nodes
    assert over <= seconds


def test_every_kind_comes_and_says_what_it_is() -> None:
    plan = draw(0, NAMES[:6], 3600.0, shaped=True)
    assert {one.kind for one in plan} == {"kill", "pause", "cut", "silence", "slow"}
    assert all(one.nodes[0] in str(one) and f"for {one.seconds:.1f} s" in str(one) for one in plan)
    assert {one.kind for one in draw(0, NAMES[:6], 3600.0, shaped=False)} == {"kill", "pause"}


def status(name: str, **models: str) -> NodeStatus:
    rows = [
        RoundStatus(round=int(number[1:]), participants=[], seconds=1.0, model_digest=digest, statement="")
        for number, digest in models.items()
    ]
    return NodeStatus(name=name, pid=1, peer_id="", member=0, history=rows)


def test_models_are_compared_round_by_round() -> None:
    alice, bob = status("alice", r1="aa", r2="bb", r3="cc"), status("bob", r2="bb", r3="cc", r4="dd")
    assert compare_models([alice, bob]) == []
    assert compare_models([alice, bob, status("carol", r3="ee", r4="ff")]) == [3, 4]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "it held"),
        ({"deaths": ("bob died and nobody killed it",)}, "bob died and nobody killed it"),
        ({"seconds_to_heal": None}, "did not go on together"),
        ({"disagreement": [3, 4]}, "models differ in rounds 3, 4"),
        ({"audit": FAILED}, "sums: FAIL: round 3 is wrong"),
    ],
)
def test_it_held_only_if_nothing_is_wrong(tmp_path: Path, change: dict[str, object], line: str) -> None:
    report, screen = replace(HELD, **change), io.StringIO()
    assert report.held is (not change)
    show_chaos_report(Console(file=screen, width=120), TestnetHome(tmp_path), report)
    assert line in screen.getvalue()
    assert ("it did not hold" in screen.getvalue()) is not report.held


def test_a_testnet_that_is_down_is_not_disturbed(tmp_path: Path) -> None:
    home = TestnetHome(tmp_path)
    write_testnet(home, Testnet(plan=Plan(nodes=4, rounds=3, example="digits")))
    with pytest.raises(TestnetError, match="the testnet is down"):
        Chaos(home, print)
