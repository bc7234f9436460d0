"""The charters of a federation by round: the founding one, then what the ledger's amendments put in force.

An amendment names its charter by digest. One that is not at hand is a gap: nothing is guessed about rounds in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from folkmoot.protocol.amending import describe_change, verify_amendment
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import Member
from folkmoot.protocol.errors import CharterError, FolkmootError
from folkmoot.protocol.governance import Amendment, Role, decode_changes
from folkmoot.protocol.types import Digest, Round


class CharterMissing(CharterError):
    """An amendment's charter is not here; the message says where to get it."""


@dataclass(frozen=True, slots=True)
class Span:
    """Rounds from `first` on, under one charter; `charter` is None as long as it is not here, or if it does not fit."""

    first: Round
    digest: Digest
    charter: Charter | None
    amendment: Amendment | None = None
    """None for the founding charter."""
    problem: str = ""
    """Why a charter that is here is not to be used."""


class Timeline:
    """Which charter is in force in which round."""

    def __init__(
        self,
        federation: Digest,
        founding: Charter,
        amendments: Sequence[Amendment] = (),
        charters: Mapping[Digest, Charter] | None = None,
    ) -> None:
        """`amendments`: as the ledger has them, in order; `charters`: those at hand, by digest."""
        self.federation = federation
        self.founding = founding
        self.amendments = tuple(amendments)
        self._spans = [Span(1, founding.digest, founding)]
        for amendment in amendments:
            self._append(amendment, (charters or {}).get(amendment.charter))

    def _append(self, amendment: Amendment, charter: Charter | None) -> None:
        before, problem = self._spans[-1], ""
        if charter is not None and before.charter is not None:
            try:
                verify_amendment(amendment, before.charter, charter)
            except FolkmootError as error:
                charter, problem = None, str(error)
        if before.first == amendment.effective:  # never in force
            self._spans.pop()
        self._spans.append(Span(amendment.effective, amendment.charter, charter, amendment, problem))

    @property
    def spans(self) -> tuple[Span, ...]:
        """All of them, in order; of amendments with one round the last one only."""
        return tuple(self._spans)

    @property
    def newest(self) -> Charter:
        """The charter that the next amendment changes, in force already or not; raises `CharterMissing`."""
        return self._charter(self._spans[-1])

    @property
    def newest_here(self) -> Charter:
        """The newest charter that is here, whatever was put in force after it."""
        return next(span.charter for span in reversed(self._spans) if span.charter is not None)

    @property
    def missing(self) -> tuple[Amendment, ...]:
        """Amendments whose charters are not here."""
        gaps = (span for span in self._spans if span.charter is None and not span.problem)
        return tuple(span.amendment for span in gaps if span.amendment is not None)

    def span_at(self, round_: Round) -> Span:
        """The span of a round."""
        return next((span for span in reversed(self._spans) if span.first <= round_), self._spans[0])

    def charter_at(self, round_: Round) -> Charter:
        """The charter in force in a round; raises `CharterMissing`."""
        return self._charter(self.span_at(round_))

    def federation_at(self, round_: Round) -> Federation:
        """The frame of every check of a round's messages; raises `CharterMissing`."""
        return Federation(self.federation, self.charter_at(round_))

    def last_entry(self, name: str) -> Member:
        """How the newest charter that had a member of this name wrote of it; raises `CharterError` if none had."""
        for span in reversed(self._spans):
            if span.charter is not None and (index := span.charter.find_member(name)) is not None:
                return span.charter.members[index]
        raise CharterError(f"no charter of this federation ever had a member {name!r}")

    def role_of(self, address: bytes, span: Span) -> Role | None:
        """The role that an address has on the ledger in a span, its charter here or not; None if it never changed."""
        last = span.amendment.number if span.amendment is not None else 0
        changes = (change for one in self.amendments[:last] for change in decode_changes(one.changes))
        return next((one.role for one in reversed([*changes]) if one.address == address), None)

    def coming(self, round_: Round) -> list[str]:
        """What changes after `round_`, in words, one line for each amendment."""
        return [_describe(before, span) for before, span in self._pairs() if span.first > round_]

    def _pairs(self) -> list[tuple[Span, Span]]:
        return list(zip(self._spans, self._spans[1:], strict=False))

    def _charter(self, span: Span) -> Charter:
        if span.charter is not None:
            return span.charter
        raise CharterMissing(
            f"no charter for the rounds from {span.first} on: "
            + (
                span.problem
                or f"charters/{span.digest.hex()}.toml is lost: start the node, which looks for it in its archive and "
                "at the other members, or copy the file from one of them"
            )
        )


def _describe(before: Span, span: Span) -> str:
    if before.charter is None or span.charter is None or span.amendment is None:
        why = span.problem or "which is not here yet"
        return f"from round {span.first}: charter {span.digest.hex()[:16]}, {why}"
    changes = decode_changes(span.amendment.changes)
    return f"from round {span.first}: {'; '.join(describe_change(before.charter, span.charter, changes))}"
