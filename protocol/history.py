"""This node's rounds beside the ledger's: whether they are one history, and which rounds of others continue it.

PROTOCOL section 2, rule 11. What is to be done about it is in `rounds.py`.
"""

import math

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import verify_final
from folkmoot.protocol.closing import ClosedRounds
from folkmoot.protocol.context import Context
from folkmoot.protocol.effects import ReadRecord
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.fork import Branch, RecordedRound
from folkmoot.protocol.messages import Final, Statement
from folkmoot.protocol.types import Digest, Round

READ_PATIENCE = 10.0
"""Seconds that a node waits for the record's rounds before it skips its own without them."""


class History:
    """Compares, and asks the ledger where comparing digests says too little."""

    def __init__(self, context: Context, closed: ClosedRounds) -> None:
        self._context, self._closed = context, closed
        self.branch = Branch()
        self.contradicted = False
        """Whether the final record has another statement than this node; nothing is signed until that is settled."""
        self._asked: tuple[Round, Round] | None = None
        self._asked_at = -math.inf

    # --- the record -----------------------------------------------------------------------------------------

    def note_final(self, height: Round, statement: Digest) -> None:
        """The final record ends with that statement."""
        self.branch.note_final(height, statement)
        self.compare()

    def compare(self) -> None:
        """As far as digests tell: one stands for all rounds before it."""
        contradiction = self.branch.find_contradiction()
        if contradiction is not None and not self.contradicted:
            self.contradicted = True
            self._context.emit(ReadRecord(*contradiction))

    def find_fork(self, recorded: tuple[RecordedRound, ...]) -> RecordedRound | None:
        """The ledger has shown its rounds: the first that is not mine, if what it shows is to be believed."""
        fork = self.branch.find_fork(recorded)
        self.contradicted, self._asked_at = False, -math.inf
        if fork is not None and self._is_attested(recorded[-1]):
            return fork
        self.compare()  # it has gone on meanwhile
        if not self.contradicted:
            self.branch.note_read(recorded)
        return None

    def _is_attested(self, recorded: RecordedRound) -> bool:
        """Whether a quorum signed where the record ends, and so all before it: an RPC's word alone moves nobody."""
        rule = self._context.terms.at(recorded.statement.round).rule
        if rule is None or not recorded.attestations:
            return False
        attestations = tuple(sorted(recorded.attestations, key=lambda signed: signed.member))
        model = BlobRef(recorded.statement.model, 4 * rule.federation.charter.snapshot_values)
        try:
            return (
                verify_final(Final(attestations, model), rule.federation, rule.verifier) == recorded.statement
            )
        except RemoteProtocolError:
            return False

    # --- others' rounds -------------------------------------------------------------------------------------

    def takes(self, statement: Statement) -> bool:
        """Whether a finished round is in the record's history and in mine, as far as one can tell."""
        return not self.branch.refuses(statement) and self.is_continued_by(statement)

    def is_continued_by(self, statement: Statement) -> bool:
        """Whether a finished round continues what I hold, as far back as members attested those before it to me."""
        while (held := self.branch.held_at(statement.round - 1)) is None:
            before = self._closed.early_statement(statement.round - 1, statement.previous)
            if before is None:
                return True
            statement = before
        return held == statement.previous

    def asks_ledger(self, *, again: bool) -> bool:
        """Whether I wait for the ledger's word on my rounds before I skip any: what I skip to says nothing of them.

        That is where the record has passed them while I was away. If it does not answer I go on without its word; only
        what contradicts mine is asked about `again`.
        """
        passed = self.branch.find_passed()
        if passed is None:
            return False
        if not self.awaits_ledger and (again or self._asked != passed):
            self._asked, self._asked_at = passed, self._context.now
            self._context.emit(ReadRecord(*passed))
        return self.awaits_ledger

    @property
    def awaits_ledger(self) -> bool:
        """Whether I wait for it now."""
        return self._context.now - self._asked_at < READ_PATIENCE
