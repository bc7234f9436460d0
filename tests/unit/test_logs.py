"""Logs and the status file."""

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from folkmoot.node.config import LogConfig
from folkmoot.node.logs import FILE_NAME, LogError, Once, logger, logging_to, rotate
from folkmoot.node.status_file import (
    LedgerStatus,
    NodeStatus,
    PeakRss,
    RoundStatus,
    StatusError,
    is_running,
    read_status,
    rss_mb,
    write_status,
)


def lines(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (directory / FILE_NAME).read_text().splitlines()]


def test_a_line_is_json_in_the_file_and_plain_for_people(tmp_path: Path) -> None:
    people = io.StringIO()
    early = logger(node="alice")
    with logging_to(tmp_path / "logs", stream=people):
        early.info("round closed", round=3)
        logger().debug("too fine")
        logging.getLogger("library.part").warning("dial %s failed", "bob")
        logging.getLogger("library.part").info("chatter")
    first, second = lines(tmp_path / "logs")
    assert (first["event"], first["level"], first["round"], first["node"]) == (
        "round closed",
        "info",
        3,
        "alice",
    )
    assert str(first["timestamp"]).endswith("Z")
    assert (second["event"], second["level"]) == ("dial bob failed", "warning")
    assert "round closed" in people.getvalue() and "round=3" in people.getvalue()
    assert "too fine" not in people.getvalue() and "chatter" not in people.getvalue()


def test_the_level_is_the_operators(tmp_path: Path) -> None:
    with logging_to(tmp_path, LogConfig(level="debug"), io.StringIO()):
        logger().debug("fine")
    with logging_to(tmp_path, LogConfig(level="error"), io.StringIO()):
        logger().warning("quiet")
    assert [line["event"] for line in lines(tmp_path)] == ["fine"]


def test_a_traceback_stands_in_the_file(tmp_path: Path) -> None:
    with logging_to(tmp_path, stream=io.StringIO()):
        try:
            raise ValueError("what went wrong")
        except ValueError:
            logger().exception("fetch failed")
    (line,) = lines(tmp_path)
    assert "ValueError: what went wrong" in str(line["exception"])


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    with pytest.raises(RuntimeError), logging_to(tmp_path, stream=io.StringIO()):
        raise RuntimeError
    assert (list(root.handlers), root.level) == before


@pytest.mark.parametrize("taken", ["logs", "logs/node.log"])
def test_a_place_that_is_taken_is_named(tmp_path: Path, taken: str) -> None:
    directory = tmp_path / "logs"
    if taken == "logs":
        directory.write_text("")
    else:
        (tmp_path / taken).mkdir(parents=True)
    with (
        pytest.raises(LogError, match=f"{tmp_path / taken}: the log cannot be written"),
        logging_to(directory),
    ):
        pass


def test_once_logs_the_first_of_each_kind_and_peer_and_counts_all(tmp_path: Path) -> None:
    once = Once(logger())
    with logging_to(tmp_path, stream=io.StringIO()):
        for _ in range(3):
            once.note("bad signature", "bob", detail="round 1")
        once.note("bad signature", "carol")
        once.note("oversized frame", "bob")
        logged = [(line["event"], line["peer"]) for line in lines(tmp_path)]
        assert logged == [("bad signature", "bob"), ("bad signature", "carol"), ("oversized frame", "bob")]
        assert once.counts() == {"bad signature": 4, "oversized frame": 1}
        once.log_totals()
    assert [(line["kind"], line["peer"], line["count"]) for line in lines(tmp_path)[3:]] == [
        ("bad signature", "bob", 3)
    ]


def test_made_up_peers_cannot_fill_the_memory_or_the_log(tmp_path: Path) -> None:
    once = Once(logger())
    with logging_to(tmp_path, stream=io.StringIO()):
        for number in range(Once.MAX_PEERS + 500):
            once.note("stranger", f"peer {number}")
    assert once.counts() == {"stranger": Once.MAX_PEERS + 500}
    assert len(lines(tmp_path)) == Once.MAX_PEERS + 1


STATUS = NodeStatus(
    name="alice",
    pid=os.getpid(),
    peer_id="12D3",
    member=0,
    round=3,
    rounds=2,
    peers=["bob"],
    metrics={"accuracy": 0.97},
    ledger=LedgerStatus(height=1, backlog=1, state="ok"),
    history=[
        RoundStatus(round=1, participants=["alice"], seconds=0.5, model_digest="ab", statement="cd", bytes=10)
    ],
    refused={"bad signature": 2},
)


def test_a_status_comes_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    assert read_status(path) is None
    write_status(path, STATUS)
    write_status(path, STATUS)
    assert read_status(path) == STATUS
    ledger = json.loads(path.read_text())["ledger"]
    assert (ledger["height"], ledger["backlog"], ledger["state"]) == (1, 1, "ok")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "{", '{"name": 1}', '{"name": "a", "extra": 1}'])
def test_a_file_that_is_no_status_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "status.json"
    path.write_text(text)
    with pytest.raises(StatusError, match=r"status\.json: not a node's status"):
        read_status(path)


def test_a_status_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StatusError, match=r"status\.json: cannot be written"):
        write_status(tmp_path / "gone" / "status.json", STATUS)


def test_whether_the_process_lives() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    status = NodeStatus(name="a", pid=child.pid, peer_id="", member=0)
    assert is_running(status)
    child.communicate(b"\n")
    assert not is_running(status)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_memory_is_sampled_and_its_peak_kept() -> None:
    peak = PeakRss()
    before = peak.sample(os.getpid())
    ballast = bytearray(b"x") * 50_000_000
    high = peak.sample(os.getpid())
    del ballast
    assert 5 < before < high - 45
    peak.sample(os.getpid())
    assert peak.now < high <= peak.peak
    assert peak.sample(None) == 0.0
    assert peak.peak == high
    assert rss_mb(2**22 + 1) == 0.0


def test_a_full_disk_costs_lines_and_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "node.log").symlink_to("/dev/full")
    stream = io.StringIO()
    with logging_to(tmp_path, stream=stream):
        for number in range(3):
            logger().info("line", number=number)
    assert stream.getvalue().count("line") == 3
    complaints = capsys.readouterr().err.splitlines()
    assert complaints == [f"{tmp_path / 'node.log'}: lines are missing: No space left on device"]


def test_logs_are_set_aside_by_size_and_the_oldest_goes(tmp_path: Path) -> None:
    with logging_to(tmp_path, LogConfig(max_mb=0.01, keep=2), io.StringIO()):
        for number in range(1000):
            logger().info("line", number=number)
    assert {path.name for path in tmp_path.iterdir()} == {"node.log", "node.log.1", "node.log.2"}
    assert all(path.stat().st_size <= 10_000 for path in tmp_path.iterdir())
    assert lines(tmp_path)[-1]["number"] == 999


def test_the_log_of_a_process_that_goes_on_writing_is_set_aside(tmp_path: Path) -> None:
    log, config = tmp_path / "trainer.log", LogConfig(max_mb=0.01, keep=2)
    rotate(log, config)
    with log.open("ab", buffering=0) as writer:
        for number in range(4):
            writer.write(b"%d" % number * 10_000)
            rotate(log, config)
            assert log.stat().st_size == 0
        writer.write(b"the last word")
    rotate(log, config)
    assert log.read_bytes() == b"the last word"
    assert [(tmp_path / f"trainer.log.{n}").read_bytes()[:1] for n in (1, 2)] == [b"3", b"2"]
    assert len(list(tmp_path.iterdir())) == 3
