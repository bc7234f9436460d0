"""RLP, in which Ethereum writes block headers, accounts and the nodes of its tries.

Specification: https://ethereum.org/en/developers/docs/data-structures-and-encoding/rlp/. Decoding is strict: every
value has one encoding, and what is decoded here comes from an RPC that may lie.
"""

from collections.abc import Sequence
from typing import TypeAlias

from folkmoot.protocol.errors import RemoteProtocolError

Item: TypeAlias = "bytes | list[Item]"

_SHORT = 55
"""Bytes up to which a length stands in the first byte."""

_MAX_DEPTH = 8
"""Lists within lists; headers and nodes of tries need three."""


def encode(item: bytes | Sequence[bytes]) -> bytes:
    """A byte string, or a list of byte strings."""
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < 0x80:
            return item
        return _prefix(0x80, len(item)) + item
    content = b"".join(map(encode, item))
    return _prefix(0xC0, len(content)) + content


def encode_int(value: int) -> bytes:
    """What RLP takes for a number: big endian, without leading zeros; nothing for 0."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def decode(data: bytes) -> Item:
    """The one item that `data` is; raises `RemoteProtocolError`."""
    item, end = _decode_at(data, 0, 0)
    if end != len(data):
        raise RemoteProtocolError(f"RLP: {len(data) - end} bytes too many")
    return item


def decode_int(item: Item) -> int:
    """A number; raises `RemoteProtocolError` for a list and for leading zeros."""
    if not isinstance(item, bytes) or item[:1] == b"\x00":
        raise RemoteProtocolError("RLP: not a number")
    return int.from_bytes(item, "big")


def _prefix(base: int, length: int) -> bytes:
    if length <= _SHORT:
        return bytes([base + length])
    size = encode_int(length)
    return bytes([base + _SHORT + len(size)]) + size


def _decode_at(data: bytes, at: int, depth: int) -> tuple[Item, int]:
    """The item that begins at `at`, and where it ends."""
    if at >= len(data) or depth > _MAX_DEPTH:
        raise RemoteProtocolError("RLP: cut off, or nested too deep")
    first = data[at]
    if first < 0x80:
        return data[at : at + 1], at + 1
    start, length = _content(data, at, 0x80 if first < 0xC0 else 0xC0)
    end = start + length
    if end > len(data):
        raise RemoteProtocolError("RLP: cut off")
    if first < 0xC0:
        if length == 1 and data[start] < 0x80:
            raise RemoteProtocolError("RLP: a byte that needs no prefix has one")
        return data[start:end], end
    items: list[Item] = []
    while start < end:
        item, start = _decode_at(data[:end], start, depth + 1)
        items.append(item)
    return items, end


def _content(data: bytes, at: int, base: int) -> tuple[int, int]:
    """Where the content of the item at `at` starts, and its length."""
    length = data[at] - base
    if length <= _SHORT:
        return at + 1, length
    size = length - _SHORT
    digits = data[at + 1 : at + 1 + size]
    length = int.from_bytes(digits, "big")
    if len(digits) != size or digits[:1] == b"\x00" or length <= _SHORT:
        raise RemoteProtocolError("RLP: a length that is cut off, or not the shortest")
    return at + 1 + size, length
