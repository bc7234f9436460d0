"""How the ledger is, as the outbox finds it: in a word, in words, and when to ask it again."""

import math

from structlog.stdlib import BoundLogger

from folkmoot.ledger.errors import (
    LedgerDisagrees,
    LedgerRejected,
    LedgerReorganised,
    LedgerUnavailable,
    WrongLedger,
)
from folkmoot.node.pace import BACKOFF_SECONDS, REFUSED_SECONDS, nth
from folkmoot.protocol.types import Round


class LedgerState:
    """What `status` shows of the ledger, and the pauses that follow from it. Times are seconds of one clock."""

    def __init__(self, log: BoundLogger) -> None:
        self._log = log
        self._failures = 0
        self._refusal: LedgerRejected | None = None
        self._refusals = 0
        self.again_at = -math.inf
        """When what was refused may be tried again."""
        self.notes: tuple[str, ...] = ()
        """What is to be said of single endpoints."""
        self.word = "starting"
        """starting · ok · unreachable · disagreeing (endpoints) · deferred · reorganised · wrong"""
        self.reason = ""
        """The state in words."""

    @property
    def is_refusing(self) -> bool:
        """Whether the last thing that was asked for was refused."""
        return self._refusal is not None

    def silent(self, error: LedgerUnavailable, backlog: int) -> float:
        """It does not answer, or not usably; seconds until it is asked again."""
        word = "disagreeing" if isinstance(error, LedgerDisagrees) else "unreachable"
        if self.word != word:
            self._log.warning(f"ledger {word}", error=str(error), backlog=backlog)
        self.word, self.reason = word, str(error)
        self._failures += 1
        return nth(BACKOFF_SECONDS, self._failures)

    def answered(self, backlog: int) -> None:
        """It does answer."""
        if self._failures:
            self._log.info("ledger answers again", backlog=backlog)
        self._failures = 0
        self.word = "ok" if self._refusal is None else "deferred"
        self.reason = "; ".join((*([] if self._refusal is None else [str(self._refusal)]), *self.notes))

    def broken(self, error: WrongLedger | LedgerReorganised, backlog: int) -> None:
        """It is not the ledger that it was, or should be."""
        self.word = "wrong" if isinstance(error, WrongLedger) else "reorganised"
        self.reason = str(error)
        self._log.error("the ledger cannot be gone on with", error=str(error), backlog=backlog)

    def refused(self, error: LedgerRejected, round_: Round, now: float) -> None:
        """Something that time or the operator may mend, as an empty gas account: try again, ever more rarely."""
        if self._refusal is None or type(self._refusal) is not type(error):
            self._log.error("statement refused, to be tried again", round=round_, reason=str(error))
        self._refusal = error
        self._refusals += 1
        self.again_at = now + nth(REFUSED_SECONDS, self._refusals)

    def taken(self) -> None:
        """What was refused before is under way."""
        self._refusal = None

    def moved(self) -> None:
        """The record has moved, so something else is next."""
        self._refusal, self._refusals, self.again_at = None, 0, -math.inf
