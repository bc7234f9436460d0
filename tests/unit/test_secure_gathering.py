"""Whose word for a sum is kept: a liar's second one too, for it may be the true one, but not any number of them."""

from small_federation import SmallFederation, mark

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.messages import Signed, Sum
from folkmoot.protocol.secure.exchange import MaskedExchange
from folkmoot.protocol.secure.gathering import Gathering

town = SmallFederation(4)
ROSTER = town.roster()
LIAR, SHARD = 1, 2


def gathering() -> Gathering:
    return Gathering(town.survivors(ROSTER), MaskedExchange(0, ROSTER, tuple(town.members), town.federation))


def claim(number: int, member: int = LIAR) -> Signed:
    return town.sign(member, Sum(town.federation.id, 1, mark(9), SHARD, mark(number), 64))


def test_of_one_who_claims_many_sums_two_are_kept_the_first_and_the_last() -> None:
    known = gathering()
    for number in range(1, 6):
        known.add_claim(claim(number))
    assert list(known.claims[SHARD]) == [mark(1), mark(5)]
    known.add_claim(claim(7, member=3))
    assert len(known.claims[SHARD]) == 3


def test_the_claim_of_the_sum_that_is_here_stays() -> None:
    known = gathering()
    known.add_claim(claim(1))
    known.add_claim(claim(2))
    known.held[SHARD] = BlobRef(mark(2), 64)
    for number in range(3, 9):
        known.add_claim(claim(number))
    assert mark(2) in known.claims[SHARD] and len(known.claims[SHARD]) == 3


def test_of_those_who_claim_the_same_the_first_is_kept() -> None:
    known = gathering()
    known.add_claim(claim(1))
    known.add_claim(claim(1, member=3))
    assert known.claims[SHARD] == {mark(1): claim(1)}
