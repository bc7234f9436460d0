"""What amendments may change, what they mean for the ledger, and which charter is in force when."""

import pytest
from msgspec.structs import replace

from folkmoot.protocol.amending import (
    check_amended,
    compute_changes,
    describe_change,
    make_amendment,
    verify_amendment,
)
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_rules import decode_charter
from folkmoot.protocol.charter_tables import Member
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.governance import Amendment, Change, Role, encode_changes
from folkmoot.protocol.timeline import CharterMissing, Timeline
from folkmoot.testnet.simulation.node import simulated_charter

FOUNDING = simulated_charter(4, 100)
FEDERATION = bytes([7]) * 32


def newcomer(name: str = "clinic-d", number: int = 200) -> Member:
    key = bytes([number]).hex()
    return Member(
        name=name,
        peer_id=f"peer-{number}",
        identity_key=key * 32,
        sealing_key=key * 32,
        audit_key="0x" + key * 20,
    )


def with_members(charter: Charter, *members: Member) -> Charter:
    return replace(charter, members=members)


def without(charter: Charter, index: int) -> Charter:
    return with_members(charter, *(one for at, one in enumerate(charter.members) if at != index))


def changed(charter: Charter, index: int, **fields: object) -> Charter:
    members = list(charter.members)
    members[index] = replace(members[index], **fields)
    return with_members(charter, *members)


ADDED = with_members(FOUNDING, *FOUNDING.members, newcomer())


def amend(before: Charter, after: Charter, effective: int, number: int = 1) -> Amendment:
    return make_amendment(FEDERATION, number, FEDERATION, effective, after, compute_changes(before, after))


def test_words_and_ledger_changes_of_each_kind() -> None:
    first = FOUNDING.members[1]
    address = bytes.fromhex(first.audit_key[2:])
    new = newcomer().audit_key
    cases = [
        (ADDED, ["adds clinic-d as attester"], {new: Role.ATTESTER}),
        (without(FOUNDING, 1), [f"removes {first.name}"], {first.audit_key: Role.REMOVED}),
        (
            changed(FOUNDING, 1, attester=False),
            [f"makes {first.name} a member that does not attest"],
            {first.audit_key: Role.MEMBER},
        ),
        (
            changed(FOUNDING, 1, audit_key=new, sealing_key="ab" * 32),
            [f"rotates the audit key and sealing key of {first.name}"],
            {first.audit_key: Role.REMOVED, new: Role.ATTESTER},
        ),
        (
            replace(FOUNDING, training=replace(FOUNDING.training, lr="0.05")),
            [f"training.lr {FOUNDING.training.lr} -> 0.05"],
            {},
        ),
        (
            replace(FOUNDING, ledger=replace(FOUNDING.ledger, finality_depth=8)),
            ["ledger.finality_depth 64 -> 8"],
            {},
        ),
    ]
    for after, words, roles in cases:
        changes = compute_changes(FOUNDING, after)
        assert describe_change(FOUNDING, after, changes) == words
        assert {f"0x{one.address.hex()}": one.role for one in changes} == roles
        verify_amendment(amend(FOUNDING, after, 60), FOUNDING, after)
    suspended = compute_changes(FOUNDING, without(FOUNDING, 1), suspended=[first.name])
    assert suspended == (Change(address, Role.SUSPENDED),)
    assert describe_change(FOUNDING, without(FOUNDING, 1), suspended) == [f"suspends {first.name}"]


@pytest.mark.parametrize(
    ("after", "word"),
    [
        (replace(FOUNDING, name="another"), "keeps its name"),
        (replace(FOUNDING, model=replace(FOUNDING.model, initial="00" * 31 + "01")), "of this model"),
        (replace(FOUNDING, ledger=replace(FOUNDING.ledger, chain_id=77)), "by the contract"),
        (replace(FOUNDING, ledger=replace(FOUNDING.ledger, code_hash="11" * 32)), "by the contract"),
        (replace(FOUNDING, ledger=replace(FOUNDING.ledger, cadence=2)), "ledger.cadence"),
        (replace(FOUNDING, schedule=replace(FOUNDING.schedule, max_ahead=7)), "max_ahead"),
        (replace(FOUNDING, secrecy=replace(FOUNDING.secrecy, epoch=7)), "secrecy.epoch"),
        (replace(FOUNDING, averaging=replace(FOUNDING.averaging, mode="secure")), "averaging.mode"),
        (with_members(FOUNDING, newcomer(), *FOUNDING.members), "new ones come last"),
        (changed(FOUNDING, 1, name="renamed"), "members keep their names"),
        (with_members(FOUNDING, *FOUNDING.members[::-1]), "stay in their order"),
        (FOUNDING, "changes nothing"),
    ],
)
def test_what_no_amendment_may_change(after: Charter, word: str) -> None:
    with pytest.raises(CharterError, match=word):
        check_amended(FOUNDING, after)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"charter": bytes(32)}, "names another charter"),
        ({"size": 3}, "names another charter"),
        ({"effective": 102}, "ends with round 100"),
        ({"changes": ()}, "the ledger has not the role"),
        ({"changes": (bytes([200]) * 20 + bytes(11) + b"\x02",)}, "the ledger has not the role"),
        (
            {
                "changes": (
                    bytes([200]) * 20 + bytes(11) + b"\x03",
                    bytes([201]) * 20 + bytes(11) + b"\x03",
                )
            },
            "does not change",
        ),
    ],
)
def test_an_amendment_has_to_say_of_its_charter_what_it_is(fields: dict[str, object], word: str) -> None:
    with pytest.raises(CharterError, match=word):
        verify_amendment(replace(amend(FOUNDING, ADDED, 60), **fields), FOUNDING, ADDED)


