"""Example values of secure mode for the specification: every derivation and encoding once, from fixed inputs."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from folkmoot.protocol.blob import ref_of
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.messages import encode
from folkmoot.protocol.ring import Float32s
from folkmoot.protocol.secure.encoding import RingDecoder, RingEncoder, member_weight
from folkmoot.protocol.secure.fingerprint import Challenge, challenge_seed
from folkmoot.protocol.secure.gathering import encode_values, sums_digest
from folkmoot.protocol.secure.keystream import Keystream
from folkmoot.protocol.secure.layout import BLOCK, ShardLayout
from folkmoot.protocol.secure.masks import (
    MaskContext,
    pair_mask,
    pair_seed,
    public_key,
    seed_commitment,
    self_mask,
    self_polynomial,
    self_seed,
)
from folkmoot.protocol.secure.permit import Answer, Permit, seal_answer
from folkmoot.protocol.secure.sharing import commit, share
from folkmoot.protocol.secure.stream import masked_shards, sum_shard

Sample = tuple[str, bytes | str]
"""Name, and bytes (shown in hex) or text."""

SECRETS = (b"\x01" * 32, b"\x02" * 32)
THRESHOLD = 2
SIZES = (70, 30)
UPDATE = (0.5, -0.25, 1.0, 0.001)
EXAMPLES, CAP = 150, 200
SHOWN = 32
"""Bytes that are shown of a longer stream."""


def sample_masks(federation: bytes, roster: bytes) -> Iterator[tuple[str, list[Sample]]]:
    """Groups of samples, each under its heading."""
    context = MaskContext(federation, 0, 1, roster, 0)
    seed = pair_seed(context, SECRETS[0], 0, 1, public_key(SECRETS[1]))
    yield "masks", list(_masks(context, seed))
    yield "self-mask", list(_self_mask(context))
    yield "layout and encoding", list(_encoding(context, seed))
    yield "permit", list(_permit(federation, roster, seed))


def _masks(context: MaskContext, seed: bytes) -> Iterator[Sample]:
    yield "mask context", context.encoded
    for member, secret in enumerate(SECRETS):
        yield f"epoch secret of member {member}", secret
        yield f"mask key of member {member}", public_key(secret)
    yield "pair seed of members 0 and 1", seed
    yield "what both commit to", seed_commitment(context, 0, 1, seed)
    stream = bytearray(SHOWN)
    Keystream(seed).write(0, memoryview(stream))
    yield "its stream, first bytes", bytes(stream)


def _self_mask(context: MaskContext) -> Iterator[Sample]:
    polynomial = self_polynomial(context, SECRETS[0], 0, THRESHOLD)
    for place, (scalar, point) in enumerate(zip(polynomial, commit(polynomial), strict=True)):
        yield f"coefficient {place} of member 0", scalar
        yield "its Feldman commitment", point
    for member in (0, 1):
        yield f"share of member {member}", share(polynomial, member + 1)
    yield "self-mask seed of member 0", self_seed(context, 0, polynomial[0])


def _encoding(context: MaskContext, seed: bytes) -> Iterator[Sample]:
    layout, weight = ShardLayout(sum(SIZES), 16, 4, 4), member_weight(EXAMPLES, CAP)
    yield "parameters, ring, members, shards", f"{layout.parameters}, {layout.bits} bits, 4, {layout.shards}"
    yield "values, h, v", f"{layout.size}, {layout.carry_bits}, {layout.value_bits}"
    yield "edges of the shards", ", ".join(str(layout.edge(shard)) for shard in range(5))
    yield f"weight of {EXAMPLES} examples, cap {CAP}", str(weight)
    yield "update, then zeros (scale exponents 0)", ", ".join(map(str, UPDATE))
    plain = np.zeros(BLOCK, dtype=layout.dtype)
    encoder = RingEncoder(layout, SIZES, bytes(len(SIZES)), weight)
    encoder.encode(np.array(UPDATE, dtype=np.float32), 0, plain[: len(UPDATE)])
    signed = plain[: len(UPDATE)].view("<i2")
    yield "as ring values", ", ".join(map(str, signed.tolist()))
    mean = np.empty(len(UPDATE), dtype=np.float32)
    RingDecoder(layout, SIZES, bytes(len(SIZES))).mean(plain[: len(UPDATE)], weight, 0, mean)
    yield "read back under its own weight", ", ".join(f"{value:.9g}" for value in mean.tolist())
    secret = self_polynomial(context, SECRETS[0], 0, THRESHOLD)[0]
    masks = [self_mask(self_seed(context, 0, secret)), pair_mask(seed, 0, 1)]
    shards = [b""] * layout.shards
    for shard, piece in masked_shards(layout, encoder, [_padded(UPDATE)], masks):
        shards[shard] += piece
    yield "masked weight block (shard 1), first bytes", shards[1][:SHOWN]
    yield "masked parameters (shard 2), first bytes", shards[2][:SHOWN]
    yield from _sums(layout, shards)


def _padded(values: tuple[float, ...]) -> Float32s:
    return np.array([*values, *[0.0] * (sum(SIZES) - len(values))], dtype=np.float32)


def _sums(layout: ShardLayout, shards: list[bytes]) -> Iterator[Sample]:
    """The sums of three members that sent the same."""
    sums = [
        b"".join(map(bytes, sum_shard(layout, shard, [partial(list, [data])] * 3)))
        for shard, data in enumerate(shards)
    ]
    low = layout.shard_bytes(2)
    yield "three times shard 2: low bits, first bytes", sums[2][:SHOWN]
    yield "its bit planes 16 and 17", sums[2][low:]
    roots = tuple(ref_of(data).root for data in sums)
    survivors = b"\x33" * 32
    yield "survivor set digest", survivors
    yield "sums digest", sums_digest(survivors, roots)
    challenge_of = challenge_seed(survivors, roots)
    yield "challenge seed", challenge_of
    challenge = Challenge(layout, challenge_of)
    value = challenge.of_shard(2, partial(list, [shards[2]]))
    yield "fingerprint of shard 2", f"{value[0]}, {value[1]}"
    yield "on the wire", encode_values((value,))
    total = challenge.of_sum(2, partial(list, [sums[2]]))
    yield "fingerprint of the sum, three times that", f"{total[0]}, {total[1]}"


def _permit(federation: bytes, roster: bytes, seed: bytes) -> Iterator[Sample]:
    key = public_key(digest("folkmoot/v1/testnet", b"auditor"))
    permit = Permit(
        federation=federation.hex(),
        round=1,
        roster=roster.hex(),
        auditor=key.hex(),
        members=("bob",),
        reason="its updates grow",
    )
    answer = Answer(permit.digest, 0, ((1, seed),))
    yield "auditor's key", key
    yield "members, reason", f"{', '.join(permit.members)}; {permit.reason}"
    yield "permit digest", permit.digest
    yield "answer of member 0", encode(answer)
    yield "sealed", seal_answer(answer, permit)
