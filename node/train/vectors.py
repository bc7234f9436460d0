"""Flat vectors in files: little-endian float32, charter tensor order, nothing else in the file."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from folkmoot.node.train.wire import TrainerError

Vector: TypeAlias = npt.NDArray[np.float32]
"""A flat model or update, dtype float32, shape (P,)."""

BYTES = 4
_PIECE = 1 << 20


@dataclass(frozen=True)
class Fragment:
    """What of the shared values is sent in a round, (start, stop), filled up with zeros to `padded` values.

    Of the others the member holds back what it has learnt: it goes on from the round's model plus its own vector, as
    the workers of Streaming DiLoCo do (Douillard et al. 2025).
    """

    start: int
    stop: int
    padded: int

    def cut(self, moved: Vector) -> tuple[Vector, Vector]:
        """From how far the member is from the round's model: what it sends, and what it holds back."""
        sent, held = np.zeros(self.padded, np.float32), moved.copy()
        sent[: self.stop - self.start] = moved[self.start : self.stop]
        held[self.start : self.stop] = 0
        return sent, held


def read_vector(path: Path, parameters: int) -> Vector:
    """Read the vector of `parameters` values from `path` into memory of our own.

    Read and not mapped: a mapped file that another process shortens ends in SIGBUS (PROTOCOL section 6).
    Raises `TrainerError` where the file cannot be read, has another length, or holds NaN or infinity.
    """
    (vector,) = read_pieces(path, parameters, parameters)
    return vector


def read_pieces(path: Path, parameters: int, length: int) -> Iterator[Vector]:
    """The same in pieces of `length` values (the last may be shorter), each to be used before the next.

    Raises `TrainerError` as `read_vector` does; what was yielded before may then have been of a damaged file.
    """
    piece = np.empty(min(length, parameters), dtype=np.dtype("<f4"))
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size != BYTES * parameters:
                raise TrainerError(
                    "model", f"{path} has {size} bytes; {parameters} float32 values take {BYTES * parameters}"
                )
            for start in range(0, parameters, length):
                part = piece[: parameters - start]
                _fill(file.fileno(), part.view(np.uint8).data, BYTES * start, path)
                check_finite(part, str(path))
                yield part
    except OSError as error:
        raise TrainerError("model", f"cannot read the vector {path}: {error.strerror}") from error


def read_section(path: Path, section: int, parameters: int) -> Vector:
    """One of the vectors of `parameters` values that a snapshot consists of; 0 is the model's own.

    Raises `TrainerError` where the file cannot be read, is shorter, or holds NaN or infinity there.
    """
    vector = np.empty(parameters, dtype=np.dtype("<f4"))
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size - BYTES * parameters * section
            if size < BYTES * parameters:
                raise TrainerError(
                    "model",
                    f"{path} has {max(size, 0)} bytes for vector {section}; "
                    f"{parameters} float32 values take {BYTES * parameters}",
                )
            _fill(file.fileno(), vector.view(np.uint8).data, BYTES * parameters * section, path)
    except OSError as error:
        raise TrainerError("model", f"cannot read the vector {path}: {error.strerror}") from error
    check_finite(vector, str(path))
    return vector


def check_finite(vector: Vector, what: str) -> None:
    """Raise `TrainerError` where `vector` holds NaN or infinity; `what` names it."""
    for at in range(0, len(vector), _PIECE):
        piece = vector[at : at + _PIECE]
        if not np.isfinite(piece).all():
            index = at + int(np.argmin(np.isfinite(piece)))
            raise TrainerError("non_finite", f"{what}: value {index} of {len(vector)} is {vector[index]}")


def write_vector(path: Path, vector: Vector) -> None:
    """Write `vector` to `path` in one step: a reader sees the old file or the whole new one."""
    partial = path.with_name(path.name + ".part")
    with partial.open("wb", buffering=0) as file:
        np.ascontiguousarray(vector, dtype="<f4").tofile(file)
    partial.replace(path)


def _fill(fd: int, buffer: memoryview, start: int, path: Path) -> None:
    """Read `buffer` full from byte `start` of the file."""
    at = 0
    while at < len(buffer):
        count = os.preadv(fd, [buffer[at : at + BYTES * _PIECE]], start + at)
        if not count:
            raise TrainerError("model", f"{path} became shorter while it was read")
        at += count
