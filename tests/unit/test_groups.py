"""Who shares masks with whom, and what that asks of survivors and voters."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.protocol.charter import CharterError, max_faults, quorum
from folkmoot.protocol.charter_rules import check_charter
from folkmoot.protocol.charter_tables import MAX_GROUP
from folkmoot.protocol.groups import Groups, chance_of_capture, draw_groups, one_group
from folkmoot.testnet.simulation.node import simulated_charter

FEDERATION = b"f" * 32


def drawn(members: int, group_size: int = 0, round_: int = 1) -> Groups:
    return draw_groups(simulated_charter(members, 3, secure=True, group_size=group_size), FEDERATION, round_)


def sizes_of(groups: Groups) -> list[int]:
    return sorted(len(group.members) for group in groups)


# --- the draw -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "group_size", "sizes"),
    [
        (3, 0, [3]),
        (16, 0, [16]),
        (17, 0, [8, 9]),
        (23, 0, [11, 12]),
        (64, 0, [16] * 4),
        (64, 8, [8] * 8),
        (31, 16, [15, 16]),  # one group of 31 would be too large
        (7, 4, [7]),  # two would be too small
        (12, 4, [4, 4, 4]),
        (256, 0, [16] * 16),
    ],
)
def test_groups_are_as_even_as_can_be(members: int, group_size: int, sizes: list[int]) -> None:
    assert sizes_of(drawn(members, group_size)) == sizes


@given(st.integers(3, 256), st.integers(3, 16))
def test_every_member_is_in_one_group_of_an_allowed_size(members: int, group_size: int) -> None:
    groups = drawn(members, group_size)
    everybody = sorted(itertools.chain.from_iterable(group.members for group in groups))
    assert everybody == list(range(members))
    assert all(3 <= size <= MAX_GROUP for size in sizes_of(groups))
    assert all(member in groups.of(member).members for member in range(members))


def test_groups_stay_for_an_epoch_and_are_drawn_anew_for_the_next() -> None:
    assert drawn(24, round_=1) == drawn(24, round_=50) != drawn(24, round_=51)


def test_another_federation_draws_other_groups() -> None:
    charter = simulated_charter(24, 3, secure=True)
    assert draw_groups(charter, b"a" * 32, 1) != draw_groups(charter, b"b" * 32, 1)


def test_in_open_mode_everybody_is_in_one_group() -> None:
    assert draw_groups(simulated_charter(24, 3), FEDERATION, 1) == one_group(24)


def test_a_group_of_two_is_refused() -> None:
    with pytest.raises(CharterError, match="group_size = 2"):
        check_charter(simulated_charter(8, 3, secure=True, group_size=2))


# --- what it takes ------------------------------------------------------------------------------------------------


@given(st.integers(3, 16))
def test_a_quorum_of_a_group_without_its_faulty_can_open_and_its_faulty_alone_cannot(size: int) -> None:
    (group,) = drawn(size)
    faults = max_faults(size)
    assert faults < group.threshold <= group.quorum - faults
    assert group.needed - faults >= 2  # an honest update hides behind another honest one at least


def test_survivors_are_a_quorum_with_enough_of_every_group_that_is_in_it() -> None:
    groups = drawn(12, 4)  # Q = 8; of each group 3 of 4
    first, second, third = (set(group.members) for group in groups)
    assert groups.can_survive(first | second | third)
    assert groups.can_survive(first | second)
    assert groups.can_survive(first | second | set(sorted(third)[:3]))
    assert not groups.can_survive(first | second | set(sorted(third)[:2]))
    assert not groups.can_survive(first)
    assert groups.whole(first | set(sorted(third)[:2])) == first


def test_votes_of_the_whole_federation_do_not_stand_in_for_those_of_a_group() -> None:
    groups = drawn(12, 4)
    first, second, third = (set(group.members) for group in groups)
    voters = first | second | set(sorted(third)[:2])
    assert len(voters) > quorum(12)
    assert groups.are_quorum(voters, first | second)
    assert not groups.are_quorum(voters, first | second | third)
    assert [group.members for group in groups.lacking(voters, first | third)] == [tuple(sorted(third))]


def test_a_member_is_spared_only_where_its_group_can_do_without_it() -> None:
    groups = drawn(12, 4)
    first, second, third = (set(group.members) for group in groups)
    everybody = first | second | third
    one, other = sorted(third)[:2]
    assert groups.can_spare(one, everybody)
    assert not groups.can_spare(other, everybody - {one})  # three of four are needed
    assert groups.can_spare(other, first | second | {other})  # this group sits out anyway


# --- collusion ----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(3, 5), min_size=1, max_size=3), st.integers(0, 6))
def test_the_chance_of_capture_is_that_of_all_draws(sizes: list[int], colluders: int) -> None:
    places = [number for number, size in enumerate(sizes) for _ in range(size)]
    colluders = min(colluders, len(places))
    draws = list(itertools.combinations(places, colluders))
    captured = sum(
        any(draw.count(number) > max_faults(size) for number, size in enumerate(sizes)) for draw in draws
    )
    assert chance_of_capture(tuple(sizes), colluders) == pytest.approx(captured / len(draws))
