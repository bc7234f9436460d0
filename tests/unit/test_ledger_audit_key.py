"""The audit key: deterministic compact signatures, and their strict recovery."""

import contextlib

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.ledger.audit_key import AuditKey, recover
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import Domain, keccak256, signing_digest

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
KEY = AuditKey(keccak256(b"key"))
DIGEST = keccak256(b"digest")

digests = st.binary(min_size=32, max_size=32)


@given(digests, digests)
def test_what_a_key_signs_recovers_to_its_address(secret: bytes, digest: bytes) -> None:
    key = AuditKey(keccak256(secret))
    signature = key.sign(digest)
    assert len(signature) == 64
    assert recover(digest, signature) == key.address
    assert key.sign(digest) == signature
    assert int.from_bytes(signature[32:], "big") & (1 << 255) - 1 <= ORDER // 2


@given(digests, st.binary(min_size=64, max_size=64))
def test_any_64_bytes_recover_to_another_address_or_are_refused(digest: bytes, signature: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert recover(digest, signature) != KEY.address


@given(st.integers(0, 511))
def test_a_flipped_bit_is_not_our_signature(bit: int) -> None:
    signature = bytearray(KEY.sign(DIGEST))
    signature[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(RemoteProtocolError):
        assert recover(DIGEST, bytes(signature)) != KEY.address


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        bytes(63),
        bytes(65),
        bytes(64),
        bytes(32) + KEY.sign(DIGEST)[32:],
        KEY.sign(DIGEST)[:32] + bytes(32),
        ORDER.to_bytes(32, "big") + KEY.sign(DIGEST)[32:],
        KEY.sign(DIGEST)[:32] + (ORDER // 2 + 1).to_bytes(32, "big"),
        b"\xff" * 64,
    ],
)
def test_malformed_signatures_are_the_peers_fault(signature: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        recover(DIGEST, signature)


def test_s_of_half_the_order_is_still_low() -> None:
    recover(DIGEST, KEY.sign(DIGEST)[:32] + (ORDER // 2).to_bytes(32, "big"))


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(32), b"\xff" * 32, bytes(33)])
def test_bad_secrets_are_refused(secret: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        AuditKey(secret)


def test_only_digests_are_signed_and_secrets_are_not_shown() -> None:
    with pytest.raises(LocalProtocolError):
        KEY.sign(b"message")
    assert KEY.secret.hex() not in repr(KEY)
    assert AuditKey(AuditKey.generate().secret).address != KEY.address


def test_the_same_signature_as_eth_account() -> None:
    domain = Domain(5, b"\x11" * 20)
    body = Statement(DIGEST, 7, *[keccak256(b"%d" % field) for field in range(6)])
    fields = [{"name": name, "type": "bytes32"} for name in body.__struct_fields__]
    fields[1]["type"] = "uint64"
    message = encode_typed_data(
        {"name": "Folkmoot", "version": "1", "chainId": 5, "verifyingContract": "0x" + domain.contract.hex()},
        {"Statement": fields},
        {name: getattr(body, name) for name in body.__struct_fields__},
    )
    theirs = Account.from_key(KEY.secret).sign_message(message)
    compact = theirs.r.to_bytes(32, "big") + (theirs.s | (theirs.v - 27) << 255).to_bytes(32, "big")
    assert KEY.sign(signing_digest(domain, body)) == compact
    assert "0x" + KEY.address.hex() == Account.from_key(KEY.secret).address.lower()
