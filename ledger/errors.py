"""What can go wrong between us and the chain."""

from folkmoot.protocol.errors import FolkmootError

_STALE = frozenset({"round", "previous"})


class LedgerUnavailable(FolkmootError):
    """No RPC endpoint answered, or none gave an answer that can be used; try again later."""

    exit_code = 5


class LedgerRejected(FolkmootError):
    """The contract or the node refused a transaction. `reason` is the contract's word or the node's sentence."""

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(f"the ledger refused the transaction: {reason}" + (f"; {advice}" if advice else ""))
        self.reason = reason

    @property
    def stale(self) -> bool:
        """Whether the statement does not continue the head: most likely somebody else recorded the round."""
        return self.reason in _STALE


class NonceUsed(LedgerRejected):
    """Another transaction of the same gas key took this nonce: prepare the statement anew."""


class WrongLedger(FolkmootError):
    """What the RPC shows is not the ledger that was agreed on: another chain, contract, code or charter."""

    exit_code = 2

    def __init__(self, what: str, expected: object, found: object, advice: str) -> None:
        super().__init__(f"wrong ledger: {what} should be {expected} but is {found}; {advice}")
        self.what = what
        self.expected = expected
        self.found = found
