"""AES-128-CTR keystreams with random access: what masks and challenges are expanded from.

Counter block = byte offset / 16 as a 128-bit big-endian number, so the nonce is zero: every seed serves one stream.
The keystream is the encryption of zeros (NIST SP 800-38A, section 6.5).
"""

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from folkmoot.protocol.errors import LocalProtocolError

SEED_SIZE = 16
"""Bytes of a seed: an AES-128 key."""

STREAM_BLOCK = 1 << 17
"""Bytes made at a time, to stay in the cache. Measured on one core with the addition of a mask after it: 16 KiB 5.8,
64 KiB 7.4, 128 KiB 7.8, 256 KiB 7.9, 1 MiB 7.6 GB/s; a small one leaves more of the cache to the values."""

_AES_BLOCK = 16
_ZEROS = memoryview(bytes(STREAM_BLOCK))


class Keystream:
    """The stream of one seed. Remembers where it stands, so calls that go on from there set nothing up.

    Serves one thread at a time. OpenSSL runs without the interpreter's lock.
    """

    def __init__(self, seed: bytes) -> None:
        """`seed`: 16 bytes. Raises LocalProtocolError."""
        if len(seed) != SEED_SIZE:
            raise LocalProtocolError(f"keystream seed of {len(seed)} bytes, it has {SEED_SIZE}")
        self._key = algorithms.AES(seed)
        self._encryptor = self._starting_at(0)
        self._position = 0

    def write(self, offset: int, out: memoryview) -> None:
        """Fill `out` (bytes) with the stream from byte `offset` on."""
        if offset != self._position:
            self._encryptor = self._starting_at(offset)
        for at in range(0, len(out), STREAM_BLOCK):
            block = out[at : at + STREAM_BLOCK]
            self._encryptor.update_into(_ZEROS[: len(block)], block)
        self._position = offset + len(out)

    def _starting_at(self, offset: int) -> CipherContext:
        block, rest = divmod(offset, _AES_BLOCK)
        encryptor = Cipher(self._key, modes.CTR(block.to_bytes(_AES_BLOCK, "big"))).encryptor()
        encryptor.update(bytes(rest))
        return encryptor
