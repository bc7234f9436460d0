"""Permits and answers: what a quorum allows, and what leaves a node for it."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from audited_federation import NAMES, AuditedFederation
from hypothesis import given
from hypothesis import strategies as st
from masked_federation import MaskedFederation, MaskedRoundMade
from nacl.public import PrivateKey

from folkmoot.protocol.errors import Reject, RemoteProtocolError
from folkmoot.protocol.messages import Commitment, Lock, Ready, Roster, encode
from folkmoot.protocol.secure.permit import (
    Answer,
    Permit,
    check_crowd,
    check_permit,
    check_round,
    compute_answer,
    named_members,
    open_answer,
    parse_permit,
    seal_answer,
    sign_permit,
    verify_answer,
    verify_permit,
)
from folkmoot.protocol.secure.verify import MaskedRound
from folkmoot.protocol.toml import ConfigError

AUDITOR = PrivateKey(b"\x05" * 32)
OTHER_AUDITOR = PrivateKey(b"\x06" * 32)


def round_of(federation: MaskedFederation, made: MaskedRoundMade) -> MaskedRound:
    roster, lock = made.record.roster.body, made.record.opening.locks[0].body
    assert isinstance(roster, Roster) and isinstance(lock, Lock)
    bodies = (signed.body for signed in made.record.commitments)
    commitments = {body.member: body for body in bodies if isinstance(body, Commitment)}
    return MaskedRound(federation.federation, roster, made.record.opening.survivors, commitments, lock)


@pytest.fixture(scope="module")
def federation() -> MaskedFederation:
    made = MaskedFederation()
    made.add_masked_round()
    made.add_masked_round(survivors=(0, 1, 3))
    return made


@pytest.fixture(scope="module")
def round_(federation: MaskedFederation) -> MaskedRound:
    return round_of(federation, federation.masked_rounds[0])


@pytest.fixture
def permit(round_: MaskedRound) -> Permit:
    return Permit(
        federation=round_.federation.id.hex(),
        round=1,
        roster=round_.survivors.roster.hex(),
        auditor=bytes(AUDITOR.public_key).hex(),
        members=("bob",),
        reason="its updates grow from round to round",
    )


def replaced(permit: Permit, **changes: Any) -> Permit:
    return msgspec.structs.replace(permit, **changes)


def signatures(federation: AuditedFederation, permit: Permit, *members: int) -> dict[str, bytes]:
    return {NAMES[member]: sign_permit(permit, federation.keys[member].identity) for member in members}


def keys_of(round_: MaskedRound) -> dict[int, bytes]:
    bodies = ((signed.member, signed.body) for signed in round_.roster.readies)
    return {member: body.mask_key for member, body in bodies if isinstance(body, Ready)}


def answer_of(federation: MaskedFederation, round_: MaskedRound, permit: Permit, member: int) -> Answer:
    return compute_answer(permit, round_, federation.epoch_secret(member), member, keys_of(round_))


# --- permits ----------------------------------------------------------------------------------------------------------


def test_quorum_of_signatures_makes_a_permit(
    federation: MaskedFederation, round_: MaskedRound, permit: Permit
) -> None:
    verify_permit(permit, signatures(federation, permit, 0, 2, 3), federation.federation)
    check_round(permit, round_)
    check_crowd(round_, [permit])
    assert named_members(permit, federation.charter) == (1,)


@pytest.mark.parametrize("signers", [(), (0, 2), (0, 0, 2)], ids=["nobody", "two", "one twice"])
def test_less_than_a_quorum_is_refused(
    federation: MaskedFederation, permit: Permit, signers: tuple[int, ...]
) -> None:
    with pytest.raises(Reject, match="3 are needed"):
        verify_permit(permit, signatures(federation, permit, *signers), federation.federation)


def test_signatures_on_another_permit_count_for_nothing(federation: MaskedFederation, permit: Permit) -> None:
    for other in (
        replaced(permit, members=("carol",)),
        replaced(permit, auditor="11" * 32),
        replaced(permit, round=2),
        replaced(permit, reason="another"),
    ):
        with pytest.raises(Reject, match="signed by 0 of 4"):
            verify_permit(other, signatures(federation, permit, 0, 1, 2, 3), federation.federation)


def test_signature_under_another_members_name_counts_for_nothing(
    federation: MaskedFederation, permit: Permit
) -> None:
    signed = signatures(federation, permit, 0, 2)
    signed |= {"dave": signed["alice"], "bob": b"", "nobody": signed["carol"]}
    with pytest.raises(Reject, match="signed by 2 of 4"):
        verify_permit(permit, signed, federation.federation)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"federation": "22" * 32}, "permit of federation"),
        ({"members": ("carol", "bob")}, "in the charter's order"),
        ({"members": ("bob", "bob")}, "once each"),
        ({"members": ("erin",)}, "once each"),
    ],
    ids=["federation", "order", "twice", "stranger"],
)
def test_permit_that_says_nonsense_is_refused(
    federation: MaskedFederation, permit: Permit, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(Reject, match=says):
        check_permit(replaced(permit, **changes), federation.federation)


def test_open_mode_has_no_permits(permit: Permit) -> None:
    open_mode = AuditedFederation().federation
    with pytest.raises(Reject, match="open mode"):
        check_permit(replaced(permit, federation=open_mode.id.hex()), open_mode)


def test_permit_is_for_the_roster_that_was_opened(round_: MaskedRound, permit: Permit) -> None:
    for changes in ({"roster": "33" * 32}, {"round": 2}):
        with pytest.raises(Reject, match="opened was"):
            check_round(replaced(permit, **changes), round_)


def test_who_is_not_in_the_sum_is_never_opened(federation: MaskedFederation, permit: Permit) -> None:
    second = round_of(federation, federation.masked_rounds[1])
    roster = second.survivors.roster.hex()
    with pytest.raises(Reject, match="carol: not in the sum"):
        check_round(replaced(permit, round=2, roster=roster, members=("carol",)), second)


# --- the crowd --------------------------------------------------------------------------------------------------------


def test_k_min_survivors_stay_hidden(federation: MaskedFederation, permit: Permit) -> None:
    first, second = (round_of(federation, made) for made in federation.masked_rounds)
    check_crowd(first, [permit])
    with pytest.raises(Reject, match="only 2 of 4"):
        check_crowd(first, [replaced(permit, members=("bob", "carol"))])
    # Three survivors are the smallest crowd that there may be: none of them can be opened.
    with pytest.raises(Reject, match="only 2 of 3"):
        check_crowd(second, [replaced(permit, round=2)])


def test_all_permits_and_all_auditors_count_as_one(round_: MaskedRound, permit: Permit) -> None:
    again = replaced(permit, reason="to be sure")
    check_crowd(round_, [permit, again])
    other = replaced(permit, members=("carol",), auditor=bytes(OTHER_AUDITOR.public_key).hex())
    check_crowd(round_, [other])
    with pytest.raises(Reject, match="only 2 of 4"):
        check_crowd(round_, [permit, other])


# --- answers ----------------------------------------------------------------------------------------------------------


def test_answer_is_the_seed_that_both_committed_to(
    federation: MaskedFederation, round_: MaskedRound, permit: Permit
) -> None:
    answer = answer_of(federation, round_, permit, 0)
    verify_answer(answer, permit, round_)
    assert answer.seeds == ((1, federation.masked_rounds[0].dealt[0].seeds[1]),)
    sealed = seal_answer(answer, permit)
    assert sealed == seal_answer(answer, permit)
    assert open_answer(sealed, bytes(AUDITOR)) == answer
    for seed in (seed for _, seed in answer.seeds):
        assert seed not in sealed
        assert seed.hex() not in repr(answer)


def test_secret_of_the_epoch_is_in_no_answer(
    federation: MaskedFederation, round_: MaskedRound, permit: Permit
) -> None:
    assert federation.epoch_secret(0) not in encode(answer_of(federation, round_, permit, 0))


def test_named_member_alone_has_nothing_to_answer(
    federation: MaskedFederation, round_: MaskedRound, permit: Permit
) -> None:
    with pytest.raises(Reject, match="nothing to answer"):
        answer_of(federation, round_, permit, 1)
    both = replaced(permit, members=("bob", "carol"))
    assert [other for other, _ in answer_of(federation, round_, both, 1).seeds] == [2]


def test_member_that_was_left_out_has_nothing_to_answer(federation: MaskedFederation, permit: Permit) -> None:
    second = round_of(federation, federation.masked_rounds[1])
    with pytest.raises(Reject, match="nothing to answer"):
        answer_of(federation, second, replaced(permit, round=2), 2)


def test_another_key_opens_no_answer(
    federation: MaskedFederation, round_: MaskedRound, permit: Permit
) -> None:
    sealed = seal_answer(answer_of(federation, round_, permit, 0), permit)
    with pytest.raises(RemoteProtocolError, match="do not open"):
        open_answer(sealed, bytes(OTHER_AUDITOR))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda answer: {"permit": bytes(32)}, "another permit"),
        (lambda answer: {"member": 9}, "no survivor"),
        (lambda answer: {"member": 2}, "not the one committed to"),
        (lambda answer: {"seeds": ()}, "other members than those named"),
        (lambda answer: {"seeds": (*answer.seeds, *answer.seeds)}, "other members than those named"),
        (lambda answer: {"seeds": ((2, answer.seeds[0][1]),)}, "other members than those named"),
        (lambda answer: {"seeds": ((1, bytes(16)),)}, "not the one committed to"),
    ],
    ids=["permit", "stranger", "another's", "none", "twice", "not named", "wrong"],
)
def test_answer_that_does_not_fit_is_refused(
    federation: MaskedFederation,
    round_: MaskedRound,
    permit: Permit,
    change: Callable[[Answer], dict[str, Any]],
    says: str,
) -> None:
    answer = answer_of(federation, round_, permit, 0)
    with pytest.raises(Reject, match=says):
        verify_answer(msgspec.structs.replace(answer, **change(answer)), permit, round_)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_as_an_answer(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        open_answer(data, bytes(AUDITOR))


def test_sealed_nonsense_is_refused(permit: Permit) -> None:
    from nacl.public import SealedBox

    answer = encode(Answer(permit.digest, 0, ()))
    for plaintext in (b"", b"\x93\x00", answer + b"\x00", answer[:-1], b"\xc1" * 40):
        with pytest.raises(RemoteProtocolError):
            open_answer(SealedBox(AUDITOR.public_key).encrypt(plaintext), bytes(AUDITOR))
    with pytest.raises(RemoteProtocolError, match="the limit is"):
        open_answer(bytes(1 << 20), bytes(AUDITOR))


# --- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "missing"),
        ("fedration = 'x'", "did you mean 'federation'"),
        ("members = []", "a list of at least 1, each up to 32"),
    ],
    ids=["empty", "typo", "nobody"],
)
def test_text_that_is_no_permit_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_permit(text)


def test_digest_covers_every_field(permit: Permit) -> None:
    others = [
        replaced(permit, federation="00" * 32),
        replaced(permit, round=3),
        replaced(permit, roster="00" * 32),
        replaced(permit, auditor="00" * 32),
        replaced(permit, members=("bob", "dave")),
        replaced(permit, reason="none"),
    ]
    assert len({one.digest for one in (permit, *others)}) == 7
