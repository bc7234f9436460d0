"""Which charter rules which rounds: the terms of a federation, one after the other.

Amendments change the charter between two rounds (PROTOCOL 2.9). A `RoundMachine` works in one term; of the others it
has to know only enough to believe the attested end of a round in them: a node that is late, or joins, skips there.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.signing import Verifier
from folkmoot.protocol.types import MemberId, Round


@dataclass(frozen=True, slots=True)
class Rule:
    """A charter in force, as this node sees it; `me` is None while it is no member."""

    federation: Federation
    verifier: Verifier
    me: MemberId | None


@dataclass(frozen=True, slots=True)
class Term:
    """Rounds from `first` on; `rule` is None as long as the charter, known by its digest only, is not here."""

    first: Round
    rule: Rule | None


class Terms:
    """All terms that are known, from the founding on, first rounds strictly ascending."""

    def __init__(self, terms: Sequence[Term]) -> None:
        firsts = [term.first for term in terms]
        if not terms or firsts[0] != 1 or firsts != sorted(set(firsts)):
            raise ValueError(f"terms that begin with the rounds {firsts}: they must ascend from round 1")
        self._terms = tuple(terms)
        self._firsts = firsts

    @classmethod
    def single(cls, rule: Rule) -> "Terms":
        """A federation that was never amended."""
        return cls([Term(1, rule)])

    def at(self, round_: Round) -> Term:
        """The term of a round (of round 1, for those before it)."""
        return self._terms[max(0, bisect_right(self._firsts, round_) - 1)]

    def last_of(self, round_: Round) -> Round | None:
        """The last round of the term that `round_` is in; None for the newest term."""
        place = bisect_right(self._firsts, round_)
        return self._firsts[place] - 1 if place < len(self._firsts) else None
