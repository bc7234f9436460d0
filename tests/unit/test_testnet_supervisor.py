"""The supervisor's patience: it waits for all living nodes, tells of dead ones, and gives up when nothing moves."""

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from folkmoot.node.status_file import LedgerStatus, NodeStatus, write_status
from folkmoot.testnet import supervisor as module
from folkmoot.testnet.home import Plan, TestnetHome, read_testnet
from folkmoot.testnet.processes import Child, TestnetError
from folkmoot.testnet.supervisor import Supervisor, interruptible
from folkmoot.testnet.table import PlainLines

PLAN = Plan(nodes=2, rounds=3, example="digits")
SLEEPER = "import time; time.sleep(600)"


class Stage:
    """A supervisor whose nodes are sleepers, and whose status files the test writes."""

    def __init__(self, home: TestnetHome) -> None:
        self.said: list[str] = []
        self.home = home
        self.supervisor = Supervisor(home, PLAN, fresh=False, say=self.said.append)
        self.out = io.StringIO()
        self.display = PlainLines(Console(file=self.out))

    def start(self, name: str, program: str = SLEEPER) -> Child:
        node = self.home.node(name)
        node.path.mkdir(parents=True)
        child = Child.start(name, [sys.executable, "-c", program], node.logs / "output.log")
        self.supervisor.nodes[name] = child
        return child

    def report(
        self, name: str, rounds: int, height: int, phase: str = "done", pid: int | None = None
    ) -> None:
        child = self.supervisor.nodes[name]
        status = NodeStatus(
            name=name, pid=pid or child.ref.pid, peer_id="", member=0, rounds=rounds, phase=phase
        )
        status.ledger = LedgerStatus(height=height, state="ok")
        write_status(self.home.node(name).status, status)

    def wait(self) -> list[NodeStatus | None]:
        return self.supervisor.wait(self.display)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "STALL_SECONDS", 0.3)
    stage = Stage(TestnetHome(tmp_path / "testnet"))
    with stage.supervisor:
        yield stage


def test_it_waits_until_all_nodes_are_done_and_recorded(stage: Stage) -> None:
    for name in PLAN.names:
        stage.start(name)
        stage.report(name, 3, 3)
    assert [status and status.rounds for status in stage.wait()] == [3, 3]
    shown = stage.out.getvalue().splitlines()
    assert shown[:2] == ["alice is up (1 of 2)", "bob is up (2 of 2)"]


@pytest.mark.parametrize(("rounds", "height", "phase"), [(3, 2, "done"), (3, 3, "attesting")])
def test_done_needs_the_phase_and_the_ledger(stage: Stage, rounds: int, height: int, phase: str) -> None:
    stage.start("alice")
    stage.start("bob")
    stage.report("alice", 3, 3)
    stage.report("bob", rounds, height, phase)
    with pytest.raises(
        TestnetError, match=rf"no progress for 0 s .*bob: round 1 attempt 0 {phase}, ledger {height}"
    ):
        stage.wait()


def test_the_words_of_an_earlier_run_do_not_count(stage: Stage) -> None:
    stage.start("alice")
    stage.report("alice", 3, 3, pid=os.getpid())
    with pytest.raises(TestnetError, match=r"no progress .*no node has spoken"):
        stage.wait()


def test_a_dead_node_is_told_once_and_the_others_go_on(stage: Stage) -> None:
    stage.start("alice")
    stage.start("bob", "print('disk full'); raise SystemExit(3)").wait(30.0)
    stage.report("alice", 3, 3)
    statuses = stage.wait()
    assert stage.said == ["bob ended (exit code 3)\n    disk full"]
    assert [status.name if status else None for status in statuses] == ["alice", None]


def test_when_all_nodes_are_dead_it_gives_up(stage: Stage) -> None:
    for name in PLAN.names:
        stage.start(name, "raise SystemExit(1)").wait(30.0)
    with pytest.raises(TestnetError, match="all nodes ended"):
        stage.wait()
    assert len(stage.said) == 2


def test_without_the_chain_it_gives_up(stage: Stage, tmp_path: Path) -> None:
    stage.start("alice")
    stage.supervisor.chain = Child.start(
        "chain", [sys.executable, "-c", "raise SystemExit(9)"], tmp_path / "chain.log"
    )
    stage.supervisor.chain.wait(30.0)
    with pytest.raises(TestnetError, match=r"chain ended \(exit code 9\)"):
        stage.wait()


def test_everything_is_stopped_at_the_end_of_the_block(tmp_path: Path) -> None:
    stage = Stage(TestnetHome(tmp_path / "testnet"))
    with pytest.raises(KeyboardInterrupt), stage.supervisor:
        children = [stage.start(name) for name in PLAN.names]
        assert [process.name for process in read_testnet(stage.home).running] == ["supervisor"]
        raise KeyboardInterrupt
    assert [child.exit_code for child in children] == [-signal.SIGTERM] * 2
    assert read_testnet(stage.home).running == []
    assert set(stage.supervisor.cpu_seconds) == {"supervisor", *PLAN.names}


def test_what_is_released_lives_on_and_is_written_down(tmp_path: Path) -> None:
    stage = Stage(TestnetHome(tmp_path / "testnet"))
    with stage.supervisor:
        child = stage.start("alice")
        stage.supervisor.release()
    assert read_testnet(stage.home).running == [child.ref]
    child.ref.signal(signal.SIGKILL)
    os.waitpid(child.ref.pid, 0)


def test_sigterm_interrupts_as_ctrl_c_does() -> None:
    assert threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert signal.getsignal(signal.SIGTERM) is before
