"""Who signs how: hashes that anybody could make, or, in one simulation of fifty, the daemon's own keys.

Keys are called by numbers: a founder's is its member id, a later member's goes on from there, and a rotation adds
`ROTATED`. A charter's entry shows the number as its sealing key, which nothing in a simulation seals with.
"""

from functools import cache
from typing import Protocol

from nacl.signing import SigningKey

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.codec import NO_ADDRESS
from folkmoot.ledger.rules import SignerOf
from folkmoot.ledger.signing import KeySigner, KeyVerifier
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import Member
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.governance import Amendment
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.messages import Signed, encode
from folkmoot.protocol.signing import FakeSigner, FakeVerifier, Signer, Verifier
from folkmoot.protocol.typed_data import Domain, signing_digest
from folkmoot.protocol.types import MemberId

DOMAIN = Domain(1, bytes(20))

ROTATED = 1000
"""What a rotation adds to a key's number."""


def entry(number: int, *, attester: bool, keys: "Keys") -> Member:
    """A charter's entry for who has the key of that number, under a name that a rotation keeps."""
    identity, audit = keys.public(number)
    return Member(
        name=f"node-{number % ROTATED}",
        peer_id=f"peer-{number}",
        identity_key=identity,
        sealing_key=f"{number:064x}",
        audit_key=audit,
        attester=attester,
    )


def number_of(member: Member) -> int:
    """Whose keys an entry shows."""
    return int(member.sealing_key, 16)


def address_of(charter: Charter, member: MemberId) -> bytes:
    """Whom the contract knows as this member."""
    return bytes.fromhex(charter.members[member].audit_key[2:])


class Keys(Protocol):
    """The members' keys."""

    def public(self, number: int) -> tuple[str, str]:
        """Identity key and address of the audit key, as a charter has them."""
        ...

    def signer(self, federation: Federation, number: int) -> Signer:
        """Signs with these keys as the member that has them."""
        ...

    def endorse(self, number: int, amendment: Amendment) -> bytes:
        """An attester's signature for the ledger."""
        ...

    def verifier(self, federation: Federation) -> Verifier:
        """Checks everybody's signatures under one charter."""
        ...

    def signer_of(self) -> SignerOf | None:
        """How the chain tells who signed a statement or an amendment; None for its own way."""
        ...


class FakeKeys:
    """No cryptography."""

    def __init__(self) -> None:
        self._numbers: dict[int, None] = {}

    def public(self, number: int) -> tuple[str, str]:
        """Impossible ones. The contract takes an address of zeros for a bad signature."""
        self._numbers[number] = None
        return f"{number:064x}", f"0x{number + 1:040x}"

    def signer(self, federation: Federation, number: int) -> Signer:
        """A hash."""
        return FakeSigner(number)

    def endorse(self, number: int, amendment: Amendment) -> bytes:
        """The same hash."""
        return _fake_endorsement(number, amendment)

    def verifier(self, federation: Federation) -> Verifier:
        """The same hash, of the keys that the charter names."""
        return _CharterVerifier(federation.charter)

    def signer_of(self) -> SignerOf | None:
        """Tried one by one."""

        def signer_of(body: object, signature: bytes) -> bytes:
            for number in self._numbers:
                if _sign(number, body) == signature:
                    return bytes.fromhex(self.public(number)[1][2:])
            return NO_ADDRESS

        return signer_of


def _sign(number: int, body: object) -> bytes:
    if isinstance(body, Amendment):
        return _fake_endorsement(number, body)
    return FakeSigner(number).sign(body)  # type: ignore[arg-type]


def _fake_endorsement(number: int, amendment: Amendment) -> bytes:
    return 2 * digest("fake", b"%d\n" % number + encode(amendment))


class _CharterVerifier:
    """`FakeVerifier` where members' ids are not their keys' numbers."""

    def __init__(self, charter: Charter) -> None:
        self._numbers = [number_of(member) for member in charter.members]
        self._fake = FakeVerifier()

    def verify(self, signed: Signed) -> None:
        """Raise `RemoteProtocolError` unless the member's key signed it."""
        if not 0 <= signed.member < len(self._numbers):
            raise RemoteProtocolError(f"signed by member {signed.member}, whom the charter does not have")
        self._fake.verify(Signed(self._numbers[signed.member], signed.body, signed.signature))


class RealKeys:
    """Ed25519 and secp256k1, from the key's number."""

    def public(self, number: int) -> tuple[str, str]:
        """True ones."""
        identity, audit = _pair(number)
        return bytes(identity.verify_key).hex(), "0x" + audit.address.hex()

    def signer(self, federation: Federation, number: int) -> Signer:
        """The daemon's."""
        return KeySigner(federation.id, DOMAIN, *_pair(number))

    def endorse(self, number: int, amendment: Amendment) -> bytes:
        """As `member sign` does."""
        return _pair(number)[1].sign(signing_digest(DOMAIN, amendment))

    def verifier(self, federation: Federation) -> Verifier:
        """The daemon's."""
        return KeyVerifier(federation, DOMAIN)

    def signer_of(self) -> SignerOf | None:
        """As on a chain."""
        return None


@cache
def _pair(number: int) -> tuple[SigningKey, AuditKey]:
    secrets = (digest(f"simulated-{kind}", b"%d" % number) for kind in ("identity", "audit"))
    return SigningKey(next(secrets)), AuditKey(next(secrets))
