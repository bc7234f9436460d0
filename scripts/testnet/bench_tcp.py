"""The floor that a round's time is compared with: as many bytes over plain trio TCP, between as many processes.

    python -m folkmoot.testnet.bench_tcp BYTES

Every process sends BYTES to every other one at once, from memory, and throws away what it gets: no encryption, no
hashing, no disk. Standard input and output carry lines: out goes `port N`; in come the others' ports; out `ready`; in
`go`; out `done`.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

import trio

from folkmoot.testnet.processes import TestnetError

LIMIT_SECONDS = 600.0
_PIECE = bytes(1 << 20)

Route: TypeAlias = Callable[[Sequence[int]], list[list[int]]]
"""From the ports on which the processes listen to those on which each of them finds the others."""


def measure(nodes: int, size: int, route: Route) -> float:
    """Seconds in which each of `nodes` processes gets `size` bytes from each other one; raises `TestnetError`."""
    command = [sys.executable, "-m", "folkmoot.testnet.bench_tcp", str(size)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(nodes)
    ]
    try:
        ports = [int(_hear(worker).removeprefix("port ")) for worker in workers]
        for worker, others in zip(workers, route(ports), strict=True):
            _tell(worker, " ".join(map(str, others)))
        for worker in workers:
            _hear(worker)
        began = time.monotonic()
        for worker in workers:
            _tell(worker, "go")
        for worker in workers:
            _hear(worker)
        return time.monotonic() - began
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def _tell(worker: "subprocess.Popen[str]", line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(line + "\n")
    worker.stdin.flush()


def _hear(worker: "subprocess.Popen[str]") -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline().strip()
    if not line:
        raise TestnetError("a process that measures plain TCP ended early")
    return line


async def run(size: int) -> None:
    """One of the processes."""
    with trio.fail_after(LIMIT_SECONDS):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listeners[0].socket.getsockname()[1]
            nursery.start_soon(trio.serve_listeners, lambda stream: _send(stream, size), listeners)
            print(f"port {port}", flush=True)
            others = (await trio.to_thread.run_sync(sys.stdin.readline)).split()
            streams = [await trio.open_tcp_stream("127.0.0.1", int(other)) for other in others]
            print("ready", flush=True)
            await trio.to_thread.run_sync(sys.stdin.readline)
            async with trio.open_nursery() as receiving:
                for stream in streams:
                    receiving.start_soon(_receive, stream, size)
            print("done", flush=True)
            await trio.sleep_forever()  # others may still be receiving from us; the parent ends us


async def _send(stream: trio.SocketStream, size: int) -> None:
    await stream.receive_some(1)
    for at in range(0, size, len(_PIECE)):
        await stream.send_all(memoryview(_PIECE)[: min(len(_PIECE), size - at)])


async def _receive(stream: trio.SocketStream, size: int) -> None:
    await stream.send_all(b"g")
    while size > 0:
        piece = await stream.receive_some()
        if not piece:
            raise TestnetError("a process that measures plain TCP ended early")
        size -= len(piece)


if __name__ == "__main__":
    trio.run(run, int(sys.argv[1]))
