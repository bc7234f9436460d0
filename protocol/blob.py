"""Content-addressed blobs: what bulk transfer, archive and ledger call by digest.

A blob's root is the RFC 6962 tree hash over its 1 MiB chunks, so a fetcher can check each chunk as it arrives and
needs to trust no server. A model's digest is the root of its flat little-endian float32 vector.
"""

from collections.abc import Sequence

import msgspec

from folkmoot.protocol import merkle
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.types import Digest

CHUNK = 1 << 20
"""Bytes of every chunk but the last."""


class BlobRef(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a blob is called: its Merkle root and its length in bytes."""

    root: Digest
    size: int

    def __str__(self) -> str:
        return f"{self.root.hex()[:16]} ({self.size} bytes)"


def chunk_count(size: int) -> int:
    """How many chunks a blob of `size` bytes has (0 for the empty blob)."""
    return -(-size // CHUNK)


def chunk_size(size: int, index: int) -> int:
    """Bytes of chunk `index` of a blob of `size` bytes."""
    return min(CHUNK, size - index * CHUNK)


def ref_of(data: bytes | memoryview) -> BlobRef:
    """The reference of bytes held in memory."""
    view = memoryview(data).cast("B")
    leaves = [merkle.leaf_hash(view[at : at + CHUNK]) for at in range(0, len(view), CHUNK)]
    return BlobRef(merkle.root(leaves), len(view))


class Rest(msgspec.Struct, frozen=True):
    """What follows some bytes in a blob that begins with them, as far as the blob's root needs it.

    `tail` ends the chunk that they end in; `leaves` are the hashes of the chunks after that.
    """

    tail: bytes = b""
    leaves: tuple[Digest, ...] = ()


def rest_of(data: bytes | memoryview, size: int) -> Rest:
    """What follows the first `size` bytes."""
    view = memoryview(data).cast("B")
    edge = min(CHUNK * chunk_count(size), len(view))
    leaves = tuple(merkle.leaf_hash(view[at : at + CHUNK]) for at in range(edge, len(view), CHUNK))
    return Rest(bytes(view[size:edge]), leaves)


def root_with(data: bytes | memoryview, rest: Rest) -> Digest:
    """The root of the blob that begins with `data` and goes on with `rest`."""
    view = memoryview(data).cast("B")
    whole = len(view) - len(view) % CHUNK
    leaves = [merkle.leaf_hash(view[at : at + CHUNK]) for at in range(0, whole, CHUNK)]
    last = bytes(view[whole:]) + rest.tail
    return merkle.root([*leaves, *([merkle.leaf_hash(last)] if last else []), *rest.leaves])


def check_leaves(ref: BlobRef, leaves: Sequence[Digest]) -> None:
    """Raise `RemoteProtocolError` unless `leaves` are the chunk hashes that `ref` commits to."""
    if len(leaves) != chunk_count(ref.size):
        raise RemoteProtocolError(f"blob {ref}: {len(leaves)} chunk hashes, expected {chunk_count(ref.size)}")
    if merkle.root(leaves) != ref.root:
        raise RemoteProtocolError(f"blob {ref}: the chunk hashes do not fold to its root")
