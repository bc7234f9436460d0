"""Amendments: how a federation changes its charter, and with it who is a member, under which keys and in which role.

Everything that changes is one thing: a complete new charter with the changes of roles on the ledger, in force from a
stated round. A quorum of the attesters signs it (EIP-712, audit keys); the ledger keeps the chain of amendments.
"""

from enum import IntEnum
from itertools import pairwise
from typing import Annotated

import msgspec
from msgspec import Meta

from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Bytes32, Uint63

MAX_CHANGES = 64
"""Roles that one amendment may change."""


class Role(IntEnum):
    """What an audit key's address is on the ledger."""

    REMOVED = 0
    """Never a member, or no longer."""
    SUSPENDED = 1
    MEMBER = 2
    ATTESTER = 3
    """A member whose signatures count."""


class Change(msgspec.Struct, frozen=True, order=True):
    """The role that `address` (20 bytes) has from the amendment's round on."""

    address: bytes
    role: Role


class Amendment(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag="amendment"):
    """The digest of a new charter, in force from round `effective` on, with changes of roles.

    Amendments count from 1; `previous` is the digest of the one before, of the first the federation id. `blob` and
    `size` name the new charter's canonical bytes (`BlobRef`), so that nodes can fetch it. `changes` are words, strictly
    ascending: see `encode_changes`.
    """

    federation: Bytes32
    number: Uint63
    previous: Bytes32
    charter: Bytes32
    blob: Bytes32
    size: Uint63
    effective: Uint63
    changes: Annotated[tuple[Bytes32, ...], Meta(max_length=MAX_CHANGES)] = ()


def encode_changes(changes: tuple[Change, ...]) -> tuple[bytes, ...]:
    """As words: address, 11 zero bytes, role. In the ledger's order, ascending by address."""
    return tuple(change.address + bytes(11) + bytes([change.role]) for change in sorted(changes))


def decode_changes(words: tuple[bytes, ...]) -> tuple[Change, ...]:
    """Changes from words; raises `RemoteProtocolError` for what the ledger refuses whoever signed it."""
    changes = tuple(_decode_change(word) for word in words)
    addresses = [bytes(20), *(change.address for change in changes)]
    if any(later <= earlier for earlier, later in pairwise(addresses)):
        raise RemoteProtocolError(
            "changes of roles that are not in strictly ascending order of their addresses"
        )
    return changes


def _decode_change(word: bytes) -> Change:
    if len(word) != 32 or any(word[20:31]) or word[31] > Role.ATTESTER:
        raise RemoteProtocolError(f"0x{word.hex()} is no change of a role: address, 11 zero bytes, 0 to 3")
    return Change(word[:20], Role(word[31]))
