"""Groups: in a large federation members share masks with a few others only. PROTOCOL section 4.

Pair seeds and shares of self-masks are between two members each, so their number grows with the square of a group's
size. Everything else (owners, sums, fingerprints, the ballot) is of the whole federation. A federation in open mode, or
of up to `MAX_GROUP` members, is one group.

The draw is public and fixed for ever by the federation's id (docs/decisions/groups.md): nobody can choose its group.
"""

import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import comb

from folkmoot.protocol.charter import Charter, crowd, max_faults, quorum, shares_to_open
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.types import Digest, MemberId, Round


@dataclass(frozen=True, slots=True)
class Group:
    """Members (ascending) whose masks cancel among themselves, and how many of them it takes.

    `quorum` of them vote for a set with any of them in it, so that enough honest members hold its shares; `needed`
    survive, or none; `threshold` shares open a self-mask (0 in open mode).
    """

    number: int
    members: tuple[MemberId, ...]
    quorum: int
    needed: int
    threshold: int


@dataclass(frozen=True, slots=True)
class Groups:
    """All groups of an epoch, and the quorum Q of the whole federation."""

    groups: tuple[Group, ...]
    quorum: int

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    def of(self, member: MemberId) -> Group:
        """Its group; raises `KeyError` for a member that there is not."""
        return _places(self)[member]

    def whole(self, members: Iterable[MemberId]) -> set[MemberId]:
        """Those of `members` whose groups have enough of them to survive."""
        chosen = set(members)
        parts = ((group, chosen.intersection(group.members)) for group in self.groups)
        return set().union(*(part for group, part in parts if len(part) >= group.needed))

    def can_survive(self, members: Collection[MemberId]) -> bool:
        """Whether these may be a survivor set: a quorum, with enough members of every group that is in it."""
        return len(members) >= self.quorum and self.whole(members) == set(members)

    def can_spare(self, member: MemberId, members: Collection[MemberId]) -> bool:
        """Whether `members` can survive without this one, or could not anyway."""
        group = self.of(member)
        others = len(set(group.members).intersection(members) - {member})
        return len(members) > self.quorum and (others >= group.needed or others + 1 < group.needed)

    def are_quorum(self, voters: Collection[MemberId], survivors: Iterable[MemberId]) -> bool:
        """Whether these voters certify a set of these survivors: Q of all, and of each of its groups a quorum."""
        return len(voters) >= self.quorum and not self.lacking(voters, survivors)

    def lacking(self, voters: Collection[MemberId], survivors: Iterable[MemberId]) -> list[Group]:
        """Groups with survivors, and with too few voters."""
        staying, voting = set(survivors), set(voters)
        return [
            group
            for group in self.groups
            if not staying.isdisjoint(group.members)
            and len(voting.intersection(group.members)) < group.quorum
        ]


def draw_groups(charter: Charter, federation: Digest, round_: Round) -> Groups:
    """The groups of the epoch that `round_` is in."""
    epoch = charter.epoch_of(round_) if charter.is_secure else 0
    return _draw(federation, epoch, charter.group_sizes, _Terms.of(charter))


def one_group(members: int, needed: int | None = None, threshold: int = 0) -> Groups:
    """Everybody in one group; at least `needed` (default: a quorum) survive."""
    whole = quorum(members)
    return Groups((Group(0, tuple(range(members)), whole, needed or whole, threshold),), whole)


@dataclass(frozen=True, slots=True)
class _Terms:
    """What of a charter counts for groups; cheap to hash."""

    is_secure: bool
    k_min: int
    threshold: int

    @classmethod
    def of(cls, charter: Charter) -> "_Terms":
        return cls(charter.is_secure, charter.secrecy.k_min, charter.secrecy.threshold)


@lru_cache(maxsize=64)
def _draw(federation: Digest, epoch: int, sizes: tuple[int, ...], terms: _Terms) -> Groups:
    members = sum(sizes)
    beacon = digest("folkmoot/v1/groups", federation, struct.pack(">Q", epoch))
    order = list(range(members))
    if len(sizes) > 1:
        order.sort(key=lambda member: digest("folkmoot/v1/group", beacon, struct.pack(">I", member)))
    groups, at = [], 0
    for number, size in enumerate(sizes):
        drawn = tuple(sorted(order[at : at + size]))
        needed = max(quorum(size), crowd(size, terms.k_min)) if terms.is_secure else quorum(size)
        threshold = shares_to_open(size, terms.threshold) if terms.is_secure else 0
        groups.append(Group(number, drawn, quorum(size), needed, threshold))
        at += size
    return Groups(tuple(groups), quorum(members))


@lru_cache(maxsize=64)
def _places(groups: Groups) -> dict[MemberId, Group]:
    return {member: group for group in groups.groups for member in group.members}


def chance_of_capture(sizes: tuple[int, ...], colluders: int) -> float:
    """The chance that, of so many colluding members drawn at random, some group gets more than its f.

    Counts the draws in which no group does: the coefficient of x^colluders in the product, over the groups, of the sum
    over j up to f of C(size, j) x^j.
    """
    good = [1]
    for size in sizes:
        choices = [comb(size, taken) for taken in range(max_faults(size) + 1)]
        product = [0] * (len(good) + len(choices) - 1)
        for i, ways in enumerate(good):
            for j, more in enumerate(choices):
                product[i + j] += ways * more
        good = product
    fine = good[colluders] if colluders < len(good) else 0
    return 1 - fine / comb(sum(sizes), colluders)
