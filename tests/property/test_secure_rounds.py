"""Whole rounds of secure mode without a network: what comes out is the plain sum, bit for bit."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial

import numpy as np
import pytest

from folkmoot.protocol.outer import Outer, in_memory
from folkmoot.protocol.secure import masks, sharing
from folkmoot.protocol.secure.encoding import RingDecoder, RingEncoder, member_weight
from folkmoot.protocol.secure.fingerprint import PRIME, Challenge, Fingerprint, challenge_seed, verify
from folkmoot.protocol.secure.keystream import Keystream
from folkmoot.protocol.secure.layout import ShardLayout
from folkmoot.protocol.secure.masks import Crowd, Mask, MaskContext, pair_mask, self_mask
from folkmoot.protocol.secure.stream import Opening, masked_shards, open_sum, sum_shard

CASES = 200
CAP = 500


@dataclass
class Group:
    """A drawn group: who is there, who drops out after masking, and what everybody learnt."""

    layout: ShardLayout
    sizes: list[int]
    exponents: list[int]
    survivors: list[int]
    weights: list[int]
    updates: list[np.ndarray]
    context: MaskContext
    secrets: list[bytes]
    threshold: int

    @property
    def everybody(self) -> range:
        return range(self.layout.members)

    @cached_property
    def publics(self) -> list[bytes]:
        return [masks.public_key(secret) for secret in self.secrets]

    def pair(self, me: int, peer: int) -> Mask:
        seed = masks.pair_seed(self.context, self.secrets[me], me, peer, self.publics[peer])
        return pair_mask(seed, me, peer)

    def polynomial(self, member: int) -> tuple[bytes, ...]:
        return masks.self_polynomial(self.context, self.secrets[member], member, self.threshold)

    def own_masks(self, member: int) -> list[Mask]:
        seed = masks.self_seed(self.context, member, self.polynomial(member)[0])
        return [self_mask(seed), *(self.pair(member, peer) for peer in self.everybody if peer != member)]

    def encoder(self, member: int) -> RingEncoder:
        return RingEncoder(self.layout, self.sizes, self.exponents, self.weights[member])

    def opening_masks(self, random: np.random.Generator) -> list[Mask]:
        """As every member finds them: survivors' from shares, dropped members' from released pair seeds."""
        found = []
        for member in self.survivors:
            polynomial = self.polynomial(member)
            commitments = sharing.commit(polynomial)
            holders = random.choice(self.survivors, self.threshold, replace=False)
            shares = {int(holder) + 1: sharing.share(polynomial, int(holder) + 1) for holder in holders}
            secret = sharing.reconstruct(shares)
            assert sharing.verify_secret(commitments, secret)
            found.append(self_mask(masks.self_seed(self.context, member, secret)))
        dropped = [member for member in self.everybody if member not in self.survivors]
        return found + [self.pair(member, gone) for member in self.survivors for gone in dropped]


def draw(random: np.random.Generator) -> Group:
    members = int(random.integers(3, 17))
    sizes = [int(size) for size in random.integers(1, random.choice([4, 90, 700]), random.integers(1, 5))]
    shards = int(random.integers(1, members + 1))
    layout = ShardLayout(sum(sizes), int(random.choice([8, 16, 32])), members, shards)
    exponents = [int(exponent) for exponent in random.integers(-126, 128, len(sizes))]
    scales = np.repeat(2.0 ** np.array(exponents), sizes)
    bound = (members - 1) // 3
    dropped = int(random.integers(0, bound + 1))
    return Group(
        layout=layout,
        sizes=sizes,
        exponents=exponents,
        survivors=sorted(int(member) for member in random.permutation(members)[dropped:]),
        weights=[member_weight(int(examples), CAP) for examples in random.integers(1, 2 * CAP, members)],
        # A little beyond the scale, so that some values are clipped.
        updates=[
            (random.uniform(-1.1, 1.1, layout.parameters) * scales).astype("<f4") for _ in range(members)
        ],
        context=MaskContext(random.bytes(32), 3, 14, random.bytes(32), 1),
        secrets=[random.bytes(32) for _ in range(members)],
        threshold=(members + bound) // 2 + 1 - bound,
    )


def joined_shards(group: Group, member: int) -> list[bytes]:
    """What a member sends to each owner."""
    shards = [b""] * group.layout.shards
    pieces = np.array_split(group.updates[member], 3)
    for shard, chunk in masked_shards(group.layout, group.encoder(member), pieces, group.own_masks(member)):
        shards[shard] += chunk
    assert [len(shard) for shard in shards] == [
        group.layout.shard_bytes(index) for index in range(group.layout.shards)
    ]
    return shards


def plain_integers(group: Group, member: int) -> np.ndarray:
    """The member's integers without any of the machinery under test but the encoder."""
    out = np.empty(group.layout.parameters, group.layout.dtype)
    group.encoder(member).encode(group.updates[member], 0, out)
    return out.view(f"<i{out.itemsize}").astype(np.int64)


