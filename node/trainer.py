"""The `Trainer` port, the process behind it, and a fake that learns without torch.

The daemon never imports torch: `TrainerProcess` talks to a process of its own through `node/train/wire.py`.
Whatever happens in there (crash, out of memory, hang, nonsense on the pipe) arrives here as a `TrainerError`,
costs one round's update, and the next request starts a new process.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Protocol, Self, TypeAlias, TypeVar

import msgspec
import numpy as np
import trio

from folkmoot.node.config import LogConfig
from folkmoot.node.logs import rotate
from folkmoot.node.train import wire
from folkmoot.node.train.command import DEFAULT_COMMAND, trainer_environment
from folkmoot.node.train.vectors import Fragment, Vector, read_section, read_vector, write_vector
from folkmoot.node.train.wire import FailureKind, Metrics, Task, TrainerError
from folkmoot.node.trainer_pipe import EXIT_SECONDS, ProcessFailed, Worker
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.privacy import Cost, grouped

__all__ = [
    "FailureKind",
    "FakeTrainer",
    "FitResult",
    "KeptVector",
    "KeptVectors",
    "Measured",
    "Task",
    "Trainer",
    "TrainerError",
    "TrainerProcess",
    "read_vector",
]

OnProgress = Callable[[int, int], None]
"""Called with (steps done, steps in all) now and then."""


Answer = TypeVar("Answer", wire.Fitted, wire.Evaluated)


class Measured(msgspec.Struct, frozen=True):
    """Measures of a model, and of the models that the member trains beside it, by name (`train/wire.py`)."""

    metrics: Metrics
    beside: dict[str, Metrics] = {}


class FitResult(Measured, frozen=True, kw_only=True):
    """What training gave: the update's file, how many rows it saw, their mean loss. Measures are the base's.

    Under a privacy budget also what the update costs of it, and what all of it come to.
    """

    update: Path
    num_examples: int
    train_loss: float
    cost: Cost | None = None
    epsilon: float = 0.0


class KeptVector(msgspec.Struct, frozen=True):
    """A vector that the member keeps: its file (None: it has none yet), and where its next value is written."""

    before: Path | None
    after: Path


KeptVectors: TypeAlias = Mapping[str, KeptVector]
"""By the names in `train/wire.py`."""


class Trainer(Protocol):
    """Local training, one request at a time. Both methods raise `TrainerError` and may be cancelled."""

    async def fit(
        self,
        round: int,
        base: Path,
        update: Path,
        kept: KeptVectors,
        spent: Sequence[Cost],
        fragment: tuple[int, int, int] | None = None,
    ) -> FitResult:
        """Train from the snapshot in file `base` and write what is to be sent to file `update`, and what is kept.

        `spent` is what of the privacy budget is gone, `fragment` as in `wire.Fit`.
        """
        ...

    async def evaluate(self, model: Path, kept: Mapping[str, Path]) -> Measured:
        """Measure the snapshot in file `model` on the held-out data, with what the member keeps."""
        ...


class TrainerProcess:
    """A `Trainer` in a process of its own; `async with` starts it without waiting until it is ready.

    `log` takes its standard error; between two requests it is set aside as `log_config` says. `command` replaces the
    built-in trainer. `start_timeout` bounds loading, `stall_timeout` the silence between two signs of progress
    (seconds); a long epoch that reports steps is never cut. `on_progress` is called from `fit` and `evaluate`.
    """

    def __init__(
        self,
        task: Task,
        log: Path,
        command: Sequence[str] | None = None,
        *,
        start_timeout: float = 120.0,
        stall_timeout: float = 120.0,
        on_progress: OnProgress | None = None,
        log_config: LogConfig | None = None,
    ) -> None:
        self._task = task
        self._log_config = log_config or LogConfig()
        self._log = log
        self._command = command or DEFAULT_COMMAND
        self._start_timeout = start_timeout
        self._stall_timeout = stall_timeout
        self._on_progress = on_progress
        self._lock = trio.Lock()
        self._worker: Worker | None = None
        self._ready: wire.Ready | None = None
        self._last_id = 0

    @property
    def pid(self) -> int | None:
        """Process id of the training process, once it is ready."""
        return self._ready.pid if self._ready else None

    @property
    def is_running(self) -> bool:
        """Whether its process lives; if not, the next request starts another."""
        return self._worker is not None and self._worker.alive

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop(EXIT_SECONDS)

    async def fit(
        self,
        round: int,
        base: Path,
        update: Path,
        kept: KeptVectors = MappingProxyType({}),
        spent: Sequence[Cost] = (),
        fragment: tuple[int, int, int] | None = None,
    ) -> FitResult:
        """See `Trainer.fit`."""
        files = {name: wire.Kept(str(one.before or ""), str(one.after)) for name, one in kept.items()}
        async with self._lock:
            request = wire.Fit(
                self._next_id(), round, str(base), str(update), files, fragment, tuple(grouped(spent))
            )
            reply = await self._ask(request, wire.Fitted)
        return FitResult(
            reply.metrics,
            reply.beside,
            update=update,
            num_examples=reply.num_examples,
            train_loss=reply.train_loss,
            cost=reply.cost,
            epsilon=reply.epsilon,
        )

    async def evaluate(self, model: Path, kept: Mapping[str, Path] = MappingProxyType({})) -> Measured:
        """See `Trainer.evaluate`."""
        files = {name: str(path) for name, path in kept.items()}
        async with self._lock:
            reply = await self._ask(wire.Evaluate(self._next_id(), str(model), files), wire.Evaluated)
        return Measured(reply.metrics, reply.beside)

    async def change_terms(self, charter: Charter) -> None:
        """Train by the terms of another charter from the next request on."""
        task = msgspec.structs.replace(self._task, **wire.terms_of(charter))
        if task != self._task:
            self._task = task
            async with self._lock:
                await self._stop()

    async def check_start(self) -> None:
        """Wait until the process is ready; raises `TrainerError` where it can never be, on this data, model or device,
        or within the memory that it may take.

        Whatever else goes wrong costs a round's update and no more, so it is left to the next request.
        """
        async with self._lock:
            try:
                await self._running()
            except ProcessFailed as failure:
                await self._stop()
                if failure.error.kind in ("data", "model", "device"):
                    raise failure.error from failure
                if self._task.max_memory:
                    raise self._out_of_memory(failure.error) from failure

    def _out_of_memory(self, error: TrainerError) -> TrainerError:
        """Where memory is short, libraries fail in their own ways, and those in C++ end the process."""
        most = f"limits.max_memory = {self._task.max_memory / 1e6:,.0f} MB"
        return TrainerError("memory", f"it cannot work within {most}: {error.detail}")

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    async def _ask(self, request: wire.Fit | wire.Evaluate, kind: type[Answer]) -> Answer:
        """Send `request` to a running process and wait for its answer; a process that fails here is ended."""
        with suppress(OSError):  # a log is worth no round
            await trio.to_thread.run_sync(rotate, self._log, self._log_config)
        try:
            worker = await self._running()
            await worker.send(request)
            return await self._answer(worker, request.id, kind)
        except ProcessFailed as failure:
            await self._stop()
            no_memory = self._task.max_memory and "bad_alloc" in failure.error.detail
            raise (self._out_of_memory(failure.error) if no_memory else failure.error) from failure
        except trio.Cancelled:
            if self._ready and self._worker:
                with suppress(ProcessFailed):
                    await self._worker.send(wire.Cancel(request.id))
            raise

    async def _running(self) -> Worker:
        """A process that is ready: one that died idle is replaced, one that died loading says why."""
        if self._ready and not self.is_running:
            await self._stop()
        worker = self._worker or await self._start()
        if not self._ready:
            reply = await worker.receive(self._start_timeout)
            if isinstance(reply, wire.Failed):
                raise ProcessFailed(reply.kind, reply.detail)
            if not isinstance(reply, wire.Ready):
                raise ProcessFailed("protocol", f"sent {type(reply).__name__} before it was ready")
            self._ready = reply
        return worker

    async def _answer(self, worker: Worker, id: int, kind: type[Answer]) -> Answer:
        while True:
            reply = await worker.receive(self._stall_timeout)
            if not isinstance(reply, wire.Ready) and reply.id < id:
                continue  # to a request that was cancelled while its answer was under way
            if isinstance(reply, kind) and reply.id == id:
                return reply
            if isinstance(reply, wire.Failed) and reply.id == id:
                raise TrainerError(reply.kind, reply.detail)
            if not isinstance(reply, wire.Progress) or reply.id != id:
                raise ProcessFailed("protocol", f"sent {type(reply).__name__} that nobody asked for")
            if self._on_progress:
                self._on_progress(reply.done, reply.total)

    async def _start(self) -> Worker:
        self._ready = None
        self._worker = await Worker.start(self._command, self._log, trainer_environment(self._task.threads))
        # A process that died this early is told about by the first request: its node starts all the same.
        with suppress(ProcessFailed):
            await self._worker.send(self._task)
        return self._worker

    async def _stop(self, patience: float = 0.0) -> None:
        worker, self._worker, self._ready = self._worker, None, None
        if worker:
            await worker.stop(patience)


class FakeTrainer:
    """A `Trainer` without torch or process, for tests and the simulator.

    Each fit goes half of the way from the base to a hidden vector that is the same for everyone with one
    `seed`, plus a small step of the member's own; so models converge, and updates depend on nothing but
    (seed, member, round, base). `delay` (seconds of trio's clock) makes it take time; a round in `faults`
    raises instead.
    """

    def __init__(
        self,
        parameters: int,
        member: str,
        *,
        num_examples: int = 100,
        seed: int = 0,
        delay: float = 0.0,
        faults: Mapping[int, TrainerError] | None = None,
    ) -> None:
        self._parameters = parameters
        self._member = member
        self._num_examples = num_examples
        self._seed = seed
        self._delay = delay
        self._faults = faults or {}
        self._target = self._draw("target")

    async def fit(
        self,
        round: int,
        base: Path,
        update: Path,
        kept: KeptVectors = MappingProxyType({}),
        spent: Sequence[Cost] = (),
        fragment: tuple[int, int, int] | None = None,
    ) -> FitResult:
        """See `Trainer.fit`."""
        await trio.sleep(self._delay)
        if round in self._faults:
            raise self._faults[round]
        model = read_section(base, 0, self._parameters)
        drawn = self._draw(f"{self._member}\n{round}")
        moved = np.float32(0.5) * (self._target - model) + np.float32(0.01) * drawn
        sent, held = (moved, moved) if fragment is None else Fragment(*fragment).cut(moved)
        write_vector(update, sent)
        for one in kept.values():
            write_vector(one.after, held)
        metrics = self._measure(model)
        return FitResult(
            metrics, update=update, num_examples=self._num_examples, train_loss=metrics["log_loss"]
        )

    async def evaluate(self, model: Path, kept: Mapping[str, Path] = MappingProxyType({})) -> Measured:
        """See `Trainer.evaluate`."""
        await trio.lowlevel.checkpoint()
        return Measured(self._measure(read_vector(model, self._parameters)))

    def _draw(self, what: str) -> Vector:
        """Numbers in [-1, 1) that depend on the seed and `what`."""
        key = int.from_bytes(sha256(f"{self._seed}\n{what}".encode()).digest()[:8], "little")
        return np.random.default_rng(key).random(self._parameters, dtype=np.float32) * 2 - 1

    def _measure(self, model: Vector) -> Metrics:
        loss = float(np.mean((self._target - model) ** 2, dtype=np.float64))
        return {"accuracy": 1 / (1 + loss), "log_loss": loss, "examples": 1.0}
