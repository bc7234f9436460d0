"""Masks: what hides a member's update until everybody's are summed.

Every pair of a group agrees on a seed (X25519 between keys of the epoch, then HKDF-SHA256), expands it, and one adds
what the other subtracts: in the sum the pair masks vanish (Bonawitz et al., "Practical Secure Aggregation for
Privacy-Preserving Machine Learning", CCS 2017). On top each member adds a *self mask*, whose seed is shared among the
others (`sharing.py`): without it, a member that is only late would be bare once its pair seeds are out.

Seeds depend on the roster, so an update that is encoded anew never meets the mask that it had before. A node has to
remember nothing but the epoch's secret: all of this follows from it.

Preimages: a type line and a newline, `MaskContext.encoded`, member ids of 4 bytes, all numbers big endian.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import crypto_core_ed25519_scalar_reduce

from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.secure.keystream import SEED_SIZE, STREAM_BLOCK, Keystream
from folkmoot.protocol.secure.layout import RingValues, ShardLayout
from folkmoot.protocol.secure.sharing import SCALAR_SIZE
from folkmoot.protocol.types import DIGEST_SIZE, Digest, MemberId, Round

KEY_SIZE = 32
"""Bytes of an X25519 secret or public key."""

MAX_THRESHOLD = 16
"""No group is larger (`charter.MAX_GROUP`)."""

_PAIR = "folkmoot/v1/pair-mask"
_POLYNOMIAL = "folkmoot/v1/self-mask-polynomial"
_SELF = "folkmoot/v1/self-mask"
_COMMITMENT = "folkmoot/v1/pair-seed"

# 64 bytes reduced modulo the group order (2^252 and some) are as good as uniform: RFC 9380, section 5.
_WIDE_SCALAR = 64


class MaskContext(msgspec.Struct, frozen=True):
    """What masks belong to: one roster of one group. Raises LocalProtocolError for values that no round has."""

    federation: Digest
    epoch: int
    round: Round
    roster: Digest
    group: int

    def __post_init__(self) -> None:
        if len(self.federation) != DIGEST_SIZE or len(self.roster) != DIGEST_SIZE:
            raise LocalProtocolError(f"mask context with a digest that is not {DIGEST_SIZE} bytes")
        if not (0 <= self.epoch < 2**63 and 0 <= self.round < 2**63 and 0 <= self.group < 2**32):
            raise LocalProtocolError(
                f"mask context of epoch {self.epoch}, round {self.round}, group {self.group}"
            )

    @property
    def encoded(self) -> bytes:
        """Fixed-length preimage: federation (32 bytes), epoch (8), round (8), roster (32), group (4); big endian."""
        return struct.pack(">32sQQ32sI", self.federation, self.epoch, self.round, self.roster, self.group)


# --- seeds --------------------------------------------------------------------------------------------------


def public_key(secret: bytes) -> bytes:
    """The X25519 public key (32 bytes) of an epoch's secret: 32 random bytes, deleted when disputes are over."""
    return X25519PrivateKey.from_private_bytes(_checked_secret(secret)).public_key().public_bytes_raw()


def pair_seed(context: MaskContext, secret: bytes, me: MemberId, peer: MemberId, peer_public: bytes) -> bytes:
    """The seed (16 bytes) that `me` and `peer` have in common on one roster; both ends compute the same.

    Raises RemoteProtocolError on a public key that gives no secret (RFC 7748, section 6.1: a point of small order).
    """
    low, high = _ordered(me, peer)
    own = X25519PrivateKey.from_private_bytes(_checked_secret(secret))
    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(peer_public))
    except ValueError as error:
        raise RemoteProtocolError(
            f"mask key {peer_public.hex()} of member {peer} is no usable X25519 public key"
        ) from error
    return _derive(shared, _PAIR, context, struct.pack(">II", low, high), SEED_SIZE)


def seed_commitment(context: MaskContext, low: MemberId, high: MemberId, seed: bytes) -> Digest:
    """The hash that both members of a pair (`low` < `high`) publish, to which a released seed is held."""
    if low >= high:
        raise LocalProtocolError(f"pair seed of members {low} and {high}: name the lower one first")
    return digest(_COMMITMENT, context.encoded, struct.pack(">II", low, high), _checked_seed(seed))


