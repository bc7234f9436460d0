"""The charter's files: what is written is read back with the same digest, and every fault names its file."""

from pathlib import Path

import msgspec
import pytest
from nacl.signing import SigningKey

from folkmoot.node.charter_files import (
    load_charter,
    load_member,
    read_charter,
    render_charter,
    signature_path,
    write_charter,
    write_member,
)
from folkmoot.node.config import Home
from folkmoot.protocol.charter import Charter, sign_charter
from folkmoot.protocol.charter_rules import parse_charter
from folkmoot.protocol.charter_tables import LedgerTerms, Member, Model, Schedule, Tensor
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.toml import ConfigError

NAMES = ("alice", "bob", "carol")
KEYS = {name: SigningKey(bytes([index]) * 32) for index, name in enumerate(NAMES, start=1)}


def member(name: str) -> Member:
    key = bytes(KEYS[name].verify_key)
    return Member(
        name=name,
        peer_id=f"12D3Koo{name}",
        identity_key=key.hex(),
        sealing_key=key[::-1].hex(),
        audit_key=f"0x{key[:20].hex()}",
        attester=name != "carol",
    )


@pytest.fixture
def charter() -> Charter:
    tensors = (Tensor(name="0.weight", shape=(10, 64)), Tensor(name="scale", shape=()))
    return Charter(
        name="digits",
        model=Model(kind="logistic", layers=(64, 10), initial="ab" * 32, tensors=tensors),
        schedule=Schedule(rounds=10, grace_max=12.5),
        ledger=LedgerTerms(chain_id=131277322940537, code_hash="cd" * 32),
        members=tuple(member(name) for name in NAMES),
    )


@pytest.fixture
def home(tmp_path: Path, charter: Charter) -> Home:
    home = Home(tmp_path)
    write_charter(home, charter, {name: sign_charter(charter, key) for name, key in KEYS.items()})
    return home


def test_a_charter_survives_its_files(home: Home, charter: Charter) -> None:
    loaded = load_charter(home)
    assert loaded == charter
    assert loaded.digest == charter.digest


def test_the_rendered_text_gives_the_same_charter(charter: Charter) -> None:
    assert parse_charter(render_charter(charter)) == charter


def test_comments_and_spacing_do_not_matter(home: Home, charter: Charter) -> None:
    home.charter.write_text("# our agreement\n\n" + home.charter.read_text().replace(" = ", "="))
    assert load_charter(home) == charter


def test_a_missing_charter_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(CharterError, match=r"charter\.toml: no charter: copy .* from another member"):
        load_charter(Home(tmp_path))


def test_a_missing_signature_names_its_file_and_member(home: Home) -> None:
    signature_path(home, "bob").unlink()
    with pytest.raises(CharterError, match=r"charter\.sig/bob\.sig: bob has not signed"):
        load_charter(home)


@pytest.mark.parametrize("text", ["", "zz" * 64, "ab" * 63, "é" * 128])
def test_a_malformed_signature_names_its_file(home: Home, text: str) -> None:
    signature_path(home, "bob").write_text(text)
    with pytest.raises(CharterError, match=r"charter\.sig/bob\.sig: not 128 hex digits"):
        load_charter(home)


def test_a_charter_changed_after_signing_is_refused(home: Home) -> None:
    home.charter.write_text(home.charter.read_text().replace("rounds = 10", "rounds = 11"))
    assert read_charter(home).schedule.rounds == 11
    with pytest.raises(CharterError, match=r"charter\.toml: .*alice.*Restore the file"):
        load_charter(home)


def test_a_signature_of_another_member_is_refused(home: Home, charter: Charter) -> None:
    signature_path(home, "bob").write_text(sign_charter(charter, KEYS["alice"]).hex())
    with pytest.raises(CharterError, match="the signature of bob does not fit"):
        load_charter(home)


def test_a_mistyped_key_names_file_key_and_nearest_name(home: Home) -> None:
    home.charter.write_text(home.charter.read_text().replace("grace_max", "grace_maxx"))
    with pytest.raises(
        ConfigError, match=r"charter\.toml: unknown key 'schedule.grace_maxx'; did you mean 'grace_max'"
    ):
        load_charter(home)


def test_tables_that_contradict_each_other_are_refused_with_the_file(home: Home) -> None:
    home.charter.write_text(home.charter.read_text().replace('name = "bob"', 'name = "alice"'))
    with pytest.raises(CharterError, match=r"charter\.toml: two members share one name"):
        read_charter(home)


def test_a_member_entry_survives_its_file(tmp_path: Path) -> None:
    home = Home(tmp_path / "new")
    write_member(home, member("carol"))
    assert load_member(home) == member("carol")
    assert msgspec.toml.decode(home.member.read_bytes())["attester"] is False


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CharterError, match=r"member\.toml: cannot be written"):
        write_member(Home(tmp_path / "file"), member("bob"))
