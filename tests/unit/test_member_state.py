"""Vectors of one member: staged with a round, and kept only if that round counted the member's update."""

from pathlib import Path

import numpy as np
import pytest

from folkmoot.node.member_state import MemberState
from folkmoot.node.train.vectors import read_vector, write_vector

ONE, OTHER = bytes([1]) * 32, bytes([2]) * 32


def state(folder: Path, *, outlives_loss: bool = False) -> MemberState:
    return MemberState(folder, "own", 3, outlives_loss=outlives_loss)


def write(states: MemberState, round_: int, key: bytes, value: float) -> None:
    """As a trainer does."""
    write_vector(states.staged(round_, key), np.full(3, value, np.float32))


def value(states: MemberState, round_: int) -> float:
    path = states.before(round_)
    return 0.0 if path is None else float(read_vector(path, 3)[0])


def test_it_advances_with_rounds_that_it_is_in(tmp_path: Path) -> None:
    states = state(tmp_path)
    assert value(states, 1) == 0
    for round_ in (1, 2):
        write(states, round_, ONE, round_)
        assert value(states, round_) == round_ - 1  # staged is not yet
        states.close(round_, ONE, included=True)
        assert value(states, round_ + 1) == round_
    write(states, 3, ONE, 3)
    states.close(3, ONE, included=False)
    assert value(states, 4) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["own-000002.f32"]


def test_what_was_staged_under_another_key_is_dropped(tmp_path: Path) -> None:
    states = state(tmp_path)
    write(states, 1, ONE, 1)
    write(states, 1, OTHER, 5)
    states.close(1, OTHER, included=True)
    assert value(states, 2) == 5
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("outlives_loss", "left"), [(False, 0.0), (True, 1.0)])
def test_a_round_that_left_nothing_staged(tmp_path: Path, outlives_loss: bool, left: float) -> None:
    """An older residual has been made up for; an older dual variable is only late."""
    states = state(tmp_path, outlives_loss=outlives_loss)
    write(states, 1, ONE, 1)
    states.close(1, ONE, included=True)
    states.close(2, None, included=True)
    assert value(states, 3) == left


def test_to_be_told_again_changes_nothing(tmp_path: Path) -> None:
    """After a restart the machine closes its last rounds again."""
    states = state(tmp_path)
    for round_ in (1, 2):
        write(states, round_, ONE, round_)
        states.close(round_, ONE, included=True)
    write(states, 3, ONE, 3)
    for round_ in (1, 2):
        state(tmp_path).close(round_, ONE, included=True)
    assert value(states, 3) == 2
    states.close(3, ONE, included=True)
    assert value(states, 4) == 3


def test_a_crash_between_close_and_its_end_is_made_good(tmp_path: Path) -> None:
    states = state(tmp_path)
    write(states, 1, ONE, 1)
    states.close(1, ONE, included=True)
    write(states, 2, ONE, 2)
    states.staged(2, ONE).replace(tmp_path / "own-000002.f32")  # and then the power went
    states.close(2, ONE, included=True)
    assert value(states, 3) == 2
    assert len(list(tmp_path.iterdir())) == 1


def test_older_vectors_stay_until_no_roll_back_can_ask_for_them(tmp_path: Path) -> None:
    states = state(tmp_path, outlives_loss=True)
    for round_ in (1, 2, 4):
        write(states, round_, ONE, round_)
        states.close(round_, ONE, included=True)
    states.settle(3)
    assert [value(states, round_) for round_ in (2, 3, 4, 5)] == [0, 2, 2, 4]
    states.give_up(3)  # rounds 3 and 4 are undone
    assert value(states, 5) == 2
    write(states, 3, OTHER, 7)
    states.close(3, OTHER, included=True)
    assert value(states, 4) == 7