def self_polynomial(context: MaskContext, secret: bytes, me: MemberId, threshold: int) -> tuple[bytes, ...]:
    """`threshold` Ed25519 scalars; the first is the secret of the self mask (`self_seed`), all are secret.

    A pure function of the epoch's secret, so nothing else is to be kept, and a restart shares the same polynomial.
    The threshold is part of the preimage: shares of two thresholds must not add up.
    """
    if not 1 <= threshold <= MAX_THRESHOLD:
        raise LocalProtocolError(f"threshold of {threshold} shares: it is 1 to {MAX_THRESHOLD}")
    wide = _derive(
        _checked_secret(secret),
        _POLYNOMIAL,
        context,
        struct.pack(">II", me, threshold),
        _WIDE_SCALAR * threshold,
    )
    return tuple(
        crypto_core_ed25519_scalar_reduce(wide[at : at + _WIDE_SCALAR])
        for at in range(0, len(wide), _WIDE_SCALAR)
    )


def self_seed(context: MaskContext, member: MemberId, scalar: bytes) -> bytes:
    """The seed (16 bytes) of a member's self mask, from its secret scalar: its own, or reconstructed from shares."""
    if len(scalar) != SCALAR_SIZE:
        raise LocalProtocolError(f"self-mask secret of {len(scalar)} bytes, it has {SCALAR_SIZE}")
    return _derive(scalar, _SELF, context, struct.pack(">I", member), SEED_SIZE)


def _derive(secret: bytes, kind: str, context: MaskContext, about: bytes, size: int) -> bytes:
    info = kind.encode() + b"\n" + context.encoded + about
    return HKDF(algorithm=SHA256(), length=size, salt=None, info=info).derive(secret)


def _ordered(me: MemberId, peer: MemberId) -> tuple[MemberId, MemberId]:
    if me == peer:
        raise LocalProtocolError(f"member {me} has no pair mask with itself")
    return min(me, peer), max(me, peer)


def _checked_secret(secret: bytes) -> bytes:
    if len(secret) != KEY_SIZE:
        raise LocalProtocolError(f"mask secret of {len(secret)} bytes, it has {KEY_SIZE}")
    return secret


def _checked_seed(seed: bytes) -> bytes:
    if len(seed) != SEED_SIZE:
        raise LocalProtocolError(f"mask seed of {len(seed)} bytes, it has {SEED_SIZE}")
    return seed


# --- expansion ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mask:
    """One mask in a member's vector: its seed (16 bytes, kept out of the repr), and whether it was added or subtracted.

    Raises LocalProtocolError.
    """

    seed: bytes = field(repr=False)
    sign: int

    def __post_init__(self) -> None:
        _checked_seed(self.seed)
        if self.sign not in (1, -1):
            raise LocalProtocolError(f"mask with sign {self.sign}: it is 1 or -1")


@dataclass(frozen=True, slots=True)
class Crowd:
    """So many members that are summed together, and the masks that did not vanish in their sum, as they were added.

    Those are the self masks of the members, and for each of their circle that dropped out the pair mask of every summed
    member with it (`pair_mask(seed, survivor, dropped)`).
    """

    members: int
    masks: tuple[Mask, ...]


def pair_mask(seed: bytes, me: MemberId, peer: MemberId) -> Mask:
    """The mask as `me` adds it: the lower member adds, the higher one subtracts."""
    low, _ = _ordered(me, peer)
    return Mask(seed, 1 if me == low else -1)


def self_mask(seed: bytes) -> Mask:
    """A member's own mask: added."""
    return Mask(seed, 1)


class Expander:
    """Adds masks to ring vectors, piece by piece; fastest when each piece begins where the last one ended.

    Holds scratch memory for one block, so an object serves one thread at a time.
    """

    def __init__(self, layout: ShardLayout, masks: Sequence[Mask]) -> None:
        self._layout = layout
        self._masks = [(Keystream(mask.seed), mask.sign) for mask in masks]
        self._stream = np.empty(STREAM_BLOCK // layout.value_bytes, dtype=layout.dtype)

    def add(self, values: RingValues, start: int, subtract: bool = False) -> None:
        """Add every mask to `values` in place, modulo 2^b; they lie at position `start` of the ring vector.

        With `subtract`, what was added is taken off again. Raises LocalProtocolError on values of another ring.
        """
        if values.dtype != self._layout.dtype:
            raise LocalProtocolError(f"values are {values.dtype}, the ring's are {self._layout.dtype}")
        for at in range(0, len(values), len(self._stream)):
            self._add_block(values[at : at + len(self._stream)], start + at, subtract)

    def _add_block(self, block: RingValues, start: int, subtract: bool) -> None:
        stream = self._stream[: len(block)]
        offset, octets = start * self._layout.value_bytes, stream.data.cast("B")
        for keystream, sign in self._masks:
            keystream.write(offset, octets)
            # Unsigned numpy arithmetic wraps, which is what a ring modulo 2^b does.
            if (sign > 0) is not subtract:
                np.add(block, stream, out=block)
            else:
                np.subtract(block, stream, out=block)
