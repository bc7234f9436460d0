"""The one hash: SHA-256 over a type line and what follows, so that a digest of one kind is never another's."""

import hashlib

from folkmoot.protocol.types import Digest


def digest(kind: str, *parts: bytes | memoryview) -> Digest:
    """SHA-256 of `kind`, a newline and `parts`; only the last part may vary in length."""
    state = hashlib.sha256(kind.encode() + b"\n")
    for part in parts:
        state.update(part)
    return state.digest()
