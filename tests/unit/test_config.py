"""Configuration: strict, and every refusal names the file, the key and the remedy."""

from pathlib import Path
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.node.config import Home, NetworkConfig, bootstrap_addresses, load_config, render_config
from folkmoot.protocol.toml import ConfigError, decode_toml, toml_value

MINIMAL = """\
name = "alice"
[ledger]
rpc = ["http://127.0.0.1:8545"]
contract = "0x00112233445566778899aAbBcCdDeEfF00112233"
"""
PEER = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def refusal(home: Home, text: str) -> str:
    home.config.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(home)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert message.startswith(f"{home.config}: ") and "\n" not in message
    return message.removeprefix(f"{home.config}: ")


def test_the_least_that_must_be_said(home: Home) -> None:
    home.config.write_text(MINIMAL)
    config = load_config(home)
    assert config.name == "alice"
    assert config.network.listen == "/ip4/127.0.0.1/tcp/0"
    assert config.trainer.command is None
    assert home.resolve(config.data.train) == home.path / "data" / "train.safetensors"
    assert home.resolve("/elsewhere/x") == Path("/elsewhere/x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('nam = "alice"\n' + MINIMAL, "unknown key 'nam'; did you mean 'name'?"),
        (MINIMAL + "[netwrok]\n", "unknown key 'netwrok'; did you mean 'network'?"),
        (
            MINIMAL + '[network]\nlisten_on = "/ip4/1.2.3.4/tcp/1"',
            "unknown key 'network.listen_on'; did you mean 'listen'?",
        ),
        (MINIMAL + "[log]\nfancy = 1", "unknown key 'log.fancy'; known keys here: keep, level, max_mb"),
        (MINIMAL.replace("rpc", "rcp"), "unknown key 'ledger.rcp'; did you mean 'rpc'?"),
        (MINIMAL.replace('"alice"', "7"), "'name': expected str, got int"),
        (
            MINIMAL.replace('["http://127.0.0.1:8545"]', '"http://x"'),
            "'ledger.rpc': must be a list of at least 1, not \"http://x\"",
        ),
        (MINIMAL.replace('"http://127.0.0.1:8545"', "1"), "'ledger.rpc[0]': expected str, got int"),
        (
            MINIMAL + "[trainer]\nthreads = 0",
            "'trainer.threads': must be a whole number from 1 to 1024, not 0",
        ),
        (
            MINIMAL + '[log]\nlevel = "loud"',
            "'log.level': must be one of debug, error, info, warning, not \"loud\"",
        ),
        (
            'name = "alice"',
            "has no [ledger] yet: one member runs 'folkmoot ledger deploy', the others 'folkmoot ledger use', "
            "once all have signed the charter",
        ),
        ('name = "alice"\n[ledger]\nrpc = ["http://x"]', "'ledger.contract' is missing: add it"),
        (
            "ledger = 3\n" + MINIMAL.splitlines()[0],
            "'ledger': must be a table of rpc, contract, max_fee_gwei, bump_seconds, not 3",
        ),
    ],
)
def test_what_is_refused_and_how(home: Home, text: str, message: str) -> None:
    assert refusal(home, text) == message


def test_bad_syntax_names_the_line(home: Home) -> None:
    assert "not valid TOML" in refusal(home, "name = \n")
    assert "at line 2" in refusal(home, 'name = "a"\nname 7\n')


def test_files_that_cannot_be_read(home: Home) -> None:
    with pytest.raises(ConfigError, match=r"node\.toml: no such file: run 'folkmoot init'"):
        load_config(home)
    home.config.write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match=r"node\.toml: not UTF-8 text \(byte 8\)"):
        load_config(home)
    home.config.unlink()
    home.config.mkdir()
    with pytest.raises(ConfigError, match=r"node\.toml: cannot be read: Is a directory"):
        load_config(home)


def test_a_rendered_file_reads_the_same(home: Home) -> None:
    text = (
        MINIMAL
        + f'[network]\nbootstrap = ["{PEER}", "../bob/address"]\n'
        + '[trainer]\ncommand = ["torchrun", "--flag=\\"x\\"", "ü\\u007f"]\nthreads = 4\ntimeout = 7'
    )
    home.config.write_text(text)
    config = load_config(home)
    rendered = render_config(config)
    home.config.write_text(rendered)
    assert load_config(home) == config
    assert "# rpc: JSON-RPC end points" in rendered


def test_bootstrap_takes_addresses_and_address_files(home: Home) -> None:
    network = NetworkConfig(bootstrap=(PEER, "bob/address", "carol/address"))
    (home.path / "bob").mkdir()
    (home.path / "bob" / "address").write_text(f"{PEER}x\n{PEER}y\n")
    assert bootstrap_addresses(network, home) == [PEER, f"{PEER}x", f"{PEER}y"]


def test_a_bad_bootstrap_entry_is_named(home: Home) -> None:
    with pytest.raises(ConfigError, match=r"network\.bootstrap: '/ip4/1\.2\.3\.4/tcp/1' is not an address"):
        bootstrap_addresses(NetworkConfig(bootstrap=("/ip4/1.2.3.4/tcp/1",)), home)
    (home.path / "address").write_text("nonsense\n")
    with pytest.raises(ConfigError, match="address: 'nonsense' is not an address"):
        bootstrap_addresses(NetworkConfig(bootstrap=("address",)), home)


class Row(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    kind: Literal["a", "b"] = "a"


class Sheet(msgspec.Struct, forbid_unknown_fields=True):
    rows: tuple[Row, ...] = ()
    best: Row | None = None


def test_the_path_goes_into_lists_and_optional_tables() -> None:
    with pytest.raises(ConfigError, match=r"^s: unknown key 'rows\[1\]\.nmae'; did you mean 'name'\?$"):
        decode_toml('[[rows]]\nname = "x"\n[[rows]]\nnmae = "y"', Sheet, "s")
    with pytest.raises(ConfigError, match=r"^s: 'rows\[0\]\.name' is missing: add it$"):
        decode_toml("[[rows]]", Sheet, "s")
    with pytest.raises(ConfigError, match=r"^s: unknown key 'best\.knid'; did you mean 'kind'\?$"):
        decode_toml('[best]\nname = "x"\nknid = "b"', Sheet, "s")


class Value(msgspec.Struct):
    value: str | bool | int | float | list[str]


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.one_of(
        TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.lists(TEXT)
    )
)
def test_any_value_is_written_as_toml_reads_it(value: str | bool | int | float | list[str]) -> None:
    read = decode_toml(f"value = {toml_value(value)}", Value, "s").value
    assert (type(read), read) == (type(value), value)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        decode_toml(text, Sheet, "s")
    except ConfigError as error:
        assert str(error).startswith("s: ")


def test_a_home_without_a_ledger_says_which_commands_fill_it_in(home: Home) -> None:
    message = refusal(home, 'name = "alice"\n')
    assert "folkmoot ledger deploy" in message and "folkmoot ledger use" in message
