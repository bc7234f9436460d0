"""Updates as ring integers, and sums of ring integers as a mean.

A member of weight w encodes x as q = round(x * w/255 * 2^(v-E)), clipped to +-(2^v - 1), where E is its tensor's scale
exponent and v = `ShardLayout.value_bits`. The sum S of the q's of all members whose weights add up to W is read as
S * 2^(E-v) * 255 / W, a weighted mean: members of full weight use the whole range, the others less of it.

Only the sender encodes, so that arithmetic need not be the same everywhere; it is float32 where the ring's values fit
its 24 bits. Everybody decodes, so that arithmetic is exact but for two roundings (PROTOCOL section 5): |S| < 2^31
times 255 * 2^(E-v) is exact in float64, the division rounds to float64 and the store to float32, both IEEE.
"""

import math
from collections.abc import Sequence

import numpy as np

from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.ring import CHUNK_VALUES, Float32s, Int8s, Layout
from folkmoot.protocol.secure.layout import BLOCK, MAX_WEIGHT, RingValues, ShardLayout

# Of a weight on the 8-bit ring; 16 such limbs sum to less than 2^8.
_LIMB_BITS = 4

_ENCODE_VALUES = 1 << 16
"""Values encoded at a time: input, scratch and output of one pass stay in the second-level cache."""


def member_weight(num_examples: int, cap: int) -> int:
    """A member's weight: 255 for `cap` examples or more, in proportion below, at least 1.

    max(1, min(num_examples, cap) * 255 / cap), rounded half to even in integers. Raises LocalProtocolError unless
    both are at least 1.
    """
    if num_examples < 1 or cap < 1:
        raise LocalProtocolError(
            f"weight of {num_examples} examples under a cap of {cap}: both must be at least 1"
        )
    whole, rest = divmod(min(num_examples, cap) * MAX_WEIGHT, cap)
    up = 2 * rest > cap or (2 * rest == cap and whole % 2 == 1)
    return max(1, whole + up)


class RingEncoder:
    """Writes one member's update as ring values, under one roster's exponents.

    Holds scratch memory for one block, so an object serves one thread at a time.
    """

    def __init__(
        self, layout: ShardLayout, sizes: Sequence[int], exponents: bytes | Sequence[int] | Int8s, weight: int
    ) -> None:
        """`sizes`, `exponents`: values and scale exponent (int8) of each tensor; `weight`: from `member_weight`.

        Raises LocalProtocolError.
        """
        if not 1 <= weight <= MAX_WEIGHT:
            raise LocalProtocolError(f"weight of {weight}: it is 1 to {MAX_WEIGHT}, see member_weight")
        self._layout, self._weight = layout, weight
        self._tensors, scales = _tensors(layout, sizes, exponents)
        share, bits = weight / MAX_WEIGHT, layout.value_bits
        self._per_unit = [math.ldexp(share, bits - exponent) for exponent in scales]
        self._unit = [math.ldexp(1 / share, exponent - bits) for exponent in scales]
        self._signed = np.dtype(f"<i{layout.value_bytes}")
        self._scratch = np.empty(_ENCODE_VALUES, dtype=self._arithmetic())

    def encode_weight(self, out: RingValues) -> None:
        """Write the weight block: the first 64 values of the ring vector."""
        _check_ring(self._layout, out, BLOCK)
        out.fill(0)
        if self._layout.bits > 8:
            out[0] = self._weight
        else:
            out[0], out[1] = self._weight % (1 << _LIMB_BITS), self._weight >> _LIMB_BITS

    def encode(
        self, chunk: Float32s, start_parameter: int, out: RingValues, residual: Float32s | None = None
    ) -> None:
        """Write the ring values of `chunk`, which begins at a parameter and may cross tensor edges, into `out`.

        With `residual` (as long as `chunk`), chunk + residual is encoded and what is lost becomes the new residual, in
        place: error feedback (Seide et al., Interspeech 2014). Raises LocalProtocolError on a value that is not finite;
        then `out` and `residual` hold nothing usable.
        """
        _check_ring(self._layout, out, len(chunk))
        if residual is not None and (residual.dtype != np.float32 or len(residual) != len(chunk)):
            raise LocalProtocolError(f"residual of {len(residual)} values for {len(chunk)} of an update")
        for tensor, low, high in self._tensors.pieces(start_parameter, start_parameter + len(chunk)):
            for at in range(low, high, _ENCODE_VALUES):
                part = slice(at, min(at + _ENCODE_VALUES, high))
                rest = None if residual is None else residual[part]
                self._encode(chunk[part], tensor, out[part], rest)

    def _encode(self, values: Float32s, tensor: int, out: RingValues, residual: Float32s | None) -> None:
        scaled = self._scratch[: len(values)]
        with np.errstate(over="ignore", invalid="ignore"):
            if residual is not None:
                values = np.add(residual, values, out=residual)
            if not np.isfinite(values).all():
                raise LocalProtocolError(
                    f"tensor {tensor} holds a value that is not finite: the update is unusable"
                )
            np.multiply(values, self._per_unit[tensor], out=scaled, dtype=scaled.dtype)
        np.rint(scaled, out=scaled)
        np.clip(scaled, -self._layout.largest, self._layout.largest, out=scaled)
        np.copyto(out.view(self._signed), scaled, casting="unsafe")
        if residual is not None:
            np.multiply(scaled, self._unit[tensor], out=scaled)
            np.subtract(residual, scaled, out=residual, casting="same_kind")

    def _arithmetic(self) -> type[np.float32] | type[np.float64]:
        """float32, unless a ring value has more bits or a factor lies outside its normal range."""
        normal, factors = np.finfo(np.float32), self._per_unit + self._unit
        # Python floats: numpy would compare in float32, where such a factor overflows.
        fits = float(normal.tiny) <= min(factors) and max(factors) <= float(normal.max)
        return np.float32 if fits and self._layout.bits <= 16 else np.float64


