"""Names for the plain values that travel everywhere."""

from typing import TypeAlias

Digest: TypeAlias = bytes
"""32 bytes of SHA-256 (or of Keccak-256 where EIP-712 asks for it)."""

Round: TypeAlias = int
"""A ledger height: 1 is the first trained round, 0 the founding."""

Attempt: TypeAlias = int
"""A try at finishing one round; from 0, only ever growing."""

MemberId: TypeAlias = int
"""A member's index in `Charter.members`."""

DIGEST_SIZE = 32
"""Bytes of a digest."""
