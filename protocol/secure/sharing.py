"""Shamir shares over the Ed25519 scalar field, checked against Feldman commitments.

A secret is the value at 0 of a polynomial with `t` coefficients; member i's share is the value at i + 1, and any t
shares give the secret (Shamir, "How to Share a Secret", CACM 1979). The commitments are the coefficients times the
base point, so that everybody can check their share (Feldman, "A Practical Scheme for Non-interactive Verifiable Secret
Sharing", FOCS 1987). They determine the secret to whoever can take discrete logarithms, and nobody else.

A scalar is 32 bytes, little endian, below the group order; a point is 32 bytes as in RFC 8032. Secrets are multiplied
by libsodium in constant time; what is computed in Python or by a varying number of additions is public.
"""

from collections.abc import Mapping, Sequence

from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_core_ed25519_is_valid_point,
    crypto_core_ed25519_scalar_add,
    crypto_core_ed25519_scalar_mul,
    crypto_scalarmult_ed25519_base_noclamp,
)

from folkmoot.protocol.errors import LocalProtocolError

SCALAR_SIZE = 32
POINT_SIZE = 32

GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
"""Order of the base point (RFC 8032, section 5.1), modulo which scalars are computed."""


def commit(polynomial: Sequence[bytes]) -> tuple[bytes, ...]:
    """The commitments to a polynomial: one point for each coefficient. Raises LocalProtocolError."""
    return tuple(_times_base(scalar) for scalar in _checked(polynomial))


def share(polynomial: Sequence[bytes], x: int) -> bytes:
    """The polynomial's value at `x` >= 1 (by convention member id + 1). Raises LocalProtocolError."""
    at, value = _scalar(_checked_place(x)), bytes(SCALAR_SIZE)
    for coefficient in reversed(_checked(polynomial)):
        value = crypto_core_ed25519_scalar_add(crypto_core_ed25519_scalar_mul(value, at), coefficient)
    return value


def verify_commitments(commitments: Sequence[bytes], threshold: int) -> bool:
    """Whether these are `threshold` points, each of prime order (so neither the identity nor a malformed one)."""
    return len(commitments) == threshold and all(
        len(point) == POINT_SIZE and crypto_core_ed25519_is_valid_point(point) for point in commitments
    )


def verify_share(commitments: Sequence[bytes], x: int, share: bytes) -> bool:
    """Whether `share` is the committed polynomial's value at `x`.

    Check the commitments once with `verify_commitments`: here their points need only lie on the curve. False for
    anything malformed, and for a share of zero, which an honest dealer makes once in 2^252. Raises LocalProtocolError
    for a place below 1.
    """
    _checked_place(x)
    if not is_scalar(share) or not commitments or any(len(point) != POINT_SIZE for point in commitments):
        return False
    try:
        value = commitments[-1]
        for point in reversed(commitments[:-1]):
            value = crypto_core_ed25519_add(_times(x, value), point)
        return value == crypto_scalarmult_ed25519_base_noclamp(share)
    except RuntimeError:  # libsodium refuses bytes that are no point, and the scalar zero
        return False


def verify_secret(commitments: Sequence[bytes], secret: bytes) -> bool:
    """Whether `secret` is the one committed to: one multiplication, where checking every share takes `t` each.

    So reconstruct first, and look for the bad share only if this says no.
    """
    try:
        return is_scalar(secret) and commitments[0] == crypto_scalarmult_ed25519_base_noclamp(secret)
    except (RuntimeError, IndexError):  # the scalar zero; no commitments
        return False


def reconstruct(shares: Mapping[int, bytes]) -> bytes:
    """The secret (32 bytes) from shares by place: Lagrange interpolation at 0.

    Any t verified shares, or more of them, give the same. Check the result with `verify_secret`. Raises
    LocalProtocolError on no shares, or on what is no share.
    """
    if not shares:
        raise LocalProtocolError("no shares to reconstruct a secret from")
    secret = bytes(SCALAR_SIZE)
    for x, value in shares.items():
        factor = _scalar(_lagrange(_checked_place(x), shares))
        (checked,) = _checked([value])
        secret = crypto_core_ed25519_scalar_add(secret, crypto_core_ed25519_scalar_mul(factor, checked))
    return secret


def is_scalar(data: bytes) -> bool:
    """Whether these are 32 bytes that encode a number below the group order."""
    return len(data) == SCALAR_SIZE and int.from_bytes(data, "little") < GROUP_ORDER


def _lagrange(x: int, places: Mapping[int, bytes]) -> int:
    """What the share at `x` counts for at 0: the product of y / (y - x) over the other places."""
    numerator = denominator = 1
    for y in places:
        if y != x:
            numerator = numerator * y % GROUP_ORDER
            denominator = denominator * (y - x) % GROUP_ORDER
    return numerator * pow(denominator, -1, GROUP_ORDER) % GROUP_ORDER


def _times(factor: int, point: bytes) -> bytes:
    """A small public multiple of a point, by doubling and adding (Horner over the bits).

    A place is below 2^5, so this is half the work of libsodium's multiplication by a whole scalar; and the identity,
    at which that one fails, is a point like any other.
    """
    result = point
    for bit in bin(factor)[3:]:
        result = crypto_core_ed25519_add(result, result)
        if bit == "1":
            result = crypto_core_ed25519_add(result, point)
    return result


def _times_base(scalar: bytes) -> bytes:
    try:
        return crypto_scalarmult_ed25519_base_noclamp(scalar)
    except RuntimeError as error:
        raise LocalProtocolError("a polynomial with a coefficient of zero cannot be committed to") from error


def _scalar(number: int) -> bytes:
    return number.to_bytes(SCALAR_SIZE, "little")


def _checked(scalars: Sequence[bytes]) -> Sequence[bytes]:
    if not scalars or not all(is_scalar(scalar) for scalar in scalars):
        raise LocalProtocolError(
            "scalars of a polynomial or a share: one or more of 32 bytes, below the order"
        )
    return scalars


def _checked_place(x: int) -> int:
    if x < 1:
        raise LocalProtocolError(f"share at {x}: places begin at 1, the secret lies at 0")
    return x