class RingDecoder:
    """Reads stripped sums, modulo 2^b, as the weighted mean of the updates in them.

    Holds scratch memory for one chunk, so an object serves one thread at a time.
    """

    def __init__(
        self, layout: ShardLayout, sizes: Sequence[int], exponents: bytes | Sequence[int] | Int8s
    ) -> None:
        """`sizes`, `exponents`: values and scale exponent (int8) of each tensor. Raises LocalProtocolError."""
        self._layout = layout
        self.tensors, self.exponents = _tensors(layout, sizes, exponents)
        self._unit = [
            math.ldexp(float(MAX_WEIGHT), exponent - layout.value_bits) for exponent in self.exponents
        ]
        self._signed = np.dtype(f"<i{layout.value_bytes}")
        self._scaled = np.empty(min(CHUNK_VALUES, layout.parameters), dtype=np.float64)

    def total_weight(self, block: RingValues) -> int:
        """The sum of all weights, from the weight block (the first 64 stripped values).

        Whoever encoded it may have written anything: check the result against the number of members.
        """
        _check_ring(self._layout, block, BLOCK)
        if self._layout.bits > 8:
            return int(block[0])
        return int(block[0]) + (int(block[1]) << _LIMB_BITS)

    def mean(self, values: RingValues, total_weight: int, start_parameter: int, out: Float32s) -> None:
        """Write S * 2^(E-v) * 255 / total_weight into `out`, for at most CHUNK_VALUES sums from a parameter on.

        The same bits everywhere. Not finite if a member lied about its weight and the quotient is beyond float32.
        Raises LocalProtocolError on a weight of zero.
        """
        _check_ring(self._layout, values, len(out))
        if total_weight < 1:
            raise LocalProtocolError(f"mean over a total weight of {total_weight}: it must be positive")
        scaled = self._scaled[: len(values)]
        np.copyto(scaled, values.view(self._signed))
        for tensor, low, high in self.tensors.pieces(start_parameter, start_parameter + len(values)):
            np.multiply(scaled[low:high], self._unit[tensor], out=scaled[low:high])
        np.divide(scaled, float(total_weight), out=scaled)
        with np.errstate(over="ignore"):
            np.copyto(out, scaled, casting="same_kind")


def _tensors(
    layout: ShardLayout, sizes: Sequence[int], exponents: bytes | Sequence[int] | Int8s
) -> tuple[Layout, list[int]]:
    """Where the tensors lie, and the exponent of each."""
    tensors = Layout(sizes)
    if tensors.size != layout.parameters:
        raise LocalProtocolError(
            f"tensors of {tensors.size} values in a layout for {layout.parameters} parameters"
        )
    scales = np.frombuffer(exponents, dtype=np.int8) if isinstance(exponents, bytes) else exponents
    if len(scales) != len(sizes):
        raise LocalProtocolError(f"{len(scales)} exponents for {len(sizes)} tensors: give one each")
    return tensors, [int(exponent) for exponent in scales]


def _check_ring(layout: ShardLayout, values: RingValues, length: int) -> None:
    if values.dtype != layout.dtype or len(values) != length:
        raise LocalProtocolError(
            f"{len(values)} ring values of {values.dtype}, expected {length} of {layout.dtype}"
        )
