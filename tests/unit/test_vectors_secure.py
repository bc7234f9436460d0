"""Secure mode's vectors, followed step by step in plain Python from what SPEC section 4 says, with integers only.

`test_vectors.py` holds the files to the code; this holds them to the words.
"""

import hashlib
import hmac
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base, crypto_scalarmult_ed25519_base_noclamp

VECTORS = Path(__file__).resolve().parents[1] / "vectors"
MASKS: dict[str, Any] = json.loads((VECTORS / "secure_masks.json").read_text())
SUMS: dict[str, Any] = json.loads((VECTORS / "secure_sums.json").read_text())
RINGS: list[dict[str, Any]] = SUMS["rings"]
MEMBERS = range(4)

ORDER = 2**252 + 27742317777372353535851937790883648493
PRIME = 2**61 - 1

any_ring = pytest.mark.parametrize("ring", RINGS, ids=lambda ring: str(ring["bits"]))


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def hkdf(secret: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869 with SHA-256 and no salt."""
    key, out, block = hmac.digest(bytes(32), secret, "sha256"), b"", b""
    for number in range(1, -(-size // 32) + 1):
        block = hmac.digest(key, block + info + bytes([number]), "sha256")
        out += block
    return out[:size]


def keystream(seed: bytes, offset: int, size: int) -> bytes:
    """AES-128 of the block numbers, one after the other."""
    encryptor = Cipher(algorithms.AES(seed), modes.ECB()).encryptor()
    first, end = offset // 16, -(-(offset + size) // 16)
    stream = encryptor.update(b"".join(number.to_bytes(16, "big") for number in range(first, end)))
    return stream[offset - 16 * first :][:size]


def integers(data: bytes, bits: int) -> list[int]:
    size = bits // 8
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]


def scalar(text: str) -> int:
    return int.from_bytes(unhex(text), "little")


def seed_of(low: int, high: int) -> bytes:
    return next(unhex(pair["seed"]) for pair in MASKS["pairs"] if pair["members"] == [low, high])


# --- derivations --------------------------------------------------------------------------------------------


def test_context_and_keys() -> None:
    numbers = (MASKS["epoch"], unhex(MASKS["roster"]), MASKS["group"])
    epoch, roster, group = numbers
    packed = (
        unhex(MASKS["federation"])
        + struct.pack(">QQ", epoch, MASKS["round"])
        + roster
        + struct.pack(">I", group)
    )
    assert unhex(MASKS["context"]) == packed
    for member in MASKS["members"]:
        assert crypto_scalarmult_base(unhex(member["secret"])) == unhex(member["mask_key"])


@pytest.mark.parametrize("pair", MASKS["pairs"], ids=lambda pair: "{}-{}".format(*pair["members"]))
def test_pair_seeds(pair: dict[str, Any]) -> None:
    one, other = (MASKS["members"][member] for member in pair["members"])
    about = unhex(MASKS["context"]) + struct.pack(">II", *pair["members"])
    for mine, theirs in ((one, other), (other, one)):
        shared = crypto_scalarmult(unhex(mine["secret"]), unhex(theirs["mask_key"]))
        assert hkdf(shared, b"folkmoot/v1/pair-mask\n" + about, 16) == unhex(pair["seed"])
    bound = hashlib.sha256(b"folkmoot/v1/pair-seed\n" + about + unhex(pair["seed"])).digest()
    assert bound == unhex(pair["commitment"])


def test_keystream() -> None:
    for piece in MASKS["keystream"]["pieces"]:
        expected = unhex(piece["bytes"])
        assert keystream(unhex(MASKS["keystream"]["seed"]), piece["offset"], len(expected)) == expected


@pytest.mark.parametrize("member", MEMBERS)
def test_self_masks_and_their_shares(member: int) -> None:
    made, context = MASKS["members"][member], unhex(MASKS["context"])
    info = b"folkmoot/v1/self-mask-polynomial\n" + context + struct.pack(">II", member, MASKS["threshold"])
    wide = hkdf(unhex(made["secret"]), info, 64 * MASKS["threshold"])
    polynomial = [int.from_bytes(wide[at : at + 64], "little") % ORDER for at in (0, 64)]
    assert [scalar(one) for one in made["polynomial"]] == polynomial
    for coefficient, point in zip(polynomial, made["commitments"], strict=True):
        assert crypto_scalarmult_ed25519_base_noclamp(coefficient.to_bytes(32, "little")) == unhex(point)
    shares = [scalar(one) for one in made["shares"]]
    assert shares == [(polynomial[0] + polynomial[1] * (other + 1)) % ORDER for other in MEMBERS]
    # Members 1 and 3, at the places 2 and 4: a(0) = 2 a(2) - a(4).
    assert (2 * shares[1] - shares[3]) % ORDER == polynomial[0]
    seed = hkdf(
        unhex(made["polynomial"][0]), b"folkmoot/v1/self-mask\n" + context + struct.pack(">I", member), 16
    )
    assert seed == unhex(made["self_seed"])


# --- sums ---------------------------------------------------------------------------------------------------


def mask_values(seed: bytes, ring: dict[str, Any]) -> list[int]:
    return integers(keystream(seed, 0, ring["values"] * ring["bits"] // 8), ring["bits"])


def masked(ring: dict[str, Any], member: int) -> list[int]:
    return [
        value for data in ring["members"][member]["shards"] for value in integers(unhex(data), ring["bits"])
    ]


def unpacked(ring: dict[str, Any], number: int) -> list[int]:
    """The integer sums of one shard: low bits, then one bit plane after the other."""
    start, stop = ring["edges"][number : number + 2]
    data, count = unhex(ring["sums"][number]), stop - start
    low, planes = data[: count * ring["bits"] // 8], data[count * ring["bits"] // 8 :]
    assert len(planes) == ring["carry_bits"] * count // 8
    values = integers(low, ring["bits"])
    for place in range(ring["carry_bits"] * count):
        bit, at = divmod(place, count)
        values[at] += (planes[place // 8] >> place % 8 & 1) << ring["bits"] + bit
    return values


@any_ring
def test_masks_hide_the_ring_values(ring: dict[str, Any]) -> None:
    for member in MEMBERS:
        total = list(ring["members"][member]["ring_values"])
        masks = [(unhex(MASKS["members"][member]["self_seed"]), 1)]
        masks += [(seed_of(member, peer), 1) for peer in MEMBERS if member < peer]
        masks += [(seed_of(peer, member), -1) for peer in MEMBERS if peer < member]
        for seed, sign in masks:
            total = [value + sign * mask for value, mask in zip(total, mask_values(seed, ring), strict=True)]
        assert masked(ring, member) == [value % 2 ** ring["bits"] for value in total]


@any_ring
def test_packed_sums_are_the_plain_sums_of_what_is_masked(ring: dict[str, Any]) -> None:
    found = [value for number in MEMBERS for value in unpacked(ring, number)]
    columns = zip(*(masked(ring, member) for member in SUMS["survivors"]), strict=True)
    assert found == [sum(column) for column in columns]


@any_ring
def test_fingerprints_are_inner_products_with_the_challenge(ring: dict[str, Any]) -> None:
    roots = b"".join(map(unhex, ring["sum_roots"]))
    about = unhex(SUMS["survivor_set"]) + roots
    seed = hashlib.sha256(b"folkmoot/v1/fingerprint\n" + about).digest()[:16]
    assert seed == unhex(ring["challenge_seed"])
    assert hashlib.sha256(b"folkmoot/v1/masked-sums\n" + about).hexdigest() == ring["sums_digest"]
    for number in MEMBERS:
        start, stop = ring["edges"][number : number + 2]
        count = stop - start
        rows = integers(keystream(seed, 8 * start, 8 * count), 16)
        first = [rows[at] + (rows[count + at] << 16) for at in range(count)]
        second = [rows[2 * count + at] + (rows[3 * count + at] << 16) for at in range(count)]

        def product(values: list[int], first: list[int] = first, second: list[int] = second) -> list[int]:
            return [sum(a * b for a, b in zip(values, row, strict=True)) % PRIME for row in (first, second)]

        assert product(unpacked(ring, number)) == ring["sum_fingerprints"][number]
        for member in ring["members"]:
            values = integers(unhex(member["shards"][number]), ring["bits"])
            assert product(values) == member["fingerprint"][number]


@any_ring
def test_without_its_masks_the_sum_is_the_model(ring: dict[str, Any]) -> None:
    modulus, totals = 2 ** ring["bits"], [value for number in MEMBERS for value in unpacked(ring, number)]
    for mask in ring["masks"]:
        values = mask_values(unhex(mask["seed"]), ring)
        totals = [total - mask["sign"] * value for total, value in zip(totals, values, strict=True)]
    totals = [total % modulus for total in totals]
    plain = [ring["members"][member]["ring_values"] for member in SUMS["survivors"]]
    assert totals == [sum(column) % modulus for column in zip(*plain, strict=True)]
    weight = totals[0] + (16 * totals[1] if ring["bits"] == 8 else 0)
    assert weight == ring["total_weight"] == sum(ring["members"][one]["weight"] for one in SUMS["survivors"])
    exponents = [e for size, e in zip(SUMS["sizes"], SUMS["exponents"], strict=True) for _ in range(size)]
    for at, (exponent, base, model) in enumerate(zip(exponents, SUMS["base"], ring["model"], strict=True)):
        total = totals[64 + at]
        signed = total - modulus if total >= modulus // 2 else total
        mean = single(signed * 255 * 2.0 ** (exponent - ring["value_bits"]) / weight)
        assert bits_of(single(from_bits(base) + mean)) == model


def single(value: float) -> float:
    """Rounded to float32."""
    return float(struct.unpack(">f", struct.pack(">f", value))[0])


def from_bits(text: str) -> float:
    return float(struct.unpack(">f", unhex(text))[0])


def bits_of(value: float) -> str:
    return struct.pack(">f", value).hex()
