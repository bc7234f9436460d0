"""What took the masks off a decided round: is it well-formed, signed, and what was committed to?

Nothing here needs a secret, so that whoever is shown a round's record can check it. The node checks the same things
one by one as they come (`summing.py`, `mode.py`), the auditor all at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import Federation, roster_members
from folkmoot.protocol.errors import Reject
from folkmoot.protocol.events import Value
from folkmoot.protocol.messages import (
    Commitment,
    Fingerprint,
    Lock,
    Roster,
    Seeds,
    Shares,
    Signed,
    Sum,
    SurvivorSet,
)
from folkmoot.protocol.secure.circles import Circles
from folkmoot.protocol.secure.dealing import (
    disagree,
    open_crowds,
    shard_layout,
    verify_masked_commitment,
    verify_seeds,
    verify_shares,
)
from folkmoot.protocol.secure.gathering import VALUE_SIZE, decode_values, sums_digest
from folkmoot.protocol.secure.layout import ShardLayout
from folkmoot.protocol.secure.masks import Crowd
from folkmoot.protocol.signing import Verifier
from folkmoot.protocol.types import MemberId


@dataclass(frozen=True, slots=True)
class MaskedRound:
    """A decided round: its roster, survivors, their commitments, and what a quorum locked.

    All of it must have passed the checks of `certificates.py`.
    """

    federation: Federation
    roster: Roster
    survivors: SurvivorSet
    commitments: Mapping[MemberId, Commitment]
    lock: Lock

    @property
    def members(self) -> tuple[MemberId, ...]:
        """The survivors, ascending."""
        return self.survivors.members

    @property
    def circles(self) -> Circles:
        """Who shared masks with whom."""
        return Circles.of_roster(self.federation, self.survivors.roster, self.roster)

    def left_out(self, member: MemberId) -> tuple[MemberId, ...]:
        """Those of a survivor's circle that do not survive, ascending."""
        return self.circles.left_out(member, self.survivors)

    @property
    def crowds(self) -> tuple[tuple[MemberId, ...], ...]:
        """Who were summed together."""
        return self.circles.crowds(self.survivors)

    @property
    def layout(self) -> ShardLayout:
        """How the masked vectors lie."""
        return shard_layout(self.federation.charter)


# --- commitments --------------------------------------------------------------------------------------------


def verify_commitments(round_: MaskedRound) -> None:
    """Check what the survivors committed to: each by itself, then in pairs; raises `Reject`."""
    circles = round_.circles
    for member in round_.members:
        # [REJECT] Each is well-formed
        try:
            verify_masked_commitment(round_.commitments[member], circles)
        except Reject as error:
            raise Reject(f"member {member}: {error}") from error
    # [REJECT] The two of a pair committed to the same seed, so their masks cancel
    pairs = disagree(circles, [round_.commitments[member] for member in round_.members])
    if pairs:
        low, high = min(pairs)
        raise Reject(f"members {low} and {high} committed to different pair seeds")


# --- sums and fingerprints ----------------------------------------------------------------------------------


def check_sum(body: Sum, layout: ShardLayout, crowds: int) -> None:
    """Check a sum by itself, where so many crowds are summed apart; raises `Reject`."""
    # [REJECT] It is of a shard that there is, and of the one size that its sum has
    if body.shard >= layout.shards:
        raise Reject(f"sum of shard {body.shard}, there are {layout.shards}")
    expected = crowds * layout.sum_bytes(body.shard)
    if body.size != expected:
        raise Reject(f"sum of {body.size} bytes, that of shard {body.shard} has {expected}")


def check_fingerprint(body: Fingerprint, layout: ShardLayout, *, survives: bool) -> None:
    """Check a fingerprint's form; raises `Reject`."""
    # [REJECT] One value for each shard from a survivor (or none, if it lost its own shards), none from others
    expected = VALUE_SIZE * layout.shards if survives else 0
    if len(body.values) not in (0, expected):
        raise Reject(f"fingerprint of {len(body.values)} bytes, {expected} were expected")


def verify_sums(round_: MaskedRound, sums: Sequence[Signed], verifier: Verifier) -> tuple[BlobRef, ...]:
    """Check that these are the sums that were locked, each under a member's signature; returns what they are called.

    Raises `Reject`, or what `verifier` raises.
    """
    layout = round_.layout
    bodies = [signed.body for signed in sums if isinstance(signed.body, Sum)]
    # [REJECT] One for each shard, in order
    if [body.shard for body in bodies] != list(range(layout.shards)) or len(bodies) != len(sums):
        raise Reject(f"sums of {len(bodies)} shards, not one for each of {layout.shards} in order")
    for signed, body in zip(sums, bodies, strict=True):
        # [REJECT] It is of this federation, round and set, and of the right size
        if (body.federation, body.round, body.survivors) != _names(round_):
            raise Reject(f"sum of shard {body.shard} for another federation, round or survivor set")
        check_sum(body, layout, len(round_.crowds))
        # [REJECT] A member signed it
        verifier.verify(signed)
    # [REJECT] They are those that a quorum locked
    if sums_digest(round_.survivors.digest, tuple(body.root for body in bodies)) != round_.lock.sums:
        raise Reject("the sums are not those that a quorum locked")
    return tuple(BlobRef(body.root, body.size) for body in bodies)


