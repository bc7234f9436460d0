"""`python -m folkmoot.testnet.forkserver SOCKET`: imports torch once, and forks the trainers of a whole testnet.

Importing torch costs each trainer 1.2 CPU seconds and most of its memory; forked ones share both. A real node
has its own trainer process and needs none of this: here `trainer.command` names `launch.py`, which asks this
server for a fork and passes its pipes on. Every fork leads its own process group, and ends with its launcher.

The server forks before it has any threads: it only imports, and computes nothing.
"""

import gc
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, TypeAlias

from folkmoot.node.train.command import trainer_environment

IDLE_SECONDS = 600.0
"""Without any fork for so long, the testnet is gone and the server ends."""

MAX_REQUEST = 4096

Entry: TypeAlias = Callable[[list[str]], int]


def server_command(path: Path) -> tuple[str, ...]:
    """The command of a server that listens on the socket `path`."""
    return (sys.executable, "-P", "-m", "folkmoot.testnet.forkserver", str(path))


def launch_command(path: Path, entry: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs `entry` (trainer, attacker, founding, baselines) in a fork of the server at `path`."""
    launcher = Path(__file__).with_name("launch.py")
    return (sys.executable, "-I", "-S", str(launcher), str(path), entry, *arguments)


def load_entries() -> dict[str, Entry]:
    """Import all that forks run, torch above all."""
    from folkmoot.node.train import founding, session, worker
    from folkmoot.testnet import attacker, baselines

    del session  # imported for the trainer, which otherwise does it itself
    return {
        "trainer": lambda _: worker.main(),
        "attacker": attacker.main,
        "founding": founding.main,
        "baselines": baselines.main,
    }


class ForkServer:
    """Accepts launchers, forks for each, tells it how its fork ended."""

    def __init__(self, listener: socket.socket, entries: Mapping[str, Entry]) -> None:
        self._listener = listener
        self._entries = entries
        self._selector = selectors.DefaultSelector()
        self._launchers: dict[int, socket.socket] = {}

    def run(self) -> None:
        """Serve until idle; SIGTERM ends it too, and kills what it forked."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        woken, waker = socket.socketpair()
        for end in (woken, waker):
            end.setblocking(False)
        # A handler must be there for SIGCHLD to reach the wake-up descriptor; the loop does the work.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno())
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(woken, selectors.EVENT_READ, lambda: self._reap(woken))
        try:
            while (ready := self._selector.select(IDLE_SECONDS)) or self._launchers:
                for key, _ in ready:
                    key.data()
        finally:
            for pid in list(self._launchers):
                self._kill(pid)

    def _accept(self) -> None:
        launcher, _ = self._listener.accept()
        launcher.settimeout(5.0)
        fds: list[int] = []
        try:
            line, fds, _, _ = socket.recv_fds(launcher, MAX_REQUEST, 3)
            entry, *arguments = json.loads(line)
            if len(fds) != 3 or entry not in self._entries:
                raise ValueError(f"no entry {entry!r} with {len(fds)} descriptors")
            pid = os.fork()
            if pid == 0:
                run_fork(self._entries[entry], arguments, fds)
        except (OSError, ValueError) as error:
            print(f"refused a launcher: {error}", file=sys.stderr)
            launcher.close()
            return
        finally:
            for fd in fds:
                os.close(fd)
        self._launchers[pid] = launcher
        self._selector.register(launcher, selectors.EVENT_READ, lambda: self._lost(pid))

    def _lost(self, pid: int) -> None:
        """The launcher said something, which it never does, or ended: so must its fork."""
        self._selector.unregister(self._launchers[pid])
        self._kill(pid)

    def _kill(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # it may not yet lead its group
            os.killpg(pid, signal.SIGKILL)

    def _reap(self, woken: socket.socket) -> None:
        woken.recv(MAX_REQUEST)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                launcher = self._launchers.pop(ended[0])
                with suppress(KeyError):
                    self._selector.unregister(launcher)
                with suppress(OSError), launcher:
                    launcher.sendall(b"%d" % os.waitstatus_to_exitcode(ended[1]))


def run_fork(entry: Entry, arguments: list[str], fds: list[int]) -> NoReturn:
    """The forked process: its own session, the launcher's streams and no other descriptor, then `entry`."""
    status = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        status = entry(arguments)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        # Never back into the server's loop, and none of its clean-up.
        os._exit(status)


def main(arguments: list[str]) -> int:
    """Serve on the socket named by the one argument; the exit status."""
    path = Path(arguments[0])
    kept = trainer_environment()
    os.environ.clear()
    os.environ.update(kept)
    os.chdir(path.parent)  # the address of such a socket has room for about 100 characters only
    os.umask(0o077)
    Path(path.name).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)
        # Launchers may queue up from now on, while torch is being imported.
        listener.listen(128)
        entries = load_entries()
        gc.collect()
        gc.freeze()  # a collection in a fork would otherwise touch, and so copy, every shared page
        try:
            ForkServer(listener, entries).run()
        finally:
            Path(path.name).unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
