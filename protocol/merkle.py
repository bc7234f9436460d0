"""Merkle trees of RFC 6962 (certificate transparency) over SHA-256.

Blobs are named by such a root over their chunks, so that a fetcher can check each chunk as it comes. Leaves
and inner nodes are hashed under different prefixes (RFC 6962, 2.1): a node can never be passed off as a leaf.

Every function here works level by level from the leaves up. An odd last node rises unchanged, which gives the
same tree as the recursive "largest power of two smaller than n" split of the RFC, without recursion.
"""

from collections.abc import Sequence
from hashlib import sha256

from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.types import DIGEST_SIZE

EMPTY_ROOT = sha256(b"").digest()

_LEAF_PREFIX = b"\x00"
_NODE_PREFIX = b"\x01"


def leaf_hash(data: bytes | bytearray | memoryview) -> bytes:
    """The hash of one leaf: SHA-256(0x00 || data) (RFC 6962, 2.1). `data` is not copied."""
    state = sha256(_LEAF_PREFIX)
    state.update(data)
    return state.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: SHA-256(0x01 || left || right) (RFC 6962, 2.1)."""
    return sha256(_NODE_PREFIX + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf *hashes* (32 bytes each) in order; SHA-256 of nothing when there are none."""
    if not leaves:
        return EMPTY_ROOT
    level = list(leaves)
    while len(level) > 1:
        level = _parents(level)
    return level[0]


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The audit path of leaf `index`, from its sibling up to the child of the root (RFC 6962, 2.1.1).

    Raises LocalProtocolError if there is no such leaf: we only prove what we hold.
    """
    if not 0 <= index < len(leaves):
        raise LocalProtocolError(f"no leaf {index} in a tree of {len(leaves)}: prove an index below its size")
    path = []
    level = list(leaves)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        level = _parents(level)
        index >>= 1
    return path


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that `leaf` (a leaf hash) is number `index` of the `size` leaves under `root`.

    Raises RemoteProtocolError, saying what was expected and what was found, for an index out of range, a
    proof of the wrong length or with an entry of the wrong size, and for a root that differs.
    """
    if not 0 <= index < size:
        raise RemoteProtocolError(f"inclusion proof for leaf {index}, but the tree has {size} leaves")
    expected_length = _proof_length(index, size)
    if len(proof) != expected_length:
        raise RemoteProtocolError(
            f"inclusion proof of leaf {index} in {size}: expected {expected_length} hashes, got {len(proof)}"
        )
    if any(len(entry) != DIGEST_SIZE for entry in proof):
        raise RemoteProtocolError(f"inclusion proof of leaf {index}: an entry is not {DIGEST_SIZE} bytes")
    calculated = _root_from_proof(leaf, index, size, proof)
    if calculated != root:
        raise RemoteProtocolError(
            f"inclusion proof of leaf {index} in {size}: "
            f"expected root {root.hex()}, calculated {calculated.hex()}"
        )


def _parents(level: list[bytes]) -> list[bytes]:
    parents = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    if len(level) % 2:
        parents.append(level[-1])
    return parents


def _proof_length(index: int, size: int) -> int:
    length = 0
    last = size - 1
    while last > 0:
        # Only the last node of a level of odd size has no sibling there.
        length += index < last or index % 2 == 1
        index >>= 1
        last >>= 1
    return length


def _root_from_proof(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    calculated = leaf
    entries = iter(proof)
    last = size - 1
    while last > 0:
        if index % 2:
            calculated = node_hash(next(entries), calculated)
        elif index < last:
            calculated = node_hash(calculated, next(entries))
        index >>= 1
        last >>= 1
    return calculated
