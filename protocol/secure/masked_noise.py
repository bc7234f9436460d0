"""Noise inside the masks: every member adds a share, so that nobody ever sees the sum without (2110.04995).

A round is one step. A member's update is -lr / batch times the sum of its sampled rows' gradients, each cut to `clip`
and written as whole numbers of `unit`, so that what one row may move is bounded in whole numbers too: a cut gradient is
`reach` long, and rounded at random, again until it is no longer than `bound`,

    bound^2 = reach^2 + d/4 + reach + sqrt(d)/2       (Kairouz, Liu, Steinke 2021, 2102.06387, with beta = exp(-1/2))

To the sum each member adds Skellam noise. Of a group of m at least k = max(Q, k_min) survive, f of whom may know and
take off their own share: the others', k - f of them, come to the variance (noise * bound)^2. That is what epsilon is
computed for; with all m the noise is sqrt(m / (k - f)) times as large.

The ring has to hold it all: values are cut such that the sum of all m is in one half of its range, and `unit` is a
power of two such that the noise of all m has a deviation of at most 1/64 of that.
"""

import math
from collections.abc import Iterator

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from folkmoot.protocol.charter import Charter, crowd, max_faults, quorum
from folkmoot.protocol.secure.keystream import SEED_SIZE
from folkmoot.protocol.types import Digest, Round

_ROOM = 64
_FINEST = 2.0**12
"""Longest reach: sums of so many whole numbers are exact in float32 for batches of thousands of rows."""

MOST_LOST = 1.25
"""Where rounding makes the bound so many times the reach, the ring is too narrow for the noise."""


class NoisePlan(msgspec.Struct, frozen=True):
    """How a charter's noise lies in the ring."""

    exponent: int
    """Scale of every tensor, fixed: an update's own would speak of rows."""
    unit: float
    """One whole number of the ring, as a value of an update."""
    reach: float
    bound: float
    limit: int
    """No value of a member's sum is larger."""
    honest: int
    """k - f, whose noise is counted on."""
    deviation: float
    """Of each member's share, in whole numbers."""

    @property
    def lost(self) -> float:
        """By what part rounding makes the noise larger."""
        return self.bound / self.reach - 1


def plan_noise(charter: Charter) -> NoisePlan | None:
    """The same for every member; None unless the charter has its noise in the masks."""
    privacy, training = charter.privacy, charter.training
    if privacy.mechanism != "secure" or not float(privacy.noise):
        return None
    members, values, noise = len(charter.members), charter.model.shared_values, float(privacy.noise)
    bits = charter.secrecy.ring - 1 - (members - 1).bit_length()
    honest = min(honest_survivors(size, charter.secrecy.k_min) for size in charter.group_sizes)
    widest = 2.0 ** (charter.secrecy.ring - 1) / (
        _ROOM * noise * math.sqrt(max(charter.group_sizes) / honest)
    )
    length = float(training.lr) * float(privacy.clip) / training.batch
    power = math.frexp(length / min(widest, _FINEST))[1]  # the least with unit >= length / widest
    unit = 2.0**power
    reach = length / unit
    bound = math.sqrt(reach**2 + values / 4 + reach + math.sqrt(values) / 2)
    return NoisePlan(
        exponent=bits + power,
        unit=unit,
        reach=reach,
        bound=bound,
        limit=(1 << (bits - 1)) - 1,
        honest=honest,
        deviation=noise * bound / math.sqrt(honest),
    )


def honest_survivors(members: int, k_min: int) -> int:
    """Of a group of so many, how many survivors at least do not collude."""
    return max(quorum(members), crowd(members, k_min)) - max_faults(members)


def exponent_bounds(charter: Charter) -> tuple[int, int]:
    """Within which the exponents of a READY lie."""
    plan = plan_noise(charter)
    if plan is None:
        return charter.averaging.exponent_min, charter.averaging.exponent_max
    return plan.exponent, plan.exponent


def wrong_noise(charter: Charter) -> Iterator[str]:
    """Why noise in the masks cannot be had so, in words."""
    if charter.privacy.mechanism != "secure" or not charter.is_secure:
        return
    plan = plan_noise(charter)
    ring, noise = charter.secrecy.ring, charter.privacy.noise
    if plan is None:
        yield "privacy.noise = 0: in the masks all members' noise is one, so the charter must say how much"
    elif plan.bound > MOST_LOST * plan.reach:
        remedy = "set it to 32, or take less noise" if ring < 32 else "take less noise, or a smaller model"
        yield (
            f"secrecy.ring = {ring} has too little room for noise of {noise}: rounding alone would add "
            f"{plan.lost:.0%} to it: {remedy}"
        )
    elif not -126 <= plan.exponent <= 127:
        yield (
            f"privacy.clip = {charter.privacy.clip} at training.lr = {charter.training.lr} is beyond the ring's scales"
        )


def describe_noise(charter: Charter) -> Iterator[str]:
    """How the noise in the masks is meant, one sentence each."""
    plan = plan_noise(charter)
    if plan is None:
        return
    smallest, largest = min(charter.group_sizes), max(charter.group_sizes)
    yield (
        f"epsilon holds if {plan.honest} of a group's survivors, of whom there are at least "
        f"{plan.honest + max_faults(smallest)}, do not tell their noise; of all {largest} there is "
        f"{math.sqrt(largest / plan.honest):.2f} times as much"
    )
    yield f"in a ring of {charter.secrecy.ring} bits rounding adds {plan.lost:.1%} to the noise; it costs no bytes"


def noise_seed(secret: bytes, federation: Digest, round_: Round, update: Digest) -> bytes:
    """The seed of a member's share, from its mask secret of the epoch and the SHA-256 of its update.

    However often an update is encoded, it gets the same noise: two sums of it with other noise would tell more.
    """
    info = b"folkmoot/v1/noise\n" + federation + round_.to_bytes(8, "big") + update
    return HKDF(algorithm=SHA256(), length=SEED_SIZE, salt=None, info=info).derive(secret)
