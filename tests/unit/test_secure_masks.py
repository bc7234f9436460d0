"""Seeds that both ends derive alike, and keystreams that can be entered anywhere."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec.structs import replace

from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.secure import masks, sharing
from folkmoot.protocol.secure.keystream import STREAM_BLOCK, Keystream
from folkmoot.protocol.secure.layout import ShardLayout
from folkmoot.protocol.secure.masks import Expander, Mask, MaskContext, pair_mask, self_mask

CONTEXT = MaskContext(federation=b"f" * 32, epoch=2, round=7, roster=b"r" * 32, group=0)
OTHERS = [
    replace(CONTEXT, federation=b"g" * 32),
    replace(CONTEXT, epoch=3),
    replace(CONTEXT, round=8),
    replace(CONTEXT, roster=b"s" * 32),
    replace(CONTEXT, group=1),
]

# RFC 7748, section 6.1
ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
ALICE_PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
BOB = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
BOB_PUBLIC = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
SHARED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")


def stream(seed: bytes, offset: int, size: int) -> bytes:
    out = bytearray(size)
    Keystream(seed).write(offset, memoryview(out))
    return bytes(out)


# --- context ------------------------------------------------------------------------------------------------


def test_context_has_a_fixed_length_and_every_field_counts() -> None:
    encodings = {context.encoded for context in (CONTEXT, *OTHERS)}
    assert len(encodings) == 6
    assert {len(encoding) for encoding in encodings} == {84}
    assert CONTEXT.encoded.hex() == "66" * 32 + f"{2:016x}{7:016x}" + "72" * 32 + "00000000"


@pytest.mark.parametrize("bad", [{"roster": b"r" * 31}, {"epoch": -1}, {"round": 2**63}, {"group": 2**32}])
def test_impossible_contexts_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(LocalProtocolError):
        replace(CONTEXT, **bad)


# --- seeds --------------------------------------------------------------------------------------------------


def test_public_keys_are_those_of_the_rfc() -> None:
    assert masks.public_key(ALICE) == ALICE_PUBLIC
    assert masks.public_key(BOB) == BOB_PUBLIC


def test_both_ends_derive_the_same_pair_seed() -> None:
    seed = masks.pair_seed(CONTEXT, ALICE, 3, 1, BOB_PUBLIC)
    assert seed == masks.pair_seed(CONTEXT, BOB, 1, 3, ALICE_PUBLIC)
    # The same, written out: HKDF-SHA256 of the shared secret of the RFC.
    info = b"folkmoot/v1/pair-mask\n" + CONTEXT.encoded + bytes([0, 0, 0, 1, 0, 0, 0, 3])
    assert seed == HKDF(SHA256(), 16, None, info).derive(SHARED)


def test_seeds_of_other_contexts_pairs_and_keys_differ() -> None:
    seeds = [masks.pair_seed(context, ALICE, 1, 3, BOB_PUBLIC) for context in (CONTEXT, *OTHERS)]
    seeds += [
        masks.pair_seed(CONTEXT, ALICE, 1, 2, BOB_PUBLIC),
        masks.pair_seed(CONTEXT, ALICE, 1, 3, masks.public_key(b"c" * 32)),
    ]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31), b"", b"p" * 31])
def test_unusable_public_keys_are_the_peers_fault(public: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="member 3"):
        masks.pair_seed(CONTEXT, ALICE, 1, 3, public)


def test_seed_commitment_binds_seed_pair_and_context() -> None:
    commitments = [
        masks.seed_commitment(CONTEXT, 1, 3, b"s" * 16),
        masks.seed_commitment(CONTEXT, 1, 3, b"t" * 16),
        masks.seed_commitment(CONTEXT, 1, 2, b"s" * 16),
        *(masks.seed_commitment(context, 1, 3, b"s" * 16) for context in OTHERS),
    ]
    assert len(set(commitments)) == len(commitments)
    with pytest.raises(LocalProtocolError, match="lower"):
        masks.seed_commitment(CONTEXT, 3, 1, b"s" * 16)


def test_self_polynomial_is_the_same_after_a_restart_and_shareable() -> None:
    polynomial = masks.self_polynomial(CONTEXT, ALICE, 3, 4)
    assert polynomial == masks.self_polynomial(CONTEXT, ALICE, 3, 4)
    assert len(set(polynomial)) == 4 and all(sharing.is_scalar(scalar) for scalar in polynomial)
    shares = {x: sharing.share(polynomial, x) for x in (2, 3, 5, 8)}
    secret = sharing.reconstruct(shares)
    assert sharing.verify_secret(sharing.commit(polynomial), secret)
    assert masks.self_seed(CONTEXT, 3, secret) == masks.self_seed(CONTEXT, 3, polynomial[0])


def test_self_masks_of_other_contexts_members_and_thresholds_differ() -> None:
    secrets = [masks.self_polynomial(context, ALICE, 3, 2)[0] for context in (CONTEXT, *OTHERS)]
    secrets += [
        masks.self_polynomial(CONTEXT, ALICE, 2, 2)[0],
        masks.self_polynomial(CONTEXT, ALICE, 3, 3)[0],
        masks.self_polynomial(CONTEXT, BOB, 3, 2)[0],
    ]
    assert len(set(secrets)) == len(secrets)
    scalar = secrets[0]
    seeds = [masks.self_seed(context, 3, scalar) for context in (CONTEXT, *OTHERS)]
    seeds += [masks.self_seed(CONTEXT, 2, scalar), masks.self_seed(CONTEXT, 3, secrets[1])]
    assert len(set(seeds)) == len(seeds)


def test_our_own_mistakes_are_raised() -> None:
    with pytest.raises(LocalProtocolError, match="itself"):
        masks.pair_seed(CONTEXT, ALICE, 1, 1, BOB_PUBLIC)
    with pytest.raises(LocalProtocolError, match="itself"):
        pair_mask(b"s" * 16, 2, 2)
    for bad in (b"", b"s" * 31, b"s" * 33):
        with pytest.raises(LocalProtocolError, match="secret"):
            masks.public_key(bad)
        with pytest.raises(LocalProtocolError, match="secret"):
            masks.pair_seed(CONTEXT, bad, 1, 3, BOB_PUBLIC)
        with pytest.raises(LocalProtocolError, match="secret"):
            masks.self_polynomial(CONTEXT, bad, 1, 2)
        with pytest.raises(LocalProtocolError, match="secret"):
            masks.self_seed(CONTEXT, 1, bad)
        with pytest.raises(LocalProtocolError, match="seed"):
            Mask(bad, 1)
        with pytest.raises(LocalProtocolError, match="seed"):
            masks.seed_commitment(CONTEXT, 1, 3, bad)
        with pytest.raises(LocalProtocolError, match="seed"):
            Keystream(bad)
    with pytest.raises(LocalProtocolError, match="sign"):
        Mask(b"s" * 16, 0)
    for threshold in (0, 17):
        with pytest.raises(LocalProtocolError, match="threshold"):
            masks.self_polynomial(CONTEXT, ALICE, 1, threshold)


def test_seeds_stay_out_of_the_repr() -> None:
    assert repr(Mask(b"secret seed 1234", -1)) == "Mask(sign=-1)"


# --- keystream ----------------------------------------------------------------------------------------------


def test_keystream_is_aes_ctr_with_the_block_number_as_counter() -> None:
    # NIST SP 800-38A, F.5.1: output blocks of the first two counters
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    counter = int("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", 16)
    expected = "ec8cdf7398607cb0f2d21675ea9ea1e4" + "362b7c3c6773516318a077d7fc5073ae"
    assert stream(key, 16 * counter, 32).hex() == expected


def test_keystream_can_be_entered_anywhere() -> None:
    whole = stream(b"k" * 16, 0, 3 * STREAM_BLOCK + 5)
    for offset, size in [(0, 1), (1, 40), (16, 16), (31, 2), (STREAM_BLOCK - 3, 7), (5, 2 * STREAM_BLOCK)]:
        assert stream(b"k" * 16, offset, size) == whole[offset : offset + size]


def test_keystream_goes_on_and_jumps_back() -> None:
    whole = stream(b"k" * 16, 0, 1000)
    keystream, out = Keystream(b"k" * 16), bytearray(100)
    for offset in (0, 100, 200, 7, 107, 900, 0):
        keystream.write(offset, memoryview(out))
        assert out == whole[offset : offset + 100]


# --- expansion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_masks_are_added_modulo_the_ring_with_their_signs(bits: int) -> None:
    layout = ShardLayout(1000, bits, 3, 1)
    plus, minus = (
        np.frombuffer(stream(seed * 16, 0, layout.shard_bytes(0)), layout.dtype) for seed in (b"p", b"m")
    )
    values = np.arange(layout.size, dtype=layout.dtype)
    Expander(layout, [Mask(b"p" * 16, 1), Mask(b"m" * 16, -1)]).add(values, 0)
    expected = (np.arange(layout.size).astype(object) + plus.astype(object) - minus.astype(object)) % 2**bits
    assert np.array_equal(values, expected)


def test_a_pair_cancels_and_a_mask_comes_off_again() -> None:
    layout = ShardLayout(500, 16, 3, 1)
    low, high = pair_mask(b"s" * 16, 1, 4), pair_mask(b"s" * 16, 4, 1)
    assert (low.sign, high.sign) == (1, -1)
    values = np.arange(layout.size, dtype=layout.dtype)
    Expander(layout, [low, high]).add(values, 0)
    assert np.array_equal(values, np.arange(layout.size))
    both = [low, self_mask(b"t" * 16)]
    Expander(layout, both).add(values, 0)
    assert not np.array_equal(values, np.arange(layout.size))
    Expander(layout, both).add(values, 0, subtract=True)
    assert np.array_equal(values, np.arange(layout.size))


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_random_access_equals_sequential(bits: int) -> None:
    layout = ShardLayout(300_000, bits, 3, 5)
    several = [Mask(bytes([index]) * 16, 1 - 2 * (index % 2)) for index in range(4)]
    whole = np.zeros(layout.size, dtype=layout.dtype)
    Expander(layout, several).add(whole, 0)
    expander = Expander(layout, several)
    for shard in (3, 0, 4, 1, 2):
        start, stop = layout.span(shard)
        piece = np.zeros(stop - start, dtype=layout.dtype)
        for at in range(0, len(piece), 16_384):
            expander.add(piece[at : at + 16_384], start + at)
        assert np.array_equal(piece, whole[start:stop])


def test_values_of_another_ring_are_refused() -> None:
    with pytest.raises(LocalProtocolError, match="uint32"):
        Expander(ShardLayout(10, 16, 3, 1), []).add(np.zeros(64, dtype=np.uint32), 0)


@pytest.mark.parametrize("bits", [8, 16])
def test_masked_values_look_uniform(bits: int) -> None:
    """Chi-square of the values' bytes: a constant vector under one mask is uniform noise."""
    layout = ShardLayout(1 << 18, bits, 3, 1)
    values = np.full(layout.size, 5, dtype=layout.dtype)
    Expander(layout, [Mask(b"one fixed seed!!", 1)]).add(values, 0)
    counts = np.bincount(values.view(np.uint8), minlength=256)
    expected = counts.sum() / 256
    statistic = float(((counts - expected) ** 2 / expected).sum())
    # 255 degrees of freedom: mean 255, deviation 22.6; beyond these bounds once in a million draws.
    assert 160 < statistic < 375
