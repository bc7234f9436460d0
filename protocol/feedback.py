"""Error feedback in open mode: what writing an update down lost of it is added to the next one.

u = update + e; sent is C(u); then e = u - C(u), where C(u) is what everybody else sums: decoded, and clipped to the
roster's scale (Seide et al., Interspeech 2014; Karimireddy et al. 2019, 1901.09847). Only the sender computes this.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from folkmoot.protocol.codec import Codec
from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.pieces import Buffer
from folkmoot.protocol.ring import CHUNK_VALUES, FixedPoint, Float32s


def encode_with_feedback(
    codec: Codec, fixed: FixedPoint, update: Iterable[Float32s], residual: Iterable[Float32s]
) -> Iterator[Buffer]:
    """Write an update down, chunk by chunk; both come in chunks of CHUNK_VALUES, the last may be shorter.

    Each chunk of `residual` is changed in place into what it is after the round. Raises LocalProtocolError on a value
    that is not finite.
    """
    length = min(CHUNK_VALUES, fixed.layout.size)
    values, sent, start = np.empty(length), np.empty(length, dtype=np.float32), 0
    for chunk, rest in zip(update, residual, strict=True):
        if len(chunk) != len(rest):
            raise LocalProtocolError("residuals come in other pieces than the update")
        with np.errstate(over="ignore"):
            np.add(chunk, rest, out=rest)
        data = bytes(codec.encode(rest))  # a copy: it may be a view of what is changed below
        count = len(chunk)
        codec.decode(data, values[:count])
        fixed.to_integers(values[:count], start, values[:count])
        fixed.mean(values[:count], 1, start, sent[:count])
        np.subtract(rest, sent[:count], out=rest)
        start += count
        yield data
