"""The masked shards and shares of one roster: what is mine to hold, and what I hold.

Shard s belongs to the s-th roster member in beacon order, wrapping; every member holds its shards of every vector, and
a share of every self-mask of its circle.
"""

from collections import Counter
from collections.abc import Collection, Sequence

from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.events import Encoded
from folkmoot.protocol.exchange import Exchange
from folkmoot.protocol.messages import Commitment, Share, Signed, SurvivorSet
from folkmoot.protocol.secure.circles import Circles
from folkmoot.protocol.secure.dealing import disagree
from folkmoot.protocol.types import MemberId


class MaskedExchange(Exchange):
    """Secure mode: owners pull their shards (`my_shards`), and members deal shares of self-masks to their circle."""

    def __init__(
        self, me: MemberId, roster: Signed, order: Sequence[MemberId], federation: Federation
    ) -> None:
        super().__init__(me, roster)
        self.circles = Circles.of_roster(federation, self.digest, self.roster)
        self.circle = self.circles.circle(me) if me in self.members else ()
        self.shards = shards = len(order)
        self.order = tuple(member for member in order if member in self.members)
        self.my_shards = tuple(shard for shard in range(shards) if self.owner(shard) == me)
        self.shares: dict[MemberId, Signed] = {}
        self.parts: set[tuple[MemberId, int]] = set()
        self.wanted: set[tuple[MemberId, int]] = set()
        self.asked: set[tuple[MemberId, int]] = (
            set()
        )  # being fetched, or failed and not to be tried again yet
        self.failed: set[tuple[MemberId, int]] = set()
        self.secrets: Encoded | None = None

    def owner(self, shard: int) -> MemberId:
        """Who sums this shard, unless it dies."""
        return self.order[shard % len(self.order)]

    def place(self, member: MemberId) -> int:
        """Where a member stands in my circle."""
        return self.circle.index(member)

    def commitment_of(self, member: MemberId) -> Commitment:
        """What it committed to; raises `KeyError` if that is not known."""
        body = self.commitments[member].body
        assert isinstance(body, Commitment)
        return body

    def replace_commitment(self, signed: Signed) -> None:
        """Its shards and share were those of the other commitment."""
        super().replace_commitment(signed)
        self.shares.pop(signed.member, None)
        for parts in (self.parts, self.asked, self.failed):
            parts.difference_update([part for part in parts if part[0] == signed.member])

    def is_complete(self, member: MemberId) -> bool:
        """Whether I hold all of this member that is mine to hold."""
        has_share = member in self.shares or member not in self.circle
        return has_share and all((member, shard) in self.parts for shard in self.my_shards)

    def has_parts(self, members: Sequence[MemberId], shard: int) -> bool:
        """Whether I hold that shard of all these members."""
        return all((member, shard) in self.parts for member in members)

    def missing_parts(self) -> list[tuple[MemberId, int]]:
        """The shards to pull now: mine, and those wanted beside, of members whose commitment is known."""
        mine = {(member, shard) for member in self.commitments for shard in self.my_shards}
        known = {part for part in mine | self.wanted if part[0] in self.commitments}
        return sorted(known - self.parts - self.asked)

    def retry(self) -> None:
        """What failed may be asked for again."""
        self.asked -= self.failed
        self.failed.clear()

    def share_of(self, member: MemberId) -> bytes | None:
        """My share of a member's self-mask."""
        body = self.shares[member].body if member in self.shares else None
        return body.value if isinstance(body, Share) else None

    # --- pairs that do not fit ------------------------------------------------------------------------------

    def candidates(self, down: Collection[MemberId]) -> set[MemberId]:
        """Whom I could propose: nobody that is away, for its own part of its own shard went with it, and nobody whose
        masks would not cancel.

        Of two that committed to different pair seeds one lies, and nobody else can tell which: who has more such
        quarrels goes first, then who comes later in beacon order, so that a liar does not choose its victim.
        """
        chosen = super().candidates(down) - set(down)
        while quarrels := self._quarrels(chosen):
            chosen.remove(max(quarrels, key=lambda member: (quarrels[member], self.order.index(member))))
        return chosen

    def holds(self, survivors: SurvivorSet) -> bool:
        """Whether I hold what is mine to hold of the set, and its masks cancel."""
        return super().holds(survivors) and not self._quarrels(set(survivors.members))

    def _quarrels(self, members: set[MemberId]) -> Counter[MemberId]:
        commitments = [self.commitment_of(member) for member in sorted(members)]
        return Counter(one for one, _ in disagree(self.circles, commitments))
