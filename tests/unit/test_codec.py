"""Codecs are strict: what no encoder would write is refused."""

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from folkmoot.protocol.codec import VectorDecoder, codec_named, encode_vector
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.ring import CHUNK_VALUES

NAMES = ["f32", "int8", "int4"]
TOPS = {"int8": 127, "int4": 7}
VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "codec.json"


def encoded(name: str, vector: np.ndarray) -> bytes:
    return b"".join(encode_vector(codec_named(name), vector.astype(np.float32)))


def decoded(name: str, data: bytes, parameters: int, piece: int = 1 << 20) -> np.ndarray:
    decoder = VectorDecoder(codec_named(name), [data[at : at + piece] for at in range(0, len(data), piece)])
    values = np.empty(parameters, dtype=np.float64)
    for start in range(0, parameters, CHUNK_VALUES):
        decoder.read(values[start : start + CHUNK_VALUES])
    decoder.finish()
    return values


def blocks_of(name: str, data: bytes) -> Iterator[tuple[int, list[int]]]:
    """Scale bits and codes of each block, read without the codec."""
    size = 66 if name == "int8" else 34
    for start in range(0, len(data), size):
        codes = data[start + 2 : start + size]
        halves = codes if name == "int8" else [half for byte in codes for half in (byte & 15, byte >> 4)]
        half_range = TOPS[name] + 1
        signed = [(half + half_range) % (2 * half_range) - half_range for half in halves]
        yield int.from_bytes(data[start : start + 2], "little"), signed


def scale_value(bits: int) -> Fraction:
    """A finite positive bfloat16, by its definition."""
    exponent, fraction = bits >> 7, bits & 0x7F
    return Fraction(fraction + (128 if exponent else 0)) * Fraction(2) ** (max(exponent, 1) - 127 - 7)


def awkward_vector() -> np.ndarray:
    """All magnitudes, block by block: random bits, subnormals, zeros, the largest, ties."""
    rng = np.random.default_rng(8)
    bits = rng.integers(0, 2**32, size=64 * 40, dtype=np.uint32).view(np.float32)
    wild = np.where(np.isfinite(bits), bits, 1.0)
    scales = np.repeat(np.ldexp(1.0, rng.integers(-149, 127, size=40)), 64)
    tame = (rng.uniform(-1, 1, size=64 * 40) * scales).astype(np.float32)
    tiny = rng.integers(-300, 300, size=640) * 2.0**-149
    halves = np.concatenate([[top * 0.75, *(np.arange(63) / 2 - 15) * 0.75] for top in (7, 127)])
    largest = np.finfo(np.float32).max * rng.uniform(-1, 1, size=64)
    largest[3] = np.finfo(np.float32).max
    return np.concatenate([wild, tame, tiny, np.zeros(64), halves, largest, [1.0, -2.0]]).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_and_refusals_are_those_of_the_vectors(name: str) -> None:
    vectors = json.loads(VECTORS.read_text())
    vector = np.array([int(bits, 16) for bits in vectors["vector"]], dtype=np.uint32).view(np.float32)
    (codec,) = [codec for codec in vectors["codecs"] if codec["name"] == name]
    assert encoded(name, vector).hex() == codec["vector"]
    for data in codec["refused"]:
        with pytest.raises(RemoteProtocolError):
            decoded(name, bytes.fromhex(data), 1)


def test_f32_bytes_are_little_endian() -> None:
    assert encoded("f32", np.array([1.0, -2.5])).hex() == "0000803f000020c0"


def test_int8_bytes_are_scale_then_codes() -> None:
    data = encoded("int8", np.array([127.0, -127.0, 1.5, 2.5, -0.5]))
    assert data == bytes.fromhex("803f7f81020200") + bytes(59)


