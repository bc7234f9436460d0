"""Members' real signatures: which key signs what, and what a verifier refuses."""

from dataclasses import dataclass, field

import msgspec
import pytest
from audited_federation import AuditedFederation
from nacl.signing import VerifyKey

from folkmoot.ledger import signing
from folkmoot.ledger.audit_key import recover
from folkmoot.ledger.signing import KeyVerifier
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import (
    Body,
    Commitment,
    Enter,
    Lock,
    Proposal,
    Ready,
    Receipt,
    Roster,
    Statement,
    Vote,
)
from folkmoot.protocol.signing import identity_preimage
from folkmoot.protocol.typed_data import Domain, signing_digest

ONE = b"\x01" * 32

AUDIT_BODIES: list[Body] = [
    Commitment(ONE, 1, ONE, 0, ONE, 100, ONE),
    Proposal(ONE, 1, 0, ONE, ONE),
    Vote(ONE, 1, 0, ONE),
    Lock(ONE, 1, 0, ONE, ONE),
    Statement(ONE, 1, ONE, ONE, ONE, ONE, ONE, ONE),
]
IDENTITY_BODIES: list[Body] = [
    Ready(1, ONE, b"\x00", ONE, ONE, ONE, 10, 0.5),
    Roster(1, 0, ONE, (), b""),
    Receipt(1, 0, ONE, (ONE,)),
    Enter(1, 2),
]


@pytest.fixture(scope="module")
def federation() -> AuditedFederation:
    return AuditedFederation()


@pytest.fixture
def verifier(federation: AuditedFederation) -> KeyVerifier:
    return KeyVerifier(federation.federation, federation.domain)


def kind(body: Body) -> str:
    return type(body).__name__


@pytest.mark.parametrize("body", AUDIT_BODIES, ids=kind)
def test_audit_key_signs_typed_data(federation: AuditedFederation, verifier: KeyVerifier, body: Body) -> None:
    signed = federation.say(1, body)
    address = recover(signing_digest(federation.domain, body), signed.signature)
    assert f"0x{address.hex()}" == federation.charter.members[1].audit_key
    verifier.verify(signed)


@pytest.mark.parametrize("body", IDENTITY_BODIES, ids=kind)
def test_identity_key_signs_the_rest(
    federation: AuditedFederation, verifier: KeyVerifier, body: Body
) -> None:
    signed = federation.say(1, body)
    key = VerifyKey(bytes.fromhex(federation.charter.members[1].identity_key))
    key.verify(identity_preimage(federation.federation.id, body), signed.signature)
    verifier.verify(signed)


@pytest.mark.parametrize("body", AUDIT_BODIES + IDENTITY_BODIES, ids=kind)
def test_signing_again_gives_the_same_bytes(federation: AuditedFederation, body: Body) -> None:
    assert federation.say(2, body) == federation.say(2, body)


@pytest.mark.parametrize("body", AUDIT_BODIES[2:3] + IDENTITY_BODIES[:1], ids=kind)
def test_refuses_what_the_member_did_not_sign(
    federation: AuditedFederation, verifier: KeyVerifier, body: Body
) -> None:
    signed = federation.say(1, body)
    wrong = [
        msgspec.structs.replace(signed, member=2),
        msgspec.structs.replace(signed, body=msgspec.structs.replace(body, round=2)),
        msgspec.structs.replace(signed, signature=bytes([signed.signature[0] ^ 1]) + signed.signature[1:]),
        msgspec.structs.replace(signed, signature=bytes(64)),
        msgspec.structs.replace(signed, signature=b"\xff" * 64),
    ]
    for forged in wrong:
        with pytest.raises(RemoteProtocolError):
            verifier.verify(forged)


@pytest.mark.parametrize("member", [4, 2**32 - 1, -1])
def test_refuses_a_member_that_the_charter_does_not_have(
    federation: AuditedFederation, verifier: KeyVerifier, member: int
) -> None:
    signed = msgspec.structs.replace(federation.say(3, Enter(1, 2)), member=member)
    with pytest.raises(RemoteProtocolError, match="the charter has 4 members"):
        verifier.verify(signed)


@pytest.mark.parametrize("size", [0, 63, 65])
@pytest.mark.parametrize("body", [AUDIT_BODIES[2], Enter(1, 2)], ids=kind)
def test_refuses_a_signature_of_another_length(
    federation: AuditedFederation, verifier: KeyVerifier, size: int, body: Body
) -> None:
    signed = federation.say(0, body)
    with pytest.raises(RemoteProtocolError, match=f"signature of {size} bytes"):
        verifier.verify(msgspec.structs.replace(signed, signature=(signed.signature + b"\x00")[:size]))


@pytest.mark.parametrize("body", [AUDIT_BODIES[2], Enter(1, 2)], ids=kind)
def test_signature_is_for_one_federation(federation: AuditedFederation, body: Body) -> None:
    elsewhere = AuditedFederation(contract=bytes(20))
    with pytest.raises(RemoteProtocolError, match="bad signature of member 0"):
        KeyVerifier(elsewhere.federation, elsewhere.domain).verify(federation.say(0, body))


def test_signature_is_for_one_chain(federation: AuditedFederation) -> None:
    domain = Domain(federation.domain.chain_id + 1, federation.domain.contract)
    with pytest.raises(RemoteProtocolError):
        KeyVerifier(federation.federation, domain).verify(federation.say(0, AUDIT_BODIES[2]))


@dataclass
class Counting:
    """Counts the costly recoveries."""

    digests: list[bytes] = field(default_factory=list)

    def recover(self, digest: bytes, signature: bytes) -> bytes:
        self.digests.append(digest)
        return recover(digest, signature)


def test_good_signatures_are_remembered_up_to_a_limit(
    federation: AuditedFederation, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting()
    monkeypatch.setattr(signing, "recover", counting.recover)
    verifier = KeyVerifier(federation.federation, federation.domain, remembered=2)
    votes = [federation.say(0, Vote(ONE, 1, attempt, ONE)) for attempt in range(3)]
    for signed in (votes[0], votes[1], votes[0]):
        verifier.verify(signed)
    assert len(counting.digests) == 2
    verifier.verify(votes[2])  # votes[1] is the least recently seen, and is forgotten
    verifier.verify(votes[0])
    assert len(counting.digests) == 3
    verifier.verify(votes[1])
    assert len(counting.digests) == 4


def test_bad_signatures_are_not_remembered(federation: AuditedFederation, verifier: KeyVerifier) -> None:
    forged = msgspec.structs.replace(federation.say(0, AUDIT_BODIES[2]), member=1)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            verifier.verify(forged)
