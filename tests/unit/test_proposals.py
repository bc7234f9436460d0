"""A proposal goes round as a folder, and its charter lies in every home that has seen it."""

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace
from nacl.signing import SigningKey

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.node.charter_files import write_charter
from folkmoot.node.charters import (
    amended_path,
    enter_term,
    keep_amendments,
    keep_charter,
    load_charter_in_work,
    load_timeline,
    working_term,
)
from folkmoot.node.config import Home, LedgerConfig, NodeConfig, render_config
from folkmoot.node.joining import set_bootstrap
from folkmoot.node.keys import chartered, create_keys, folder_of, key_folders, load_keys, rotate_keys
from folkmoot.node.proposals import (
    Proposal,
    ProposalError,
    read_proposal,
    read_signatures,
    write_proposal,
    write_signature,
)
from folkmoot.node.store import Journal
from folkmoot.protocol.amending import compute_changes, make_amendment
from folkmoot.protocol.charter import Charter, federation_id, sign_charter
from folkmoot.protocol.charter_tables import Member
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.membership import add_member, remove_members, replace_member, set_role
from folkmoot.protocol.typed_data import Domain
from folkmoot.testnet.simulation.node import simulated_charter

CONTRACT = b"\xaa" * 20
NAMES = ("alice", "bob", "carol")
IDENTITIES = {name: SigningKey(bytes([number]) * 32) for number, name in enumerate(NAMES, 1)}
AUDITS = {name: AuditKey(bytes([number]) * 32) for number, name in enumerate(NAMES, 1)}


def member(name: str) -> Member:
    key = bytes(IDENTITIES[name].verify_key).hex()
    address = f"0x{AUDITS[name].address.hex()}"
    return Member(name=name, peer_id=f"peer-{name}", identity_key=key, sealing_key=key, audit_key=address)


FOUNDING: Charter = replace(simulated_charter(3, 50), members=tuple(map(member, NAMES)))
FEDERATION = federation_id(FOUNDING.digest, FOUNDING.ledger.chain_id, CONTRACT)
AMENDED = set_role(FOUNDING, "carol", attester=False)
DOMAIN = Domain(FOUNDING.ledger.chain_id, CONTRACT)


def propose(after: Charter = AMENDED) -> Proposal:
    changes = compute_changes(FOUNDING, after)
    return Proposal(make_amendment(FEDERATION, 1, FEDERATION, 20, after, changes), after, DOMAIN)


PROPOSAL = propose()
ATTESTERS = {AUDITS[name].address: name for name in NAMES}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_proposal(tmp_path / "proposal-1", PROPOSAL, FOUNDING)
    return tmp_path / "proposal-1"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    write_charter(home, FOUNDING, {name: sign_charter(FOUNDING, key) for name, key in IDENTITIES.items()})
    ledger = LedgerConfig(rpc=("http://127.0.0.1:1",), contract=f"0x{CONTRACT.hex()}")
    home.config.write_text(render_config(NodeConfig(name="alice", ledger=ledger)))
    Journal.create(home.store)
    return home


def test_a_proposal_is_read_back_as_it_was_written(folder: Path) -> None:
    assert read_proposal(folder) == PROPOSAL
    text = (folder / "proposal.toml").read_text()
    assert "#   makes carol a member that does not attest" in text
    assert f"0x{AUDITS['carol'].address.hex()} member" in text


def test_writing_it_again_does_no_harm_but_another_one_needs_another_folder(folder: Path) -> None:
    write_signature(folder, "alice", PROPOSAL.sign(AUDITS["alice"]))
    write_proposal(folder, PROPOSAL, FOUNDING)
    assert (folder / "signatures" / "alice.sig").is_file()
    with pytest.raises(ProposalError, match="give another --out"):
        write_proposal(folder, propose(remove_members(FOUNDING, ["bob"])), FOUNDING)


def test_another_charter_beside_it_is_noticed(folder: Path) -> None:
    path = folder / "charter.toml"
    path.write_text(path.read_text().replace("rounds = 50", "rounds = 51"))
    with pytest.raises(ProposalError, match="is not the charter that"):
        read_proposal(folder)


