"""The audit key: a secp256k1 key that signs EIP-712 digests, in a form that a contract can check.

Signatures are compact (EIP-2098): r, then s with the parity of the curve point in its top bit; s is always the smaller
of the two that fit, so each signing has one form only. The nonce follows RFC 6979: same key and digest, same signature.
"""

from typing import Self

import coincurve

from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.typed_data import keccak256
from folkmoot.protocol.types import Digest

SIGNATURE_SIZE = 64
_MAX_S = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0  # half the order of secp256k1
_TOP = 1 << 255


class AuditKey:
    """A private key; `repr` shows the address only."""

    def __init__(self, secret: bytes) -> None:
        """From 32 secret bytes; raises `LocalProtocolError` if they are no key."""
        try:
            self._key = coincurve.PrivateKey(secret)
        except ValueError as error:
            raise LocalProtocolError(
                "not a secp256k1 private key (32 bytes, 1 to the curve's order)"
            ) from error
        self.address = _address(self._key.public_key)

    @classmethod
    def generate(cls) -> Self:
        """A new random key."""
        return cls(coincurve.PrivateKey().secret)

    @property
    def secret(self) -> bytes:
        """The 32 secret bytes, for the keystore."""
        return self._key.secret

    def sign(self, digest: Digest) -> bytes:
        """64 bytes over a 32-byte digest; raises `LocalProtocolError` if it has another length."""
        if len(digest) != 32:
            raise LocalProtocolError(f"an audit key signs digests of 32 bytes, not {len(digest)}")
        signature = self._key.sign_recoverable(digest, hasher=None)
        # libsecp256k1 gives low s; a recovery id above 1 (r past the order) has a chance of 2^-127.
        return signature[:32] + bytes([signature[32] | signature[64] << 7]) + signature[33:64]

    def __repr__(self) -> str:
        return f"AuditKey(0x{self.address.hex()})"


def recover(digest: Digest, signature: bytes) -> bytes:
    """The 20-byte address whose key signed `digest`; raises `RemoteProtocolError` if no key did, or s is high.

    Any other well-formed signature belongs to *some* address: the caller compares it with the one it expects.
    """
    if len(digest) != 32 or len(signature) != SIGNATURE_SIZE:
        raise RemoteProtocolError(
            f"a signature of {len(signature)} bytes over {len(digest)}; expected 64 over 32"
        )
    vs = int.from_bytes(signature[32:], "big")
    s = vs & (_TOP - 1)
    if s > _MAX_S:
        raise RemoteProtocolError("signature with high s: only the other of its two forms is valid")
    recoverable = signature[:32] + s.to_bytes(32, "big") + bytes([vs >> 255])
    try:
        return _address(coincurve.PublicKey.from_signature_and_message(recoverable, digest, hasher=None))
    except Exception as error:  # coincurve raises ValueError and bare Exception, by the step that fails
        raise RemoteProtocolError("signature that no key can have made") from error


def _address(key: coincurve.PublicKey) -> bytes:
    return keccak256(key.format(compressed=False)[1:])[12:]
