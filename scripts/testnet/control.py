"""Break a running testnet on purpose, one node at a time: kill, restart, pause, resume.

Nobody has to be asked for that: `testnet.json` names every process, and signals reach them. All raise `TestnetError`
where the testnet, the node or its process is not there.
"""

import fcntl
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from folkmoot.node.status_file import StatusError, read_status
from folkmoot.testnet.home import Testnet, TestnetHome, read_testnet, write_testnet
from folkmoot.testnet.nodes import start_node
from folkmoot.testnet.processes import ProcessRef, TestnetError, last_lines, stop_processes, wait_until

SIGNAL_SECONDS = 5.0
"""How long the system may take to carry out a signal that no process can refuse."""
LIFE_SECONDS = 20.0
"""How long a started node may take to its first word, before nobody waits for it any more."""


def check_node(testnet: Testnet, name: str) -> None:
    """Raises `TestnetError` if no node is called `name`."""
    if name not in testnet.names:
        raise TestnetError(f"{name}: no such node: there are {', '.join(testnet.names)}")


def check_up(home: TestnetHome, testnet: Testnet) -> None:
    """Raises `TestnetError` unless what all nodes need is running."""
    if testnet.process("trainers") is None:
        raise TestnetError(f"{home.path}: the testnet is down: start it with 'folkmoot testnet up'")


def check_unsupervised(home: TestnetHome, testnet: Testnet) -> None:
    """Raises `TestnetError` if somebody watches the nodes who would not know of new ones."""
    if testnet.process("supervisor") is not None:
        raise TestnetError(
            f"{home.path}: 'testnet run' watches its nodes and would not know a new one: do this to a testnet that was "
            "started with 'folkmoot testnet up'"
        )


def kill(home: TestnetHome, name: str) -> None:
    """End a node at once (SIGKILL), as a power cut would."""
    process = _running_node(home, name)
    process.signal(signal.SIGKILL)
    _await(name, "did not die", lambda: not process.is_running)


def pause(home: TestnetHome, name: str) -> None:
    """Freeze a node (SIGSTOP): its connections stay open, and nothing comes from it."""
    process = _running_node(home, name)
    if process.is_paused:
        raise TestnetError(f"{name} is paused already")
    process.signal(signal.SIGSTOP)
    _await(name, "did not stop", lambda: process.is_paused)


def resume(home: TestnetHome, name: str) -> None:
    """Let a paused node go on (SIGCONT)."""
    process = _running_node(home, name)
    if not process.is_paused:
        raise TestnetError(f"{name} is not paused")
    process.signal(signal.SIGCONT)
    _await(name, "does not go on", lambda: not process.is_paused)


def restart(home: TestnetHome, name: str) -> ProcessRef:
    """Start a node that was killed or ended; one that runs is stopped first. Returns the new process."""
    with alone(home):
        testnet = read_testnet(home)
        check_node(testnet, name)
        check_up(home, testnet)
        check_unsupervised(home, testnet)
        stop_processes([process for process in testnet.running if process.name == name])
        child = start_node(home, name)
        others = [process for process in testnet.processes if process.name != name]
        write_testnet(home, msgspec.structs.replace(testnet, processes=(*others, child.ref)))
        child.release()
    return child.ref


def await_life(home: TestnetHome, process: ProcessRef) -> None:
    """Wait until a started node has said something about itself.

    Raises `TestnetError` with its last line if it ends before. One that takes longer than `LIFE_SECONDS` is left alone.
    """

    def has_spoken() -> bool:
        try:
            status = read_status(home.node(process.name).status)
        except StatusError:  # of an earlier life
            return False
        return status is not None and status.pid == process.pid

    wait_until(lambda: has_spoken() or not process.is_running, LIFE_SECONDS)
    if not process.is_running:
        last = last_lines(Path(process.log), 1)
        raise TestnetError(f"{process.name} ended at once: {last[0] if last else 'without a word'}")


def _running_node(home: TestnetHome, name: str) -> ProcessRef:
    testnet = read_testnet(home)
    check_node(testnet, name)
    process = testnet.process(name)
    if process is None:
        raise TestnetError(f"{name} is not running: start it with 'folkmoot testnet restart {name}'")
    return process


def _await(name: str, failure: str, condition: Callable[[], bool]) -> None:
    if not wait_until(condition, SIGNAL_SECONDS):
        raise TestnetError(f"{name} {failure} within {SIGNAL_SECONDS:.0f} s of the signal")


@contextmanager
def alone(home: TestnetHome) -> Iterator[None]:
    """Two changes at once would each write down a testnet without the other's."""
    with home.lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
