"""Faults, forgiveness and growing times; allowances that honest traffic never meets. In virtual time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.node.network.conduct import (
    CALM_SECONDS,
    FAULTS,
    FIRST_SECONDS,
    FORGIVEN_SECONDS,
    LAST_SECONDS,
    Bucket,
    Conduct,
    ShutOut,
)


def commit(conduct: Conduct, count: int, now: float) -> list[bool]:
    return [conduct.fault(7, "bad frame", now) for _ in range(count)]


def test_a_few_faults_are_forgiven_and_one_more_is_not() -> None:
    conduct = Conduct()
    assert commit(conduct, FAULTS + 1, 100.0) == [False] * FAULTS + [True]
    assert conduct.shut_out(100.0) == [ShutOut(7, 100.0 + FIRST_SECONDS, "bad frame", 1)]
    assert conduct.until(7) == 100.0 + FIRST_SECONDS
    assert conduct.shut_out(100.0 + FIRST_SECONDS) == []


def test_faults_far_enough_apart_never_shut_out() -> None:
    conduct = Conduct()
    assert not any(conduct.fault(7, "x", number * FORGIVEN_SECONDS) for number in range(1000))


def test_a_grave_fault_shuts_out_at_once() -> None:
    assert Conduct().fault(7, "x", 0.0, grave=True)


def test_each_further_time_is_twice_as_long_up_to_an_hour() -> None:
    conduct, now, times = Conduct(), 0.0, []
    for _ in range(14):
        assert conduct.fault(7, "x", now, grave=True)
        times.append(conduct.until(7) - now)
        now = conduct.until(7)
    assert times == [min(LAST_SECONDS, FIRST_SECONDS * 2**number) for number in range(14)]


def test_what_comes_in_while_shut_out_adds_nothing() -> None:
    conduct = Conduct()
    conduct.fault(7, "x", 0.0, grave=True)
    assert not any(conduct.fault(7, "y", FIRST_SECONDS / 2, grave=True) for _ in range(100))
    assert conduct.until(7) == FIRST_SECONDS


def test_good_conduct_takes_doublings_back() -> None:
    conduct, now = Conduct(), 0.0
    for _ in range(5):
        conduct.fault(7, "x", now, grave=True)
        now = conduct.until(7)
    now += 3 * CALM_SECONDS
    conduct.fault(7, "x", now, grave=True)
    assert conduct.shut_out(now)[0].times == 5 - 3 + 1
    now = conduct.until(7) + 100 * CALM_SECONDS
    conduct.fault(7, "x", now, grave=True)
    assert conduct.until(7) == pytest.approx(now + FIRST_SECONDS)


def test_members_are_judged_apart() -> None:
    conduct = Conduct()
    conduct.fault(7, "x", 0.0, grave=True)
    assert conduct.until(8) < 0
    assert not conduct.fault(8, "y", 0.0)


rates = st.floats(0.01, 1e6)
takings = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1e4)), max_size=50)


@given(rates, st.floats(1, 1e6), takings)
def test_no_more_passes_a_bucket_than_its_burst_and_its_rate_allow(
    rate: float, burst: float, takings: list[tuple[float, float]]
) -> None:
    bucket, now, passed = Bucket(rate, burst), 0.0, 0.0
    for pause, amount in takings:
        now += pause
        passed += amount * bucket.take(amount, now)
        assert passed <= (burst + rate * now) * (1 + 1e-9)


@given(rates, st.floats(1, 1e6), takings)
def test_who_waits_as_told_stays_within_the_rate(
    rate: float, burst: float, takings: list[tuple[float, float]]
) -> None:
    bucket, now, passed = Bucket(rate, burst), 0.0, 0.0
    for pause, amount in takings:
        now += pause
        now += bucket.owe(amount, now)
        passed += amount
        assert passed <= (burst + rate * now) * (1 + 1e-9) + 1e-6


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    bucket = Bucket(1, 1)
    assert bucket.take(1, 10.0)
    assert not bucket.take(1, 10.0)
    assert not bucket.take(1, 5.0)
    assert bucket.take(1, 11.0)
