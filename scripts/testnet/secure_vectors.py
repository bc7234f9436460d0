"""Test vectors of secure mode: every derivation from fixed inputs, and one whole sum on each ring.

Four members, of which the last was left out after it had committed, as in a round from which a member dropped out:
so every kind of mask is taken off.
"""

from functools import partial

import numpy as np

from folkmoot.protocol.blob import ref_of
from folkmoot.protocol.outer import Outer, in_memory
from folkmoot.protocol.ring import Float32s
from folkmoot.protocol.secure.encoding import RingDecoder, RingEncoder, member_weight
from folkmoot.protocol.secure.fingerprint import Challenge, challenge_seed
from folkmoot.protocol.secure.gathering import encode_values, sums_digest
from folkmoot.protocol.secure.keystream import Keystream
from folkmoot.protocol.secure.layout import BLOCK, RING_BITS, ShardLayout
from folkmoot.protocol.secure.masks import (
    Crowd,
    Mask,
    MaskContext,
    pair_mask,
    pair_seed,
    public_key,
    seed_commitment,
    self_mask,
    self_polynomial,
    self_seed,
)
from folkmoot.protocol.secure.sharing import commit, reconstruct, share
from folkmoot.protocol.secure.stream import Opening, masked_shards, open_sum, sum_shard

MEMBERS = range(4)
SURVIVORS = (0, 1, 2)
THRESHOLD = 2
SECRETS = tuple(bytes([member + 1]) * 32 for member in MEMBERS)
CONTEXT = MaskContext(b"\xfe" * 32, 0, 1, b"\x06" * 32, 0)
SURVIVOR_SET = b"\x33" * 32
SIZES, EXPONENTS = (70, 30), bytes([0, 0xFD])  # exponents 0 and -3
EXAMPLES, CAP = (150, 200, 1, 70), 200
OFFSETS = (0, 16, 100_003)
"""Where keystreams are shown: at their start, a block on, and in the middle of a block far away."""


# --- derivations --------------------------------------------------------------------------------------------


def mask_vectors() -> dict[str, object]:
    """Keys, pair seeds and what binds them, keystreams, self-mask polynomials, their shares and commitments."""
    return {
        "federation": CONTEXT.federation.hex(),
        "epoch": CONTEXT.epoch,
        "round": CONTEXT.round,
        "roster": CONTEXT.roster.hex(),
        "group": CONTEXT.group,
        "context": CONTEXT.encoded.hex(),
        "threshold": THRESHOLD,
        "members": [
            {
                "secret": SECRETS[member].hex(),
                "mask_key": public_key(SECRETS[member]).hex(),
                "polynomial": [scalar.hex() for scalar in _polynomial(member)],
                "commitments": [point.hex() for point in commit(_polynomial(member))],
                "shares": [share(_polynomial(member), other + 1).hex() for other in MEMBERS],
                "self_seed": self_seed(CONTEXT, member, _polynomial(member)[0]).hex(),
            }
            for member in MEMBERS
        ],
        "pairs": [
            {
                "members": [low, high],
                "seed": _pair_seed(low, high).hex(),
                "commitment": seed_commitment(CONTEXT, low, high, _pair_seed(low, high)).hex(),
            }
            for low in MEMBERS
            for high in MEMBERS
            if low < high
        ],
        "keystream": {
            "seed": _pair_seed(0, 1).hex(),
            "pieces": [{"offset": at, "bytes": _keystream(at).hex()} for at in OFFSETS],
        },
    }


def _polynomial(member: int) -> tuple[bytes, ...]:
    return self_polynomial(CONTEXT, SECRETS[member], member, THRESHOLD)


def _pair_seed(me: int, peer: int) -> bytes:
    return pair_seed(CONTEXT, SECRETS[me], me, peer, public_key(SECRETS[peer]))


def _keystream(offset: int) -> bytes:
    out = bytearray(40)
    Keystream(_pair_seed(0, 1)).write(offset, memoryview(out))
    return bytes(out)


# --- a sum --------------------------------------------------------------------------------------------------


def sum_vectors() -> dict[str, object]:
    """On every ring: encoded and masked updates, packed sums, their fingerprints, and the model they open to."""
    base = np.linspace(-1, 1, sum(SIZES), dtype=np.float32)
    return {
        "sizes": list(SIZES),
        "exponents": np.frombuffer(EXPONENTS, dtype=np.int8).tolist(),
        "survivors": list(SURVIVORS),
        "survivor_set": SURVIVOR_SET.hex(),
        "weight_cap": CAP,
        "base": _bits(base),
        "updates": [_bits(_update(member)) for member in MEMBERS],
        "rings": [_on_ring(bits, base) for bits in RING_BITS],
    }


