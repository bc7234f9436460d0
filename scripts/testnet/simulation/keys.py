"""Who signs how: hashes that anybody could make, or, in one simulation of fifty, the daemon's own keys."""

from functools import cache
from typing import Protocol

from nacl.signing import SigningKey

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.codec import NO_ADDRESS
from folkmoot.ledger.rules import SignerOf
from folkmoot.ledger.signing import KeySigner, KeyVerifier
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.signing import FakeSigner, FakeVerifier, Signer, Verifier
from folkmoot.protocol.typed_data import Domain
from folkmoot.protocol.types import MemberId

DOMAIN = Domain(1, bytes(20))


class Keys(Protocol):
    """The members' keys."""

    def public(self, member: MemberId) -> tuple[str, str]:
        """Identity key and address of the audit key, as a charter has them."""
        ...

    def address(self, member: MemberId) -> bytes:
        """Whom the contract knows as this member."""
        ...

    def signer(self, federation: Federation, member: MemberId) -> Signer:
        """Signs as one member."""
        ...

    def verifier(self, federation: Federation) -> Verifier:
        """Checks everybody's signatures."""
        ...

    def signer_of(self, federation: Federation) -> SignerOf | None:
        """How the chain tells who signed a statement; None for its own way."""
        ...


class FakeKeys:
    """No cryptography."""

    def public(self, member: MemberId) -> tuple[str, str]:
        """Impossible ones."""
        return f"{member:064x}", f"0x{member:040x}"

    def address(self, member: MemberId) -> bytes:
        """Not the charter's: the contract takes an address of zeros for a bad signature."""
        return (member + 1).to_bytes(20, "big")

    def signer(self, federation: Federation, member: MemberId) -> Signer:
        """A hash."""
        return FakeSigner(member)

    def verifier(self, federation: Federation) -> Verifier:
        """The same hash."""
        return FakeVerifier()

    def signer_of(self, federation: Federation) -> SignerOf | None:
        """Tried one by one."""
        members = range(len(federation.charter.members))

        def signer_of(body: object, signature: bytes) -> bytes:
            assert isinstance(body, Statement)  # nothing else is recorded here
            signers = (member for member in members if FakeSigner(member).sign(body) == signature)
            return next(map(self.address, signers), NO_ADDRESS)

        return signer_of


class RealKeys:
    """Ed25519 and secp256k1, from the member's number."""

    def public(self, member: MemberId) -> tuple[str, str]:
        """True ones."""
        identity, audit = _pair(member)
        return bytes(identity.verify_key).hex(), "0x" + audit.address.hex()

    def address(self, member: MemberId) -> bytes:
        """As in the charter."""
        return _pair(member)[1].address

    def signer(self, federation: Federation, member: MemberId) -> Signer:
        """The daemon's."""
        return KeySigner(federation.id, DOMAIN, *_pair(member))

    def verifier(self, federation: Federation) -> Verifier:
        """The daemon's."""
        return KeyVerifier(federation, DOMAIN)

    def signer_of(self, federation: Federation) -> SignerOf | None:
        """As on a chain."""
        return None


@cache
def _pair(member: MemberId) -> tuple[SigningKey, AuditKey]:
    secrets = (digest(f"simulated-{kind}", b"%d" % member) for kind in ("identity", "audit"))
    return SigningKey(next(secrets)), AuditKey(next(secrets))
