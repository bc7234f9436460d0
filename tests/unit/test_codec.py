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

NAMES = ["f32", "bf16", "int8", "int4", "int2", "top3", "top1"]
TOPS = {"int8": 127, "int4": 7, "int2": 1}
BLOCKS = {"int8": 66, "int4": 34, "int2": 18}
BOUNDS = {"f32": 0, "bf16": 2**-8, "int8": 1 / 250, "int4": 1 / 13, "int2": 0.51, "top3": 1, "top1": 1}
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
    size, bits = BLOCKS[name], {"int8": 8, "int4": 4, "int2": 2}[name]
    for start in range(0, len(data), size):
        codes = data[start + 2 : start + size]
        parts = [byte >> at & 2**bits - 1 for byte in codes for at in range(0, 8, bits)]
        half_range = TOPS[name] + 1
        signed = [(part + half_range) % (2 * half_range) - half_range for part in parts]
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
    halves = np.concatenate([[top * 0.75, *(np.arange(63) / 2 - 15) * 0.75] for top in (1, 7, 127)])
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


@pytest.mark.parametrize("name", list(TOPS))
def test_codes_and_scales_are_those_of_the_formula(name: str) -> None:
    vector, top = awkward_vector(), TOPS[name]
    data = encoded(name, vector)
    padded = np.concatenate([vector, np.zeros(-len(vector) % 64, dtype=np.float32)]).reshape(-1, 64)
    for values, (bits, codes) in zip(padded, blocks_of(name, data), strict=True):
        largest = max(abs(Fraction(float(value))) for value in values)
        scale = scale_value(bits)
        # The scale is the next bfloat16 above the quotient, give or take the rounding of the quotient itself.
        assert scale >= largest / top * (1 - Fraction(1, 2**23)) or bits == 0x7F7F
        assert bits == 0 or scale_value(bits - 1) < largest / top * (1 + Fraction(1, 2**23))
        # Python rounds fractions half to even.
        assert codes == [round(Fraction(float(value)) / scale) if scale else 0 for value in values]


@pytest.mark.parametrize("name", list(TOPS))
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
    assert np.abs(whole - vector).max() <= BOUNDS[name] * np.abs(vector).max()
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
    zeros = encoded(name, np.zeros(CHUNK_VALUES))
    with pytest.raises(RemoteProtocolError, match="ends before its last value"):
        decoded(name, zeros, CHUNK_VALUES + 1)
    with pytest.raises(RemoteProtocolError, match="bytes after"):
        decoded(name, zeros + b"\0", CHUNK_VALUES)


# --- bf16 -----------------------------------------------------------------------------------------------------


def test_bf16_rounds_to_nearest_ties_to_even_and_never_to_infinity() -> None:
    bits = np.array(
        [0x3F80_8000, 0x3F81_8000, 0x3F80_8001, 0xBF80_7FFF, 0x7F7F_FFFF, 0x8000_0001], dtype=np.uint32
    )
    assert encoded("bf16", bits.view(np.float32)).hex() == "803f823f813f80bf7f7f0080"


# --- the largest values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "percent"), [("top3", 3), ("top1", 1)])
@pytest.mark.parametrize("length", [1, 33, 34, 4095, 4096, 4097, 9000])
def test_the_largest_of_every_group_are_kept_with_their_signs(name: str, percent: int, length: int) -> None:
    vector = np.random.default_rng(length).standard_normal(length).astype(np.float32)
    values = decoded(name, encoded(name, vector), length)
    for start in range(0, length, 4096):
        group, found = vector[start : start + 4096], values[start : start + 4096]
        kept = np.argsort(np.abs(group))[-percent * len(group) // 100 :]
        assert set(np.flatnonzero(found)) == set(kept)
        assert (np.sign(found[kept]) == np.sign(group[kept])).all()
        magnitudes = np.unique(np.abs(found[kept]))
        assert len(magnitudes) <= 2
        half = len(kept) // 2
        assert magnitudes[-1] == pytest.approx(np.abs(group[kept[half:]]).mean(), rel=2**-7)
        assert half == 0 or magnitudes[0] == pytest.approx(np.abs(group[kept[:half]]).mean(), rel=2**-7)


def test_of_equal_values_the_first_are_kept() -> None:
    values = decoded("top1", encoded("top1", np.full(4096, -0.5)), 4096)
    assert np.flatnonzero(values).tolist() == list(range(41)) and set(values[:41]) == {-0.5}


def test_kept_values_are_written_as_the_specification_says() -> None:
    vector = np.zeros(200)
    vector[[3, 70, 199]] = [1.0, -2.0, 0.5]
    # 1 % of 200 are two: 1 and -2. Symbols 3, +, smaller and 70, -, larger in 14 bits each.
    symbols = f"{3 << 2:014b}{70 << 2 | 3:014b}0000"
    assert encoded("top1", vector) == bytes.fromhex("803f0040") + int(symbols, 2).to_bytes(4, "big")


@pytest.mark.parametrize(("places", "text"), [((5, 5), "ascend"), ((6, 5), "ascend"), ((5, 200), "beyond")])
def test_places_that_no_encoder_writes_are_refused(places: tuple[int, int], text: str) -> None:
    symbols = "".join(f"{place << 2:014b}" for place in places) + "0000"
    with pytest.raises(RemoteProtocolError, match=text):
        decoded("top1", bytes.fromhex("803f0040") + int(symbols, 2).to_bytes(4, "big"), 200)


@pytest.mark.parametrize(
    ("name", "fewer"), [("bf16", 2), ("int8", 3.8), ("int4", 7.5), ("int2", 14), ("top3", 70)]
)
def test_codecs_save_what_the_guide_says(name: str, fewer: float) -> None:
    assert 4 * 10**6 / codec_named(name).encoded_size(10**6) >= fewer


def test_an_unknown_codec_is_named() -> None:
    with pytest.raises(
        LocalProtocolError, match=r"'int3'.*known are f32, bf16, int8, int4, int2, top3, top1"
    ):
        codec_named("int3")