def _update(member: int) -> Float32s:
    """Some that are clipped, ties, and values that only error feedback carries."""
    values = np.sin(np.arange(1, sum(SIZES) + 1, dtype=np.float64) * (member + 1)) / (member + 1)
    values[:4] = (2.0, -2.0, 2.0**-16, -(2.0**-16))
    return values.astype(np.float32)


def _on_ring(bits: int, base: Float32s) -> dict[str, object]:
    layout = ShardLayout(sum(SIZES), bits, len(MEMBERS), len(MEMBERS))
    members = [_encoded(layout, member) for member in MEMBERS]
    shards = [_masked(layout, member) for member in MEMBERS]
    sums = [
        b"".join(
            map(bytes, sum_shard(layout, number, [_source(shards[member][number]) for member in SURVIVORS]))
        )
        for number in range(layout.shards)
    ]
    roots = tuple(ref_of(data).root for data in sums)
    challenge = Challenge(layout, challenge_seed(SURVIVOR_SET, roots))
    for member, made in zip(MEMBERS, members, strict=True):
        values = tuple(
            challenge.of_shard(number, _source(data)) for number, data in enumerate(shards[member])
        )
        made["shards"] = [data.hex() for data in shards[member]]
        made["roots"] = [ref_of(data).root.hex() for data in shards[member]]
        made["fingerprint"] = [list(value) for value in values]
        made["fingerprint_bytes"] = encode_values(values).hex()
    return {
        "bits": bits,
        "values": layout.size,
        "value_bits": layout.value_bits,
        "carry_bits": layout.carry_bits,
        "edges": [layout.edge(number) for number in range(layout.shards + 1)],
        "members": members,
        "sums": [data.hex() for data in sums],
        "sum_roots": [root.hex() for root in roots],
        "sums_digest": sums_digest(SURVIVOR_SET, roots).hex(),
        "challenge_seed": challenge_seed(SURVIVOR_SET, roots).hex(),
        "sum_fingerprints": [
            list(challenge.of_sum(number, _source(data))) for number, data in enumerate(sums)
        ],
        **_opened(layout, sums, base),
    }


def _source(data: bytes):  # type: ignore[no-untyped-def]
    return partial(list, [data])


def _encoder(layout: ShardLayout, member: int) -> RingEncoder:
    return RingEncoder(layout, SIZES, EXPONENTS, member_weight(EXAMPLES[member], CAP))


def _encoded(layout: ShardLayout, member: int) -> dict[str, object]:
    values, residual = np.zeros(layout.size, dtype=layout.dtype), np.zeros(sum(SIZES), dtype=np.float32)
    encoder = _encoder(layout, member)
    encoder.encode_weight(values[:BLOCK])
    encoder.encode(_update(member), 0, values[BLOCK : BLOCK + sum(SIZES)], residual)
    return {
        "examples": EXAMPLES[member],
        "weight": member_weight(EXAMPLES[member], CAP),
        "ring_values": values.tolist(),
        "residual": _bits(residual),
    }


def _masked(layout: ShardLayout, member: int) -> list[bytes]:
    others = (pair_mask(_pair_seed(member, peer), member, peer) for peer in MEMBERS if peer != member)
    masks = [self_mask(self_seed(CONTEXT, member, _polynomial(member)[0])), *others]
    shards = [b""] * layout.shards
    for number, piece in masked_shards(layout, _encoder(layout, member), [_update(member)], masks):
        shards[number] += piece
    return shards


def _opened(layout: ShardLayout, sums: list[bytes], base: Float32s) -> dict[str, object]:
    """The masks of survivors from the first shares, those towards who was left out from the survivors' seeds."""
    dropped = [member for member in MEMBERS if member not in SURVIVORS]
    masks: list[Mask] = []
    for member in SURVIVORS:
        held = {other + 1: share(_polynomial(member), other + 1) for other in SURVIVORS[:THRESHOLD]}
        masks.append(self_mask(self_seed(CONTEXT, member, reconstruct(held))))
        masks += [pair_mask(_pair_seed(member, peer), member, peer) for peer in dropped]
    decoder, outer = RingDecoder(layout, SIZES, EXPONENTS), Outer(layout.parameters)
    opening = Opening(
        layout, decoder, [_source(data) for data in sums], [Crowd(len(SURVIVORS), tuple(masks))]
    )
    opened = open_sum(opening, outer, in_memory(outer, base))
    return {
        "masks": [{"seed": mask.seed.hex(), "sign": mask.sign} for mask in masks],
        "total_weight": opened.total_weight,
        "model": _bits(opened.model),
    }


def _bits(values: Float32s) -> list[str]:
    return [f"{int(bits):08x}" for bits in values.view(np.uint32)]
