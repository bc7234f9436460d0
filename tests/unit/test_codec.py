"""Codecs are strict: what `encode` would not write is refused."""

import numpy as np
import pytest

from folkmoot.protocol.codec import codec_named, decode_vector, encode_vector
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.ring import CHUNK_VALUES

F32 = codec_named("f32")


def decoded(data: bytes, parameters: int, piece: int = 1 << 20) -> np.ndarray:
    pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
    chunks = list(decode_vector(F32, pieces, parameters))
    starts = [start for start, _ in chunks]
    assert starts == list(range(0, parameters, CHUNK_VALUES))
    return np.concatenate([values for _, values in chunks])


def test_f32_bytes_are_little_endian() -> None:
    assert F32.encode(np.array([1.0, -2.5], dtype=np.float32)).hex() == "0000803f000020c0"


@pytest.mark.parametrize("parameters", [1, CHUNK_VALUES, CHUNK_VALUES + 1])
@pytest.mark.parametrize("piece", [65_536, 1 << 20, 999_983])
def test_vectors_survive_in_pieces_of_any_size(parameters: int, piece: int) -> None:
    vector = np.random.default_rng(3).standard_normal(parameters).astype(np.float32)
    data = b"".join(encode_vector(F32, vector))
    assert len(data) == F32.encoded_size(parameters)
    assert decoded(data, parameters, piece).tobytes() == vector.tobytes()


def test_the_last_bit_of_subnormals_and_the_sign_of_zero_survive() -> None:
    vector = np.array([2.0**-149, -0.0, np.finfo(np.float32).max], dtype=np.float32)
    assert decoded(F32.encode(vector), 3).tobytes() == vector.tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_on_both_sides(bad: float) -> None:
    chunk = np.array([1.0, bad], dtype=np.float32)
    with pytest.raises(LocalProtocolError, match="finite"):
        F32.encode(chunk)
    with pytest.raises(RemoteProtocolError, match="finite"):
        F32.decode(chunk.tobytes(), 2)


@pytest.mark.parametrize("length", [0, 4, 7, 9, 12])
def test_any_other_length_is_refused(length: int) -> None:
    with pytest.raises(RemoteProtocolError):
        F32.decode(bytes(length), 2)
    with pytest.raises(RemoteProtocolError):
        decoded(bytes(length), 2)


def test_missing_and_trailing_bytes_at_a_chunk_edge_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="ends at value 262144"):
        decoded(bytes(4 * CHUNK_VALUES), CHUNK_VALUES + 1)
    with pytest.raises(RemoteProtocolError, match="bytes after"):
        decoded(bytes(4 * CHUNK_VALUES + 1), CHUNK_VALUES)


def test_an_unknown_codec_is_named() -> None:
    with pytest.raises(LocalProtocolError, match=r"'int3'.*known are f32"):
        codec_named("int3")
