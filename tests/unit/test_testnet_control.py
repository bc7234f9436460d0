"""Killing, freezing and starting nodes of a testnet that runs, on sleepers; and reading their logs."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

from folkmoot.testnet import control, relay_link
from folkmoot.testnet.cli import testnet as commands
from folkmoot.testnet.cli_chaos import Delay, Rate
from folkmoot.testnet.home import Plan, Testnet, TestnetHome, read_testnet, write_testnet
from folkmoot.testnet.log_lines import show_logs
from folkmoot.testnet.overview import read_overview, stop_testnet
from folkmoot.testnet.processes import Child, TestnetError, stop_children
from folkmoot.testnet.shaping import Heal

SLEEPER = "import time; time.sleep(600)"


class Stage:
    """A testnet whose processes are sleepers."""

    def __init__(self, home: TestnetHome) -> None:
        self.home = home
        home.logs.mkdir(parents=True)
        self.children = {name: self.start(name) for name in ("alice", "bob", "trainers")}
        self.write()

    def start(self, name: str) -> Child:
        return Child.start(name, [sys.executable, "-c", SLEEPER], self.home.logs / f"{name}.out")

    def write(self) -> None:
        refs = tuple(child.ref for child in self.children.values())
        write_testnet(self.home, Testnet(plan=Plan(nodes=2, rounds=3, example="digits"), processes=refs))

    def log(self, name: str, *lines: str) -> None:
        path = self.home.node(name).logs / "output.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(TestnetHome(tmp_path / "testnet"))
    yield stage
    stop_children(list(stage.children.values()), 0.0)


def test_a_killed_node_is_dead_when_the_command_returns(stage: Stage) -> None:
    control.kill(stage.home, "bob")
    assert stage.children["bob"].poll() == -signal.SIGKILL
    with pytest.raises(TestnetError, match=r"bob is not running: .*testnet restart bob"):
        control.kill(stage.home, "bob")


def test_a_paused_node_shows_as_such_and_goes_on(stage: Stage) -> None:
    control.pause(stage.home, "alice")
    assert [node.phase for node in read_overview(stage.home).nodes] == ["paused", "starting"]
    with pytest.raises(TestnetError, match="alice is paused already"):
        control.pause(stage.home, "alice")
    control.resume(stage.home, "alice")
    with pytest.raises(TestnetError, match="alice is not paused"):
        control.resume(stage.home, "alice")
    assert [node.phase for node in read_overview(stage.home).nodes] == ["starting", "starting"]


def test_a_paused_node_can_be_stopped_in_time(stage: Stage) -> None:
    control.pause(stage.home, "bob")
    assert stop_children([stage.children["bob"]], 10.0) == []
    assert stage.children["bob"].exit_code == -signal.SIGTERM


def test_down_stops_paused_nodes_too(stage: Stage) -> None:
    control.pause(stage.home, "alice")
    said: list[str] = []
    stop_testnet(stage.home, said.append)
    assert said == ["stopped alice, bob, trainers"]


def test_a_restarted_node_is_a_new_process_that_down_will_find(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_sleeper(home: TestnetHome, name: str) -> Child:
        child = stage.start(name)
        stage.children["bob again"] = child
        return child

    monkeypatch.setattr(control, "start_node", start_sleeper)
    before = stage.children["bob"]
    after = control.restart(stage.home, "bob")
    assert before.poll() == -signal.SIGTERM
    assert [one.name for one in read_testnet(stage.home).running] == ["alice", "trainers", "bob"]
    assert read_testnet(stage.home).process("bob") == after


def test_a_node_that_dies_at_once_is_reported_with_its_last_word(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start_dying(home: TestnetHome, name: str) -> Child:
        words = "import sys; print('first'); sys.exit('Error: the journal is missing')"
        return Child.start(name, [sys.executable, "-c", words], home.logs / "dying.out")

    monkeypatch.setattr(control, "start_node", start_dying)
    result = CliRunner().invoke(commands, ["restart", "--home", str(stage.home.path), "bob"])
    assert isinstance(result.exception, TestnetError) and "started" not in result.output
    assert str(result.exception) == "bob ended at once: Error: the journal is missing"


def test_restart_needs_a_testnet_that_is_up_and_nobodys_else(stage: Stage) -> None:
    stage.children["supervisor"] = stage.start("supervisor")
    stage.write()
    with pytest.raises(TestnetError, match=r"'testnet run' watches its nodes"):
        control.restart(stage.home, "bob")
    control_free = msgspec.structs.replace(read_testnet(stage.home), processes=())
    write_testnet(stage.home, control_free)
    with pytest.raises(TestnetError, match=r"the testnet is down: start it with"):
        control.restart(stage.home, "bob")


@pytest.mark.parametrize("command", ["kill", "pause", "resume", "restart", "slow"])
def test_unknown_nodes_are_named_with_exit_code_1(stage: Stage, command: str) -> None:
    result = CliRunner().invoke(commands, [command, "mallory", "--home", str(stage.home.path)])
    assert isinstance(result.exception, TestnetError) and result.exception.exit_code == 1
    assert str(result.exception) == "mallory: no such node: there are alice, bob"


def test_direct_links_cannot_be_shaped(stage: Stage) -> None:
    with pytest.raises(TestnetError, match=r"connected directly: .*--links shaped"):
        relay_link.give(stage.home, Heal())


# --- logs -------------------------------------------------------------------------------------------------------------


def shown(stage: Stage, name: str | None, lines: int = 20) -> list[str]:
    said: list[str] = []
    show_logs(stage.home, name, lines, follow=False, say=said.append)
    return said


def test_all_logs_together_are_in_order_of_time_with_their_owners(stage: Stage) -> None:
    stage.log("alice", "2026-01-01T00:00:01Z one", "2026-01-01T00:00:03Z three", "  a traceback", "  its end")
    stage.log("bob", "no stamp yet", "2026-01-01T00:00:02Z two", "2026-01-01T00:00:04Z four")
    lines = [line.split(" | ")[0].strip() + ":" + line.split()[-1] for line in shown(stage, None)]
    assert lines == [
        "bob:yet",
        "alice:one",
        "bob:two",
        "alice:three",
        "alice:traceback",
        "alice:end",
        "bob:four",
    ]
    assert len(shown(stage, None, lines=2)) == 2


def test_one_log_is_shown_as_it_is_and_an_unknown_one_refused(stage: Stage) -> None:
    stage.log("bob", *map(str, range(30)))
    assert shown(stage, "bob", lines=3) == ["27", "28", "29"]
    assert shown(stage, "alice") == []
    with pytest.raises(TestnetError, match="mallory: no such process: there are alice, bob"):
        shown(stage, "mallory")


def test_following_goes_on_with_whole_lines_only(stage: Stage) -> None:
    stage.log("bob", "old")
    path, said = stage.home.node("bob").logs / "output.log", []

    def say(line: str) -> None:
        said.append(line)
        with path.open("a") as file:
            file.write({"old": "new\nha", "new": "lf\n"}.get(line, ""))
        if line == "half":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        show_logs(stage.home, "bob", 5, follow=True, say=say)
    assert said == ["old", "new", "half"]


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "seconds"), [("100ms", 0.1), ("0.5s", 0.5), ("0ms", 0.0), ("2 S", 2.0)])
def test_delays_are_read(text: str, seconds: float) -> None:
    assert Delay().convert(text, None, None) == pytest.approx(seconds)


@pytest.mark.parametrize(("text", "rate"), [("100mbit", 12.5e6), ("1gbit", 125e6), ("0.5kbit", 62.5)])
def test_rates_are_read(text: str, rate: float) -> None:
    assert Rate().convert(text, None, None) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "100", "ms", "-1ms", "61s", "nan", "1e9ms", "100mbit"])
def test_other_delays_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no time such as 100ms"):
        Delay().convert(text, None, None)


@pytest.mark.parametrize("text", ["", "100", "0mbit", "100mb", "inf", "100ms"])
def test_other_rates_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no rate such as"):
        Rate().convert(text, None, None)