def verify_fingerprint(round_: MaskedRound, signed: Signed, verifier: Verifier) -> tuple[Value, ...]:
    """Check one member's fingerprint on the locked sums; returns its values by shard, none if it gave none.

    Whether the values are right is another matter. Raises `Reject`, or what `verifier` raises.
    """
    body = signed.body
    # [REJECT] It is a fingerprint, of this federation, round and set, and on the sums that were locked
    if not isinstance(body, Fingerprint):
        raise Reject(f"expected a fingerprint, got {type(body).__name__}")
    if (body.federation, body.round, body.survivors) != _names(round_) or body.sums != round_.lock.sums:
        raise Reject(f"fingerprint of member {signed.member} on other sums than those locked")
    check_fingerprint(body, round_.layout, survives=signed.member in round_.members)
    # [REJECT] Its member signed it
    verifier.verify(signed)
    return decode_values(body.values)


def is_quorum(round_: MaskedRound, fingerprints: Iterable[Signed]) -> bool:
    """Whether a quorum of (verified) fingerprints is of the attempt in which the sums were locked."""
    members = {
        signed.member
        for signed in fingerprints
        if isinstance(signed.body, Fingerprint) and signed.body.attempt == round_.lock.attempt
    }
    return len(members) >= round_.federation.charter.quorum


def _names(round_: MaskedRound) -> tuple[bytes, int, bytes]:
    return round_.federation.id, round_.survivors.round, round_.survivors.digest


# --- what was released --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Releases:
    """Verified seeds by survivor, and shares of each survivor's self-mask by the place on its polynomial."""

    seeds: Mapping[MemberId, Seeds]
    shares: Mapping[MemberId, Mapping[int, bytes]]

    def __repr__(self) -> str:
        return f"Releases(seeds of {sorted(self.seeds)}, shares of {sorted(self.shares)})"


def verify_releases(round_: MaskedRound, seeds: Sequence[Seeds], shares: Sequence[Shares]) -> Releases:
    """Check seeds against certificate and commitments, shares against the commitments; raises `Reject`.

    What is there must be right; whether it is enough, `missing_seeds` and `missing_shares` say.
    """
    for frames in (seeds, shares):
        holders = [frame.member for frame in frames]
        # [REJECT] Each of one round and set, from distinct members in ascending order
        if holders != sorted(set(holders)):
            raise Reject("released by members that are not distinct and in ascending order")
        if any((one.round, one.survivors) != _names(round_)[1:] for one in frames):
            raise Reject("released for another round or survivor set")
    # [REJECT] Seeds come from survivors of whose circle somebody was left out
    if not {one.member for one in seeds} <= _with_somebody_left_out(round_):
        raise Reject("seeds of a member that does not survive, or though nobody was left out")
    # [REJECT] Shares come from roster members
    if not {one.member for one in shares} <= set(roster_members(round_.roster)):
        raise Reject("shares of a member that is not in the roster")
    for one in seeds:
        verify_seeds(one, round_.circles, round_.commitments[one.member], round_.survivors)
    for other in shares:
        verify_shares(other, round_.circles, round_.commitments)
    return Releases(
        {one.member: one for one in seeds},
        {
            member: {one.member + 1: of[member] for one in shares if member in (of := dict(one.shares))}
            for member in round_.members
        },
    )


def _with_somebody_left_out(round_: MaskedRound) -> set[MemberId]:
    return {member for member in round_.members if round_.left_out(member)}


def missing_seeds(round_: MaskedRound, releases: Releases) -> list[MemberId]:
    """Survivors whose seeds with those left out are needed and not there."""
    return sorted(_with_somebody_left_out(round_) - set(releases.seeds))


def missing_shares(round_: MaskedRound, releases: Releases) -> list[MemberId]:
    """Survivors of whose self-mask there are too few shares."""
    circles = round_.circles
    return [
        member for member in round_.members if len(releases.shares[member]) < circles.group(member).threshold
    ]


def crowds_of(round_: MaskedRound, releases: Releases) -> tuple[Crowd, ...]:
    """Every mask that is left in the sums; nothing may be missing."""
    ordered = (releases.seeds[member] for member in sorted(releases.seeds))
    return open_crowds(round_.circles, round_.survivors, releases.shares, ordered)
