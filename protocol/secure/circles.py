"""Who shares masks with whom on one roster: a member's *circle* are the roster members of its group, itself too.

Lists in commitments and deals go by the circle's members, ascending.
"""

from dataclasses import dataclass

from folkmoot.protocol.certificates import Federation, roster_members
from folkmoot.protocol.groups import Group, Groups
from folkmoot.protocol.messages import Roster, SurvivorSet
from folkmoot.protocol.secure.masks import MaskContext
from folkmoot.protocol.types import Digest, MemberId


@dataclass(frozen=True, slots=True)
class Circles:
    """A (verified) roster of secure mode by groups, and what its masks derive from."""

    federation: Federation
    digest: Digest
    roster: Roster
    groups: Groups
    members: tuple[MemberId, ...]
    _by_group: dict[int, tuple[MemberId, ...]]

    @classmethod
    def of_roster(cls, federation: Federation, digest: Digest, roster: Roster) -> "Circles":
        """`digest` is the roster's."""
        groups, members = federation.groups(roster.round), roster_members(roster)
        known = set(members)
        circles = {one.number: tuple(filter(known.__contains__, one.members)) for one in groups}
        return cls(federation, digest, roster, groups, members, circles)

    def group(self, member: MemberId) -> Group:
        """The member's group."""
        return self.groups.of(member)

    def circle(self, member: MemberId) -> tuple[MemberId, ...]:
        """Who shares masks with a roster member; itself too."""
        return self._by_group[self.group(member).number]

    def context(self, member: MemberId) -> MaskContext:
        """What the masks of the member's circle derive from.

        A re-encoded update has another roster, and never meets the same mask.
        """
        epoch = self.federation.charter.epoch_of(self.roster.round)
        group = self.group(member).number
        return MaskContext(self.federation.id, epoch, self.roster.round, self.digest, group)

    def crowds(self, survivors: SurvivorSet) -> tuple[tuple[MemberId, ...], ...]:
        """Who are summed together: all survivors or, where a robust rule is to compare them, those of each group.

        Masks cancel within groups, so they do in both.
        """
        if not self.federation.charter.sums_by_group:
            return (survivors.members,)
        staying = set(survivors.members)
        parts = (tuple(filter(staying.__contains__, circle)) for circle in self._by_group.values())
        return tuple(part for part in parts if part)

    def left_out(self, member: MemberId, survivors: SurvivorSet) -> tuple[MemberId, ...]:
        """Those of a survivor's circle that are not in the set: its masks towards them are left in the sum."""
        staying = set(survivors.members)
        return tuple(one for one in self.circle(member) if one not in staying)
