"""Integers of few bits in blocks of 64 values, each block with a scale of its own: the codecs int8, int4 and int2.

A vector is cut into blocks of 64 values, the last one padded with zeros. A block is written as its scale, a bfloat16
(2 bytes, little endian), then its 64 codes in two's complement: one byte each (int8), or two (int4) or four (int2) to a
byte, the earlier in the lower bits. A value decodes to code * scale, exactly: code and scale have 15 significant bits
together.

With top = 2^(bits-1) - 1 (127, 7, 1) and float32 arithmetic throughout:

    scale = max|v| / top, rounded up to a bfloat16      (the smallest positive one for a quotient that rounds to 0, the
                                                         largest finite one for what would round to infinity, int2 only)
    code  = round-half-even(v / scale)

Rounded up, so that no code exceeds top. The float32 division never makes a tie of what is none: v and (code + 1/2) *
scale are multiples of v's last place, so quotients that are no tie differ from one by more than half of their own last
place. Hence |v - code * scale| <= scale / 2, exactly.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.pieces import Buffer
from folkmoot.protocol.ring import CHUNK_VALUES, Float32s, Float64s

BLOCK = 64
"""Values that share a scale; CHUNK_VALUES is a multiple, so chunks do not show in the bytes."""

_INFINITY = np.uint32(0x7F80_0000)
_INFINITE_SCALE = np.uint16(0x7F80)
"""As unsigned integers, the bits of infinities, NaNs and everything negative are no less than these."""

Int8s = NDArray[np.int8]
UInt16s = NDArray[np.uint16]
Words = NDArray[np.uint16] | NDArray[np.uint32]


class _Scratch:
    """Room for one chunk's work; fresh memory for each chunk would cost more than the work itself."""

    def __init__(self) -> None:
        blocks = CHUNK_VALUES // BLOCK
        self.magnitudes = np.empty((blocks, BLOCK), dtype=np.uint32)
        self.quotients = np.empty((blocks, BLOCK), dtype=np.float32)
        self.codes = np.empty((blocks, BLOCK), dtype=np.int8)
        self.words = np.empty(blocks * BLOCK, dtype=np.uint8)


