"""Rules 5 and 6 of PROTOCOL section 2, clause by clause."""

import pytest
from small_federation import SmallFederation

from folkmoot.protocol.ballot import Ballot
from folkmoot.protocol.messages import SurvivorSet

town = SmallFederation(4)
OLD, NEW = town.roster(), town.roster(attempt=1)
A = town.survivors(OLD)
B = town.survivors(OLD, [0, 1, 2])
C = town.survivors(NEW)
ME = 0


@pytest.fixture
def ballot() -> Ballot:
    ballot = Ballot(ME, town.groups)
    for survivors in (A, B, C):
        ballot.add_set(survivors)
    return ballot


def certify(
    ballot: Ballot, survivors: SurvivorSet, attempt: int, members: tuple[int, ...] = (1, 2, 3)
) -> None:
    for member in members:
        ballot.add_vote(town.vote(member, survivors, attempt))


def vote(ballot: Ballot, survivors: SurvivorSet, attempt: int) -> None:
    assert ballot.may_vote(attempt, survivors)
    ballot.add_vote(town.vote(ME, survivors, attempt))


def lock(ballot: Ballot, survivors: SurvivorSet, attempt: int) -> None:
    assert ballot.may_lock(attempt, survivors.digest)
    ballot.add_lock(town.lock(ME, survivors, attempt))


# --- certificates and openings ------------------------------------------------------------------------------------


def test_a_certificate_needs_q_votes_of_one_attempt_on_one_set(ballot: Ballot) -> None:
    certify(ballot, A, 0, (1, 2))
    certify(ballot, A, 1, (3,))
    certify(ballot, C, 0, (3,))
    assert ballot.certificates() == []
    certify(ballot, A, 0, (3,))
    assert ballot.certificates() == [(0, A.digest)]
    certificate = ballot.certificate(0, A.digest)
    assert certificate is not None and [one.member for one in certificate.votes] == [1, 2, 3]


def test_the_same_vote_counts_once(ballot: Ballot) -> None:
    certify(ballot, A, 0, (1, 1, 1, 2))
    assert ballot.certificates() == []


def test_certificates_come_highest_attempt_first(ballot: Ballot) -> None:
    certify(ballot, A, 0)
    certify(ballot, C, 2)
    certify(ballot, A, 1)
    assert [attempt for attempt, _ in ballot.certificates()] == [2, 1, 0]


def test_votes_count_once_their_set_is_shown() -> None:
    ballot = Ballot(ME, town.groups)
    certify(ballot, A, 0)
    assert ballot.certificates() == [] and ballot.certificate(0, A.digest) is None
    ballot.add_set(A)
    assert ballot.certificates() == [(0, A.digest)]


def test_an_opening_needs_q_locks_of_one_attempt_on_one_set_and_sum(ballot: Ballot) -> None:
    ballot.add_lock(town.lock(1, A, 0))
    ballot.add_lock(town.lock(2, A, 0, sums=bytes(32)))
    ballot.add_lock(town.lock(2, A, 1))
    ballot.add_lock(town.lock(2, C, 0))
    ballot.add_lock(town.lock(3, A, 0))
    assert ballot.opening() is None
    ballot.add_lock(town.lock(0, A, 0))
    opening = ballot.opening()
    assert opening is not None and opening.survivors == A and len(opening.locks) == 3


# --- rule 5: votes ------------------------------------------------------------------------------------------------


def test_one_vote_per_attempt_and_none_below_it(ballot: Ballot) -> None:
    vote(ballot, A, 1)
    assert not ballot.may_vote(1, A)
    assert not ballot.may_vote(1, C)
    assert not ballot.may_vote(0, A)
    assert ballot.may_vote(2, A)


def test_one_survivor_set_per_roster_ever(ballot: Ballot) -> None:
    vote(ballot, A, 0)
    assert not ballot.may_vote(1, B)
    assert ballot.may_vote(1, C)
    vote(ballot, C, 1)
    assert not ballot.may_vote(2, B)


def test_a_certificate_lifts_that_bar_for_its_set_in_a_later_attempt(ballot: Ballot) -> None:
    vote(ballot, A, 0)
    certify(ballot, B, 0)
    assert not ballot.may_vote(0, B)
    assert ballot.may_vote(1, B)


def test_a_certificate_for_another_set_does_not_lift_it(ballot: Ballot) -> None:
    vote(ballot, A, 0)
    certify(ballot, C, 0)
    assert not ballot.may_vote(1, B)


# --- rule 6: locks ------------------------------------------------------------------------------------------------


def test_no_lock_without_a_certificate_of_that_attempt(ballot: Ballot) -> None:
    certify(ballot, A, 0)
    assert ballot.may_lock(0, A.digest)
    assert not ballot.may_lock(1, A.digest)
    assert not ballot.may_lock(0, C.digest)


def test_no_lock_below_a_vote(ballot: Ballot) -> None:
    certify(ballot, A, 0)
    vote(ballot, C, 1)
    assert not ballot.may_lock(0, A.digest)


def test_no_lock_below_a_lock_and_only_one_per_attempt(ballot: Ballot) -> None:
    certify(ballot, A, 0)
    certify(ballot, C, 1)
    lock(ballot, C, 1)
    assert not ballot.may_lock(0, A.digest)
    assert not ballot.may_lock(1, C.digest)


def test_the_same_set_may_be_locked_again_later(ballot: Ballot) -> None:
    certify(ballot, A, 0)
    lock(ballot, A, 0)
    certify(ballot, A, 2)
    assert ballot.may_lock(2, A.digest)


def test_locked_i_vote_only_for_that_set(ballot: Ballot) -> None:
    certify(ballot, A, 0)
    lock(ballot, A, 0)
    assert not ballot.may_vote(1, C)
    assert ballot.may_vote(1, A)


def test_a_certificate_on_another_set_from_above_my_lock_frees_me_fully(ballot: Ballot) -> None:
    certify(ballot, A, 1)
    lock(ballot, A, 1)
    certify(ballot, C, 0)
    assert not ballot.may_vote(2, C)
    certify(ballot, C, 1)  # cannot happen with at most f liars; at my lock's height it would not count
    assert not ballot.may_vote(2, C)
    certify(ballot, C, 2)
    assert ballot.may_vote(3, C)
    assert ballot.may_vote(3, B)


def test_a_higher_certificate_on_my_own_set_does_not_free_me(ballot: Ballot) -> None:
    certify(ballot, A, 0)
    lock(ballot, A, 0)
    certify(ballot, A, 1)
    assert not ballot.may_vote(2, C)


def test_my_lock_is_that_of_the_highest_attempt(ballot: Ballot) -> None:
    assert ballot.my_lock is None
    ballot.add_lock(town.lock(ME, C, 2))
    ballot.add_lock(town.lock(ME, A, 1))  # as a journal might give them back
    assert ballot.my_lock == (2, C.digest)


def test_others_locks_and_votes_are_not_mine(ballot: Ballot) -> None:
    certify(ballot, A, 3)
    ballot.add_lock(town.lock(1, A, 3))
    assert ballot.my_votes == {} and ballot.my_locks == {} and ballot.mine() == []
    assert ballot.may_vote(0, C)


def test_what_is_mine_is_said_again(ballot: Ballot) -> None:
    vote(ballot, A, 0)
    certify(ballot, A, 0)
    lock(ballot, A, 0)
    assert ballot.mine() == [town.vote(ME, A, 0), town.lock(ME, A, 0)]
