"""The memory of what was final: a chain that no longer has that block is not gone on with."""

from collections.abc import Callable

from folkmoot.ledger.errors import LedgerReorganised, LedgerUnavailable
from folkmoot.ledger.port import FinalBlock
from folkmoot.protocol.types import Digest


class Finality:
    """The newest block that counted as final, as far as this process, or the journal of an earlier one, knows."""

    def __init__(self) -> None:
        self._known: FinalBlock | None = None

    @property
    def known(self) -> FinalBlock | None:
        """That block; None if none was ever seen."""
        return self._known

    def advance(self, block: FinalBlock) -> None:
        """Remember a final block; an older one than is known changes nothing."""
        if self._known is None or block.number > self._known.number:
            self._known = block

    def check(self, latest: int, hash_of: Callable[[int], Digest]) -> None:
        """Raise unless a chain whose last block is `latest` still has the known block.

        `LedgerReorganised` if another block stands in its place, `LedgerUnavailable` if the chain does not reach that
        far: such an endpoint is behind.
        """
        if self._known is None:
            return
        if latest < self._known.number:
            raise LedgerUnavailable(
                f"an endpoint that is behind: it shows block {latest}, but block {self._known.number} was final before"
            )
        found = hash_of(self._known.number)
        if found != self._known.hash:
            raise LedgerReorganised(self._known.number, self._known.hash, found)
