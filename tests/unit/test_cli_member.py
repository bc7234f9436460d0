"""`member`, `charter amend` and `keys rotate` as people type them, against a ledger that is only told of."""

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace
from nacl.signing import SigningKey

from folkmoot.ledger.port import FinalBlock, LedgerHead
from folkmoot.node import cli
from folkmoot.node.charter_files import render_charter, write_charter
from folkmoot.node.charters import amended_path, keep_amendments, load_timeline
from folkmoot.node.config import Home, LedgerConfig, NodeConfig, load_config, render_config
from folkmoot.node.keys import chartered, load_identity
from folkmoot.node.proposals import read_proposal
from folkmoot.node.standing import Standing
from folkmoot.node.store import Journal
from folkmoot.node.submitting import _why_not
from folkmoot.protocol.charter import Charter, sign_charter
from folkmoot.protocol.charter_tables import Member
from folkmoot.protocol.governance import Amendment
from folkmoot.protocol.membership import key_fingerprint
from folkmoot.protocol.typed_data import Domain
from folkmoot.testnet.simulation.node import simulated_charter

NAMES = ("alice", "bob", "carol", "dave")
CONTRACT = b"\xaa" * 20
HEIGHT, AHEAD = 10, 5
PASSPHRASE = "correct horse"


def folkmoot(*args: object) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(arg) for arg in args])
    assert isinstance(caught.value.code, int)
    return caught.value.code


