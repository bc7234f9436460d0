"""Early frames are kept, in order, and within bounds."""

from small_federation import SmallFederation

from folkmoot.protocol.messages import Hello
from folkmoot.protocol.waiting import BUDGET, SMALLEST, Waiting

town = SmallFederation(4)


def test_frames_come_back_in_the_order_in_which_they_came() -> None:
    waiting = Waiting()
    for sender, member in ((1, 2), (None, 3), (1, 1), (1, 2)):
        waiting.keep(sender, town.ready(member))
    assert waiting.take() == [(1, town.ready(2)), (None, town.ready(3)), (1, town.ready(1))]
    assert waiting.take() == []


def test_one_neighbour_cannot_crowd_the_others_out() -> None:
    waiting = Waiting()
    for number in range(2 * BUDGET // SMALLEST):
        waiting.keep(1, Hello(number, 0, 0))
    assert len(waiting) == BUDGET // SMALLEST
    waiting.keep(2, town.ready(2))
    assert waiting.take()[-1] == (2, town.ready(2))
    waiting.keep(1, town.ready(1))
    assert len(waiting) == 1


def test_large_frames_count_by_their_bytes() -> None:
    waiting = Waiting()
    for number in range(100):
        waiting.keep(1, town.ready(1, exponents=bytes(65_000), num_examples=number))
    assert 20 < len(waiting) <= BUDGET // 65_000
