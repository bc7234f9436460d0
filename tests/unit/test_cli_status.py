"""`folkmoot status` tells what the node last said, and whether it still runs, from one file."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from folkmoot.node.cli.status import (
    _progress,
    describe_peers,
    describe_state,
    format_metrics,
    format_size,
    format_values,
    metric_names,
    status,
)
from folkmoot.node.status_file import (
    Misbehaviour,
    MissingPeer,
    NodeStatus,
    RoundStatus,
    ShutOutMember,
    StatusError,
    write_status,
)


@pytest.fixture
def report() -> NodeStatus:
    entry = RoundStatus(
        round=1,
        participants=["alice", "bob", "carol", "dave"],
        seconds=0.71,
        model_digest="ab" * 32,
        statement="cd" * 32,
        metrics={"accuracy": 0.9125, "examples": 360.0},
        members_metrics={"accuracy": 0.9375, "examples": 1440.0},
        bytes=812_345,
    )
    return NodeStatus(
        name="alice",
        pid=os.getpid(),
        peer_id="12D3KooWalice",
        member=0,
        rounds=1,
        phase="training",
        peers=["bob", "carol"],
        history=[entry],
        refused={"stale round": 3},
        updated=time.time(),
    )


def test_it_shows_state_peers_and_history(tmp_path: Path, report: NodeStatus) -> None:
    write_status(tmp_path / "status.json", report)
    shown = CliRunner().invoke(status, ["--home", str(tmp_path)])
    assert shown.exit_code == 0
    for part in (
        "alice",
        f"running as process {os.getpid()}",
        "bob, carol",
        "0.9125",
        "0.9375",
        "812 kB",
        "stale round: 3",
    ):
        assert part in shown.output


def test_it_names_who_was_caught_and_why(tmp_path: Path, report: NodeStatus) -> None:
    for member in ("bob", "carol"):
        one = Misbehaviour(member=member, kind="wrong sum", reason="not that of the shards", round=3)
        report.misbehaviour.append(one)
    write_status(tmp_path / "status.json", report)
    shown = CliRunner().invoke(status, ["--home", str(tmp_path)]).output
    assert "bob: wrong sum (round 3)" in shown and "carol: wrong sum (round 3)" in shown


def test_json_is_the_file_and_whether_it_runs(tmp_path: Path, report: NodeStatus) -> None:
    write_status(tmp_path / "status.json", report)
    printed = json.loads(CliRunner().invoke(status, ["--home", str(tmp_path), "--json"]).output)
    written = json.loads((tmp_path / "status.json").read_text())
    assert printed == {"running": True, **written}


def test_a_home_where_nothing_ran_says_what_to_do(tmp_path: Path) -> None:
    failed = CliRunner().invoke(status, ["--home", str(tmp_path)])
    assert isinstance(failed.exception, StatusError)
    assert "start it with 'folkmoot run'" in str(failed.exception)


def test_a_node_that_is_gone_has_no_peers_and_is_in_no_round(tmp_path: Path, report: NodeStatus) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    report.pid = gone.pid
    write_status(tmp_path / "status.json", report)
    shown = CliRunner().invoke(status, ["--home", str(tmp_path)]).output
    assert "not running" in shown and "1 completed" in shown and "0.9125" in shown
    assert "training" not in shown and "bob, carol" not in shown and "none answers" not in shown


@pytest.mark.parametrize(
    ("phase", "told"),
    [
        ("starting", "1 completed"),
        ("voting", "1 completed, now voting in round 2 attempt 1"),
        ("measuring", "1 completed; measuring the last model"),
        ("done", "1 completed, done: it goes on serving"),
    ],
)
def test_what_a_running_node_does(tmp_path: Path, report: NodeStatus, phase: str, told: str) -> None:
    report.phase, report.round, report.attempt = phase, 2, 1
    write_status(tmp_path / "status.json", report)
    shown = CliRunner().invoke(status, ["--home", str(tmp_path)]).output
    (line,) = [line for line in shown.splitlines() if "completed" in line]
    assert line.strip("│ ").split(maxsplit=2)[2].strip() == told


def test_a_silent_or_dead_node_is_told(report: NodeStatus) -> None:
    assert describe_state(report, True, report.updated + 1) == f"running as process {report.pid}"
    assert "silent for 60 s" in describe_state(report, True, report.updated + 60)
    assert "not running" in describe_state(report, False, report.updated + 60)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (2_500_000, "2.5 MB"),
        (903_400, "903 kB"),
        (7.2e12, "7200 GB"),
    ],
)
def test_sizes_are_for_people(size: float, text: str) -> None:
    assert format_size(size) == text


def test_what_was_not_measured_is_a_dash() -> None:
    assert format_metrics({}) == "-"
    found = {"auc": 0.8, "accuracy": 0.9, "log_loss": 0.3, "ece": 0.05, "brier": 0.1}
    assert format_metrics(found) == "accuracy 0.9000, auc 0.8000"
    assert format_metrics({"mae": 2.5, "rmse": 3.25}) == "rmse 3.2500, mae 2.5000"
    assert format_metrics({"mae": 7781.65264, "rmse": 9724.1068}) == "rmse 9724.11, mae 7781.65"


def test_a_column_of_measures_is_headed_by_their_names() -> None:
    rows = [{}, {"auc": 0.8, "accuracy": 0.9, "log_loss": 0.3}]
    names = metric_names(rows)
    assert names == ["accuracy", "auc"]
    assert [format_values(row, names) for row in rows] == ["-", "0.9000 / 0.8000"]
    assert metric_names([]) == ["accuracy"]


def test_it_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'libp2p', 'web3', 'trio', 'rich', 'numpy'}"
    program = f"import sys, folkmoot.node.cli.status; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"


def test_it_says_who_is_not_connected_since_when_and_why(report: NodeStatus) -> None:
    report.missing = [
        MissingPeer(
            member="dave", since=880.0, tried=990.0, error="/ip4/192.0.2.7/tcp/4001: Connection refused"
        ),
        MissingPeer(member="erin", since=1000.0 - 5 * 3600),
    ]
    assert describe_peers(report, 1000.0).splitlines() == [
        "bob, carol",
        "not dave, for 2 min: /ip4/192.0.2.7/tcp/4001: Connection refused (tried 10 s ago)",
        "not erin, for 5 h: waiting for its call",
    ]


def test_it_names_who_is_shut_out_until_when_and_why(tmp_path: Path, report: NodeStatus) -> None:
    until = time.time() + 40
    report.shut_out = [ShutOutMember(member="dave", until=until, reason="bad frame (control)", times=3)]
    write_status(tmp_path / "status.json", report)
    shown = CliRunner().invoke(status, ["--home", str(tmp_path)])
    clock = time.strftime("%H:%M:%S", time.localtime(until))
    assert f"dave until {clock}" in shown.output
    assert "(time 3): bad frame (control)" in " ".join(shown.output.split())
    told = json.loads(CliRunner().invoke(status, ["--home", str(tmp_path), "--json"]).output)
    assert told["shut_out"][0]["member"] == "dave"


def test_without_a_quorum_it_says_how_many_nodes_are_missing() -> None:
    report = NodeStatus(
        name="alice", pid=1, peer_id="x", member=0, phase="ready", round=5, rounds=4, quorum=3
    )
    assert "only 1 of the 3 nodes that a round needs are up" in _progress(report, running=True)
    report.peers = ["bob", "carol"]
    assert _progress(report, running=True) == "4 completed, now ready in round 5 attempt 0"
    report.peers = []
    assert _progress(report, running=False) == "4 completed"


def test_a_full_disk_is_no_phase_of_a_round() -> None:
    report = NodeStatus(name="alice", pid=1, peer_id="x", member=0, phase="disk full", round=5, rounds=4)
    assert "the disk is full" in _progress(report, running=True)
