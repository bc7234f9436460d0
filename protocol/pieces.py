"""Streams of bytes in pieces: cut anew to the size that the next stage works in."""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview


def recut(pieces: Iterable[Buffer], size: int) -> Iterator[memoryview]:
    """Cut a stream into pieces of exactly `size` bytes; only the last may be shorter, none is empty.

    Copies only what crosses an edge. A piece that is yielded may be a view of the one that came in: use it
    before asking for the next.
    """
    crossing = bytearray()
    for piece in pieces:
        view = memoryview(piece).cast("B")
        if crossing:
            missing = size - len(crossing)
            crossing += view[:missing]
            view = view[missing:]
            if len(crossing) < size:
                continue
            yield memoryview(crossing)
            crossing = bytearray()  # the consumer may still look at the old one
        whole = len(view) - len(view) % size
        for at in range(0, whole, size):
            yield view[at : at + size]
        crossing += view[whole:]
    if crossing:
        yield memoryview(crossing)