def exact_mean(group: Group, total: np.ndarray, weight: int) -> np.ndarray:
    exponents = np.repeat(group.exponents, group.sizes)
    found = []
    for value, exponent in zip(total.tolist(), exponents.tolist(), strict=True):
        quotient = Fraction(value * 255, weight) * Fraction(2) ** (exponent - group.layout.value_bits)
        found.append(quotient.numerator / quotient.denominator)
    return np.array(found).astype(np.float32)


def check_fingerprints(group: Group, sent: dict[int, list[bytes]], sums: list[bytes]) -> None:
    seed = challenge_seed(b"V" * 32, [bytes([len(data) % 256]) * 32 for data in sums])
    challenge = Challenge(group.layout, seed)
    for shard, data in enumerate(sums):
        shards = [sent[member][shard] for member in group.survivors]
        sources = [partial(list, [values]) for values in shards]
        values, total = challenge.of_shards_and_sum(shard, sources, partial(list, [data]))
        assert verify(values, total)
        assert values == [challenge.of_shard(shard, source) for source in sources]
        assert total == challenge.of_sum(shard, partial(list, [data]))
        assert values == [exact_fingerprint(group.layout, seed, shard, values) for values in shards]


def exact_fingerprint(layout: ShardLayout, seed: bytes, shard: int, data: bytes) -> Fingerprint:
    """The definition in Python integers; a shard here has one piece only."""
    start, stop = layout.span(shard)
    octets = bytearray(8 * (stop - start))
    Keystream(seed).write(8 * start, memoryview(octets))
    rows = np.frombuffer(octets, "<u2").reshape(4, -1).astype(object)
    values = np.frombuffer(data, layout.dtype).astype(object)
    first, second = rows[0] + 65536 * rows[1], rows[2] + 65536 * rows[3]
    return int((first * values).sum()) % PRIME, int((second * values).sum()) % PRIME


@pytest.mark.parametrize("batch", range(8))
def test_opened_sum_is_the_plain_integer_sum(batch: int) -> None:
    for case in range(CASES // 8):
        random = np.random.default_rng([batch, case])
        group = draw(random)
        layout, survivors = group.layout, group.survivors
        sent = {member: joined_shards(group, member) for member in survivors}
        sums = []
        for shard in range(layout.shards):
            sources = [partial(list, [sent[member][shard]]) for member in survivors]
            sums.append(b"".join(map(bytes, sum_shard(layout, shard, sources))))
            assert len(sums[-1]) == layout.sum_bytes(shard)
        check_fingerprints(group, sent, sums)

        stripped: list[np.ndarray] = []
        decoder = Recorder(layout, group.sizes, group.exponents, stripped)
        base = random.standard_normal(layout.parameters).astype("<f4")
        opens, outer = [partial(list, [data]) for data in sums], Outer(layout.parameters)
        opening = Opening(layout, decoder, opens, [Crowd(len(survivors), tuple(group.opening_masks(random)))])
        opened = open_sum(opening, outer, in_memory(outer, base))
        expected = sum(plain_integers(group, member) for member in survivors)
        assert np.array_equal(np.concatenate(stripped), expected)
        weight = sum(group.weights[member] for member in survivors)
        assert opened.total_weight == weight and opened.changed
        assert np.array_equal(opened.model, base + exact_mean(group, expected, weight))


class Recorder(RingDecoder):
    """Also keeps the integers that it is given."""

    def __init__(
        self, layout: ShardLayout, sizes: list[int], exponents: list[int], kept: list[np.ndarray]
    ) -> None:
        super().__init__(layout, sizes, exponents)
        self._kept = kept

    def mean(self, values: np.ndarray, total_weight: int, start_parameter: int, out: np.ndarray) -> None:
        self._kept.append(values.view(f"<i{values.itemsize}").astype(np.int64))
        super().mean(values, total_weight, start_parameter, out)


@pytest.mark.parametrize("bits", [8, 16])
def test_without_the_masks_a_sum_is_noise(bits: int) -> None:
    """Chi-square of the bytes of one member's shards, and of a sum whose self masks were not taken off."""
    layout = ShardLayout(60_000, bits, 4, 2)
    group = Group(
        layout, [60_000], [0], [0, 1, 2, 3], [255] * 4, [np.zeros(60_000, "<f4")] * 4,
        MaskContext(b"f" * 32, 1, 1, b"r" * 32, 0), [bytes([member]) * 32 for member in range(4)], 2,
    )  # fmt: skip
    sent = [joined_shards(group, member) for member in range(4)]
    sums = [
        b"".join(map(bytes, sum_shard(layout, shard, [partial(list, [shards[shard]]) for shards in sent])))
        for shard in (0, 1)
    ]
    low = [data[: layout.shard_bytes(shard)] for shard, data in enumerate(sums)]
    for data in (*(b"".join(shards) for shards in sent), b"".join(low)):
        counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
        expected = counts.sum() / 256
        statistic = float(((counts - expected) ** 2 / expected).sum())
        # 255 degrees of freedom: mean 255, deviation 22.6; beyond these bounds once in a million draws.
        assert 160 < statistic < 375
