"""A testnet's directory: never somebody else's, never two at once, deleted only when it is ours."""

import os
from pathlib import Path

import msgspec
import pytest

from folkmoot.node.status_file import NodeStatus, write_status
from folkmoot.node.store import Journal
from folkmoot.testnet.home import Plan, Testnet, TestnetHome, open_home, read_testnet, write_testnet
from folkmoot.testnet.overview import read_overview, stop_testnet
from folkmoot.testnet.processes import ProcessRef, TestnetError, start_mark

PLAN = Plan(nodes=4, rounds=3, example="digits")


@pytest.fixture
def home(tmp_path: Path) -> TestnetHome:
    return TestnetHome(tmp_path / "testnet")


def found(home: TestnetHome, *processes: ProcessRef) -> Testnet:
    testnet = Testnet(plan=PLAN, contract="0x" + "ab" * 20, rpc="http://127.0.0.1:1", processes=processes)
    write_testnet(home, testnet)
    return testnet


def test_names_are_people_then_numbers() -> None:
    names = Plan(nodes=12, rounds=1, example="digits").names
    assert names[:4] == ["alice", "bob", "carol", "dave"]
    assert names[-2:] == ["node-11", "node-12"]
    assert len(set(names)) == 12


def test_a_new_directory_is_claimed(home: TestnetHome) -> None:
    open_home(home, PLAN, fresh=False)
    assert read_testnet(home) == Testnet(plan=PLAN)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_directory_of_somebody_else_is_left_alone(home: TestnetHome, fresh: bool) -> None:
    home.path.mkdir()
    (home.path / "thesis.tex").write_text("years of work")
    with pytest.raises(TestnetError, match="not empty and not a testnet's"):
        open_home(home, PLAN, fresh=fresh)
    assert (home.path / "thesis.tex").exists()


@pytest.mark.parametrize("content", ["{}", '{"name": "another program"}', "not JSON", ""])
def test_a_foreign_testnet_json_is_not_deleted(home: TestnetHome, content: str) -> None:
    home.path.mkdir()
    home.state.write_text(content)
    with pytest.raises(TestnetError, match=r"testnet\.json: not a testnet's file"):
        open_home(home, PLAN, fresh=True)
    assert home.state.read_text() == content


def test_a_founded_and_stopped_testnet_is_continued(home: TestnetHome) -> None:
    open_home(home, PLAN, fresh=False)
    testnet = found(home)
    assert open_home(home, PLAN, fresh=False) == testnet


def test_other_options_are_named(home: TestnetHome) -> None:
    open_home(home, PLAN, fresh=False)
    found(home)
    other = msgspec.structs.replace(PLAN, rounds=5, seed=1)
    with pytest.raises(TestnetError, match=r"rounds 3, not 5, seed 0, not 1.*--fresh"):
        open_home(home, other, fresh=False)


def test_a_broken_off_founding_wants_fresh(home: TestnetHome) -> None:
    open_home(home, PLAN, fresh=False)
    with pytest.raises(TestnetError, match="founding was broken off: start anew with --fresh"):
        open_home(home, PLAN, fresh=False)


def test_fresh_deletes_what_was_ours(home: TestnetHome) -> None:
    open_home(home, PLAN, fresh=False)
    found(home)
    (home.path / "nodes").mkdir()
    assert open_home(home, PLAN, fresh=True) == Testnet(plan=PLAN)
    assert not (home.path / "nodes").exists()


@pytest.mark.parametrize("fresh", [False, True])
def test_a_running_testnet_is_not_touched(home: TestnetHome, fresh: bool) -> None:
    open_home(home, PLAN, fresh=False)
    here = ProcessRef(name="alice", pid=os.getpid(), started=start_mark(os.getpid()) or "", log="")
    testnet = found(home, here)
    with pytest.raises(TestnetError, match=r"still running \(alice\): 'folkmoot testnet down"):
        open_home(home, PLAN, fresh=fresh)
    assert read_testnet(home) == testnet


def test_a_missing_testnet_is_an_error_that_says_so(home: TestnetHome) -> None:
    with pytest.raises(TestnetError, match="no testnet here"):
        read_overview(home)
    with pytest.raises(TestnetError, match="no testnet here"):
        stop_testnet(home, print)


def test_the_overview_of_a_half_founded_testnet(home: TestnetHome) -> None:
    open_home(home, PLAN, fresh=False)
    overview = read_overview(home)
    assert [(node.name, node.pid, node.phase) for node in overview.nodes] == [
        (name, None, "stopped") for name in PLAN.names
    ]
    assert overview.chain.pid is None


def test_stopping_what_does_not_run_is_no_error(home: TestnetHome) -> None:
    open_home(home, PLAN, fresh=False)
    said: list[str] = []
    stop_testnet(home, said.append)
    assert said == ["nothing was running"]


def test_a_node_that_was_started_by_hand_belongs_to_the_testnet(home: TestnetHome) -> None:
    open_home(home, PLAN, fresh=False)
    found(home)
    bob = home.node("bob")
    bob.path.mkdir(parents=True)
    Journal.create(bob.store)
    with Journal.open(bob.store):
        write_status(bob.status, NodeStatus(name="bob", pid=os.getpid(), peer_id="", member=1))
        process = read_testnet(home).process("bob")
        assert process is not None and process.pid == os.getpid()
        with pytest.raises(TestnetError, match=r"still running \(bob\)"):
            open_home(home, PLAN, fresh=True)
        assert bob.store.exists()
    assert read_testnet(home).process("bob") is None  # this process lives on, and is no node any more