def test_int4_bytes_are_scale_then_the_earlier_code_in_the_low_half() -> None:
    data = encoded("int4", np.array([7.0, -7.0, 1.5, 2.5, -0.5, 3.0]))
    assert data == bytes.fromhex("803f972230") + bytes(29)


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_codes_and_scales_are_those_of_the_formula(name: str) -> None:
    vector, top = awkward_vector(), TOPS[name]
    data = encoded(name, vector)
    padded = np.concatenate([vector, np.zeros(-len(vector) % 64, dtype=np.float32)]).reshape(-1, 64)
    for values, (bits, codes) in zip(padded, blocks_of(name, data), strict=True):
        largest = max(abs(Fraction(float(value))) for value in values)
        scale = scale_value(bits)
        # The scale is the next bfloat16 above the quotient, give or take the rounding of the quotient itself.
        assert scale >= largest / top * (1 - Fraction(1, 2**23))
        assert bits == 0 or scale_value(bits - 1) < largest / top * (1 + Fraction(1, 2**23))
        # Python rounds fractions half to even.
        assert codes == [round(Fraction(float(value)) / scale) if scale else 0 for value in values]


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_decoded_values_are_exact_and_within_half_a_scale(name: str) -> None:
    vector = awkward_vector()
    data = encoded(name, vector)
    values = decoded(name, data, len(vector))
    blocks = list(blocks_of(name, data))
    for index, (value, found) in enumerate(zip(vector, values, strict=True)):
        bits, codes = blocks[index // 64]
        scale = scale_value(bits)
        assert Fraction(float(found)) == codes[index % 64] * scale
        assert abs(Fraction(float(value)) - Fraction(float(found))) <= scale / 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("parameters", [1, 63, 64, 65, CHUNK_VALUES, CHUNK_VALUES + 1])
def test_vectors_come_in_pieces_of_any_size(name: str, parameters: int) -> None:
    vector = np.random.default_rng(3).standard_normal(parameters).astype(np.float32)
    data = encoded(name, vector)
    assert len(data) == codec_named(name).encoded_size(parameters)
    whole = decoded(name, data, parameters)
    assert np.abs(whole - vector).max() <= (0 if name == "f32" else 5.0 / TOPS[name])
    for piece in (65_536, 999_983):
        assert decoded(name, data, parameters, piece).tobytes() == whole.tobytes()


def test_the_last_bit_of_subnormals_and_the_sign_of_zero_survive() -> None:
    vector = np.array([2.0**-149, -0.0, np.finfo(np.float32).max], dtype=np.float32)
    assert decoded("f32", encoded("f32", vector), 3).astype(np.float32).tobytes() == vector.tobytes()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_not_encoded(name: str, bad: float) -> None:
    with pytest.raises(LocalProtocolError, match="finite"):
        encoded(name, np.array([1.0, bad]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_f32_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(RemoteProtocolError, match="finite"):
        decoded("f32", np.array([1.0, bad], dtype="<f4").tobytes(), 2)


@pytest.mark.parametrize("name", NAMES)
def test_any_other_length_is_refused(name: str) -> None:
    size = codec_named(name).encoded_size(2)
    for length in {0, 1, size // 2, size - 1, size + 1, 2 * size, 3 * size}:
        with pytest.raises(RemoteProtocolError):
            decoded(name, bytes(length), 2)


@pytest.mark.parametrize("name", NAMES)
def test_missing_and_trailing_bytes_at_a_chunk_edge_are_refused(name: str) -> None:
    size = codec_named(name).encoded_size(CHUNK_VALUES)
    with pytest.raises(RemoteProtocolError, match="ends before its last value"):
        decoded(name, bytes(size), CHUNK_VALUES + 1)
    with pytest.raises(RemoteProtocolError, match="bytes after"):
        decoded(name, bytes(size + 1), CHUNK_VALUES)


def test_an_unknown_codec_is_named() -> None:
    with pytest.raises(LocalProtocolError, match=r"'int3'.*known are f32, int8, int4"):
        codec_named("int3")
