"""A blob on its way to disk: verified chunks in `<destination>.partial`, renamed into place once whole.

Everything here blocks on the disk; call it from worker threads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from folkmoot.protocol import blob, merkle
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.types import Digest

PARTIAL = ".partial"


def partial_path(destination: Path) -> Path:
    """Where the chunks lie until all of them are there."""
    return destination.with_name(destination.name + PARTIAL)


class PartialBlob:
    """Opens (or makes) the partial file of `destination`. Use as a context manager. Raises OSError."""

    def __init__(self, ref: BlobRef, leaves: Sequence[Digest], destination: Path) -> None:
        self._ref = ref
        self._leaves = leaves
        self._destination = destination
        self._path = partial_path(destination)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> PartialBlob:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def missing(self) -> list[int]:
        """The chunks that are still to be fetched; those in the file already count only if their hash is right."""
        return [
            index for index, leaf in enumerate(self._leaves) if merkle.leaf_hash(self._read(index)) != leaf
        ]

    def write(self, index: int, data: bytes) -> None:
        """Put a chunk in its place. Raises RemoteProtocolError, writing nothing, if its hash is wrong."""
        if merkle.leaf_hash(data) != self._leaves[index]:
            raise RemoteProtocolError(f"chunk {index} of blob {self._ref} has the wrong hash")
        at = index * blob.CHUNK
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, at)
            view, at = view[written:], at + written

    def finish(self) -> None:
        """Make the whole blob durable and let it appear as `destination`."""
        os.ftruncate(self._file, self._ref.size)
        os.fsync(self._file)
        self._path.replace(self._destination)
        directory = os.open(self._destination.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _read(self, index: int) -> bytes:
        return os.pread(self._file, blob.chunk_size(self._ref.size, index), index * blob.CHUNK)
