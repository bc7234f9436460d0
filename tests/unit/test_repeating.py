"""In a large federation announcements repeat others' words to a few members, and in the end to all."""

from hypothesis import given
from hypothesis import strategies as st
from small_federation import SmallFederation

from folkmoot.protocol.messages import Signed
from folkmoot.protocol.repeating import FEW, Repeating, own_words


@given(st.integers(2, 256), st.data())
def test_everybody_is_told_everything_in_turn(members: int, data: st.DataObject) -> None:
    me = data.draw(st.integers(0, members - 1))
    others = set(range(members)) - {me}
    repeating, turns = Repeating(me, members), -(-(members - 1) // FEW)
    told = [{one for one in others if repeating.is_told_all(one, number)} for number in range(turns)]
    assert set().union(*told) == others and sum(map(len, told)) == len(others)
    assert all(len(some) <= FEW for some in told)


@given(st.integers(2, 256), st.data())
def test_who_greets_often_enough_is_answered_by_everybody(members: int, data: st.DataObject) -> None:
    asker = data.draw(st.integers(0, members - 1))
    others = {one: Repeating(one, members) for one in range(members) if one != asker}
    turns = -(-(members - 1) // FEW)
    answered = [{one for one, its in others.items() if its.answers_all(asker)} for _ in range(turns)]
    assert set().union(*answered) == set(others)
    assert all(len(some) <= FEW for some in answered)


def test_ones_own_words_are_what_one_signed() -> None:
    town = SmallFederation(4)
    roster = town.roster()
    whole = town.survivors(roster)
    mine = [town.ready(1), town.propose(whole), town.vote(1, whole)]
    proposer = town.proposer()
    frames = [town.ready(0), *mine, town.certificate(whole), town.vote(2, whole)]
    expected = [one for one in mine if isinstance(one, Signed) or proposer == 1]
    assert own_words(frames, 1) == expected
    assert own_words([town.propose(whole)], proposer) == [town.propose(whole)]