def test_signatures_are_found_by_address(folder: Path) -> None:
    for name in ("bob", "alice"):
        write_signature(folder, name, PROPOSAL.sign(AUDITS[name]))
    found = read_signatures(folder, PROPOSAL, ATTESTERS)
    assert found == {AUDITS[name].address: PROPOSAL.sign(AUDITS[name]) for name in ("alice", "bob")}


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        (
            "alice",
            PROPOSAL.sign(AuditKey(b"\x09" * 32)).hex(),
            "not the audit key of an attester called alice",
        ),
        ("alice", PROPOSAL.sign(AUDITS["bob"]).hex(), "not the audit key of an attester called alice"),
        ("mallory", PROPOSAL.sign(AuditKey(b"\x09" * 32)).hex(), "called mallory"),
        ("alice", "abcd", "not a signature"),
        ("alice", "nothing", "not a signature"),
    ],
)
def test_signatures_that_do_not_count_are_named(folder: Path, name: str, content: str, word: str) -> None:
    (folder / "signatures" / f"{name}.sig").write_text(content)
    with pytest.raises(ProposalError, match=word):
        read_signatures(folder, PROPOSAL, ATTESTERS)


def test_a_home_keeps_amended_charters_by_their_digest(home: Home) -> None:
    assert load_timeline(home, [PROPOSAL.amendment]).missing == (PROPOSAL.amendment,)
    assert keep_charter(home, AMENDED) == keep_charter(home, AMENDED) == amended_path(home, AMENDED.digest)
    assert load_timeline(home, [PROPOSAL.amendment]).charter_at(20) == AMENDED
    shutil.copyfile(home.charter, amended_path(home, AMENDED.digest))
    with pytest.raises(CharterError, match="is not the charter that it is called after"):
        load_timeline(home, [PROPOSAL.amendment])


def test_a_home_knows_the_charter_that_its_node_works_under(home: Home) -> None:
    keep_charter(home, AMENDED)
    with Journal.open(home.store) as journal:
        assert working_term(journal) == 1
        keep_amendments(journal, [PROPOSAL.amendment])
        assert load_charter_in_work(home) == FOUNDING
        enter_term(journal, 20)
        assert load_charter_in_work(home) == AMENDED
    assert load_timeline(home).coming(19) == ["from round 20: makes carol a member that does not attest"]


def test_rotated_keys_lie_beside_the_old_ones_and_each_charter_finds_its_own(tmp_path: Path) -> None:
    place = tmp_path / "keys"
    create_keys(place, "secret", cheap=True)
    before = chartered(place, member("alice"))
    folder = rotate_keys(place, place, ["audit.json"], "secret")
    after = chartered(folder, before)
    assert (folder, key_folders(place)) == (place / "2", [place, place / "2"])
    assert (after.identity_key, after.sealing_key) == (before.identity_key, before.sealing_key)
    assert after.audit_key != before.audit_key
    assert (folder_of(place, before), folder_of(place, after)) == (place, folder)
    old, new = load_keys(place, "secret"), load_keys(place, "secret", folder)
    assert new.gas == old.gas and new.audit != old.audit
    assert f"0x{AuditKey(new.audit).address.hex()}" == after.audit_key
    everything = chartered(
        rotate_keys(place, folder, ["identity.key", "sealing.key", "audit.json"], "secret"), after
    )
    assert len({one.peer_id for one in (before, everything)}) == 2


def test_membership_says_what_is_wrong() -> None:
    with pytest.raises(CharterError, match="has a member 'bob' already"):
        add_member(FOUNDING, member("bob"))
    with pytest.raises(CharterError, match="has no member 'zoe'"):
        remove_members(FOUNDING, ["zoe"])
    with pytest.raises(CharterError, match="is an attester already"):
        set_role(FOUNDING, "bob", attester=True)
    assert replace_member(FOUNDING, member("bob")) == FOUNDING


def test_addresses_that_come_with_a_proposal_stand_behind_the_operators_own() -> None:
    assert set_bootstrap("a = 1\nbootstrap = []\n", "peers") == 'a = 1\nbootstrap = ["peers"]\n'
    assert set_bootstrap('bootstrap = ["x", "y"]', "peers") == 'bootstrap = ["x", "y", "peers"]'
    assert set_bootstrap('bootstrap = ["x", "peers"]', "peers") == 'bootstrap = ["x", "peers"]'
