"""Rounds under one charter, and who is who in them."""

from dataclasses import dataclass, field
from typing import Protocol

from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.signing import Verifier
from folkmoot.protocol.types import MemberId, Round
from folkmoot.testnet.simulation.keys import ROTATED, number_of


class Somebody(Protocol):
    """Who may be a member."""

    person: int


@dataclass(eq=False, slots=True)
class Era:
    """The charter from round `first` on. All nodes that have come to it share one of these."""

    first: Round
    federation: Federation
    verifier: Verifier
    liars: frozenset[MemberId]
    """By their ids in this era."""
    people: tuple[int, ...] = field(init=False)
    """Who is which member."""
    ids: dict[int, MemberId] = field(init=False)
    """The other way."""
    keys: frozenset[int] = field(init=False)
    """The numbers of all members' keys."""
    _numbers: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        numbers = [number_of(member) for member in self.federation.charter.members]
        self.people = tuple(number % ROTATED for number in numbers)
        self.ids = {person: member for member, person in enumerate(self.people)}
        self.keys = frozenset(numbers)
        self._numbers = dict(zip(self.people, numbers, strict=True))

    def key(self, one: Somebody) -> int:
        """The number of a member's keys."""
        return self._numbers[one.person]

    def has(self, one: Somebody) -> bool:
        """Whether this is a member."""
        return one.person in self.ids