class BlockCodec:
    """`bits` is 8, 4 or 2. Holds scratch memory for one chunk, so an object serves one thread at a time."""

    def __init__(self, name: str, bits: int) -> None:
        self.name = name
        self._top = 2 ** (bits - 1) - 1
        self._bits = bits
        each = 8 // bits
        self._word = np.dtype(f"<u{each}")
        self._mask = int.from_bytes(bytes([2**bits - 1] * each))
        # The first brings neighbours together, the second pairs of them.
        self._shifts = {8: (), 4: (4,), 2: (6, 12)}[bits]
        self._record = np.dtype([("scale", "<u2"), ("codes", "<u1", (BLOCK * bits // 8,))])

    @cached_property
    def _scratch(self) -> _Scratch:
        return _Scratch()  # not in __init__: many ask only for sizes

    def encoded_size(self, parameters: int) -> int:
        """Whole blocks, of 66 bytes (int8), 34 (int4) or 18 (int2)."""
        return self._blocks(parameters) * self._record.itemsize

    def encode(self, chunk: Float32s) -> Buffer:
        """Write at most CHUNK_VALUES values. Raises LocalProtocolError on a value that is not finite."""
        values = _in_blocks(chunk, self._blocks(len(chunk)))
        records = np.empty(len(values), dtype=self._record)
        scales = self._scales(values)
        codes = self._quantise(values, scales)
        records["scale"] = scales
        records["codes"] = codes.view(np.uint8) if self._bits == 8 else self._pack(codes)
        return records.data.cast("B")

    def decode(self, data: Buffer, out: Float64s) -> None:
        """Read `len(out)` values, at most CHUNK_VALUES.

        Refuses with RemoteProtocolError: another length, a scale that is negative, infinite or NaN, the code
        -(top + 1), codes other than zero in the padding or under a scale of zero.
        """
        if len(data) != self.encoded_size(len(out)):
            raise RemoteProtocolError(
                f"{self.name} chunk of {len(data)} bytes, expected {self.encoded_size(len(out))}"
            )
        records = np.frombuffer(data, dtype=self._record)
        scales = records["scale"]
        codes = self._scratch.codes[: len(records)]
        if self._bits == 8:
            np.copyto(codes.view(np.uint8), records["codes"])
        else:
            self._unpack(records["codes"], codes)
        self._check(scales, codes, len(out))
        _multiply(codes, widen(scales).astype(np.float64), out)

    def _blocks(self, parameters: int) -> int:
        return -(-parameters // BLOCK)

    def _scales(self, values: Float32s) -> UInt16s:
        """The bits of each block's scale."""
        # The bits of floats without their sign are ordered as the floats are, with infinity and NaN on top.
        magnitudes = self._scratch.magnitudes[: len(values)]
        np.bitwise_and(values.view(np.uint32), np.uint32(0x7FFF_FFFF), out=magnitudes)
        largest = np.maximum.reduce(magnitudes, axis=1)
        if largest.max(initial=0) >= _INFINITY:
            raise LocalProtocolError("cannot encode a value that is not finite: the update is unusable")
        exact = np.divide(largest.view(np.float32), np.float32(self._top))
        rounded = (exact.view(np.uint32) + np.uint32(0xFFFF)) >> np.uint32(16)
        scales: UInt16s = np.clip(rounded, largest > 0, _INFINITE_SCALE - 1).astype(np.uint16)
        return scales

    def _quantise(self, values: Float32s, scales: UInt16s) -> Int8s:
        divisors = widen(scales)
        divisors[scales == 0] = 1.0  # a block of zeros: its codes are zero whatever we divide by
        quotients, codes = self._scratch.quotients[: len(values)], self._scratch.codes[: len(values)]
        np.divide(values, divisors[:, None], out=quotients)
        np.rint(quotients, out=quotients)
        np.copyto(codes, quotients, casting="unsafe")
        return codes

    def _pack(self, codes: Int8s) -> Words:
        """Several codes to a byte; the result has one such byte in the low bits of each word."""
        words, moved = self._words(codes)
        np.bitwise_and(words, self._mask, out=words)
        for shift in self._shifts:
            np.bitwise_or(words, np.right_shift(words, shift, out=moved), out=words)
        return words

    def _unpack(self, packed: NDArray[np.uint8], codes: Int8s) -> None:
        words, moved = self._words(codes)
        np.copyto(words, packed)
        for shift in reversed(self._shifts):
            np.bitwise_or(words, np.left_shift(words, shift, out=moved), out=words)
        np.bitwise_and(words, self._mask, out=words)
        # Sign-extend: flip the sign bit, then take its place value away.
        np.bitwise_xor(codes, self._top + 1, out=codes)
        np.subtract(codes, self._top + 1, out=codes)

    def _words(self, codes: Int8s) -> tuple[Words, Words]:
        """The codes that share a byte as one word, and as much room besides."""
        words = codes.view(self._word)
        return words, self._scratch.words[: words.nbytes].view(self._word).reshape(words.shape)

    def _check(self, scales: UInt16s, codes: Int8s, count: int) -> None:
        if scales.max(initial=0) >= _INFINITE_SCALE:
            raise RemoteProtocolError(f"{self.name} chunk holds a scale that is negative or not finite")
        if codes.min(initial=0) < -self._top:
            raise RemoteProtocolError(f"{self.name} chunk holds the code {-self._top - 1}")
        empty = scales == 0
        if empty.any() and codes[empty].any():
            raise RemoteProtocolError(f"{self.name} chunk holds a code other than 0 under a scale of 0")
        if codes.reshape(-1)[count:].any():
            raise RemoteProtocolError(f"{self.name} chunk is padded with a code other than 0")


def _in_blocks(chunk: Float32s, blocks: int) -> Float32s:
    """The chunk as rows of 64 values; copied only if it has to be padded."""
    if len(chunk) == blocks * BLOCK:
        return chunk.astype(np.float32, copy=False).reshape(blocks, BLOCK)
    padded = np.zeros(blocks * BLOCK, dtype=np.float32)
    padded[: len(chunk)] = chunk
    return padded.reshape(blocks, BLOCK)


def widen(scales: UInt16s) -> Float32s:
    """Bfloat16s, as bits, to floats: a bfloat16 is the upper half of a float32."""
    return (scales.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _multiply(codes: Int8s, scales: Float64s, out: Float64s) -> None:
    """out = code * scale for each block; the last may be cut short."""
    whole, rest = divmod(len(out), BLOCK)
    blocks = out[: whole * BLOCK].reshape(whole, BLOCK)
    # Widened first: numpy's buffered conversion inside the product takes longer than both steps.
    np.copyto(blocks, codes[:whole])
    np.multiply(blocks, scales[:whole, None], out=blocks)
    if rest:
        np.multiply(codes[-1, :rest], scales[-1], out=out[whole * BLOCK :])
