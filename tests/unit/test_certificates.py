"""What proves itself: quorums, scales, the proposers' order, certificates, openings and finals."""

from collections import Counter

import pytest
from msgspec.structs import replace
from small_federation import BASE, SmallFederation, mark

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import (
    archive_digest,
    compute_exponents,
    compute_statement,
    verify_certificate,
    verify_final,
    verify_opening,
)
from folkmoot.protocol.charter import max_faults, quorum
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.merkle import leaf_hash, root
from folkmoot.protocol.messages import Certificate, Final, Opening, Ready, encode
from folkmoot.testnet.simulation.node import simulated_charter

town = SmallFederation(4)
ROSTER = town.roster()
ALL = town.survivors(ROSTER)
THREE = town.survivors(ROSTER, [0, 1, 2])


# --- quorums and scales -------------------------------------------------------------------------------------------

# m: (f, Q)
QUORUMS = {
    1: (0, 1), 2: (0, 2), 3: (0, 2), 4: (1, 3), 5: (1, 4), 6: (1, 4), 7: (2, 5), 8: (2, 6),
    9: (2, 6), 10: (3, 7), 11: (3, 8), 12: (3, 8), 13: (4, 9), 14: (4, 10), 15: (4, 10), 16: (5, 11),
}  # fmt: skip


@pytest.mark.parametrize("members", QUORUMS)
def test_faults_and_quorums(members: int) -> None:
    assert (max_faults(members), quorum(members)) == QUORUMS[members]
    charter = simulated_charter(members, 1)
    assert (charter.faults, charter.quorum) == QUORUMS[members]


@pytest.mark.parametrize("members", range(1, 257))
def test_quorums_share_an_honest_member_and_the_honest_can_form_one(members: int) -> None:
    faults, needed = max_faults(members), quorum(members)
    assert 2 * needed - members > faults
    assert needed <= members - faults


def announce(*exponents: int) -> Ready:
    body = town.ready(0).body
    assert isinstance(body, Ready)
    return replace(body, exponents=b"".join(one.to_bytes(1, "big", signed=True) for one in exponents))


def test_each_scale_is_the_one_above_which_only_f_announced() -> None:
    readies = [announce(5, -3), announce(2, 100), announce(7, -7), announce(6, 0)]
    assert list(compute_exponents(readies, 0)) == [7, 100]
    assert list(compute_exponents(readies, 1)) == [6, 0]
    assert compute_exponents(readies, 2) == bytes([5, 253])  # int8: 253 is -3


def test_with_fewer_announcements_than_f_the_smallest_counts() -> None:
    assert list(compute_exponents([announce(5), announce(3)], 4)) == [3]


def test_a_tie_of_scales_is_no_matter() -> None:
    assert list(compute_exponents([announce(4), announce(4), announce(4), announce(1)], 1)) == [4]


# --- who proposes -------------------------------------------------------------------------------------------------


def test_everybody_proposes_once_per_turn_and_then_again_in_the_same_order() -> None:
    federation = SmallFederation(7).federation
    order = federation.proposers(3, mark(1))
    assert sorted(order) == list(range(7))
    assert [federation.proposer(3, mark(1), attempt) for attempt in range(14)] == [*order, *order]


def test_the_order_depends_on_federation_round_and_base() -> None:
    federation = SmallFederation(7).federation
    orders = {federation.proposers(round_, base) for round_ in range(1, 6) for base in (mark(1), mark(2))}
    assert len(orders) == 10
    other = replace(federation.charter, name="other")
    assert SmallFederation(7, rounds=4).federation.proposers(1, BASE) != federation.proposers(1, BASE)
    assert other.digest != federation.charter.digest


def test_first_turns_are_spread() -> None:
    firsts = Counter(town.federation.proposer(round_, BASE, 0) for round_ in range(400))
    assert set(firsts) == set(town.members) and min(firsts.values()) > 60


