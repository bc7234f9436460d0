"""Proofs from Ethereum's tries: that a key has a value, or has none, under a root hash.

Specification: the yellow paper, appendix D; https://ethereum.org/en/developers/docs/data-structures-and-encoding/patricia-merkle-trie/.
A proof is the nodes on the path from the root to the key, as `eth_getProof` gives them (EIP-1186).
"""

from collections.abc import Iterable

from folkmoot.ledger.audit.rlp import Item, decode
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.typed_data import keccak256
from folkmoot.protocol.types import Digest

EMPTY_ROOT = keccak256(b"\x80")
"""The root of a trie without a key."""

_MAX_STEPS = 130
"""Nodes on a path: a key of 32 bytes has 64 nibbles, each with at most a branch and an extension."""


def prove(root: Digest, key: bytes, proof: Iterable[bytes]) -> bytes | None:
    """The value of `key` in the secure trie (its keys are hashed) with this root; None if the proof shows none.

    Raises `RemoteProtocolError` if `proof` does not lead from the root to an answer.
    """
    nodes = {keccak256(node): node for node in proof}
    if root == EMPTY_ROOT:
        return None
    path = keccak256(key).hex()
    node = _fetch(root, nodes)
    for _ in range(_MAX_STEPS):
        found = _step(node, path)
        if not isinstance(found, tuple):
            return found
        child, path = found
        # A node shorter than its hash stands in its parent itself.
        node = child if isinstance(child, list) else _fetch(child, nodes)
    raise RemoteProtocolError("a trie proof that does not end")


def _step(node: list[Item], path: str) -> bytes | tuple[Item, str] | None:
    """The value at the end of the path, None if there is none, or the next node's reference and the path from it."""
    if len(node) == 17:
        child = node[int(path[0], 16)] if path else node[16]
        if not child:
            return None
        return (child, path[1:]) if path else _value(child)
    if len(node) != 2 or not isinstance(node[0], bytes) or not node[0]:
        raise RemoteProtocolError("a trie proof with a node that is neither branch, extension nor leaf")
    nibbles = node[0].hex()
    flag = int(nibbles[0], 16)
    part = nibbles[1:] if flag & 1 else nibbles[2:]
    if flag & 2:  # a leaf: its part is the whole rest
        return _value(node[1]) if path == part else None
    return (node[1], path[len(part) :]) if path.startswith(part) else None


def _value(item: Item) -> bytes:
    if not isinstance(item, bytes):
        raise RemoteProtocolError("a trie proof with a list where a value belongs")
    return item


def _fetch(reference: Item, nodes: dict[bytes, bytes]) -> list[Item]:
    if not isinstance(reference, bytes) or reference not in nodes:
        raise RemoteProtocolError("a trie proof that lacks a node of its path")
    node = decode(nodes[reference])
    if not isinstance(node, list):
        raise RemoteProtocolError("a trie proof with a node that is no list")
    return node
