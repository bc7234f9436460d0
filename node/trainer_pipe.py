"""One trainer process and the frames on its pipes; `node/trainer.py` decides when to restart it."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import trio

from folkmoot.node.train import wire
from folkmoot.node.train.wire import FailureKind, TrainerError

SEND_SECONDS = 30.0
EXIT_SECONDS = 2.0


class ProcessFailed(Exception):
    """The process itself can no longer be used; `error` is what the caller gets."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(detail)
        self.error = TrainerError(kind, detail)


class Worker:
    """One running process and its frames."""

    def __init__(self, process: trio.Process, log: Path, log_start: int) -> None:
        self._process = process
        self._log = log
        self._log_start = log_start
        self._received = bytearray()
        self._reaped = False

    @classmethod
    async def start(cls, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Self:
        """Start `command`, leader of its own process group, with no descriptor beyond its pipes and `log`."""
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            stderr = log.open("ab")
        except OSError as error:
            raise TrainerError("crash", f"{log}: cannot be written: {error.strerror}") from error
        with stderr:
            start = stderr.tell()
            try:
                process = await trio.lowlevel.open_process(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                detail = f"cannot start {command[0]!r}: {error.strerror}; see trainer.command in node.toml"
                raise TrainerError("crash", detail) from error
        return cls(process, log, start)

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        if self._reaped:
            return False
        # Only looks: its end is taken note of in `_reap`, together with the end of its group.
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    async def send(self, message: wire.Request) -> None:
        """Send one frame, whole even under cancellation: half a frame would spoil the pipe."""
        assert self._process.stdin is not None
        try:
            with trio.CancelScope(deadline=trio.current_time() + SEND_SECONDS, shield=True) as scope:
                await self._process.stdin.send_all(wire.encode(message))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise await self._ended() from error
        if scope.cancelled_caught:
            raise ProcessFailed("stalled", f"did not read a request within {SEND_SECONDS:.0f} s")

    async def receive(self, timeout: float) -> wire.Reply:
        """The next frame, within `timeout` seconds of silence."""
        try:
            with trio.fail_after(timeout):
                await self._fill(wire.HEADER.size)
                end = wire.HEADER.size + wire.body_size(bytes(self._received[: wire.HEADER.size]))
                await self._fill(end)
            # Taken out only when whole, so that a cancelled wait loses no half frame.
            body = bytes(self._received[wire.HEADER.size : end])
            del self._received[:end]
            return wire.decode_reply(body)
        except trio.TooSlowError as error:
            raise ProcessFailed(
                "stalled", f"no sign of progress for {timeout:g} s{self._last_words()}"
            ) from error
        except TrainerError as error:
            raise ProcessFailed(error.kind, error.detail) from error

    async def stop(self, patience: float = 0.0) -> None:
        """Close its pipe, and after `patience` seconds end its whole group by SIGKILL."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._process.stdin)
            await self._reap(patience)
            await trio.aclose_forcefully(self._process.stdout)

    async def _reap(self, patience: float) -> bool:
        """Give it `patience` seconds to end, then kill its group; whether it ended by itself."""
        if self._reaped:
            return True
        with trio.CancelScope(shield=True):
            with trio.move_on_after(patience) as waiting:
                await self._process.wait()
            # Even if it ended: training code may have left children. Once only: later the number may be a stranger's.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        self._reaped = True
        return not waiting.cancelled_caught

    async def _fill(self, size: int) -> None:
        assert self._process.stdout is not None
        while len(self._received) < size:
            piece = await self._process.stdout.receive_some()
            if not piece:
                raise await self._ended()
            self._received += piece

    async def _ended(self) -> ProcessFailed:
        """Why the pipe ended."""
        by_itself = await self._reap(EXIT_SECONDS)
        code = self._process.returncode
        assert code is not None
        if not by_itself:
            how = "closed its pipe without ending"
        elif code == -signal.SIGKILL:
            how = "was killed by SIGKILL, as the system does when memory runs out"
        elif code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        return ProcessFailed("crash", f"the process {how}{self._last_words()}")

    def _last_words(self) -> str:
        """The last line that this process wrote to its log, for an error message."""
        with self._log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)  # before `_log_start`, if it was set aside meanwhile
            log.seek(max(self._log_start if self._log_start <= end else 0, end - 4096))
            lines = log.read().decode(errors="replace").split("\n")
        words = [line.strip() for line in lines if line.strip()]
        return f"; its last words in {self._log}: {words[-1][:300]}" if words else f"; nothing in {self._log}"
