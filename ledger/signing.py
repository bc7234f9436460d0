"""Members' real signatures, behind the ports of `protocol/signing.py`.

What may have to be shown on the chain is signed by the audit key (secp256k1, EIP-712), everything else by the identity
key (Ed25519). Both signatures are 64 bytes.
"""

from collections import OrderedDict
from typing import get_args

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from folkmoot.ledger.audit_key import SIGNATURE_SIZE, AuditKey, recover
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.messages import AuditBody, Body, Signed, encode
from folkmoot.protocol.signing import identity_preimage
from folkmoot.protocol.typed_data import Domain, signing_digest
from folkmoot.protocol.types import Digest

REMEMBERED = 16_384
"""Signatures that a verifier knows to be good: the same ones return in certificates, gossip and records."""

_AUDIT_BODIES: tuple[type[Body], ...] = get_args(AuditBody)


class KeySigner:
    """Signs as one member, with its two keys."""

    def __init__(self, federation: Digest, domain: Domain, identity: SigningKey, audit: AuditKey) -> None:
        """`federation` is its id; `domain` the chain and contract that audit signatures are for."""
        self._federation = federation
        self._domain = domain
        self._identity = identity
        self._audit = audit

    def sign(self, body: Body) -> bytes:
        """64 bytes, the same for the same body: both schemes are deterministic."""
        if isinstance(body, _AUDIT_BODIES):
            return self._audit.sign(signing_digest(self._domain, body))
        return self._identity.sign(identity_preimage(self._federation, body)).signature


class KeyVerifier:
    """Checks signatures against the charter's keys. For one thread at a time."""

    def __init__(self, federation: Federation, domain: Domain, remembered: int = REMEMBERED) -> None:
        """`remembered`: how many good signatures are not checked again; the least recently seen are forgotten."""
        self._federation = federation.id
        self._domain = domain
        self._identity_keys = [
            VerifyKey(bytes.fromhex(one.identity_key)) for one in federation.charter.members
        ]
        self._audit_keys = [bytes.fromhex(one.audit_key[2:]) for one in federation.charter.members]
        self._remembered = remembered
        # Digests only: a roster carries every READY, and would be kept alive by it.
        self._good: OrderedDict[Digest, None] = OrderedDict()

    def verify(self, signed: Signed) -> None:
        """Raise `RemoteProtocolError` unless `signed.member` exists and signed `signed.body`."""
        if not 0 <= signed.member < len(self._audit_keys):
            raise RemoteProtocolError(
                f"signed by member {signed.member}, the charter has {len(self._audit_keys)} members"
            )
        if len(signed.signature) != SIGNATURE_SIZE:
            raise RemoteProtocolError(
                f"a signature of {len(signed.signature)} bytes, expected {SIGNATURE_SIZE}"
            )
        key = digest("folkmoot/v1/verified", encode(signed))
        if key in self._good:
            self._good.move_to_end(key)
            return
        if isinstance(signed.body, _AUDIT_BODIES):
            self._verify_audit(signed)
        else:
            self._verify_identity(signed)
        self._remember(key)

    def _verify_audit(self, signed: Signed) -> None:
        signer = recover(signing_digest(self._domain, signed.body), signed.signature)
        if signer != self._audit_keys[signed.member]:
            raise _bad_signature(signed)

    def _verify_identity(self, signed: Signed) -> None:
        preimage = identity_preimage(self._federation, signed.body)
        try:
            self._identity_keys[signed.member].verify(preimage, signed.signature)
        except BadSignatureError as error:
            raise _bad_signature(signed) from error

    def _remember(self, key: Digest) -> None:
        self._good[key] = None
        if len(self._good) > self._remembered:
            self._good.popitem(last=False)


def _bad_signature(signed: Signed) -> RemoteProtocolError:
    return RemoteProtocolError(f"bad signature of member {signed.member} on a {type(signed.body).__name__}")
