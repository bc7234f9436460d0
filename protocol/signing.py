"""The port through which the rules see signatures, and the fakes for simulation.

Real keys live outside (`ledger/signing.py`): the audit key needs secp256k1 and the identity key Ed25519.
"""

import hashlib
from typing import Protocol

from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Body, Signed, encode
from folkmoot.protocol.types import Digest, MemberId


class Signer(Protocol):
    """Signs as one member."""

    def sign(self, body: Body) -> bytes:
        """64 bytes over `body`, by the key that its kind asks for."""
        ...


class Verifier(Protocol):
    """Knows every member's public keys."""

    def verify(self, signed: Signed) -> None:
        """Raise `RemoteProtocolError` unless `signed.member` signed `signed.body`."""
        ...


def identity_preimage(federation: Digest, body: Body) -> bytes:
    """What the identity key signs: type line, federation, then the body (which begins with its round)."""
    return b"folkmoot/v1/%s\n" % str(type(body).__struct_config__.tag).encode() + federation + encode(body)


def _fake_signature(member: MemberId, body: Body) -> bytes:
    return hashlib.sha512(b"fake\n%d\n" % member + encode(body)).digest()


class FakeSigner:
    """Signs with a hash that anybody could compute: simulation only."""

    def __init__(self, member: MemberId) -> None:
        self._member = member

    def sign(self, body: Body) -> bytes:
        """64 bytes that `FakeVerifier` accepts."""
        return _fake_signature(self._member, body)


class FakeVerifier:
    """Accepts what `FakeSigner` signed."""

    def verify(self, signed: Signed) -> None:
        """Raise `RemoteProtocolError` on any other signature."""
        if signed.signature != _fake_signature(signed.member, signed.body):
            raise RemoteProtocolError(f"bad signature of member {signed.member}")
