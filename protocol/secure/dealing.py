"""Secure mode: what a commitment says of shares and pair seeds, and whether what is released later fits it."""

from collections.abc import Iterable, Mapping, Sequence

from folkmoot.protocol.charter import Charter
from folkmoot.protocol.errors import Reject
from folkmoot.protocol.merkle import leaf_hash, root
from folkmoot.protocol.messages import Commitment, Seeds, Shares, SurvivorSet
from folkmoot.protocol.secure.circles import Circles
from folkmoot.protocol.secure.layout import ShardLayout
from folkmoot.protocol.secure.masks import Crowd, Mask, pair_mask, seed_commitment, self_mask, self_seed
from folkmoot.protocol.secure.sharing import reconstruct, verify_commitments, verify_share
from folkmoot.protocol.types import DIGEST_SIZE, Digest, MemberId

NO_KEY = bytes(DIGEST_SIZE)
"""Stands where open mode has a content key's hash, and where a member would have a pair seed with itself."""


def shard_layout(charter: Charter) -> ShardLayout:
    """How this federation's masked vectors lie: one shard for each member."""
    shards = len(charter.members)
    return ShardLayout(charter.update_values, charter.secrecy.ring, charter.most_summed, shards)


def shards_root(shards: Sequence[Digest]) -> Digest:
    """RFC 6962 root over the blob roots of a member's masked shards."""
    return root([leaf_hash(shard) for shard in shards])


def verify_masked_commitment(commitment: Commitment, circles: Circles) -> None:
    """Check what a roster member's commitment to a masked vector says of itself; raises `Reject`."""
    layout = shard_layout(circles.federation.charter)
    # [REJECT] One root for each shard, under the root over all, of the one size that they have, and no content key
    if len(commitment.shards) != layout.shards or commitment.root != shards_root(commitment.shards):
        raise Reject("commitment to masked shards that its root does not cover")
    if commitment.size != layout.size * layout.value_bytes or commitment.key != NO_KEY:
        raise Reject(f"commitment to a masked vector of {commitment.size} bytes, or with a content key")
    # [REJECT] As many Feldman commitments as shares open the self-mask, each a point of the group
    if not verify_commitments(commitment.shares, circles.group(commitment.member).threshold):
        raise Reject("commitment without good Feldman commitments")
    # [REJECT] One pair seed for each member of its circle, none for itself
    circle = circles.circle(commitment.member)
    place = circle.index(commitment.member)
    if len(commitment.seeds) != len(circle) or commitment.seeds[place] != NO_KEY:
        raise Reject("commitment does not bind one pair seed for each roster member of its group")


def is_good_share(commitment: Commitment, recipient: MemberId, value: bytes) -> bool:
    """Whether it lies on the polynomial that was committed to. Shares are the values at member + 1."""
    return verify_share(commitment.shares, recipient + 1, value)


def disagree(circles: Circles, commitments: Sequence[Commitment]) -> set[tuple[MemberId, MemberId]]:
    """Pairs of members (both ways) that committed to different pair seeds: their masks would not cancel."""
    seeds = {
        (one.member, peer): seed
        for one in commitments
        for peer, seed in zip(circles.circle(one.member), one.seeds, strict=True)
        if peer != one.member
    }
    return {(one, peer) for (one, peer), seed in seeds.items() if seeds.get((peer, one), seed) != seed}


def bound_seed(circles: Circles, commitment: Commitment, peer: MemberId) -> Digest:
    """What a member committed to as its seed with a peer of its circle."""
    return commitment.seeds[circles.circle(commitment.member).index(peer)]


def verify_seeds(seeds: Seeds, circles: Circles, commitment: Commitment, survivors: SurvivorSet) -> None:
    """Check the pair seeds that a survivor released against its own commitment; raises `Reject`."""
    # [REJECT] It names exactly the members of its circle left out
    if tuple(member for member, _ in seeds.seeds) != circles.left_out(seeds.member, survivors):
        raise Reject("seeds of other members than those left out")
    # [REJECT] Each seed is the one committed to
    for member, seed in seeds.seeds:
        low, high = sorted((member, seeds.member))
        bound = bound_seed(circles, commitment, member)
        if seed_commitment(circles.context(member), low, high, seed) != bound:
            raise Reject(
                f"pair seed of members {low} and {high} is not the one that {seeds.member} committed to"
            )


def verify_shares(shares: Shares, circles: Circles, commitments: Mapping[MemberId, Commitment]) -> None:
    """Check released shares of survivors' self-masks against the survivors' commitments; raises `Reject`."""
    members = [member for member, _ in shares.shares]
    # [REJECT] Shares of survivors, each once, ascending
    if members != sorted(set(members)) or not set(members) <= set(commitments):
        raise Reject("shares are not of distinct survivors in ascending order")
    # [REJECT] Who releases them is in the circle of those that dealt them
    if not set(members) <= set(circles.circle(shares.member)):
        raise Reject("shares of members of another group")
    # [REJECT] Each lies on its dealer's polynomial
    for member, value in shares.shares:
        if not is_good_share(commitments[member], shares.member, value):
            raise Reject(f"share of member {member}'s self-mask does not fit its commitment")


def compute_masks(
    circles: Circles, shares: Mapping[MemberId, Mapping[int, bytes]], seeds: Iterable[Seeds]
) -> tuple[Mask, ...]:
    """Every mask that is left in a sum: the survivors' self-masks, and theirs towards those left out.

    `shares` holds, for each survivor, verified shares by their place on its polynomial, as many as open it or more;
    any of them give the same secret.
    """
    own = [recovered_mask(circles, member, of) for member, of in sorted(shares.items())]
    towards = [
        pair_mask(seed, released.member, member) for released in seeds for member, seed in released.seeds
    ]
    return (*own, *towards)


def open_crowds(
    circles: Circles,
    survivors: SurvivorSet,
    shares: Mapping[MemberId, Mapping[int, bytes]],
    seeds: Iterable[Seeds],
) -> tuple[Crowd, ...]:
    """Of all who are summed together (`Circles.crowds`) the masks that are left in their sum."""
    released = list(seeds)
    return tuple(
        Crowd(
            len(crowd),
            compute_masks(
                circles,
                {member: shares[member] for member in crowd},
                [one for one in released if one.member in crowd],
            ),
        )
        for crowd in circles.crowds(survivors)
    )


def recovered_mask(circles: Circles, member: MemberId, shares: Mapping[int, bytes]) -> Mask:
    """A member's self-mask from enough shares of it, by their place on its polynomial."""
    chosen = dict(sorted(shares.items())[: circles.group(member).threshold])
    return self_mask(self_seed(circles.context(member), member, reconstruct(chosen)))
