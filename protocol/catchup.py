"""The way back of a node that fell behind: the model of a finished round, from anybody, for its digest is known."""

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.context import Context
from folkmoot.protocol.effects import FetchSnapshot
from folkmoot.protocol.messages import Final, Statement
from folkmoot.protocol.types import MemberId, Round


class CatchUp:
    """Which finished round was offered, and which one's model is being fetched."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._offered: Final | None = None
        self._fetching: Final | None = None
        self._told: dict[MemberId, Round] = {}

    @property
    def busy(self) -> bool:
        """Whether a model is on its way: nothing is signed meanwhile."""
        return self._fetching is not None

    def is_news(self, member: MemberId, final: Round) -> bool:
        """Whether this member says for the first time that it has a finished round as late as that."""
        known = self._told.get(member, 0)
        self._told[member] = max(known, final)
        return final > known

    def offer(self, final: Final) -> None:
        """A (verified) finished round, mine or later; the latest one counts."""
        if self._offered is None or statement_of(self._offered).round < statement_of(final).round:
            self._offered = final

    def fetch(self) -> None:
        """Ask for the latest offered model, unless one is on its way already."""
        if self._offered is not None and self._fetching is None:
            self._fetching = self._offered
            self._context.emit(FetchSnapshot(self._offered.model, tuple(sorted(self._context.up))))

    def take(self, model: BlobRef) -> Final | None:
        """The model is here: the round that it finishes, if it is still wanted."""
        return self._fetching if self._fetching is not None and self._fetching.model == model else None

    def fail(self, model: BlobRef) -> None:
        """Nobody delivered it: this node's own round goes on until it is asked for again."""
        if self._fetching is not None and self._fetching.model == model:
            self._fetching = None

    def forget(self) -> None:
        """A round begins: what was offered before is no news."""
        self._offered = self._fetching = None


def statement_of(final: Final) -> Statement:
    """What the attestations say; raises if `final` was not verified."""
    body = final.attestations[0].body
    assert isinstance(body, Statement)
    return body
