"""The trainer process, `python -m folkmoot.node.train.worker`: the daemon starts it and talks over its pipes.

Standard input and output carry frames and nothing else; whatever user code prints goes to standard error,
which the daemon leads into a log file. The process ends at once when its input does: a trainer never outlives
its node.
"""

import os
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING

from folkmoot.node.train.wire import (
    Cancel,
    Evaluate,
    Failed,
    Fit,
    Progress,
    Ready,
    Reply,
    Task,
    TrainerError,
    read_request,
    write_reply,
)

if TYPE_CHECKING:
    from folkmoot.node.train.session import Session

PROGRESS_SECONDS = 0.25
"""Least time between two `Progress` frames."""

Send = Callable[[Reply], None]


class Cancelled(Exception):
    """The daemon no longer wants the request at hand."""


class Inbox:
    """Requests as they arrive, read by a thread: a busy trainer must hear `Cancel` and its pipe's end."""

    def __init__(self, fd: int) -> None:
        self.cancelled = 0
        self._fd = fd
        self._requests: SimpleQueue[Task | Fit | Evaluate] = SimpleQueue()

    def start(self) -> None:
        """Begin reading."""
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def next(self) -> Task | Fit | Evaluate:
        """Wait for the next request."""
        return self._requests.get()

    def _read(self) -> None:
        try:
            while (request := read_request(self._fd)) is not None:
                if isinstance(request, Cancel):
                    self.cancelled = max(self.cancelled, request.id)
                else:
                    self._requests.put(request)
        except Exception:
            traceback.print_exc()
            os._exit(1)
        # No clean-up: training code may hang in C, and all that is worth keeping is written in one step.
        os._exit(0)


def open_session(task: Task) -> "Session":
    """Load model and data. Imports torch here, so that the inbox listens while that takes its second."""
    from folkmoot.node.train.session import Session

    return Session(task)


def main(begin: Callable[[Task], "Session"] = open_session) -> int:
    """Serve one daemon until its pipe closes, with what `begin` makes of the task; the exit status."""
    requests, replies = claim_pipes()
    inbox = Inbox(requests)
    inbox.start()

    def send(reply: Reply) -> None:
        write_reply(replies, reply)

    task = inbox.next()
    if not isinstance(task, Task):
        send(Failed(0, "protocol", "the first request must be the task"))
        return 1
    limit_memory(task.max_memory)
    try:
        session = begin(task)
    except Exception as error:
        send(explain(0, error))
        return 1
    send(Ready(os.getpid(), session.examples))
    while True:
        serve(session, inbox, send)


def claim_pipes() -> tuple[int, int]:
    """Take standard input and output for frames; in their place stand an empty input and standard error."""
    requests, replies = os.dup(0), os.dup(1)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    sys.stdout = sys.stderr  # which is not buffered, and so loses nothing when the process ends at once
    return requests, replies


def limit_memory(most: int) -> None:
    """Let this process have no more than so many bytes of its own (0: no bound): what asks for more gets an error."""
    if most:
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def serve(session: "Session", inbox: Inbox, send: Send) -> None:
    """Wait for one request and answer it, or drop it where it was cancelled."""
    request = inbox.next()
    if isinstance(request, Task):
        raise TrainerError("protocol", "a second task; start another trainer for it")
    last = time.monotonic()

    def on_step(done: int, total: int) -> None:
        nonlocal last
        if inbox.cancelled >= request.id:
            raise Cancelled
        if (now := time.monotonic()) - last >= PROGRESS_SECONDS:
            send(Progress(request.id, done, total))
            last = now

    try:
        on_step(0, 1)
        send(answer(session, request, on_step))
    except Cancelled:
        pass
    except Exception as error:
        send(explain(request.id, error))


def answer(session: "Session", request: Fit | Evaluate, on_step: Callable[[int, int], None]) -> Reply:
    """Carry out `request`."""
    return (
        session.evaluate(request, on_step) if isinstance(request, Evaluate) else session.fit(request, on_step)
    )


def explain(request: int, error: Exception) -> Failed:
    """What to tell the daemon about `error`; the traceback of one we did not expect goes to the log."""
    if isinstance(error, TrainerError):
        return Failed(request, error.kind, error.detail)
    traceback.print_exception(error)
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    # torch has no type of its own for a failed allocation on the CPU.
    memory = isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text
    return Failed(request, "memory" if memory else "error", text)


if __name__ == "__main__":
    sys.exit(main())
