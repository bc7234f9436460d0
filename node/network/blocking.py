"""Where hashing and disk access run: in worker threads, or in place in a simulation.

trio's autojump clock does not know of threads: it would let minutes of virtual time pass while one reads a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class RunBlocking(Protocol):
    """Runs a function that blocks."""

    async def __call__(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """The result of `function(*args)`; what it raises is raised."""


async def in_thread(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run in a worker thread, as a daemon must."""
    return await trio.to_thread.run_sync(function, *args)


async def in_place(function: Callable[[*Ts], T], *args: *Ts) -> T:
    """Run here and now, in no virtual time."""
    await trio.lowlevel.checkpoint()
    return function(*args)
