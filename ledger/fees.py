"""What to offer for gas: enough to be taken, more than a stuck transaction of ours, never above the operator's cap."""

import msgspec

from folkmoot.ledger.errors import FeesTooHigh
from folkmoot.ledger.port import PreparedTransaction

GWEI = 10**9
ETHER = 10**18
"""Wei in a unit of the chain's currency, whatever it is called."""


class Fees(msgspec.Struct, frozen=True):
    """Wei per gas: `max_fee` in all, of it at most `tip` to whoever makes the block."""

    max_fee: int
    tip: int


def choose_fees(
    base: int, tip: int, cap: int | None = None, replaces: PreparedTransaction | None = None
) -> Fees:
    """The fees of the next transaction (EIP-1559). `base` is the last block's base fee, `tip` what the chain suggests.

    On a chain without base fees `base` is 0 and `tip` the gas price. Twice the base fee survives five full blocks; up
    to `cap` it may be less. Raises `FeesTooHigh` if no offer within the cap would be taken.
    """
    market = base + tip
    floor = 0
    if replaces is not None:
        tip, floor = max(tip, outbid(replaces.tip)), outbid(replaces.max_fee)
    wanted = max(2 * base + tip, floor)
    if cap is None or wanted <= cap:
        return Fees(wanted, tip)
    if market > cap:
        raise FeesTooHigh(
            f"the chain asks for {_gwei(market)} gwei, ledger.max_fee_gwei is {_gwei(cap)}",
            "wait until it asks for less, or raise ledger.max_fee_gwei",
        )
    if max(base + tip, floor) > cap:
        raise FeesTooHigh(
            f"to replace a stuck transaction takes {_gwei(max(base + tip, floor))} gwei, ledger.max_fee_gwei is "
            f"{_gwei(cap)}",
            "what was sent stays on offer; raise ledger.max_fee_gwei to outbid it",
        )
    return Fees(cap, tip)


def outbid(before: int) -> int:
    """Nodes take a replacement only if it raises both fees by 10 %: ours raises them by an eighth, rounded up."""
    return -(-before * 9 // 8)


def _gwei(wei: int) -> str:
    return f"{wei / GWEI:.9f}".rstrip("0").rstrip(".")
