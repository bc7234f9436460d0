"""Properties of trees, sums, codecs and frames, over generated inputs."""

import struct
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from folkmoot.protocol import merkle, ring, sealing
from folkmoot.protocol.aggregate import Method, aggregate
from folkmoot.protocol.codec import VectorDecoder, codec_named, encode_vector
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.payload_sums import Payload
from folkmoot.protocol.pieces import recut
from folkmoot.protocol.ring import FixedPoint, Layout

CONTEXT = sealing.PayloadContext(federation=b"f" * 32, round=1, roster=b"r" * 32, sender=0)
KEY = b"k" * 32
CODECS = ["f32", "bf16", "int8", "int4", "int2", "top3", "top1"]
BLOCKS = {"int8": (66, 127), "int4": (34, 7), "int2": (18, 1)}
"""Bytes of a block, and the largest code."""

digests = st.binary(min_size=32, max_size=32)
float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
exponents = st.integers(-126, 127)


def encoded(name: str, values: list[float]) -> bytes:
    return b"".join(encode_vector(codec_named(name), np.array(values, dtype=np.float32)))


def decoded(name: str, data: bytes, parameters: int) -> np.ndarray:
    """A vector of one chunk."""
    decoder = VectorDecoder(codec_named(name), [data])
    values = np.empty(parameters, dtype=np.float64)
    decoder.read(values)
    decoder.finish()
    return values


@st.composite
def leaves_and_index(draw: st.DrawFn) -> tuple[list[bytes], int]:
    leaves = draw(st.lists(digests, min_size=1, max_size=40))
    return leaves, draw(st.integers(0, len(leaves) - 1))


# --- merkle -------------------------------------------------------------------------------------------------


@given(leaves_and_index())
def test_every_proof_verifies(case: tuple[list[bytes], int]) -> None:
    leaves, index = case
    proof = merkle.inclusion_proof(leaves, index)
    merkle.verify_inclusion(leaves[index], index, len(leaves), proof, merkle.root(leaves))


@given(leaves_and_index(), st.data())
def test_no_changed_proof_verifies(case: tuple[list[bytes], int], data: st.DataObject) -> None:
    leaves, index = case
    proof = merkle.inclusion_proof(leaves, index)
    entries = [leaves[index], *proof]
    place = data.draw(st.integers(0, len(entries) - 1))
    entries[place] = data.draw(st.binary(max_size=40).filter(lambda entry: entry != entries[place]))
    with pytest.raises(RemoteProtocolError):
        merkle.verify_inclusion(entries[0], index, len(leaves), entries[1:], merkle.root(leaves))


@given(
    digests,
    st.integers(-5, 2**70),
    st.integers(-5, 2**70),
    st.lists(st.binary(max_size=33), max_size=80),
    digests,
)
def test_any_proof_is_answered_by_the_typed_error(
    leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes
) -> None:
    assume(leaf != root)  # a tree of one leaf needs no proof
    with pytest.raises(RemoteProtocolError):
        merkle.verify_inclusion(leaf, index, size, proof, root)


# --- pieces -------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=30), max_size=20), st.integers(1, 17))
def test_recut_keeps_the_bytes_and_the_size(pieces: list[bytes], size: int) -> None:
    cut = [bytes(piece) for piece in recut(pieces, size)]
    assert b"".join(cut) == b"".join(pieces)
    assert all(len(piece) == size for piece in cut[:-1])
    assert all(0 < len(piece) <= size for piece in cut)


# --- ring ---------------------------------------------------------------------------------------------------


@given(st.lists(float32s, min_size=1, max_size=30), exponents)
def test_integers_are_exact(values: list[float], exponent: int) -> None:
    chunk = np.array(values, dtype=np.float32).astype(np.float64)
    out = np.empty(len(chunk), dtype=np.float64)
    FixedPoint(Layout([len(chunk)]), [exponent]).to_integers(chunk, 0, out)
    for value, found in zip(values, out, strict=True):
        exact = round(Fraction(value) * Fraction(2) ** (32 - exponent))
        assert found == max(-(2**32), min(2**32, exact))


@given(st.lists(float32s, min_size=1, max_size=30), exponents, exponents)
def test_the_exponent_is_the_smallest_that_clips_nothing(values: list[float], one: int, other: int) -> None:
    lower, upper = sorted((one, other))
    vector = np.array(values, dtype=np.float32)
    found = int(ring.compute_exponents(vector, Layout([len(values)]), lower, upper)[0])
    largest = max(abs(Fraction(value)) for value in values)
    assert lower <= found <= upper
    assert largest <= Fraction(2) ** found or found == upper
    assert found == lower or largest > Fraction(2) ** (found - 1)


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1, max_size=20), st.integers(1, 2**21), exponents)
def test_mean_rounds_the_exact_quotient(sums: list[int], weight: int, exponent: int) -> None:
    out = np.empty(len(sums), dtype=np.float32)
    limit = weight << 32  # no sum of clipped values is larger
    clipped = np.array([max(-limit, min(limit, value)) for value in sums], dtype=np.float64)
    FixedPoint(Layout([len(sums)]), [exponent]).mean(clipped, weight, 0, out)
    for value, found in zip(clipped, out, strict=True):
        quotient = float(Fraction(int(value)) * Fraction(2) ** (exponent - 32) / weight)
        assert found == np.float32(quotient)
        assert np.isfinite(found)


