"""Every [IGNORE] and [REJECT] rule of gossip and streams, each broken once; and the message that breaks none."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from small_federation import BASE, SmallFederation, mark

from folkmoot.protocol.errors import Ignore, Reject, RemoteProtocolError
from folkmoot.protocol.exchange import Exchange
from folkmoot.protocol.messages import Commitment, Omission, Propose, Ready, Receipt, Roster, Signed
from folkmoot.protocol.validation import (
    MAX_ATTEMPTS_AHEAD,
    View,
    validate_attestation,
    validate_ballot,
    validate_commitment,
    validate_enter,
    validate_propose,
    validate_ready,
    validate_receipt,
    validate_roster,
    validate_sender,
)

town = SmallFederation(4)
VIEW = town.view
ROSTER = town.roster()
ALL = town.survivors(ROSTER)
THREE = town.survivors(ROSTER, [0, 1, 2])
STRANGER = next(member for member in town.members if member != town.proposer())


def forged(signed: Signed) -> Signed:
    return replace(signed, signature=bytes(64))


def view(**changes: Any) -> View:
    fields = {name: getattr(VIEW, name) for name in VIEW.__slots__}
    return View(**{**fields, **changes})


# --- READY --------------------------------------------------------------------------------------------------------


def test_ready_is_accepted() -> None:
    validate_ready(town.ready(1), VIEW, None)


@pytest.mark.parametrize("signed", [town.ready(1, round=2), town.ready(1, base=mark(5))])
def test_ready_of_another_round_or_base_is_ignored(signed: Signed) -> None:
    with pytest.raises(Ignore, match="another round or base"):
        validate_ready(signed, VIEW, None)


def test_known_ready_is_ignored() -> None:
    with pytest.raises(Ignore, match="already known"):
        validate_ready(town.ready(1, num_examples=99), VIEW, town.ready(1))


@pytest.mark.parametrize(
    ("signed", "why"),
    [
        (town.ready(1, exponents=b""), "0 exponents, an update has 1"),
        (town.ready(1, exponents=b"\x00\x00"), "2 exponents"),
        (town.ready(1, exponents=bytes([17])), r"outside \[0, 16\]"),
        (town.ready(1, exponents=bytes([255])), r"outside \[0, 16\]"),
        (town.ready(1, num_examples=0), "without examples"),
        (town.ready(1, metrics=(("accuracy", float("nan")), ("examples", 3.0))), "no metric 'accuracy'"),
        (forged(town.ready(1)), "bad signature of member 1"),
    ],
)
def test_ready_is_rejected(signed: Signed, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        validate_ready(signed, VIEW, None)


# --- roster -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [None, [0, 1, 3]])
def test_roster_is_accepted(members: list[int] | None) -> None:
    validate_roster(town.roster(members), VIEW, None)


@pytest.mark.parametrize(
    ("signed", "why"),
    [
        (town.roster(round=2), "another round or base"),
        (town.roster(base=mark(5)), "another round or base"),
        (town.roster(attempt=1), "another attempt"),
    ],
)
def test_roster_of_another_place_is_ignored(signed: Signed, why: str) -> None:
    with pytest.raises(Ignore, match=why):
        validate_roster(signed, VIEW, None)


def test_known_roster_is_ignored_but_a_second_one_is_looked_at() -> None:
    exchange = town.exchange(0, ROSTER)
    with pytest.raises(Ignore, match="already known"):
        validate_roster(ROSTER, VIEW, exchange)
    validate_roster(town.roster([0, 1, 2]), VIEW, exchange)


def swapped(signed: Signed) -> Signed:
    assert isinstance(signed.body, Roster)
    readies = signed.body.readies
    return town.sign(signed.member, replace(signed.body, readies=(readies[1], readies[0], *readies[2:])))


def with_ready(ready: Signed) -> Signed:
    return town.roster(readies=(town.ready(0), ready, town.ready(2), town.ready(3)))


@pytest.mark.parametrize(
    ("signed", "why"),
    [
        (town.sign(STRANGER, ROSTER.body), "not the proposer of attempt 0"),
        (swapped(ROSTER), "ascending order"),
        (with_ready(town.ready(0)), "ascending order"),
        (town.roster([0, 1]), "roster of 2, the quorum is 3"),
        (town.roster([]), "roster of 0, the quorum is 3"),
        (with_ready(town.ready(1, round=2)), "READY of another round or base"),
        (with_ready(town.ready(1, num_examples=0)), "without examples"),
        (with_ready(forged(town.ready(1))), "bad signature of member 1"),
        (town.roster(exponents=bytes([9])), "scales do not follow"),
        (town.roster(exponents=b""), "scales do not follow"),
        (forged(ROSTER), f"bad signature of member {ROSTER.member}"),
    ],
)
def test_roster_is_rejected(signed: Signed, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        validate_roster(signed, VIEW, None)


# --- commitment and receipt ---------------------------------------------------------------------------------------

EXCHANGE = town.exchange(0, ROSTER)


def test_commitment_is_accepted_once() -> None:
    exchange = Exchange(0, ROSTER)
    validate_commitment(town.commitment(1, ROSTER), VIEW, exchange)
    exchange.add_commitment(town.commitment(1, ROSTER))
    with pytest.raises(Ignore, match="already known"):
        validate_commitment(town.commitment(1, ROSTER), VIEW, exchange)


@pytest.mark.parametrize(
    ("signed", "why"),
    [
        (town.commitment(1, ROSTER, member=2), "another member's name"),
        (town.commitment(1, ROSTER, federation=mark(5)), "of another federation"),
        (town.commitment(1, ROSTER, size=1), "1 bytes, which no update has"),
        (forged(town.commitment(1, ROSTER)), "bad signature"),
    ],
)
def test_commitment_is_rejected(signed: Signed, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        validate_commitment(signed, VIEW, EXCHANGE)


def test_commitment_or_receipt_from_outside_the_roster_is_rejected() -> None:
    roster = town.roster([0, 1, 2])
    exchange = town.exchange(0, roster)
    with pytest.raises(Reject, match="not in the roster"):
        validate_commitment(town.commitment(3, roster), VIEW, exchange)
    with pytest.raises(Reject, match="not in the roster"):
        validate_receipt(town.receipt(3, roster, [0]), VIEW, exchange)


def test_receipt_is_accepted() -> None:
    validate_receipt(town.receipt(1, ROSTER, []), VIEW, EXCHANGE)
    validate_receipt(town.receipt(1, ROSTER, town.members), VIEW, EXCHANGE)


def test_receipt_for_more_than_there_is_is_rejected() -> None:
    body = town.receipt(1, ROSTER, [0, 1, 2, 3]).body
    assert isinstance(body, Receipt)
    signed = town.sign(1, replace(body, held=(*body.held, mark(1))))
    with pytest.raises(Reject, match="5 payloads, the roster has 4"):
        validate_receipt(signed, VIEW, EXCHANGE)


def test_forged_receipt_is_rejected() -> None:
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        validate_receipt(forged(town.receipt(1, ROSTER, [0])), VIEW, EXCHANGE)


# --- proposal -----------------------------------------------------------------------------------------------------


def test_proposal_is_accepted() -> None:
    validate_propose(town.propose(ALL), VIEW, EXCHANGE)
    validate_propose(town.propose(THREE, omitted=(Omission(3, 0),)), VIEW, EXCHANGE)


def test_proposal_of_an_earlier_set_is_accepted_with_its_certificate_even_without_its_roster() -> None:
    frame = town.propose(ALL, attempt=1, certificate=town.certificate(ALL))
    validate_propose(frame, view(attempt=1), EXCHANGE)
    validate_propose(frame, view(attempt=1), None)


def test_who_passes_on_wrong_omissions_without_knowing_the_roster_is_not_to_blame() -> None:
    frame = town.propose(ALL, attempt=1, omitted=(Omission(3, 0),), certificate=town.certificate(ALL))
    validate_propose(frame, view(attempt=1), None)
    with pytest.raises(Ignore, match="each omitted member"):
        validate_propose(frame, view(attempt=1), EXCHANGE)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (town.propose(ALL, round=2), "another round or attempt"),
        (town.propose(ALL, attempt=1), "another round or attempt"),
        (town.propose(town.survivors(ROSTER, base=mark(5))), "another base or previous statement"),
        (town.propose(town.survivors(ROSTER, previous=mark(5))), "another base or previous statement"),
        (town.propose(town.survivors(ROSTER, round=7)), "another base or previous statement"),
    ],
)
def test_proposal_of_another_place_is_ignored(frame: Propose, why: str) -> None:
    with pytest.raises(Ignore, match=why):
        validate_propose(frame, VIEW, EXCHANGE)


def test_proposal_on_an_unknown_roster_is_ignored() -> None:
    with pytest.raises(Ignore, match="roster that is not known here"):
        validate_propose(town.propose(ALL), VIEW, None)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (Propose(town.ready(1), ALL, (), None), "another kind or federation"),
        (town.propose(ALL, federation=mark(5)), "another kind or federation"),
        (town.propose(ALL, member=STRANGER), "not the proposer"),
        (replace(town.propose(ALL), survivors=THREE), "does not sign what it shows"),
        (replace(town.propose(ALL), omitted=(Omission(3, 0),)), "does not sign what it shows"),
        (replace(town.propose(ALL), proposal=forged(town.propose(ALL).proposal)), "bad signature"),
        (town.propose(ALL, certificate=town.certificate(THREE)), "certificate for another set"),
        (town.propose(ALL, certificate=town.certificate(ALL, members=[0, 1])), "3 are needed"),
        (town.propose(town.survivors(ROSTER, [0, 1])), "2 survivors, 3 are needed"),
        (town.propose(town.survivors(ROSTER, [])), "0 survivors, 3 are needed"),
        (town.propose(town.survivors(ROSTER, [1, 0, 2])), "ascending order"),
        (town.propose(town.survivors(ROSTER, [0, 1, 2, 9])), "distinct roster members"),
        (town.propose(town.survivors(ROSTER, config=mark(5))), "round, base or configuration"),
        (town.propose(THREE), "each omitted member once"),
        (town.propose(THREE, omitted=(Omission(2, 0),)), "each omitted member once"),
        (town.propose(ALL, omitted=(Omission(3, 0),)), "each omitted member once"),
    ],
)
def test_proposal_is_rejected(frame: Propose, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        validate_propose(frame, VIEW, EXCHANGE)


def test_proposal_naming_another_roster_is_rejected() -> None:
    with pytest.raises(Reject, match="names another roster"):
        validate_propose(town.propose(town.survivors(town.roster([0, 1, 2]))), VIEW, EXCHANGE)


# --- votes, locks, attestations, attempts -------------------------------------------------------------------------

BALLOTS: list[Callable[..., Signed]] = [town.vote, town.lock]


@pytest.mark.parametrize("make", BALLOTS)
def test_ballot_of_any_near_attempt_is_accepted(make: Callable[..., Signed]) -> None:
    for attempt in (0, 3, 5 + MAX_ATTEMPTS_AHEAD):
        validate_ballot(make(1, ALL, attempt), view(attempt=5))


@pytest.mark.parametrize("make", BALLOTS)
def test_ballot_is_ignored(make: Callable[..., Signed]) -> None:
    with pytest.raises(Ignore, match="another round"):
        validate_ballot(make(1, ALL), view(round=2))
    with pytest.raises(Ignore, match="too far ahead"):
        validate_ballot(make(1, ALL, 1 + MAX_ATTEMPTS_AHEAD), VIEW)


@pytest.mark.parametrize("make", BALLOTS)
def test_ballot_is_rejected(make: Callable[..., Signed]) -> None:
    elsewhere = SmallFederation(5)
    with pytest.raises(Reject, match="another federation"):
        validate_ballot(make(1, ALL), view(federation=elsewhere.federation))
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        validate_ballot(forged(make(1, ALL)), VIEW)


STATEMENT = town.statement(ALL)


def test_attestation_is_accepted() -> None:
    validate_attestation(town.sign(1, STATEMENT), VIEW, 0)


@pytest.mark.parametrize(("round_", "oldest"), [(1, 2), (2, 0)])
def test_attestation_that_is_old_or_far_is_ignored(round_: int, oldest: int) -> None:
    with pytest.raises(Ignore, match="not kept"):
        validate_attestation(town.sign(1, replace(STATEMENT, round=round_)), VIEW, oldest)


def test_attestation_is_rejected() -> None:
    with pytest.raises(Reject, match="another federation"):
        validate_attestation(town.sign(1, replace(STATEMENT, federation=mark(5))), VIEW, 0)
    with pytest.raises(Reject, match="no attester"):
        validate_attestation(town.sign(9, STATEMENT), VIEW, 0)
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        validate_attestation(forged(town.sign(1, STATEMENT)), VIEW, 0)


def test_entering_an_attempt() -> None:
    validate_enter(town.enter(1, 3), VIEW, 2)
    for stale in (town.enter(1, 2), town.enter(1, 1)):
        with pytest.raises(Ignore):
            validate_enter(stale, VIEW, 2)
    with pytest.raises(Ignore):
        validate_enter(town.enter(1, 3), view(round=2), 0)
    with pytest.raises(RemoteProtocolError, match="bad signature"):
        validate_enter(forged(town.enter(1, 3)), VIEW, 0)


def test_a_member_that_the_charter_does_not_have_is_rejected() -> None:
    validate_sender(3, 4)
    with pytest.raises(Reject, match="member 4, the charter has 4"):
        validate_sender(4, 4)


def test_the_small_federation_says_what_it_seems_to_say() -> None:
    assert isinstance(ROSTER.body, Roster) and ROSTER.body.base == BASE
    assert isinstance(town.ready(1).body, Ready) and isinstance(town.commitment(1, ROSTER).body, Commitment)
