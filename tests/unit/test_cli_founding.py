"""init, charter and ledger as an operator types them; the whole story is in tests/integration/test_founding.py."""

import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from folkmoot.node import charter_draft, cli
from folkmoot.node.cli.ledger import set_ledger
from folkmoot.node.config import Home, load_config
from folkmoot.node.model_file import read_start
from folkmoot.protocol.charter_rules import parse_charter
from folkmoot.protocol.toml import ConfigError

CONTRACT = "0x" + "ab" * 20
NAMES = ("alice", "bob")


def folkmoot(*args: object) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(arg) for arg in args])
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Two homes as `init` makes them; the working folder is theirs."""
    monkeypatch.setenv("FOLKMOOT_PASSPHRASE", "correct horse")
    monkeypatch.delenv("FOLKMOOT_PASSPHRASE_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        assert folkmoot("init", name, "--name", name, "--cheap-keys", "--query", "SELECT 1") == 0
    return {name: tmp_path / name for name in NAMES}


@pytest.fixture
def drafted(homes: dict[str, Path], tmp_path: Path) -> Path:
    """A charter of both."""
    members = [word for name in NAMES for word in ("--member", homes[name] / "member.toml")]
    terms = [
        "--model",
        "logistic",
        "--layers",
        "4,2",
        "--rounds",
        7,
        "--chain-id",
        5,
        "--set",
        "training.lr=0.05",
    ]
    assert folkmoot("charter", "new", *members, *terms) == 0
    return tmp_path / "charter.toml"


def sign_all(homes: dict[str, Path], charter: Path) -> None:
    for home in homes.values():
        assert folkmoot("charter", "sign", "--home", home, "--charter", charter) == 0
    for name, home in homes.items():
        for other in set(homes.values()) - {home}:
            shutil.copy(home / "charter.sig" / f"{name}.sig", other / "charter.sig")


def test_init_makes_a_home_whose_file_lacks_only_the_ledger(homes: dict[str, Path]) -> None:
    home = Home(homes["alice"])
    assert home.store.is_file() and home.member.is_file()
    assert home.keys.stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigError, match=r"has no \[ledger\] yet"):
        load_config(home)
    home.config.write_text(set_ledger(home.config.read_text(), "http://127.0.0.1:1", CONTRACT))
    config = load_config(home)
    assert (config.name, config.ledger.contract, config.data.query) == ("alice", CONTRACT, "SELECT 1")


def test_init_never_writes_into_a_folder_that_holds_anything(
    homes: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = homes["alice"].joinpath("keys", "identity.key").read_bytes()
    assert folkmoot("init", homes["alice"], "--name", "alice") == 2
    assert "not an empty directory" in capsys.readouterr().err
    assert homes["alice"].joinpath("keys", "identity.key").read_bytes() == before


def test_init_refuses_a_name_that_no_charter_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folkmoot("init", tmp_path / "x", "--name", "St. Mary") == 2
    assert "small letters" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_filled_in_ledger_is_replaced_and_the_rest_kept() -> None:
    text = (
        'name = "a"\n\n[ledger]\nrpc = ["http://old"]\ncontract = "0x00"\n\n# mine\n[log]\nlevel = "debug"\n'
    )
    once = set_ledger(text, "http://new", CONTRACT)
    tables = tomllib.loads(once)
    assert tables["ledger"] == {"rpc": ["http://new"], "contract": CONTRACT}
    assert tables["log"] == {"level": "debug"} and "# mine" in once and "old" not in once
    assert set_ledger(once, "http://new", CONTRACT) == once
    assert tomllib.loads(set_ledger('name = "a"', "http://new", CONTRACT))["ledger"]["contract"] == CONTRACT


def test_a_draft_holds_what_was_asked_for(drafted: Path) -> None:
    charter = parse_charter(drafted.read_text())
    assert [member.name for member in charter.members] == list(NAMES)
    assert (charter.schedule.rounds, charter.training.lr, charter.model.layers) == (7, "0.05", (4, 2))
    weights = read_start(drafted.with_name("model0.safetensors"), charter)
    assert weights.snapshot.shape == (charter.model.parameters,)


def test_a_draft_takes_patterns_and_starting_weights(
    homes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [word for name in NAMES for word in ("--member", homes[name] / "member.toml")]
    terms = ["--model", "mlp", "--layers", "4,3,2", "--chain-id", 5]
    given = {"0.weight": np.ones((3, 4), np.float16), "0.bias": np.full(3, 2, np.float32)}
    safetensors.numpy.save_file(given, tmp_path / "backbone.safetensors")
    start = ["--start", "backbone.safetensors", "--frozen", "0.*"]
    assert folkmoot("charter", "new", *members, *terms, *start, "--shared", "head") == 2
    assert "lacks 2.weight, 2.bias" in capsys.readouterr().err and not (tmp_path / "charter.toml").exists()
    assert (
        folkmoot("charter", "new", *members, *terms, *start, "--start-fill", "--set", "model.shared=2.weight")
        == 0
    )
    shown = capsys.readouterr().out
    assert "frozen (0.weight, 0.bias; 15 values): they stay as they begin" in shown
    assert "personal (2.bias; 2 values)" in shown
    charter = parse_charter((tmp_path / "charter.toml").read_text())
    assert [tensor.part for tensor in charter.model.tensors] == ["frozen", "frozen", "shared", "personal"]
    begins = read_start(tmp_path / "model0.safetensors", charter)
    assert begins.frozen.tolist() == [1] * 12 + [2] * 3 and begins.snapshot.shape == (6,)
    assert (
        folkmoot("charter", "new", *members, *terms, "--out", "other/x.toml", "--set", "model.kind=cnn") == 2
    )
    assert "only shared and frozen can be set" in capsys.readouterr().err


def test_a_draft_is_never_overwritten(drafted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = drafted.read_bytes()
    arguments = ["--member", "alice/member.toml", "--layers", "4,2", "--model", "logistic", "--chain-id", "5"]
    assert folkmoot("charter", "new", *arguments) != 0
    assert "never overwritten" in capsys.readouterr().err and drafted.read_bytes() == before
    assert folkmoot("charter", "new", *arguments, "--out", "other.toml") != 0
    assert "give an --out in another folder" in capsys.readouterr().err


def test_a_draft_says_that_it_can_never_be_changed(drafted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert folkmoot("charter", "show", str(drafted)) == 0
    assert "nothing can be changed before they are over" in capsys.readouterr().out


def test_a_draft_declares_codes_as_categories(
    homes: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{n % 3},{n * 1.5},{'ab'[n % 2]}" for n in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["code,size,y", *rows]) + "\n")
    terms = ["--member", homes["alice"] / "member.toml", "--chain-id", 5, "--model", "logistic"]
    given = ["--target", "y", "--category", "code"]
    assert folkmoot("charter", "new", *terms, *given) == 2
    assert "need --schema-from" in capsys.readouterr().err
    assert folkmoot("charter", "new", *terms, *given, "--schema-from", "rows.csv") == 0
    assert "code: 3 categories" in capsys.readouterr().out
    assert parse_charter((tmp_path / "charter.toml").read_text()).model.layers == (4, 2)


def test_check_names_all_who_have_not_signed_and_passes_when_they_have(
    homes: dict[str, Path], drafted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folkmoot("charter", "sign", "--home", homes["alice"], "--charter", drafted) == 0
    assert folkmoot("charter", "check", "--home", homes["alice"]) == 2
    assert "not signed yet: bob" in capsys.readouterr().out
    sign_all(homes, drafted)
    assert folkmoot("charter", "check", "--home", homes["alice"], "--model") == 0
    shown = capsys.readouterr().out
    assert "2 of 2 (Q) decide" in shown and "ok     terms" in shown


def test_check_finds_a_charter_that_was_changed_after_signing(
    homes: dict[str, Path], drafted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sign_all(homes, drafted)
    file = homes["bob"] / "charter.toml"
    file.write_text(file.read_text().replace("rounds = 7", "rounds = 8"))
    assert folkmoot("charter", "check", "--home", homes["bob"]) == 2
    assert "does not fit" in capsys.readouterr().out


def test_check_finds_other_starting_weights(
    homes: dict[str, Path], drafted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sign_all(homes, drafted)
    weights = homes["bob"] / "models" / "model0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert folkmoot("charter", "check", "--home", homes["bob"]) == 2
    assert "the charter names" in capsys.readouterr().out


def test_who_is_no_member_cannot_sign(
    homes: dict[str, Path], drafted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folkmoot("init", "eve", "--name", "eve", "--cheap-keys") == 0
    assert folkmoot("charter", "sign", "--home", "eve", "--charter", drafted) == 2
    assert "names no member with the keys" in capsys.readouterr().err


def test_deploy_refuses_a_charter_that_is_not_signed_by_all(
    homes: dict[str, Path], drafted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert folkmoot("charter", "sign", "--home", homes["alice"], "--charter", drafted) == 0
    assert folkmoot("ledger", "deploy", "--home", homes["alice"], "--rpc", "http://127.0.0.1:1") == 2
    assert "bob has not signed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mode", "members", "chosen", "expected"),
    [
        (None, 2, {}, "open"),
        (None, 3, {}, "secure"),
        (None, 16, {}, "secure"),
        (None, 17, {}, "secure"),
        ("open", 4, {}, "open"),
        ("secure", 2, {}, "secure"),  # which the charter's own check refuses
        (None, 4, {"averaging": {"mode": "open"}}, "open"),
        (None, 4, {"averaging": {"codec": "f32"}}, "secure"),
    ],
)
def test_a_draft_is_secure_where_its_size_allows_it(
    mode: str | None, members: int, chosen: dict[str, object], expected: str
) -> None:
    table = charter_draft.averaging_table(mode, members, chosen)
    assert table["mode"] == expected and ("weight_cap" in table) == (expected == "secure")


def test_a_draft_is_not_of_two_modes() -> None:
    with pytest.raises(ConfigError, match="give one of them"):
        charter_draft.averaging_table("secure", 4, {"averaging": {"mode": "open"}})


def test_show_says_what_secure_mode_hides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FOLKMOOT_PASSPHRASE", "correct horse")
    monkeypatch.chdir(tmp_path)
    members = []
    for name in ("alice", "bob", "carol", "dave"):
        assert folkmoot("init", name, "--name", name, "--cheap-keys") == 0
        members += ["--member", f"{name}/member.toml"]
    terms = [*members, "--model", "logistic", "--layers", "4,2", "--chain-id", 5]
    assert folkmoot("charter", "new", *terms) == 0
    shown = capsys.readouterr().out
    assert "secure mode: only the sum of all updates is ever seen (the codec is not used)" in shown
    assert "ring of 16 bits; mask keys change every 50 rounds" in shown
    assert "a sum holds 3 updates or more (k_min); 2 of 4 shares open it" in shown
    assert "if 1 (f) members collude, an update hides among those of 2 honest ones or more" in shown
    assert "silent" not in shown
    charter = parse_charter((tmp_path / "charter.toml").read_text())
    assert (charter.averaging.mode, charter.averaging.weight_cap) == ("secure", 1024)
    assert folkmoot("charter", "new", *terms, "--out", "high.toml", "--set", "secrecy.threshold=3") != 0
    (tmp_path / "model0.safetensors").unlink()
    assert folkmoot("charter", "new", *terms, "--out", "high.toml", "--set", "secrecy.threshold=3") == 0
    assert "1 silent members can keep a sum from being opened" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["training.lr=0.05"], {"training": {"lr": "0.05"}}),
        (["averaging.codec=f32", "averaging.weight_cap=9"], {"averaging": {"codec": "f32", "weight_cap": 9}}),
        (['name="x"'], {"name": "x"}),
        (["averaging.robust=true"], {"averaging": {"robust": "nnm"}}),
        (["averaging.robust=false"], {"averaging": {"robust": "none"}}),
        (["averaging.robust=multi-krum"], {"averaging": {"robust": "multi-krum"}}),
    ],
)
def test_terms_on_the_command_line(given: list[str], expected: dict[str, object]) -> None:
    assert charter_draft.parse_assignments(given) == expected


@pytest.mark.parametrize("bad", ["training.lr", "=3", "a..b=1"])
def test_terms_that_are_none(bad: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        charter_draft.parse_assignments([bad])