@pytest.mark.parametrize("role", [Role.REMOVED, Role.SUSPENDED, Role.MEMBER])
def test_no_role_is_taken_from_a_member_in_the_shadow_of_another_change(role: Role) -> None:
    """The charter would not show it, and who signs reads the charter's changes."""
    after = replace(FOUNDING, training=replace(FOUNDING.training, lr="0.05"))
    victim = bytes.fromhex(FOUNDING.members[1].audit_key[2:])
    hidden = replace(amend(FOUNDING, after, 60), changes=encode_changes((Change(victim, role),)))
    with pytest.raises(CharterError, match="does not change"):
        verify_amendment(hidden, FOUNDING, after)


def test_what_happens_to_former_members_is_said() -> None:
    after, former = without(FOUNDING, 1), Change(bytes([200]) * 20, Role.REMOVED)
    changes = (*compute_changes(FOUNDING, after), former)
    verify_amendment(replace(amend(FOUNDING, after, 60), changes=encode_changes(changes)), FOUNDING, after)
    assert describe_change(FOUNDING, after, changes)[1:] == [
        f"makes 0x{'c8' * 20}, an address of no member, removed on the ledger"
    ]


def test_a_charter_comes_back_from_its_bytes() -> None:
    assert decode_charter(ADDED.encoded) == ADDED
    for bad in (b"", ADDED.encoded + b"\x00", ADDED.encoded[:-1], b"\x80", b"\xc1"):
        with pytest.raises(CharterError):
            decode_charter(bad)


def test_the_timeline_says_which_charter_is_in_force() -> None:
    removed = without(ADDED, 1)
    amendments = [amend(FOUNDING, ADDED, 10), amend(ADDED, removed, 20, 2)]
    line = Timeline(FEDERATION, FOUNDING, amendments, {one.digest: one for one in (ADDED, removed)})
    assert [line.charter_at(round_) for round_ in (0, 1, 9, 10, 19, 20, 99)] == [
        FOUNDING, FOUNDING, FOUNDING, ADDED, ADDED, removed, removed
    ]  # fmt: skip
    assert line.newest == removed
    assert line.missing == ()
    assert line.coming(9) == [
        "from round 10: adds clinic-d as attester",
        f"from round 20: removes {FOUNDING.members[1].name}",
    ]
    assert line.federation_at(15).config == ADDED.digest


def test_a_missing_or_misfitting_charter_is_a_gap() -> None:
    line = Timeline(FEDERATION, FOUNDING, [amend(FOUNDING, ADDED, 10)])
    assert [one.number for one in line.missing] == [1]
    assert line.charter_at(9) == FOUNDING
    assert "not here yet" in line.coming(1)[0]
    with pytest.raises(CharterMissing, match="copy the file from one of them"):
        line.charter_at(10)

    renamed = replace(ADDED, name="another")
    line = Timeline(FEDERATION, FOUNDING, [amend(FOUNDING, renamed, 10)], {renamed.digest: renamed})
    assert line.missing == ()  # fetching it again would not help
    with pytest.raises(CharterMissing, match="keeps its name"):
        line.charter_at(10)


def test_of_two_amendments_for_one_round_the_later_counts() -> None:
    removed = without(ADDED, 1)
    amendments = [amend(FOUNDING, ADDED, 10), amend(ADDED, removed, 10, 2)]
    line = Timeline(FEDERATION, FOUNDING, amendments, {one.digest: one for one in (ADDED, removed)})
    assert [span.first for span in line.spans] == [1, 10]
    assert line.charter_at(10) == removed


def test_roles_are_known_without_the_charter() -> None:
    """Who left and was taken back has the role of the last change, whatever later amendments are about."""
    first = FOUNDING.members[1]
    gone, back = (
        without(FOUNDING, 1),
        with_members(without(FOUNDING, 1), *without(FOUNDING, 1).members, first),
    )
    other = replace(back, training=replace(back.training, lr="0.05"))
    amendments = [amend(FOUNDING, gone, 60), amend(gone, back, 70, 2), amend(back, other, 70, 3)]
    timeline = Timeline(FEDERATION, FOUNDING, amendments, {gone.digest: gone})
    address, untouched = (bytes.fromhex(one.audit_key[2:]) for one in FOUNDING.members[1:3])
    assert [timeline.role_of(address, span) for span in timeline.spans] == [None, Role.REMOVED, Role.ATTESTER]
    assert {timeline.role_of(untouched, span) for span in timeline.spans} == {None}
