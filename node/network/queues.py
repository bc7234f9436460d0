"""Queues bounded in bytes, because a bound on messages bounds nothing when they differ in size a thousandfold."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """First in, first out, at most `max_bytes` in all (a single item may fill it alone). One consumer."""

    def __init__(self, max_bytes: int, size_of: Callable[[T], int]) -> None:
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._items: deque[T] = deque()
        self._bytes = 0
        self._changed = trio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def offer(self, item: T) -> bool:
        """Append without waiting; False if there is no room or the queue is closed."""
        if self._closed or not self._has_room(item):
            return False
        self._append(item)
        return True

    async def put(self, item: T) -> None:
        """Append, waiting for room."""
        while not self._closed and not self._has_room(item):
            await self._changed.wait()
        self._append(item)
        await trio.lowlevel.checkpoint()

    def force(self, item: T) -> int:
        """Append at once, dropping the oldest items to make room; how many were dropped."""
        dropped = 0
        while self._items and not self._has_room(item):
            self._bytes -= self._size_of(self._items.popleft())
            dropped += 1
        self._append(item)
        return dropped

    async def wait(self) -> bool:
        """Wait until there is something to take; False once the queue is closed and empty."""
        await trio.lowlevel.checkpoint()
        while not self._items:
            if self._closed:
                return False
            await self._changed.wait()
        return True

    def take(self) -> T | None:
        """The oldest item, or None if the queue is empty."""
        if not self._items:
            return None
        item = self._items.popleft()
        self._bytes -= self._size_of(item)
        self._notify()
        return item

    def close(self) -> None:
        """No more items; what is in the queue can still be taken."""
        self._closed = True
        self._notify()

    def _has_room(self, item: T) -> bool:
        return not self._items or self._bytes + self._size_of(item) <= self._max_bytes

    def _append(self, item: T) -> None:
        self._items.append(item)
        self._bytes += self._size_of(item)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
