"""The report and the table are put together from what nodes and ledger say, with nothing made up."""

import io
import json
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from folkmoot.ledger.audit import AuditReport, Check, Status
from folkmoot.ledger.port import Record
from folkmoot.node.status_file import LedgerStatus, NodeStatus, RoundStatus
from folkmoot.protocol.messages import Statement
from folkmoot.testnet.home import TestnetHome
from folkmoot.testnet.learning import Baselines
from folkmoot.testnet.report import Report, make_story, node_reports, round_reports, write_report
from folkmoot.testnet.running import show_report
from folkmoot.testnet.table import LiveTable, PlainLines, View, make_view

NAMES = ("alice", "bob")


BASELINES = Baselines(alone=({"accuracy": 0.8}, {"accuracy": 0.81}), pooled={"accuracy": 0.97})


def model(number: int) -> bytes:
    return bytes([number]) * 32


def status(name: str, rounds: int, *, height: int = 0, accuracy: float = 0.9) -> NodeStatus:
    metrics = {"accuracy": accuracy, "examples": 20.0}
    history = [
        RoundStatus(
            round=number,
            participants=["alice", "bob"],
            seconds=0.5 + 0.1 * (name == "bob"),
            model_digest=model(number).hex(),
            statement="00" * 32,
            metrics=metrics if number < rounds else {},
            bytes=1000 * number,
        )
        for number in range(1, rounds + 1)
    ]
    return NodeStatus(
        name=name,
        pid=1,
        peer_id=f"12D3{name}",
        member=NAMES.index(name),
        rounds=rounds,
        phase="done",
        model_digest=model(rounds).hex() if rounds else "",
        metrics=metrics,
        bytes_sent=10,
        bytes_received=20,
        peak_rss_mb=101.5,
        trainer_peak_rss_mb=80.25,
        ledger=LedgerStatus(height=height, backlog=rounds - height, state="ok"),
        history=history,
    )


def record(number: int) -> Record:
    zero = bytes(32)
    statement = Statement(
        federation=zero,
        round=number,
        previous=zero,
        config=zero,
        base=zero,
        survivors=zero,
        model=model(number),
        archive=zero,
    )
    return Record(
        statement=statement,
        digest=b"\xdd" * 32,
        signed=b"\xdd" * 32,
        signatures=(),
        signers=(),
        transaction=b"\xee" * 32,
        block=number,
        block_hash=zero,
        gas_used=65_000 + number,
        submitter=bytes(20),
    )


def report(*statuses: NodeStatus | None, audit: Status = Status.PASS) -> Report:
    records = [record(1), record(2)]
    return Report(
        federation="ab" * 32,
        mode="open",
        nodes=node_reports(NAMES, statuses, BASELINES),
        pooled_accuracy=0.97,
        pooled_metrics=BASELINES.pooled,
        rounds=round_reports(records, statuses),
        worse_off=("bob is worse off with the federation than alone.",),
        audit=AuditReport(status=audit, checks=(Check("quorum", audit, "2 statements"),)),
        cpu_seconds=12.5,
        cpu_seconds_by_process={"chain": 2.0},
        wall_seconds=20.0,
    )


