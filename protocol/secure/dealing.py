"""Secure mode: what a commitment says of shares and pair seeds, and whether what is released later fits it."""

from collections.abc import Iterable, Mapping, Sequence

from folkmoot.protocol.charter import Charter
from folkmoot.protocol.errors import Reject
from folkmoot.protocol.merkle import leaf_hash, root
from folkmoot.protocol.messages import Commitment, Roster, Seeds, Shares, SurvivorSet
from folkmoot.protocol.secure.layout import ShardLayout
from folkmoot.protocol.secure.masks import Mask, MaskContext, pair_mask, seed_commitment, self_seed
from folkmoot.protocol.secure.sharing import reconstruct, verify_commitments, verify_share
from folkmoot.protocol.types import DIGEST_SIZE, Digest, MemberId, Round

NO_KEY = bytes(DIGEST_SIZE)
"""Stands where open mode has a content key's hash, and where a member would have a pair seed with itself."""


def mask_context(federation: Digest, charter: Charter, roster: Digest, round_: Round) -> MaskContext:
    """What this roster's masks derive from; a re-encoded update has another roster, and never meets the same mask."""
    return MaskContext(federation, charter.epoch_of(round_), round_, roster, 0)


def shard_layout(charter: Charter) -> ShardLayout:
    """How this federation's masked vectors lie: one shard for each member."""
    members = len(charter.members)
    return ShardLayout(charter.model.parameters, charter.secrecy.ring, members, members)


def shards_root(shards: Sequence[Digest]) -> Digest:
    """RFC 6962 root over the blob roots of a member's masked shards."""
    return root([leaf_hash(shard) for shard in shards])


def verify_masked_commitment(commitment: Commitment, members: Sequence[MemberId], charter: Charter) -> None:
    """Check what a commitment to a masked vector says of itself; raises `Reject`."""
    layout = shard_layout(charter)
    # [REJECT] One root for each shard, under the root over all, of the one size that they have, and no content key
    if len(commitment.shards) != layout.shards or commitment.root != shards_root(commitment.shards):
        raise Reject("commitment to masked shards that its root does not cover")
    size = sum(map(layout.shard_bytes, range(layout.shards)))
    if commitment.size != size or commitment.key != NO_KEY:
        raise Reject(f"commitment to a masked vector of {commitment.size} bytes, or with a content key")
    # [REJECT] As many Feldman commitments as shares open the self-mask, each a point of the group
    if not verify_commitments(commitment.shares, charter.threshold):
        raise Reject("commitment without good Feldman commitments")
    # [REJECT] One pair seed for each roster member, none for itself
    place = members.index(commitment.member)
    if len(commitment.seeds) != len(members) or commitment.seeds[place] != NO_KEY:
        raise Reject("commitment does not bind one pair seed for each roster member")


def is_good_share(commitment: Commitment, recipient: MemberId, value: bytes) -> bool:
    """Whether it lies on the polynomial that was committed to. Shares are the values at member + 1."""
    return verify_share(commitment.shares, recipient + 1, value)


def left_out(roster: Roster, survivors: SurvivorSet) -> tuple[MemberId, ...]:
    """The roster members that are not in the set, ascending."""
    staying = {survivor.member for survivor in survivors.survivors}
    return tuple(signed.member for signed in roster.readies if signed.member not in staying)


def disagree(roster: Roster, commitments: Sequence[Commitment]) -> set[tuple[MemberId, MemberId]]:
    """Pairs of members (both ways) that committed to different pair seeds: their masks would not cancel."""
    place = {member: index for index, member in enumerate(signed.member for signed in roster.readies)}
    return {
        (one.member, other.member)
        for one in commitments
        for other in commitments
        if one.member != other.member and one.seeds[place[other.member]] != other.seeds[place[one.member]]
    }


def verify_seeds(
    seeds: Seeds, roster: Roster, commitment: Commitment, survivors: SurvivorSet, context: MaskContext
) -> None:
    """Check the pair seeds that a survivor released against its own commitment; raises `Reject`."""
    expected = left_out(roster, survivors)
    # [REJECT] It names exactly the members left out
    if tuple(member for member, _ in seeds.seeds) != expected:
        raise Reject("seeds of other members than those left out")
    # [REJECT] Each seed is the one committed to
    places = {member: index for index, member in enumerate(signed.member for signed in roster.readies)}
    for member, seed in seeds.seeds:
        low, high = sorted((member, seeds.member))
        if seed_commitment(context, low, high, seed) != commitment.seeds[places[member]]:
            raise Reject(
                f"pair seed of members {low} and {high} is not the one that {seeds.member} committed to"
            )


def verify_shares(shares: Shares, commitments: dict[MemberId, Commitment]) -> None:
    """Check released shares of survivors' self-masks against the survivors' commitments; raises `Reject`."""
    members = [member for member, _ in shares.shares]
    # [REJECT] Shares of survivors, each once, ascending
    if members != sorted(set(members)) or not set(members) <= set(commitments):
        raise Reject("shares are not of distinct survivors in ascending order")
    # [REJECT] Each lies on its dealer's polynomial
    for member, value in shares.shares:
        if not is_good_share(commitments[member], shares.member, value):
            raise Reject(f"share of member {member}'s self-mask does not fit its commitment")


def compute_masks(
    context: MaskContext,
    threshold: int,
    shares: Mapping[MemberId, Mapping[int, bytes]],
    seeds: Iterable[Seeds],
) -> tuple[Mask, ...]:
    """Every mask that is left in a sum: the survivors' self-masks, and theirs towards those left out.

    `shares` holds, for each survivor, verified shares by their place on its polynomial, `threshold` or more; any of
    them give the same secret.
    """
    own = [
        Mask(self_seed(context, member, reconstruct(dict(sorted(of.items())[:threshold]))), 1)
        for member, of in sorted(shares.items())
    ]
    towards = [
        pair_mask(seed, released.member, member) for released in seeds for member, seed in released.seeds
    ]
    return (*own, *towards)
