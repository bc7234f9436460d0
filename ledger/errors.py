"""What can go wrong between us and the chain."""

from folkmoot.protocol.errors import FolkmootError

_STALE = frozenset({"round", "previous", "number"})


class LedgerUnavailable(FolkmootError):
    """No RPC endpoint answered, or none gave an answer that can be used; try again later."""

    exit_code = 5


class LedgerDisagrees(LedgerUnavailable):
    """The endpoints show different histories of one chain: at least one of them is wrong, so none is believed."""


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


class Underpriced(LedgerRejected):
    """The fees are too low for the chain, or to replace the transaction that holds the nonce: outbid it."""


class FeesTooHigh(LedgerRejected):
    """Nothing was made: what the chain asks for is above the operator's cap. Wait, or raise the cap."""


class NoFunds(LedgerRejected):
    """The gas key's account cannot pay for the transaction: the operator has to fund it."""


class WrongLedger(FolkmootError):
    """What the RPC shows is not the ledger that was agreed on: another chain, contract, code or charter."""

    exit_code = 2

    def __init__(self, what: str, expected: object, found: object, advice: str) -> None:
        super().__init__(f"wrong ledger: {what} should be {expected} but is {found}; {advice}")
        self.what = what
        self.expected = expected
        self.found = found


class LedgerReorganised(FolkmootError):
    """A block that counted as final is no longer on the chain: what was recorded in it may be undone."""

    exit_code = 4

    def __init__(self, number: int, expected: bytes, found: bytes) -> None:
        super().__init__(
            f"the ledger was reorganised below what it had called final: block {number} was 0x{expected.hex()} and is "
            f"0x{found.hex()}; ask the other members and the chain's operators what happened, then see "
            "'A deep reorganisation' in docs/ledger.md"
        )
        self.number = number
        self.expected = expected
        self.found = found
