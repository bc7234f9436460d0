"""Shamir shares and Feldman commitments: any threshold of shares, and whatever a dealer may get wrong."""

import hashlib
import itertools

import pytest
from nacl.bindings import crypto_core_ed25519_scalar_reduce, crypto_scalarmult_ed25519_base_noclamp

from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.secure import sharing
from folkmoot.protocol.secure.sharing import GROUP_ORDER

IDENTITY = b"\x01" + bytes(31)
SMALL_ORDER = bytes(32)  # the point (x, 0) with x^2 = -1: of order 4
NOT_ON_CURVE = b"\x02" + bytes(31)


def scalar(number: int) -> bytes:
    return (number % GROUP_ORDER).to_bytes(32, "little")


def polynomial(threshold: int, seed: str = "dealer") -> list[bytes]:
    return [
        crypto_core_ed25519_scalar_reduce(hashlib.sha512(f"{seed} {index}".encode()).digest())
        for index in range(threshold)
    ]


def test_share_is_the_polynomials_value() -> None:
    # 7 + 5x + 3x^2 at 4
    assert sharing.share([scalar(7), scalar(5), scalar(3)], 4) == scalar(75)


def test_commitments_are_multiples_of_the_base_point() -> None:
    # RFC 8032, section 5.1: the base point's encoding
    assert sharing.commit([scalar(1)])[0].hex() == "58" + "66" * 31
    assert sharing.commit([scalar(9)])[0] == crypto_scalarmult_ed25519_base_noclamp(scalar(9))


@pytest.mark.parametrize(("members", "threshold"), [(1, 1), (3, 2), (5, 3)])
def test_any_threshold_of_shares_gives_the_secret(members: int, threshold: int) -> None:
    secret = polynomial(threshold)
    shares = {x: sharing.share(secret, x) for x in range(1, members + 1)}
    for count in range(threshold, members + 1):
        for places in itertools.combinations(shares, count):
            assert sharing.reconstruct({x: shares[x] for x in places}) == secret[0]


def test_fewer_shares_give_another_number() -> None:
    secret = polynomial(3)
    assert sharing.reconstruct({x: sharing.share(secret, x) for x in (1, 2)}) != secret[0]


def test_the_largest_group() -> None:
    secret = polynomial(6)
    commitments = sharing.commit(secret)
    assert sharing.verify_commitments(commitments, 6)
    shares = {x: sharing.share(secret, x) for x in range(1, 17)}
    assert all(sharing.verify_share(commitments, x, value) for x, value in shares.items())
    assert sharing.reconstruct({x: shares[x] for x in (16, 2, 9, 5, 11, 14)}) == secret[0]
    assert sharing.verify_secret(commitments, secret[0])


def test_a_bad_share_is_seen() -> None:
    secret = polynomial(3)
    commitments = sharing.commit(secret)
    good = sharing.share(secret, 2)
    assert sharing.verify_share(commitments, 2, good)
    assert not sharing.verify_share(commitments, 3, good), "another's share"
    assert not sharing.verify_share(commitments, 2, scalar(int.from_bytes(good, "little") + 1))
    assert not sharing.verify_share(sharing.commit(polynomial(3, "another")), 2, good)
    swapped = (commitments[1], commitments[0], commitments[2])
    assert not sharing.verify_share(swapped, 2, good)


def test_malformed_shares_are_bad_shares() -> None:
    secret = polynomial(2)
    commitments = sharing.commit(secret)
    good = sharing.share(secret, 1)
    too_large = (int.from_bytes(good, "little") + GROUP_ORDER).to_bytes(32, "little")
    for bad in (b"", good[:-1], good + b"\0", bytes(32), too_large, b"\xff" * 32):
        assert not sharing.verify_share(commitments, 1, bad)
        assert not sharing.verify_secret(commitments, bad)


@pytest.mark.parametrize("bad", [b"", bytes(31), bytes(33), NOT_ON_CURVE, b"\xff" * 32])
def test_malformed_points_verify_nothing(bad: bytes) -> None:
    secret = polynomial(3)
    commitments = sharing.commit(secret)
    for place in range(3):
        spoilt = [*commitments[:place], bad, *commitments[place + 1 :]]
        assert not sharing.verify_share(spoilt, 1, sharing.share(secret, 1))
        assert not sharing.verify_commitments(spoilt, 3)
    assert not sharing.verify_share([bad], 1, secret[0])
    assert not sharing.verify_secret([bad], secret[0])


@pytest.mark.parametrize("bad", [IDENTITY, SMALL_ORDER])
def test_points_outside_the_prime_order_group_are_refused(bad: bytes) -> None:
    first, *_ = sharing.commit(polynomial(2))
    assert not sharing.verify_commitments([first, bad], 2)


def test_number_of_commitments_is_the_threshold() -> None:
    commitments = sharing.commit(polynomial(3))
    assert sharing.verify_commitments(commitments, 3)
    assert not sharing.verify_commitments(commitments, 2)
    assert not sharing.verify_commitments(commitments[:2], 3)
    assert not sharing.verify_share([], 1, scalar(1))
    assert not sharing.verify_secret([], scalar(1))


def test_intermediate_identity_changes_nothing() -> None:
    # 5 - 4x + 2x^2 at 2: evaluated from the top, 2*2 - 4 is the identity on the way; the value is 5.
    crafted = [scalar(5), scalar(-4), scalar(2)]
    assert sharing.share(crafted, 2) == scalar(5)
    assert sharing.verify_share(sharing.commit(crafted), 2, scalar(5))


def test_our_own_mistakes_are_raised() -> None:
    good = polynomial(2)
    with pytest.raises(LocalProtocolError, match="zero"):
        sharing.commit([good[0], bytes(32)])
    for place in (0, -1):
        with pytest.raises(LocalProtocolError, match="place"):
            sharing.share(good, place)
        with pytest.raises(LocalProtocolError, match="place"):
            sharing.verify_share(sharing.commit(good), place, good[0])
        with pytest.raises(LocalProtocolError, match="place"):
            sharing.reconstruct({place: good[0]})
    for bad in ([], [b"short"], [b"\xff" * 32]):
        with pytest.raises(LocalProtocolError):
            sharing.commit(bad)
        with pytest.raises(LocalProtocolError):
            sharing.share(bad, 1)
    with pytest.raises(LocalProtocolError, match="no shares"):
        sharing.reconstruct({})
    with pytest.raises(LocalProtocolError):
        sharing.reconstruct({1: b"\xff" * 32})
