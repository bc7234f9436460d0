"""Processes of a testnet: started in sessions of their own, told apart from strangers, stopped within a deadline.

A pid alone names nobody for long: the system gives it to another process once its owner is gone. So a process is
remembered with the moment of its start, and is only ever signalled while both fit.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec

from folkmoot.protocol.errors import FolkmootError

STOP_SECONDS = 15.0
"""How long a process may take to end after SIGTERM before it is killed."""

_KILL_SECONDS = 5.0
_POLL_SECONDS = 0.02
_LINE = 1024
"""Bytes a line has at most, as far as `last_lines` cares: more only makes it give fewer."""
_DEAD = ("", "Z", "X")


class TestnetError(FolkmootError):
    """The testnet cannot do what was asked; the message says what happened, to which node, and what to do."""

    __test__ = False  # not a test case, whatever pytest makes of the name


class ProcessRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A process that any later command can find again: who it is, its pid, when it began, where it logs."""

    name: str
    pid: int
    started: str
    """`start_mark` of the pid: equal marks mean the same process."""
    log: str

    @property
    def is_running(self) -> bool:
        """Whether this very process lives (not another one that has its pid by now)."""
        return start_mark(self.pid) == self.started

    @property
    def is_paused(self) -> bool:
        """Whether it lives but was stopped by SIGSTOP."""
        return self.is_running and _state(self.pid) == "T"

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the process, or to all of its group, if it still lives."""
        if self.is_running:
            with suppress(ProcessLookupError):  # it may end in between
                (os.killpg if group else os.kill)(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end; a paused process would hear that only once it goes on."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)


class Child:
    """A process that this one started. Ends with the exit code and the CPU time of it and all it waited for."""

    def __init__(self, popen: subprocess.Popen[bytes], ref: ProcessRef) -> None:
        self.ref = ref
        self.popen = popen
        self.cpu_seconds = 0.0
        self.exit_code: int | None = None
        """None while it runs; -N if signal N ended it."""

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        pipes: bool = False,
    ) -> Self:
        """Run `command` in a new session, its output appended to `log`.

        `environment` is added to ours; with `pipes` its standard input and output are `child.popen.stdin` and
        `.stdout`. Raises `TestnetError` if it cannot be started.
        """
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as file:
                popen = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if pipes else file,
                    stderr=file,
                    env={**os.environ, **(environment or {})},
                    start_new_session=True,
                )
        except OSError as error:
            raise TestnetError(f"{name}: {command[0]} cannot be started: {error}") from error
        return cls(
            popen, ProcessRef(name=name, pid=popen.pid, started=start_mark(popen.pid) or "", log=str(log))
        )

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        if self.exit_code is None:
            # Not Popen.poll(): only wait4 tells the CPU time of one process.
            pid, status, usage = os.wait4(self.ref.pid, os.WNOHANG)
            if pid:
                self.exit_code = self.popen.returncode = os.waitstatus_to_exitcode(status)
                self.cpu_seconds = usage.ru_utime + usage.ru_stime
        return self.exit_code

    def wait(self, seconds: float) -> int | None:
        """The exit code, waiting for it if need be; None if it still runs after that long."""
        wait_until(lambda: self.poll() is not None, seconds)
        return self.exit_code

    def release(self) -> None:
        """Let it outlive us."""
        self.popen.returncode = 0  # else Popen warns that its child was left running

    def why_it_ended(self, lines: int = 5) -> str:
        """One sentence on the exit, and the last lines of the log."""
        code = self.exit_code
        how = "runs" if code is None else f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        tail = last_lines(Path(self.ref.log), lines)
        return f"{self.ref.name} ended ({how})" + "".join(f"\n    {line}" for line in tail)


def stop_children(children: Collection[Child], seconds: float = STOP_SECONDS) -> list[str]:
    """SIGTERM to all, wait for them together, SIGKILL what is left, reap; the names of those that were killed."""
    for child in children:
        if child.poll() is None:
            child.ref.terminate()
    if wait_until(lambda: all(child.poll() is not None for child in children), seconds):
        return []
    late = [child for child in children if child.poll() is None]
    for child in late:
        child.ref.signal(signal.SIGKILL, group=True)
    wait_until(lambda: all(child.poll() is not None for child in late), _KILL_SECONDS)
    return [child.ref.name for child in late]


def stop_processes(refs: Collection[ProcessRef], seconds: float = STOP_SECONDS) -> list[str]:
    """As `stop_children`, for processes that another command started."""
    for ref in refs:
        ref.terminate()
    if wait_until(lambda: not any(ref.is_running for ref in refs), seconds):
        return []
    late = [ref for ref in refs if ref.is_running]
    for ref in late:
        ref.signal(signal.SIGKILL, group=True)
    wait_until(lambda: not any(ref.is_running for ref in late), _KILL_SECONDS)
    return [ref.name for ref in late]


def start_mark(pid: int) -> str | None:
    """When process `pid` began, in the system's own words; None if there is no such living process."""
    state, mark = _look_up(pid)
    return None if state in _DEAD else mark


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a log, blank ones left out; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LINE * (count + 1)))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether `condition` came to hold within so long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _state(pid: int) -> str:
    """What the process does, in the system's letters: R, S, D, T (stopped), Z (ended, not reaped); "" if unknown."""
    return _look_up(pid)[0]


def _look_up(pid: int) -> tuple[str, str]:
    """State and start of a process; both empty if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except ProcessLookupError:
        return "", ""
    except FileNotFoundError:
        return ("", "") if Path("/proc/self/stat").exists() else _ask_ps(pid)
    # proc_pid_stat(5): the command's name, field 2, may itself hold blanks and brackets.
    fields = stat.rpartition(")")[2].split()
    state, start_ticks = fields[0], fields[19]
    return state, f"{_boot()}:{start_ticks}"


def _boot() -> str:
    """Names this run of the system: ticks since its start mean nothing after a reboot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def _ask_ps(pid: int) -> tuple[str, str]:
    """Where there is no /proc (macOS, the BSDs)."""
    answer = subprocess.run(["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True)
    state, _, start = answer.stdout.strip().partition(" ")
    return (state[:1], start.strip()) if answer.returncode == 0 else ("", "")
