"""The wire of bulk transfer: one stream, requests one way, answers the other, in order.

    request   root (32 bytes) | what (u8: 0 leaves, 1 chunks) | first (u32) | count (u32)
    answer    length (u64) | that many bytes, or one of the two marks NOT_HELD and BUSY alone

Leaves are the 32-byte hashes of all chunks in order (`first` and `count` are 0). Chunks are asked for in runs of at
most MAX_RUN. Who asks knows the blob's size, so it knows every answer's length beforehand; any other is a fault.
Integers are big endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from folkmoot.protocol import blob, merkle
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.types import DIGEST_SIZE, Digest

MAX_RUN = 4
"""Chunks in one answer: a reader owes the stream at most this much before it may stop."""

MAX_BLOB = 1 << 40
"""Bytes of the largest blob that is fetched (its leaves are 32 MiB)."""

NOT_HELD = 2**64 - 1
BUSY = 2**64 - 2

_REQUEST = struct.Struct(">32sBII")
REQUEST_SIZE = _REQUEST.size
_ANSWER = struct.Struct(">Q")
ANSWER_SIZE = _ANSWER.size

_LEAVES, _CHUNKS = 0, 1


@dataclass(frozen=True, slots=True)
class LeavesRequest:
    """Asks for the hashes of all chunks."""

    root: Digest


@dataclass(frozen=True, slots=True)
class ChunksRequest:
    """Asks for chunks `first` to `first + count - 1`."""

    root: Digest
    first: int
    count: int


Request = LeavesRequest | ChunksRequest


def encode_request(request: Request) -> bytes:
    """The request's 41 bytes."""
    match request:
        case LeavesRequest(root):
            return _REQUEST.pack(root, _LEAVES, 0, 0)
        case ChunksRequest(root, first, count):
            return _REQUEST.pack(root, _CHUNKS, first, count)


def decode_request(data: bytes) -> Request:
    """The request in `data`. Raises RemoteProtocolError for anything that `encode_request` does not make."""
    if len(data) != REQUEST_SIZE:
        raise RemoteProtocolError(f"bulk request of {len(data)} bytes, expected {REQUEST_SIZE}")
    root, what, first, count = _REQUEST.unpack(data)
    if what == _LEAVES and first == count == 0:
        return LeavesRequest(root)
    if what == _CHUNKS and 1 <= count <= MAX_RUN:
        return ChunksRequest(root, first, count)
    raise RemoteProtocolError(f"bulk request for kind {what}, first {first}, count {count}: no such request")


def encode_answer(length: int) -> bytes:
    """The head of an answer: the length of what follows, or NOT_HELD or BUSY."""
    return _ANSWER.pack(length)


def decode_answer(data: bytes) -> int:
    """The length (or mark) in the head of an answer."""
    (length,) = _ANSWER.unpack(data)
    return int(length)


def run_bytes(size: int, first: int, count: int) -> int:
    """Bytes of chunks `first` to `first + count - 1` of a blob of `size` bytes."""
    return min((first + count) * blob.CHUNK, size) - first * blob.CHUNK


def runs_of(indices: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending chunk indices as (first, count) runs of neighbours, none longer than MAX_RUN."""
    first = count = 0
    for index in indices:
        if count and (index != first + count or count == MAX_RUN):
            yield first, count
            count = 0
        if not count:
            first = index
        count += 1
    if count:
        yield first, count


def known_leaves(ref: BlobRef) -> list[Digest] | None:
    """The leaves of a blob of no or one chunk, which its root alone gives; None if they have to be asked for.

    Raises LocalProtocolError for a reference that no blob can have: whoever let it in should have refused it.
    """
    if not 0 <= ref.size <= MAX_BLOB or len(ref.root) != DIGEST_SIZE:
        raise LocalProtocolError(f"blob {ref} cannot be fetched: its size or its root is out of range")
    count = blob.chunk_count(ref.size)
    if count == 0 and ref.root != merkle.EMPTY_ROOT:
        raise LocalProtocolError(f"blob {ref} cannot exist: the empty blob has another root")
    return None if count > 1 else [ref.root] * count


def decode_leaves(ref: BlobRef, data: bytes) -> list[Digest]:
    """The leaf hashes in an answer, checked against the root. Raises RemoteProtocolError."""
    size = DIGEST_SIZE
    leaves = [data[at : at + size] for at in range(0, len(data), size)]
    blob.check_leaves(ref, leaves)
    return leaves
