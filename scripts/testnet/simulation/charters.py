"""The charters of a simulated federation: as the ledger has them, and as far as a node knows of them."""

from collections.abc import Iterable
from functools import partial

from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.charter import Charter, federation_id
from folkmoot.protocol.governance import Amendment
from folkmoot.protocol.terms import Rule, Term, Terms
from folkmoot.protocol.timeline import Span, Timeline
from folkmoot.protocol.types import Digest, MemberId, Round
from folkmoot.testnet.simulation.era import Era
from folkmoot.testnet.simulation.keys import DOMAIN, ROTATED, Keys, number_of
from folkmoot.testnet.simulation.node import Node
from folkmoot.testnet.simulation.remembering import RememberingVerifier


class Charters:
    """What was founded, what was ever drafted, and what of it is in force when."""

    def __init__(self, founding: Charter, keys: Keys, liars: Iterable[int]) -> None:
        self.founding = founding
        self.id = federation_id(founding.digest, DOMAIN.chain_id, DOMAIN.contract)
        self.drafted: dict[Digest, Charter] = {founding.digest: founding}
        self._keys, self._liars = keys, frozenset(liars)
        self._eras: dict[tuple[Round, Digest], Era] = {}
        self.learn(())

    def learn(self, amendments: Iterable[Amendment]) -> None:
        """What the ledger has by now."""
        self.timeline = Timeline(self.id, self.founding, tuple(amendments), self.drafted)
        self._spans = [self._era(span) for span in self.timeline.spans]

    @property
    def are_amended(self) -> bool:
        """Whether there is more than the founding charter."""
        return len(self._spans) > 1

    @property
    def eras(self) -> tuple[Era, ...]:
        """All of them, in order."""
        return tuple(self._spans)

    @property
    def newest(self) -> Era:
        """That of the last rounds."""
        return self._spans[-1]

    def at(self, round_: Round) -> Era:
        """The charter in force in a round."""
        if len(self._spans) == 1:
            return self._spans[0]
        return next((era for era in reversed(self._spans) if era.first <= round_), self._spans[0])

    def takes_in_after(self, round_: Round, node: Node) -> bool:
        """Whether a later charter has this member."""
        return any(era.first > round_ and era.has(node) for era in self._spans)

    def _era(self, span: Span) -> Era:
        assert span.charter is not None, span.problem
        key = (span.first, span.charter.digest)
        if key not in self._eras:
            federation = Federation(self.id, span.charter)
            verifier = RememberingVerifier(self._keys.verifier(federation))
            numbers = enumerate(map(number_of, span.charter.members))
            liars = frozenset(member for member, number in numbers if number % ROTATED in self._liars)
            self._eras[key] = Era(span.first, federation, verifier, liars)
        return self._eras[key]

    # --- as a node knows them -------------------------------------------------------------------------------

    def known_to(self, node: Node) -> Timeline:
        """The amendments that it has read, with the charters that it has."""
        return Timeline(self.id, self.founding, node.amendments, node.charters)

    def terms(self, node: Node) -> Terms:
        """The same for its machine."""
        return Terms(list(map(partial(self._term, node), self.known_to(node).spans)))

    def _term(self, node: Node, span: Span) -> Term:
        if span.charter is None:
            return Term(span.first, None)
        era = self._era(span)
        return Term(span.first, Rule(era.federation, era.verifier, era.ids.get(node.person)))

    def era_from(self, node: Node, first: Round) -> Era:
        """The era that begins with that round; its charter is here."""
        return self._era(self.known_to(node).span_at(first))


def me(charter: Charter, node: Node) -> MemberId | None:
    """A node finds itself in a charter by its member's name."""
    return charter.find_member(f"node-{node.person}")