@given(st.integers(0, 2**62), st.integers(0, 2**62), st.integers(1, 2**62))
def test_weights_are_monotonic_and_below_two_to_the_sixteen(one: int, other: int, cap: int) -> None:
    low, high = sorted((one, other))
    assert 0 <= ring.weight_of(low, cap) <= ring.weight_of(high, cap) <= ring.MAX_WEIGHT
    assert ring.weight_of(max(1, low), cap) >= 1


# --- aggregate ----------------------------------------------------------------------------------------------


@given(
    st.sampled_from(CODECS),
    st.integers(0, 2**32 - 1),
    st.integers(1, 12),
    st.integers(1, 150),
    st.randoms(use_true_random=False),
)
def test_the_result_does_not_depend_on_order(
    name: str, seed: int, members: int, size: int, shuffler: object
) -> None:
    rng = np.random.default_rng(seed)
    base = rng.standard_normal(size).astype(np.float32)
    payloads = []
    for member in range(members):
        data = encoded(name, rng.standard_normal(size).tolist())
        # One in four is cut short, so ill-formed.
        data = data[:-1] if rng.integers(4) == 0 else data
        payloads.append(Payload(member, int(rng.integers(0, 65_536)), lambda data=data: [data]))
    first = aggregate(Method.plain(name, [size]), [2], payloads, base)
    shuffler.shuffle(payloads)  # type: ignore[attr-defined]
    again = aggregate(Method.plain(name, [size]), [2], payloads, base)
    assert (first.sums_digest, first.ill_formed) == (again.sums_digest, again.ill_formed)
    assert first.model.tobytes() == again.model.tobytes()


# --- codec and sealing --------------------------------------------------------------------------------------


@given(st.lists(float32s, min_size=1, max_size=40))
def test_f32_vectors_survive(values: list[float]) -> None:
    assert decoded("f32", encoded("f32", values), len(values)).tolist() == values


@given(st.sampled_from(list(BLOCKS)), st.lists(float32s, min_size=1, max_size=130))
def test_block_codecs_are_off_by_half_a_scale_at_most(name: str, values: list[float]) -> None:
    data, size, top = encoded(name, values), *BLOCKS[name]
    found = decoded(name, data, len(values))
    for index, value in enumerate(values):
        block = index // 64
        upper_half = data[size * block : size * block + 2][::-1] + bytes(2)
        scale = Fraction(struct.unpack(">f", upper_half)[0])
        assert abs(Fraction(value) - Fraction(float(found[index]))) <= scale / 2
        assert abs(Fraction(float(found[index]))) <= top * scale


@given(st.sampled_from(CODECS), st.binary(max_size=140), st.integers(1, 130))
def test_bytes_decode_to_finite_values_or_the_typed_error(name: str, data: bytes, parameters: int) -> None:
    try:
        values = decoded(name, data, parameters)
    except RemoteProtocolError:
        return
    assert np.isfinite(values).all()
    if name == "f32":
        assert encoded(name, values.tolist()) == data


@given(
    st.sampled_from(CODECS),
    st.lists(float32s, min_size=1, max_size=130),
    st.lists(st.tuples(st.integers(0, 197), st.binary(max_size=3)), min_size=1, max_size=3),
)
def test_changed_bytes_decode_or_raise_the_typed_error(
    name: str, values: list[float], changes: list[tuple[int, bytes]]
) -> None:
    data = encoded(name, values)
    for start, patch in changes:
        data = data[:start] + patch + data[start + len(patch) :]
    try:
        assert np.isfinite(decoded(name, data, len(values))).all()
    except RemoteProtocolError:
        return


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_frames_open_whatever_pieces_they_come_in(plaintext: bytes, cuts: list[int]) -> None:
    sealed = b"".join(sealing.seal_frames(CONTEXT, KEY, [plaintext], len(plaintext)))
    edges = [0, *sorted(cuts), len(sealed)]
    pieces = [sealed[a:b] for a, b in pairwise(edges)]
    assert b"".join(sealing.open_frames(CONTEXT, KEY, pieces, len(plaintext))) == plaintext


@given(st.binary(min_size=1, max_size=200), st.data())
def test_changed_frames_raise_the_typed_error(plaintext: bytes, data: st.DataObject) -> None:
    sealed = b"".join(sealing.seal_frames(CONTEXT, KEY, [plaintext], len(plaintext)))
    start = data.draw(st.integers(0, len(sealed)))
    stop = data.draw(st.integers(start, len(sealed)))
    changed = sealed[:start] + data.draw(st.binary(max_size=20)) + sealed[stop:]
    if changed != sealed:
        with pytest.raises(RemoteProtocolError):
            list(sealing.open_frames(CONTEXT, KEY, [changed], len(plaintext)))


@given(st.binary(max_size=120))
def test_bytes_that_were_not_sealed_to_us_raise_the_typed_error(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        sealing.unseal_key(data, b"s" * 32)
