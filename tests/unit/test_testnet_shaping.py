"""What orders do to the links of a testnet, without any sockets."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.testnet.processes import TestnetError
from folkmoot.testnet.shaping import Conditions, Heal, Line, Partition, Slow, parse_sides

NAMES = ("alice", "bob", "carol", "dave")


def test_sides_are_read_as_they_are_written() -> None:
    assert parse_sides("alice, bob|carol|dave", NAMES) == (("alice", "bob"), ("carol",), ("dave",))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("alice,bob", "write the sides as"),
        ("alice|", "write the sides as"),
        ("", "write the sides as"),
        ("alice|mallory", "mallory: no such node: there are alice, bob, carol, dave"),
        ("alice,bob|carol,alice", "alice is named twice"),
        ("alice,alice|bob", "alice is named twice"),
    ],
)
def test_bad_sides_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(TestnetError, match=complaint):
        parse_sides(text, NAMES)


def cut_pairs(conditions: Conditions) -> set[tuple[str, str]]:
    return {pair for pair in permutations(NAMES, 2) if conditions.is_cut(*pair)}


def test_a_partition_cuts_what_crosses_it_and_who_is_on_no_side_reaches_all() -> None:
    conditions = Conditions(NAMES)
    conditions.apply(Partition((("alice", "bob"), ("carol",))))
    assert cut_pairs(conditions) == {
        pair for one in ("alice", "bob") for pair in ((one, "carol"), ("carol", one))
    }
    assert not any(conditions.is_stalled(*pair) for pair in permutations(NAMES, 2))


def test_a_silent_partition_stalls_and_cuts_nothing() -> None:
    conditions = Conditions(NAMES)
    conditions.apply(Partition((("alice",), ("bob",)), silent=True))
    assert conditions.is_stalled("bob", "alice") and not cut_pairs(conditions)


def test_another_partition_takes_the_first_ones_place_and_healing_undoes_all() -> None:
    conditions = Conditions(NAMES)
    conditions.apply(Partition((("alice",), ("bob", "carol", "dave"))))
    conditions.apply(Partition((("carol",), ("dave",))))
    assert cut_pairs(conditions) == {("carol", "dave"), ("dave", "carol")}
    conditions.apply(Slow("alice", 0.1, 1000.0))
    conditions.apply(Heal())
    assert not cut_pairs(conditions)
    assert conditions.delay("alice", "bob") == 0 and conditions.cross("alice", "bob", 10**9, 5.0) == 5.0


def test_the_delays_of_both_lines_add_up_and_the_slower_one_decides() -> None:
    conditions = Conditions(NAMES)
    conditions.apply(Slow("alice", 0.1, 1000.0))
    conditions.apply(Slow("bob", 0.25, 100.0))
    assert conditions.delay("alice", "bob") == conditions.delay("bob", "alice") == pytest.approx(0.35)
    assert conditions.cross("alice", "bob", 200, 10.0) == pytest.approx(12.0)


def test_all_links_of_a_node_share_its_line_and_the_ways_do_not() -> None:
    conditions = Conditions(NAMES)
    conditions.apply(Slow("alice", rate=100.0))
    assert conditions.cross("alice", "bob", 100, 0.0) == pytest.approx(1.0)
    assert conditions.cross("alice", "carol", 100, 0.0) == pytest.approx(2.0)
    assert conditions.cross("dave", "alice", 100, 0.0) == pytest.approx(1.0)


@pytest.mark.parametrize("order", [Slow("mallory"), Partition((("alice",), ("mallory",)))])
def test_orders_about_strangers_are_refused_whole(order: Slow | Partition) -> None:
    conditions = Conditions(NAMES)
    with pytest.raises(TestnetError, match="mallory: no such node"):
        conditions.apply(order)
    assert not cut_pairs(conditions)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 10)), min_size=1), st.floats(1, 1e9))
def test_a_line_never_carries_more_than_its_rate(burst: list[tuple[int, float]], rate: float) -> None:
    line, now, before = Line(rate), 0.0, 0.0
    for size, pause in burst:
        now += pause
        crossed = line.cross(size, now)
        assert crossed >= max(now, before) + 0.999 * size / rate
        before = crossed
