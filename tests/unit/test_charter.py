"""The charter: read from TOML, hashed by what it says, checked for contradictions, signed by everybody."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from nacl.signing import SigningKey

from folkmoot.protocol.canonical import encode_terms
from folkmoot.protocol.charter import Charter, federation_id, sign_charter, verify_charter
from folkmoot.protocol.charter_rules import check_charter, decode_charter, parse_charter
from folkmoot.protocol.charter_tables import MAX_SUMMED, Member, Tensor
from folkmoot.protocol.errors import CharterError, LocalProtocolError
from folkmoot.protocol.ring import check_headroom
from folkmoot.protocol.toml import ConfigError
from folkmoot.testnet.simulation.node import simulated_charter

TEXT = f"""
name = "hospitals"

[model]
kind = "logistic"
layers = [8, 1]
initial = "{"11" * 32}"
tensors = [{{name = "weight", shape = [1, 8]}}, {{name = "bias", shape = [1]}}]

[schedule]
rounds = 5

[ledger]
chain_id = 31337
code_hash = "{"22" * 32}"

[[members]]
name = "north"
peer_id = "peer-north"
identity_key = "{"0a" * 32}"
sealing_key = "{"0b" * 32}"
audit_key = "0x{"0c" * 20}"

[[members]]
name = "south"
peer_id = "peer-south"
identity_key = "{"1a" * 32}"
sealing_key = "{"1b" * 32}"
audit_key = "0x{"1c" * 20}"
attester = false
"""


def test_a_charter_is_read() -> None:
    charter = parse_charter(TEXT)
    assert [member.name for member in charter.members] == ["north", "south"]
    assert (charter.model.parameters, charter.model.sizes) == (9, (8, 1))
    assert (charter.attesters, charter.attester_quorum, charter.quorum) == ((0,), 1, 2)
    assert charter.member_named("south") == 1
    with pytest.raises(CharterError, match="no member 'east'; its members are north, south"):
        charter.member_named("east")


def test_the_digest_is_of_what_the_charter_says_not_of_how_it_is_written() -> None:
    lines = TEXT.strip().splitlines()
    rewritten = "\n# a comment\n".join(f"  {line}  # more" if "=" in line else line for line in lines)
    spelled_out = TEXT.replace("rounds = 5", "rounds = 5\ngrace_min = 2.0\nmax_ahead = 50")
    digests = {parse_charter(text).digest for text in (TEXT, rewritten, spelled_out)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rounds = 5", "rounds = 6"),
        ("hospitals", "clinics"),
        ("31337", "1"),
        ("attester = false", "attester = true"),
        ("shape = [1]", "shape = [2]"),
        ("11" * 32, "12" * 32),
    ],
)
def test_every_change_of_meaning_changes_the_digest(old: str, new: str) -> None:
    assert parse_charter(TEXT.replace(old, new)).digest != parse_charter(TEXT).digest


def test_what_a_charter_leaves_at_its_default_is_not_in_its_bytes() -> None:
    written_out = TEXT.replace(
        "rounds = 5", "rounds = 5\ngrace_min = 2\nmax_ahead = 50\n\n[training]\nlr = '0.1'\n\n[secrecy]"
    )
    charter = parse_charter(TEXT)
    assert parse_charter(written_out) == charter
    assert parse_charter(written_out).encoded == charter.encoded == encode_terms(charter)
    assert list(msgspec.msgpack.decode(charter.encoded)) == ["name", "model", "schedule", "ledger", "members"]
    assert decode_charter(charter.encoded) == charter


def test_bytes_with_a_default_written_out_are_not_canonical() -> None:
    charter = parse_charter(TEXT)
    written_out = {**msgspec.msgpack.decode(charter.encoded), "auditors": []}
    with pytest.raises(CharterError, match="canonical"):
        decode_charter(msgspec.msgpack.encode(written_out))


def test_a_field_that_a_later_version_adds_changes_no_bytes() -> None:
    class Now(msgspec.Struct, frozen=True, kw_only=True):
        rate: str
        steps: int = 1

    class Later(msgspec.Struct, frozen=True, kw_only=True):
        rate: str
        steps: int = 1
        added: str = "none"
        last: int

    assert encode_terms(Now(rate="1", steps=2)) == msgspec.msgpack.encode({"rate": "1", "steps": 2})
    later = Later(rate="1", steps=2, last=3)
    assert encode_terms(later) == msgspec.msgpack.encode({"rate": "1", "steps": 2, "last": 3})


def test_the_order_of_members_matters() -> None:
    charter = parse_charter(TEXT)
    assert replace(charter, members=charter.members[::-1]).digest != charter.digest


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("rounds = 5", "round = 5", "did you mean 'rounds'"),
        ("rounds = 5", "rounds = 0", "schedule.rounds"),
        ('kind = "logistic"', 'kind = "forest"', "model.kind"),
        ('name = "north"', 'name = "North"', "members"),
        ("0x" + "0c" * 20, "0x" + "0C" * 20, "audit_key"),
        ("code_hash", "code", "ledger.code"),
        ("[ledger]", "[ledger", "not valid TOML"),
    ],
)
def test_a_charter_that_cannot_be_read_says_where(old: str, new: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        parse_charter(TEXT.replace(old, new), "our-charter.toml")
    assert str(caught.value).startswith("our-charter.toml: ")


# --- contradictions -----------------------------------------------------------------------------------------------


def change(table: str, **changes: Any) -> Charter:
    charter = simulated_charter(4, 3)
    return replace(charter, **{table: replace(getattr(charter, table), **changes)})


def with_member(**changes: Any) -> Charter:
    charter = simulated_charter(4, 3)
    first: Member = charter.members[0]
    double = replace(charter.members[1], **{name: getattr(first, name) for name in changes})
    return replace(charter, members=(first, double, *charter.members[2:]))


def attesters(count: int, members: int) -> Charter:
    charter = simulated_charter(members, 3)
    chosen = (replace(member, attester=index < count) for index, member in enumerate(charter.members))
    return replace(charter, members=tuple(chosen))


@pytest.mark.parametrize(
    ("charter", "why"),
    [
        *(
            (with_member(**{what: True}), f"two members share one {what}")
            for what in ("name", "peer_id", "identity_key", "sealing_key", "audit_key")
        ),
        (replace(simulated_charter(4, 3), members=()), "0 members; a federation has 1 to 256"),
        (attesters(4, 257), "257 members; a federation has 1 to 256"),
        (attesters(0, 4), "0 attesters; the contract takes 1 to 31"),
        (attesters(32, 40), "32 attesters; the contract takes 1 to 31"),
        (change("model", tensors=()), "name each tensor once, and at least one"),
        (change("model", tensors=(Tensor(name="w", shape=(1,)),) * 2), "name each tensor once"),
        (change("averaging", exponent_min=5, exponent_max=4), "exponent_min is above exponent_max"),
        (change("schedule", grace_min=61.0), "grace_min is above grace_max"),
        (
            replace(
                change("schedule", max_ahead=9), ledger=replace(simulated_charter(4, 3).ledger, cadence=10)
            ),
            "cadence = 10, .* it must be at least the cadence",
        ),
        (change("schedule", attempt_min=601.0), "attempt_min is above attempt_max"),
    ],
)
def test_a_charter_that_contradicts_itself_is_refused(charter: Charter, why: str) -> None:
    with pytest.raises(CharterError, match=why):
        check_charter(charter)


@pytest.mark.parametrize("members", [1, 2, 31])
def test_charters_of_other_sizes_are_good(members: int) -> None:
    check_charter(simulated_charter(members, 1))
    check_charter(attesters(31, 32))


def test_a_charter_whose_sums_would_not_be_exact_is_refused() -> None:
    check_headroom(MAX_SUMMED)
    with pytest.raises(LocalProtocolError):
        check_headroom(MAX_SUMMED + 1)
    with pytest.raises(CharterError, match="33 members are too many"):
        check_charter(attesters(31, 33))


def test_a_charter_whose_roster_would_not_fit_a_message_is_refused() -> None:
    charter = simulated_charter(31, 1)
    tensors = tuple(Tensor(name=f"t{index}", shape=(1,)) for index in range(10_000))
    model = replace(charter.model, tensors=tensors)
    with pytest.raises(CharterError, match="a roster of 31 members and 10000 tensors"):
        check_charter(replace(charter, model=model))


# --- signatures ---------------------------------------------------------------------------------------------------

KEYS = [SigningKey(bytes([number]) * 32) for number in (1, 2)]


def signed_charter() -> tuple[Charter, dict[str, bytes]]:
    charter = simulated_charter(2, 3)
    members = tuple(
        replace(member, identity_key=bytes(key.verify_key).hex())
        for member, key in zip(charter.members, KEYS, strict=True)
    )
    charter = replace(charter, members=members)
    names = (member.name for member in members)
    return charter, {name: sign_charter(charter, key) for name, key in zip(names, KEYS, strict=True)}


def test_a_charter_signed_by_all_is_in_force() -> None:
    verify_charter(*signed_charter())


def test_one_missing_signature_is_named() -> None:
    charter, signatures = signed_charter()
    del signatures["node-1"]
    with pytest.raises(CharterError, match="node-1 has not signed it"):
        verify_charter(charter, signatures)


def test_signatures_are_for_this_charter_and_of_the_right_member() -> None:
    charter, signatures = signed_charter()
    with pytest.raises(CharterError, match="signature of node-0 does not fit"):
        verify_charter(replace(charter, name="changed"), signatures)
    swapped = {"node-0": signatures["node-1"], "node-1": signatures["node-0"]}
    with pytest.raises(CharterError, match="signature of node-0 does not fit"):
        verify_charter(charter, swapped)
    with pytest.raises(CharterError, match="signature of node-1 does not fit"):
        verify_charter(charter, {**signatures, "node-1": b"short"})


def test_the_federation_is_charter_chain_and_contract() -> None:
    charter = simulated_charter(4, 3).digest
    ids = {
        federation_id(charter, 1, bytes(20)),
        federation_id(charter, 2, bytes(20)),
        federation_id(charter, 1, bytes(19) + b"\x01"),
        federation_id(simulated_charter(5, 3).digest, 1, bytes(20)),
    }
    assert len(ids) == 4 and all(len(one) == 32 for one in ids)