# --- certificates and openings ------------------------------------------------------------------------------------


def test_certificate_and_opening_are_verified() -> None:
    assert verify_certificate(town.certificate(ALL, 2), town.federation, town.verifier) == 2
    assert verify_certificate(town.certificate(ALL, 0, town.members), town.federation, town.verifier) == 0
    lock = verify_opening(town.opening(ALL, 1), town.federation, town.verifier)
    assert (lock.attempt, lock.survivors) == (1, ALL.digest)


VOTES = town.certificate(ALL).votes


@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        (Certificate(ALL, ()), "0 distinct Vote signatures"),
        (Certificate(ALL, VOTES[:2]), "3 are needed"),
        (Certificate(ALL, (VOTES[0], VOTES[0], VOTES[1])), "3 are needed"),
        (Certificate(ALL, (VOTES[1], VOTES[0], VOTES[2])), "ascending order"),
        (Certificate(ALL, (*VOTES[:2], town.vote(2, ALL, 1))), "not all on one body"),
        (Certificate(ALL, (*VOTES[:2], town.vote(2, THREE))), "not all on one body"),
        (Certificate(ALL, town.opening(ALL).locks), "not all on one body"),
        (Certificate(THREE, VOTES), "not on the survivor set that it shows"),
        (Certificate(replace(ALL, round=2), VOTES), "not on the survivor set that it shows"),
        (Certificate(ALL, (*VOTES[:2], replace(VOTES[2], signature=bytes(64)))), "bad signature of member 2"),
        (
            Certificate(ALL, tuple(town.vote(one, ALL, federation=mark(5)) for one in range(3))),
            "in this federation|survivor set",
        ),
    ],
)
def test_certificate_is_rejected(certificate: Certificate, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        verify_certificate(certificate, town.federation, town.verifier)


LOCKS = town.opening(ALL).locks


@pytest.mark.parametrize(
    ("opening", "why"),
    [
        (Opening(ALL, ()), "0 distinct Lock signatures"),
        (Opening(ALL, (*LOCKS[:2], town.lock(2, ALL, 0, sums=mark(5)))), "not all on one body"),
        (Opening(ALL, VOTES), "not all on one body"),
        (Opening(THREE, LOCKS), "not on the survivor set that it shows"),
    ],
)
def test_opening_is_rejected(opening: Opening, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        verify_opening(opening, town.federation, town.verifier)


# --- statements ---------------------------------------------------------------------------------------------------


def test_a_statement_follows_from_set_and_model() -> None:
    statement = compute_statement(town.federation, ALL, mark(8))
    assert (statement.round, statement.previous, statement.base) == (1, town.federation.id, BASE)
    assert (statement.config, statement.survivors) == (town.charter.digest, ALL.digest)
    assert statement.archive == root([leaf_hash(encode(one)) for one in ALL.survivors]) == archive_digest(ALL)


def test_final_is_verified() -> None:
    statement = town.statement(ALL)
    assert verify_final(town.final(statement), town.federation, town.verifier) == statement


STATEMENT = town.statement(ALL)
FINAL = town.final(STATEMENT)


@pytest.mark.parametrize(
    ("final", "why"),
    [
        (replace(FINAL, attestations=()), "0 distinct Statement signatures"),
        (town.final(STATEMENT, [0, 1]), "3 are needed"),
        (town.final(STATEMENT, [0, 1, 9]), "no attesters"),
        (town.final(replace(STATEMENT, federation=mark(5))), "another federation or configuration"),
        (town.final(replace(STATEMENT, config=mark(5))), "another federation or configuration"),
        (replace(FINAL, model=BlobRef(mark(5), FINAL.model.size)), "another model"),
        (replace(FINAL, model=BlobRef(FINAL.model.root, 4)), "another model"),
        (Final(VOTES, FINAL.model), "not all on one body"),
    ],
)
def test_final_is_rejected(final: Final, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        verify_final(final, town.federation, town.verifier)
