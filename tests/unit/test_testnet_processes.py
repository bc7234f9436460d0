"""Processes are found again by who they are, not by their pid alone, and stop within their deadline."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from folkmoot.testnet.processes import (
    Child,
    ProcessRef,
    TestnetError,
    last_lines,
    start_mark,
    stop_children,
    stop_processes,
)

OBEDIENT = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {OBEDIENT}"


class Starter:
    """Starts Python programs and waits for their first line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[Child] = []

    def __call__(self, program: str, name: str = "dummy") -> Child:
        log = self.folder / f"{name}.log"
        child = Child.start(name, [sys.executable, "-c", program], log)
        self.children.append(child)
        while not log.read_text() and child.poll() is None:
            os.sched_yield()
        return child


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    starter = Starter(tmp_path)
    yield starter
    stop_children(starter.children, 0.0)


def test_an_obedient_process_stops_without_being_killed(start: Starter) -> None:
    child = start(OBEDIENT)
    assert child.ref.is_running
    assert stop_children([child]) == []
    assert child.exit_code == -signal.SIGTERM
    assert not child.ref.is_running


def test_a_stubborn_process_is_killed_after_the_deadline_and_named(start: Starter) -> None:
    obedient, stubborn = start(OBEDIENT, "good"), start(STUBBORN, "bad")
    assert stop_children([obedient, stubborn], 0.2) == ["bad"]
    assert stubborn.exit_code == -signal.SIGKILL


def test_processes_of_another_command_are_stopped_by_their_refs(start: Starter) -> None:
    obedient, stubborn = start(OBEDIENT, "good"), start(STUBBORN, "bad")
    assert stop_processes([obedient.ref, stubborn.ref], 0.2) == ["bad"]
    assert obedient.poll() == -signal.SIGTERM
    assert stubborn.poll() == -signal.SIGKILL


def test_a_recycled_pid_is_left_alone(start: Starter) -> None:
    bystander = start(OBEDIENT)
    stale = msgspec.structs.replace(bystander.ref, started="another boot:1")
    assert not stale.is_running
    assert stop_processes([stale], 0.0) == []
    assert bystander.poll() is None


def test_a_process_that_ended_is_not_running_before_it_is_reaped(start: Starter) -> None:
    child = start("print('up')")
    os.waitid(os.P_PID, child.ref.pid, os.WEXITED | os.WNOWAIT)
    assert start_mark(child.ref.pid) is None
    assert child.poll() == 0


def test_a_ref_survives_json(start: Starter) -> None:
    ref = start(OBEDIENT).ref
    assert msgspec.json.decode(msgspec.json.encode(ref), type=ProcessRef) == ref


def test_a_process_leads_its_own_session(start: Starter) -> None:
    child = start(OBEDIENT)
    assert os.getsid(child.ref.pid) == child.ref.pid


def test_the_end_is_told_with_code_and_last_lines(start: Starter) -> None:
    child = start("print('first'); print('last words'); raise SystemExit(7)", "alice")
    child.wait(30.0)
    assert child.why_it_ended(lines=1) == "alice ended (exit code 7)\n    last words"


def test_cpu_time_is_that_of_the_process(start: Starter) -> None:
    child = start("print('up', flush=True)\nwhile __import__('time').process_time() < 0.2: pass")
    child.wait(30.0)
    assert 0.15 < child.cpu_seconds < 10.0


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(TestnetError, match="alice: /no/such/program cannot be started"):
        Child.start("alice", ["/no/such/program"], tmp_path / "log")


def test_last_lines_leave_out_blanks_and_forgive_missing_files(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("one\n\ntwo\n  \nthree\n")
    assert last_lines(tmp_path / "log", 2) == ["two", "three"]
    assert last_lines(tmp_path / "missing", 2) == []
