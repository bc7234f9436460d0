"""Streams of bytes in pieces: cut anew to the size that the next stage works in."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

Open: TypeAlias = Callable[[], Iterable[Buffer]]
"""Begins a new pass over some bytes, in pieces of any size; every pass must give the same bytes."""


def recut(pieces: Iterable[Buffer], size: int) -> Iterator[memoryview]:
    """Cut a stream into pieces of exactly `size` bytes; only the last may be shorter, none is empty.

    Copies only what crosses an edge. A piece that is yielded is a view, of the one that came in or of a buffer that
    serves all pieces: use it before asking for the next.
    """
    crossing, held = memoryview(bytearray(size)), 0
    for piece in pieces:
        view = memoryview(piece).cast("B")
        if held:
            taken = view[: size - held]
            crossing[held : held + len(taken)] = taken
            held += len(taken)
            view = view[len(taken) :]
            if held < size:
                continue
            yield crossing
        whole = len(view) - len(view) % size
        for at in range(0, whole, size):
            yield view[at : at + size]
        held = len(view) - whole
        crossing[:held] = view[whole:]
    if held:
        yield crossing[:held]
