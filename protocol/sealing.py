"""Open-mode payloads: one content key per roster and sender, sealed to every recipient; the update in AEAD
frames.

Layout of a payload: the content key sealed to each recipient (80 bytes each, roster members in roster order,
then the charter's auditors), then the frames. Both sizes are known beforehand, so any other length is
refused.

Frames follow the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizar: "Online Authenticated-Encryption
and its Nonce-Reuse Misuse-Resistance", CRYPTO 2015), as age does: ChaCha20-Poly1305 (RFC 8439) over 64 KiB of
plaintext, nonce = 11-byte big-endian counter || 1 on the last frame, else 0. A key is used for one payload
only, so the counter may begin at zero; dropping, reordering, adding or cutting frames fails authentication.

An AEAD does not commit to its key (two keys may open one ciphertext), so COMMIT carries `key_commitment`.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey, SealedBox

from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.pieces import Buffer, recut
from folkmoot.protocol.types import DIGEST_SIZE, Digest, MemberId, Round

KEY_SIZE = 32
SEALED_KEY_SIZE = 80
"""Ephemeral public key (32), authentication tag (16), content key (32)."""
FRAME = 64 * 1024
"""Plaintext bytes of every frame but the last."""
TAG_SIZE = 16


class PayloadContext(msgspec.Struct, frozen=True):
    """What a payload belongs to; bound into its key commitment and every frame.

    Raises LocalProtocolError for values that no round has.
    """

    federation: Digest
    round: Round
    roster: Digest
    sender: MemberId

    def __post_init__(self) -> None:
        if len(self.federation) != DIGEST_SIZE or len(self.roster) != DIGEST_SIZE:
            raise LocalProtocolError(f"payload context with a digest that is not {DIGEST_SIZE} bytes")
        if not 0 <= self.round < 2**63 or not 0 <= self.sender < 2**32:
            raise LocalProtocolError(f"payload context of round {self.round}, member {self.sender}")

    @property
    def encoded(self) -> bytes:
        """Fixed-length preimage: federation (32 bytes), round (8), roster (32), sender (4); big endian."""
        return struct.pack(">32sQ32sI", self.federation, self.round, self.roster, self.sender)

    @property
    def digest(self) -> Digest:
        """The associated data of every frame."""
        return digest("folkmoot/v1/payload", self.encoded)


# --- content key --------------------------------------------------------------------------------------------


def key_commitment(context: PayloadContext, key: bytes) -> Digest:
    """The hash in COMMIT that binds the sender to one content key (32 bytes)."""
    return digest("folkmoot/v1/content-key", context.encoded, _checked_key(key))


def verify_key(context: PayloadContext, key: bytes, commitment: Digest) -> None:
    """Raise RemoteProtocolError unless `key` is the one committed to."""
    if len(key) != KEY_SIZE or key_commitment(context, key) != commitment:
        raise RemoteProtocolError(f"content key of member {context.sender} is not the one it committed to")


def seal_key(context: PayloadContext, key: bytes, recipient: bytes) -> bytes:
    """The content key sealed to one X25519 public key: 80 bytes that libsodium's `crypto_box_seal_open`
    opens.

    The ephemeral key is derived from the content key instead of drawn (encrypt-with-hash: Bellare, Boldyreva,
    O'Neill, "Deterministic and Efficiently Searchable Encryption", CRYPTO 2007; safe because the content key
    has 256 random bits). So a payload is a function of its inputs, the same after a restart, and whoever
    holds the content key can check what was sealed to everybody else. Raises LocalProtocolError on an
    unusable public key.
    """
    ephemeral = digest("folkmoot/v1/seal", context.encoded, recipient, _checked_key(key))
    return seal(key, recipient, ephemeral)


def unseal_key(sealed: Buffer, secret: bytes) -> bytes:
    """Open a sealed content key with an X25519 secret key (32 bytes). Check it with `verify_key`.

    Raises RemoteProtocolError if it was not sealed to us, or is no content key.
    """
    if len(sealed) != SEALED_KEY_SIZE:
        raise RemoteProtocolError(f"sealed content key of {len(sealed)} bytes, expected {SEALED_KEY_SIZE}")
    return unseal(sealed, secret)


def seal(plaintext: bytes, recipient: bytes, ephemeral: bytes) -> bytes:
    """`plaintext` in a libsodium sealed box (48 bytes longer) to an X25519 public key.

    `ephemeral` (32 bytes) is the secret half of the box's own key: nobody may know it, and it must not serve twice with
    different plaintexts. Raises LocalProtocolError on an unusable public key.
    """
    own = PrivateKey(ephemeral)
    sender = bytes(own.public_key)
    # Nonce and layout are those of libsodium's crypto_box_seal.
    nonce = hashlib.blake2b(sender + recipient, digest_size=Box.NONCE_SIZE).digest()
    try:
        return sender + Box(own, PublicKey(recipient)).encrypt(plaintext, nonce).ciphertext
    except (CryptoError, ValueError) as error:
        raise LocalProtocolError(f"cannot seal to {recipient.hex()}: no usable X25519 public key") from error


def unseal(sealed: Buffer, secret: bytes) -> bytes:
    """What is in a sealed box; raises RemoteProtocolError if it was not sealed to this X25519 secret (32 bytes)."""
    try:
        return SealedBox(PrivateKey(secret)).decrypt(bytes(sealed))
    except CryptoError as error:
        raise RemoteProtocolError("sealed bytes do not open with our key") from error


# --- frames -------------------------------------------------------------------------------------------------


def frames_size(plaintext_size: int) -> int:
    """Bytes of all frames: the plaintext and one tag per frame; an empty plaintext has one empty frame."""
    return plaintext_size + TAG_SIZE * _frame_count(plaintext_size)


def seal_frames(
    context: PayloadContext, key: bytes, pieces: Iterable[Buffer], plaintext_size: int
) -> Iterator[bytearray]:
    """Encrypt a plaintext of `plaintext_size` bytes, given in pieces of any size, frame by frame.

    Raises LocalProtocolError if the pieces add up to another size.
    """
    cipher, aad = ChaCha20Poly1305(_checked_key(key)), context.digest
    plaintexts = recut(pieces, FRAME)
    for index, size, nonce in _frame_plan(plaintext_size):
        plaintext = next(plaintexts, b"")
        if len(plaintext) != size:
            raise LocalProtocolError(
                f"plaintext ends in frame {index}: it is not the {plaintext_size} bytes announced"
            )
        frame = bytearray(size + TAG_SIZE)
        cipher.encrypt_into(nonce, plaintext, aad, frame)
        yield frame
    if next(plaintexts, None) is not None:
        raise LocalProtocolError(f"plaintext is longer than the {plaintext_size} bytes announced")


def open_frames(
    context: PayloadContext, key: bytes, pieces: Iterable[Buffer], plaintext_size: int
) -> Iterator[bytearray]:
    """Decrypt frames that come in pieces of any size; yields the plaintext of each as soon as it is checked.

    What was yielded is authentic, but only the end of the iteration says that it is all there. Raises
    RemoteProtocolError on a wrong key or context, and on frames changed, cut, reordered, added or missing.
    """
    cipher, aad = ChaCha20Poly1305(_checked_key(key)), context.digest
    frames = recut(pieces, FRAME + TAG_SIZE)
    for index, size, nonce in _frame_plan(plaintext_size):
        frame = next(frames, b"")
        if len(frame) != size + TAG_SIZE:
            raise RemoteProtocolError(
                f"payload of member {context.sender}: frame {index} has {len(frame)} bytes, "
                f"expected {size + TAG_SIZE}"
            )
        plaintext = bytearray(size)
        try:
            cipher.decrypt_into(nonce, frame, aad, plaintext)
        except InvalidTag as error:
            raise RemoteProtocolError(
                f"payload of member {context.sender}: frame {index} fails authentication"
            ) from error
        yield plaintext
    if next(frames, None) is not None:
        raise RemoteProtocolError(f"payload of member {context.sender} goes on after its last frame")


# --- payload ------------------------------------------------------------------------------------------------


def payload_size(recipients: int, plaintext_size: int) -> int:
    """Bytes of a payload; a COMMIT that names another size is refused."""
    return frames_offset(recipients) + frames_size(plaintext_size)


def frames_offset(recipients: int) -> int:
    """Where the frames begin. Recipient i's sealed key lies at [80*i, 80*(i+1))."""
    return SEALED_KEY_SIZE * recipients


def seal_payload(
    context: PayloadContext,
    key: bytes,
    recipients: Sequence[bytes],
    pieces: Iterable[Buffer],
    plaintext_size: int,
) -> Iterator[Buffer]:
    """A whole payload in pieces: the key sealed to each public key in `recipients`, then the frames.

    `key` is 32 random bytes, never used for another payload.
    """
    yield b"".join(seal_key(context, key, recipient) for recipient in recipients)
    yield from seal_frames(context, key, pieces, plaintext_size)


def _checked_key(key: bytes) -> bytes:
    if len(key) != KEY_SIZE:
        raise LocalProtocolError(
            f"content key of {len(key)} bytes, it has {KEY_SIZE}: check it with verify_key first"
        )
    return key


def _frame_count(plaintext_size: int) -> int:
    return max(1, -(-plaintext_size // FRAME))


def _frame_plan(plaintext_size: int) -> Iterator[tuple[int, int, bytes]]:
    """Index, plaintext size and nonce of every frame."""
    count = _frame_count(plaintext_size)
    for index in range(count):
        is_last = index == count - 1
        size = plaintext_size - FRAME * index if is_last else FRAME
        yield index, size, index.to_bytes(11, "big") + bytes([is_last])
