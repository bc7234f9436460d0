"""What is offered for gas: always taken, always more than before, never above the cap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.ledger.errors import FeesTooHigh
from folkmoot.ledger.fees import GWEI, choose_fees, outbid
from folkmoot.ledger.port import PreparedTransaction

WEI = st.integers(0, 10_000 * GWEI)


def stuck(max_fee: int, tip: int) -> PreparedTransaction:
    return PreparedTransaction(raw=b"raw", hash=bytes(32), nonce=7, max_fee=max_fee, tip=tip)


@given(base=WEI, tip=WEI, cap=st.none() | WEI, before=st.none() | st.tuples(WEI, WEI))
def test_an_offer_is_taken_outbids_and_keeps_to_the_cap(
    base: int, tip: int, cap: int | None, before: tuple[int, int] | None
) -> None:
    replaces = stuck(*before) if before else None
    try:
        fees = choose_fees(base, tip, cap, replaces)
    except FeesTooHigh:
        assert (
            cap is not None and cap < 2 * base + max(tip, outbid(replaces.tip) if replaces else 0)
        ) or replaces
        return
    assert fees.max_fee >= base + fees.tip >= base + tip
    assert cap is None or fees.max_fee <= cap
    if replaces is not None:
        assert 8 * fees.max_fee >= 9 * replaces.max_fee
        assert 8 * fees.tip >= 9 * replaces.tip


def test_twice_the_base_fee_as_far_as_the_cap_allows() -> None:
    assert choose_fees(10 * GWEI, GWEI).max_fee == 21 * GWEI
    assert choose_fees(10 * GWEI, GWEI, 15 * GWEI).max_fee == 15 * GWEI
    assert choose_fees(0, 5 * GWEI) == choose_fees(0, 5 * GWEI, 5 * GWEI)


def test_refusals_say_what_the_operator_can_do() -> None:
    with pytest.raises(FeesTooHigh, match=r"asks for 11 gwei, ledger.max_fee_gwei is 10\.5; wait until"):
        choose_fees(10 * GWEI, GWEI, 10_500_000_000)
    with pytest.raises(FeesTooHigh, match=r"to replace a stuck transaction takes 18 gwei.*stays on offer"):
        choose_fees(GWEI, GWEI, 17 * GWEI, stuck(16 * GWEI, GWEI))
