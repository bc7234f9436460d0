"""Error feedback: what is lost in one round comes back in the next."""

import numpy as np
import pytest

from folkmoot.protocol.codec import VectorDecoder, codec_named
from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.feedback import encode_with_feedback
from folkmoot.protocol.ring import CHUNK_VALUES, FixedPoint, Layout, compute_exponents

SIZES = [300, CHUNK_VALUES]
LAYOUT = Layout(SIZES)
SPANS = list(LAYOUT.chunks())


def sent(codec: str, update: np.ndarray, residual: np.ndarray, exponents: np.ndarray) -> np.ndarray:
    """What others sum; `residual` becomes the next one."""
    fixed = FixedPoint(LAYOUT, exponents)
    chunks = [update[start:stop] for start, stop in SPANS]
    rest = [residual[start:stop] for start, stop in SPANS]
    pieces = [bytes(piece) for piece in encode_with_feedback(codec_named(codec), fixed, chunks, rest)]
    decoder, values = VectorDecoder(codec_named(codec), pieces), np.empty(len(update))
    for start, stop in SPANS:
        decoder.read(values[start:stop])
        FixedPoint(LAYOUT, exponents).to_integers(values[start:stop], start, values[start:stop])
    decoder.finish()
    units = np.repeat(np.ldexp(1.0, np.asarray(exponents, dtype=int) - 32), SIZES)
    return values * units


@pytest.mark.parametrize("codec", ["bf16", "int8", "int4", "int2", "top3", "top1"])
def test_nothing_is_lost_for_ever(codec: str) -> None:
    rng, size = np.random.default_rng(2), LAYOUT.size
    residual, given, arrived = np.zeros(size, dtype=np.float32), np.zeros(size), np.zeros(size)
    for _ in range(3):
        update = rng.normal(0, 0.01, size).astype(np.float32)
        exponents = compute_exponents(update + residual, LAYOUT, -126, 127)
        given += update
        arrived += sent(codec, update, residual, exponents)
    assert np.abs(given - arrived - residual).max() < 1e-6


def test_what_the_roster_clips_comes_back_too() -> None:
    update = np.full(LAYOUT.size, 3.0, dtype=np.float32)
    residual = np.zeros_like(update)
    assert set(sent("f32", update, residual, np.array([1, 1]))) == {2.0}
    assert set(residual) == {1.0}


def test_an_update_that_is_not_finite_is_refused() -> None:
    update = np.full(LAYOUT.size, np.finfo(np.float32).max)
    with pytest.raises(LocalProtocolError, match="finite"):
        sent("int2", update, update.copy(), np.array([127, 127]))


def test_small_values_arrive_in_the_end_beside_large_ones() -> None:
    update = np.full(LAYOUT.size, 0.2, dtype=np.float32)
    update[::20] = 1.0  # more of them than are kept

    def arrived(feedback: bool) -> np.ndarray:
        residual, total = np.zeros_like(update), np.zeros(LAYOUT.size)
        for _ in range(12):
            exponents = compute_exponents(update + residual, LAYOUT, -126, 127)
            total += sent("top3", update, residual, exponents)
            if not feedback:
                residual.fill(0)
        return total[update < 1]

    assert not arrived(False).any() and arrived(True).any()