def test_the_report_has_the_agreed_shape(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(path, report(status("alice", 2), status("bob", 2)))
    written = json.loads(path.read_text())
    assert set(written) >= {"federation", "mode", "nodes", "pooled_accuracy", "rounds", "audit"}
    assert written["nodes"][1] == {
        "name": "bob",
        "peer_id": "12D3bob",
        "rounds": 2,
        "model_digest": model(2).hex(),
        "accuracy": 0.9,
        "personal_accuracy": None,
        "alone_accuracy": 0.81,
        "metrics": {"accuracy": 0.9, "examples": 20},
        "personal_metrics": {},
        "alone_metrics": {"accuracy": 0.81},
        "bytes_sent": 10,
        "bytes_received": 20,
        "peak_rss_mb": 101.5,
        "trainer_peak_rss_mb": 80.25,
    }
    assert written["rounds"][0] == {
        "round": 1,
        "participants": ["alice", "bob"],
        "seconds": pytest.approx(0.55),
        "model_digest": model(1).hex(),
        "statement": "dd" * 32,
        "tx": "0x" + "ee" * 32,
        "gas": 65_001,
        "accuracy": 0.9,
        "metrics": {"accuracy": 0.9, "examples": 40},
        "by_node": {name: {"accuracy": 0.9, "examples": 20} for name in NAMES},
    }
    assert written["audit"]["checks"] == [
        {"id": "quorum", "status": "PASS", "detail": "2 statements", "number": 0}
    ]


def test_success_is_one_model_and_a_passed_audit() -> None:
    alice, bob = status("alice", 2), status("bob", 2)
    assert report(alice, bob).succeeded
    assert not report(alice, bob, audit=Status.FAIL).succeeded
    assert not report(alice, status("bob", 1)).succeeded
    assert not report(alice, None).succeeded
    assert not report(status("alice", 1), status("bob", 1)).succeeded  # both behind the ledger


def test_nothing_recorded_is_no_agreement() -> None:
    nothing = msgspec.structs.replace(report(status("alice", 0), status("bob", 0)), rounds=())
    assert not nothing.succeeded


def test_a_node_that_never_spoke_keeps_its_place_and_baseline() -> None:
    silent = report(status("alice", 2), None).nodes[1]
    assert (silent.name, silent.rounds, silent.model_digest, silent.alone_accuracy) == ("bob", 0, "", 0.81)


def test_a_recorded_round_that_no_node_remembers_is_reported_from_the_ledger() -> None:
    (entry,) = round_reports([record(7)], [status("alice", 2), None])
    assert (entry.round, entry.participants, entry.gas, entry.accuracy) == (7, [], 65_007, None)


def test_the_page_tells_of_every_node_with_its_baseline() -> None:
    story = make_story("clinics", "open", NAMES, [status("alice", 2), None], BASELINES)
    alice, bob = story.parts
    assert (len(alice.rounds), alice.models["shared"]["accuracy"]) == (2, 0.9)
    assert (len(bob.rounds), bob.models) == (0, {"shared": {}, "alone": {"accuracy": 0.81}})
    assert (story.members, story.pooled) == (["alice", "bob"], {"accuracy": 0.97})


def test_the_view_joins_the_nodes() -> None:
    view = make_view([status("alice", 2, height=1), status("bob", 1)], nodes=2, total=3)
    first, second = view.rounds
    assert (first.finished, first.participants, first.traffic) == (2, ("alice", "bob"), 1000)
    assert first.metrics == {"accuracy": 0.9, "examples": 20}  # bob has not measured it yet
    assert first.seconds == pytest.approx(0.55)
    assert (second.finished, second.metrics) == (1, {})
    assert view.ledger == "1 of 3 rounds recorded, 1 waiting"


def test_the_view_before_anybody_spoke() -> None:
    view = make_view([], nodes=2, total=3)
    assert (view.rounds, view.activity, view.ledger) == ((), "starting", "0 of 3 rounds recorded (unknown)")


def views() -> list[View]:
    return [
        make_view([status("alice", rounds, height=rounds), status("bob", rounds)], 2, 3)
        for rounds in range(4)
    ]


def test_plain_output_is_one_line_for_each_round_with_its_metrics() -> None:
    out = io.StringIO()
    with PlainLines(Console(file=out, width=40)) as display:
        for view in views():
            display.update(view)
            display.update(view)
        display.update(views()[-1], final=True)
    lines = out.getvalue().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["round 1/3", "round 2/3", "round 3/3"]
    assert "accuracy 0.9000" in lines[0]


def test_the_live_table_shows_rounds_ledger_and_activity() -> None:
    out = io.StringIO()
    with LiveTable(Console(file=out, width=120, force_terminal=True)) as display:
        for view in views():
            display.update(view)
        display.say("dave ended (exit code 1)")
    text = out.getvalue()
    assert "3/3" in text and "recorded" in text and "alice done" in text and "dave ended" in text


@pytest.mark.parametrize(
    ("second", "said"), [(2, "all 2 nodes hold the recorded model"), (1, "do not all hold")]
)
def test_the_last_words_tell_metrics_agreement_and_audit(tmp_path: Path, second: int, said: str) -> None:
    out = io.StringIO()
    show_report(
        Console(file=out, width=120), TestnetHome(tmp_path), report(status("alice", 2), status("bob", second))
    )
    text = out.getvalue()
    for part in (
        said,
        "0.9700",
        "0.8100",
        "bob is worse off",
        "quorum        PASS",
        "audit: PASS",
        str(tmp_path / "report.json"),
    ):
        assert part in text