class Place:
    """Homes of three attesters and of dave, who is a member only; and what the ledger has."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`path`: with homes as `init` makes them."""
        self.path = path
        self.recorded: tuple[Amendment, ...] = ()
        monkeypatch.chdir(path)
        charter = simulated_charter(4, 100, AHEAD)
        members = tuple(replace(self.entry(name), attester=name != "dave") for name in NAMES)
        self.charter: Charter = replace(charter, members=members)
        keys: list[SigningKey] = [
            load_identity(self.home(member.name).keys, member) for member in self.charter.members
        ]
        signatures = {name: sign_charter(self.charter, key) for name, key in zip(NAMES, keys, strict=True)}
        ledger = LedgerConfig(rpc=("http://127.0.0.1:9",), contract=f"0x{CONTRACT.hex()}")
        for name in NAMES:
            home = self.home(name)
            write_charter(home, self.charter, signatures)
            home.config.write_text(render_config(NodeConfig(name=name, ledger=ledger)))
        monkeypatch.setattr(Standing, "read", self.standing)

    def home(self, name: str) -> Home:
        return Home(self.path / name)

    def entry(self, name: str) -> Member:
        blank = Member(name=name, peer_id="", identity_key="", sealing_key="", audit_key="")
        return chartered(self.home(name).keys, blank)

    def standing(self, home: Home) -> Standing:
        timeline = load_timeline(home, self.recorded)
        head = LedgerHead(
            height=HEIGHT,
            digest=bytes(32),
            block=20,
            finalized_height=HEIGHT,
            final=FinalBlock(20, bytes(32)),
            config=self.charter.digest,
            amendments=len(self.recorded),
            governance=bytes(32),
        )
        domain = Domain(self.charter.ledger.chain_id, CONTRACT)
        return Standing(home, load_config(home), timeline, self.recorded, head, domain)


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys take a while to make: once for all tests."""
    path = tmp_path_factory.mktemp("homes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLKMOOT_PASSPHRASE", PASSPHRASE)
        patch.delenv("FOLKMOOT_PASSPHRASE_FILE", raising=False)
        for name in (*NAMES, "erin"):
            assert folkmoot("init", path / name, "--name", name, "--cheap-keys") == 0
    return path


@pytest.fixture
def place(homes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    shutil.copytree(homes, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("FOLKMOOT_PASSPHRASE", PASSPHRASE)
    monkeypatch.delenv("FOLKMOOT_PASSPHRASE_FILE", raising=False)
    return Place(tmp_path, monkeypatch)


def propose(place: Place, *what: object, effective: object = "+20", out: str = "proposal-1") -> int:
    return folkmoot(
        "member", "propose", "--home", place.path / "alice", "--effective", effective, "--out", out, *what
    )


def test_a_proposal_says_what_changes_and_has_what_a_newcomer_needs(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    added = ("--add", "erin/member.toml", "--remove", "dave", "--role", "carol", "member")
    assert propose(place, *added) == 0
    said = capsys.readouterr().out
    assert "amendment 1, from round 30 on:" in said
    for words in ("adds erin as attester", "removes dave", "makes carol a member that does not attest"):
        assert words in said
    assert "2 of 3 attesters have to sign it" in said
    proposal = read_proposal(place.path / "proposal-1")
    assert proposal.amendment.effective == HEIGHT + 20
    assert [member.name for member in proposal.charter.members] == ["alice", "bob", "carol", "erin"]
    assert (place.path / "proposal-1" / "federation" / "charter.sig" / "bob.sig").is_file()
    assert amended_path(place.home("alice"), proposal.charter.digest).is_file()


@pytest.mark.parametrize(
    ("what", "effective", "word"),
    [
        (("--remove", "zoe"), "+20", "has no member 'zoe'"),
        (("--remove", "dave"), "15", "can be in force from round 16 on"),
        (("--remove", "dave"), "+92", "ends with round 100"),
        (("--role", "bob", "attester"), "+20", "is an attester already"),
        (("--restore", "zoe"), "+20", "ever had a member 'zoe'"),
        ((), "+20", "give --add"),
        (("--remove", "dave"), "soon", "is no round such as 120"),
    ],
)
def test_what_cannot_be_proposed(
    place: Place, capsys: pytest.CaptureFixture[str], what: tuple[str, ...], effective: str, word: str
) -> None:
    assert propose(place, *what, effective=effective) == 2
    assert word in capsys.readouterr().err


def test_signing_and_submitting_name_what_is_missing(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert propose(place, "--suspend", "dave") == 0
    sign = ("member", "sign", "proposal-1", "--yes", "--home")
    assert folkmoot(*sign, place.path / "dave") == 2
    assert "dave is no attester" in capsys.readouterr().err
    for _ in range(2):  # the same file again
        assert folkmoot(*sign, place.path / "bob") == 0
    assert "suspends dave" in capsys.readouterr().out
    assert folkmoot("member", "submit", "proposal-1", "--home", place.path / "dave") == 2
    assert "1 of 2 signatures: ask alice, carol to sign it" in capsys.readouterr().err


def test_what_is_recorded_is_neither_signed_nor_submitted_again(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert propose(place, "--suspend", "dave") == 0
    assert propose(place, "--remove", "dave", out="proposal-other") == 0
    place.recorded = (read_proposal(place.path / "proposal-1").amendment,)
    alice = ("--home", place.path / "alice")
    capsys.readouterr()
    assert folkmoot("member", "submit", "proposal-1", *alice) == 0
    assert "amendment 1 is recorded already" in capsys.readouterr().out
    assert folkmoot("member", "sign", "proposal-1", "--yes", *alice) == 2
    assert "recorded already" in capsys.readouterr().err
    assert folkmoot("member", "sign", "proposal-other", "--yes", *alice) == 2
    assert "the ledger has 1 by now" in capsys.readouterr().err
    assert propose(place, "--restore", "dave", out="proposal-2") == 2
    assert "wait until round 30" in capsys.readouterr().err
    assert folkmoot("member", "list", *alice) == 0
    said = capsys.readouterr().out
    assert "dave   member" in said and "from round 30: suspends dave" in said


def test_an_edited_charter_is_a_proposal_too(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    edited = place.path / "edited.toml"
    lr = place.charter.training.lr
    edited.write_text(render_charter(place.charter).replace(f'lr = "{lr}"', 'lr = "0.05"'))
    terms = ("--home", place.path / "bob", "--effective", 40)
    assert folkmoot("charter", "amend", edited, *terms) == 0
    said = capsys.readouterr().out
    assert f"training.lr {lr} -> 0.05" in said and "wrote proposal-1" in said
    edited.write_text(render_charter(replace(place.charter, name="another")))
    assert folkmoot("charter", "amend", edited, *terms, "--out", "other") != 0
    assert "a federation keeps its name" in capsys.readouterr().err


def test_rotated_keys_are_made_once(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    rotate = ("keys", "rotate", "--home", place.path / "bob", "--effective", "+20", "--only", "audit")
    assert folkmoot(*rotate) == 0
    assert "rotates the audit key of bob" in capsys.readouterr().out
    assert folkmoot(*rotate, "--out", "again") == 0
    assert "are in no charter yet: proposing these" in capsys.readouterr().out
    assert not (place.home("bob").keys / "3").exists()
    assert read_proposal(place.path / "again") == read_proposal(place.path / "proposal-1")


def test_no_keys_are_made_for_a_round_that_cannot_be(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    for effective, word in (("15", "can be in force from round 16 on"), ("+92", "ends with round 100")):
        assert folkmoot("keys", "rotate", "--home", place.path / "bob", "--effective", effective) == 2
        assert word in capsys.readouterr().err
    assert not (place.home("bob").keys / "2").exists()


def test_people_can_compare_the_keys_that_they_admit(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    erin, bob = key_fingerprint(place.entry("erin")), key_fingerprint(place.entry("bob"))
    assert len(erin.split()) == 6 and erin != bob
    assert propose(place, "--add", "erin/member.toml") == 0
    assert folkmoot("member", "sign", "proposal-1", "--yes", "--home", place.path / "bob") == 0
    said = capsys.readouterr().out
    assert said.count(f"keys of erin: {erin}") == 2 and bob not in said
    assert folkmoot("member", "list", "--home", place.path / "bob") == 0
    assert f"keys      {bob}" in capsys.readouterr().out
    rotate = ("keys", "rotate", "--effective", "+20", "--only", "sealing", "--out", "rotated")
    assert folkmoot(*rotate, "--home", place.path / "bob") == 0
    said = capsys.readouterr().out
    assert "keys of bob: " in said and bob not in said  # other keys, another fingerprint


def test_a_submission_that_lost_says_to_what(place: Place) -> None:
    for name, out in (("--suspend", "proposal-1"), ("--remove", "proposal-other")):
        assert propose(place, name, "dave", out=out) == 0
    place.recorded = (read_proposal(place.path / "proposal-1").amendment,)
    lost = _why_not(place.home("alice"), read_proposal(place.path / "proposal-other"))
    assert "another amendment 1 was recorded first, in force from round 30 on" in str(lost)


def test_the_shown_charter_is_said_to_be_a_coming_one(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert propose(place, "--suspend", "dave") == 0
    with Journal.open(place.home("alice").store) as journal:
        keep_amendments(journal, [read_proposal(place.path / "proposal-1").amendment])
    capsys.readouterr()
    show = ("charter", "show", "--toml", "--home", place.path / "alice")
    assert folkmoot(*show) == 0
    said = capsys.readouterr()
    assert "in force from round 30 on; --now shows the one before it" in said.err and "dave" not in said.out
    assert folkmoot(*show, "--now") == 0
    said = capsys.readouterr()
    assert "another charter is known, in force from round 30 on" in said.err and "dave" in said.out


def test_who_is_not_added_cannot_join(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert propose(place, "--suspend", "dave") == 0
    join = ("join", "proposal-1", "--rpc", "http://127.0.0.1:9", "--home", place.path / "erin")
    assert folkmoot(*join) != 0
    assert "has no member 'erin'" in capsys.readouterr().err
    assert propose(place, "--add", "erin/member.toml", out="proposal-erin") == 0
    join = ("join", "proposal-erin", "--rpc", "http://127.0.0.1:9", "--home", place.path / "erin")
    assert folkmoot(*join) == 2
    assert "amendment 1 is not on the ledger yet: run this again when it is" in capsys.readouterr().err
    place.recorded = (read_proposal(place.path / "proposal-erin").amendment,)
    assert folkmoot(*join) == 0
    assert "joins in round 30" in capsys.readouterr().out
    assert 'bootstrap = ["peers"]' in place.home("erin").config.read_text()
    assert folkmoot("charter", "check", "--home", place.path / "erin") == 0
    assert "alice, bob, carol, dave, erin" in capsys.readouterr().out
