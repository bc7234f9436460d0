"""Content keys and frames: only whole, unchanged payloads of the right context open."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.public import PrivateKey, SealedBox

from folkmoot.protocol import sealing
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.sealing import FRAME, TAG_SIZE, PayloadContext

CONTEXT = PayloadContext(federation=b"f" * 32, round=7, roster=b"r" * 32, sender=2)
KEY = bytes(range(32))
ALICE, BOB = PrivateKey(b"a" * 32), PrivateKey(b"b" * 32)


def sealed(plaintext: bytes, context: PayloadContext = CONTEXT) -> list[bytes]:
    return [bytes(frame) for frame in sealing.seal_frames(context, KEY, [plaintext], len(plaintext))]


def opened(frames: list[bytes], size: int, key: bytes = KEY, context: PayloadContext = CONTEXT) -> bytes:
    return b"".join(sealing.open_frames(context, key, frames, size))


# --- content key --------------------------------------------------------------------------------------------


def test_any_libsodium_opens_a_sealed_key() -> None:
    box = sealing.seal_key(CONTEXT, KEY, bytes(ALICE.public_key))
    assert len(box) == sealing.SEALED_KEY_SIZE
    assert SealedBox(ALICE).decrypt(box) == KEY
    assert sealing.unseal_key(box, bytes(ALICE)) == KEY


def test_we_open_what_any_libsodium_sealed() -> None:
    assert sealing.unseal_key(SealedBox(BOB.public_key).encrypt(KEY), bytes(BOB)) == KEY


def test_sealing_again_gives_the_same_bytes_and_another_context_others() -> None:
    public = bytes(ALICE.public_key)
    other = PayloadContext(federation=b"f" * 32, round=8, roster=b"r" * 32, sender=2)
    assert sealing.seal_key(CONTEXT, KEY, public) == sealing.seal_key(CONTEXT, KEY, public)
    assert sealing.seal_key(CONTEXT, KEY, public)[:32] != sealing.seal_key(other, KEY, public)[:32]


def test_a_box_for_another_or_a_damaged_one_does_not_open() -> None:
    box = sealing.seal_key(CONTEXT, KEY, bytes(ALICE.public_key))
    for bad in (box[:-1], box + b"\0", b"", bytes(80), box[:40] + bytes([box[40] ^ 1]) + box[41:]):
        with pytest.raises(RemoteProtocolError):
            sealing.unseal_key(bad, bytes(ALICE))
    with pytest.raises(RemoteProtocolError):
        sealing.unseal_key(box, bytes(BOB))


def test_a_public_key_of_no_use_is_named() -> None:
    for bad in (bytes(32), bytes(31)):
        with pytest.raises(LocalProtocolError, match=bad.hex()):
            sealing.seal_key(CONTEXT, KEY, bad)


def test_commitment_binds_key_and_context() -> None:
    commitment = sealing.key_commitment(CONTEXT, KEY)
    sealing.verify_key(CONTEXT, KEY, commitment)
    other = PayloadContext(federation=b"f" * 32, round=7, roster=b"r" * 32, sender=3)
    for context, key in ((other, KEY), (CONTEXT, bytes(32)), (CONTEXT, KEY[:31])):
        with pytest.raises(RemoteProtocolError, match="not the one it committed to"):
            sealing.verify_key(context, key, commitment)


def test_contexts_that_no_round_has_are_refused() -> None:
    for federation, round_, roster, sender in (
        (b"", 1, bytes(32), 0),
        (bytes(32), 1, bytes(33), 0),
        (bytes(32), -1, bytes(32), 0),
        (bytes(32), 1, bytes(32), 2**32),
    ):
        with pytest.raises(LocalProtocolError):
            PayloadContext(federation, round_, roster, sender)


# --- frames -------------------------------------------------------------------------------------------------

SIZES = [0, 1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME]


@pytest.mark.parametrize("size", SIZES)
def test_frames_open_to_what_was_sealed(size: int) -> None:
    plaintext = bytes(i * 7 % 251 for i in range(size))
    frames = sealed(plaintext)
    assert sum(map(len, frames)) == sealing.frames_size(size)
    assert [len(frame) for frame in frames[:-1]] == [FRAME + TAG_SIZE] * (len(frames) - 1)
    assert opened(frames, size) == plaintext
    assert opened([b"".join(frames)], size) == plaintext


def test_frames_are_plain_chacha20poly1305_with_the_documented_nonce() -> None:
    plaintext = b"\x55" * (FRAME + 3)
    cipher = ChaCha20Poly1305(KEY)
    assert sealed(plaintext) == [
        cipher.encrypt(bytes(12), plaintext[:FRAME], CONTEXT.digest),
        cipher.encrypt(bytes(10) + b"\x01\x01", plaintext[FRAME:], CONTEXT.digest),
    ]


def test_frames_cut_reordered_added_or_changed_do_not_open() -> None:
    size = 3 * FRAME
    one, two, three = sealed(bytes(size))
    shorter = sealed(bytes(2 * FRAME))
    for frames in (
        [one, two],
        [],
        [two, one, three],
        [one, one, three],
        [one, two, three, three],
        [one, two, three, b"\0"],
        [one, two, three[:-1]],
        [one, two, shorter[-1]],
        [one, shorter[-1], three],
        [one, bytes([two[0] ^ 1]) + two[1:], three],
    ):
        with pytest.raises(RemoteProtocolError, match="member 2"):
            opened(frames, size)


def test_a_whole_payload_cut_at_a_frame_edge_does_not_pass_for_a_shorter_one() -> None:
    one, two, _ = sealed(bytes(3 * FRAME))
    with pytest.raises(RemoteProtocolError, match="frame 1 fails"):
        opened([one, two], 2 * FRAME)


def test_another_key_or_context_does_not_open() -> None:
    frames = sealed(b"update")
    with pytest.raises(RemoteProtocolError):
        opened(frames, 6, key=bytes(32))
    for other in (
        PayloadContext(b"g" * 32, 7, b"r" * 32, 2),
        PayloadContext(b"f" * 32, 8, b"r" * 32, 2),
        PayloadContext(b"f" * 32, 7, b"s" * 32, 2),
        PayloadContext(b"f" * 32, 7, b"r" * 32, 1),
    ):
        with pytest.raises(RemoteProtocolError):
            opened(frames, 6, context=other)


def test_sealing_another_size_than_announced_is_our_fault() -> None:
    for announced in (5, 7, FRAME, 2 * FRAME):
        with pytest.raises(LocalProtocolError):
            list(sealing.seal_frames(CONTEXT, KEY, [b"update"], announced))


# --- payload ------------------------------------------------------------------------------------------------


def test_every_recipient_finds_its_key_and_the_frames() -> None:
    recipients = [bytes(ALICE.public_key), bytes(BOB.public_key)]
    plaintext = bytes(100_000)
    payload = b"".join(sealing.seal_payload(CONTEXT, KEY, recipients, [plaintext], len(plaintext)))
    assert len(payload) == sealing.payload_size(2, len(plaintext))
    for place, secret in enumerate((ALICE, BOB)):
        key = sealing.unseal_key(payload[80 * place : 80 * (place + 1)], bytes(secret))
        frames = memoryview(payload)[sealing.frames_offset(2) :]
        assert b"".join(sealing.open_frames(CONTEXT, key, [frames], len(plaintext))) == plaintext
