"""Models are taken out of a home: kept ones as they are, older ones computed again, and nothing that nobody signed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from audited_federation import AuditedFederation
from click.testing import CliRunner
from safetensors import safe_open

from folkmoot.node.archive import Archive, Models
from folkmoot.node.cli.model import export, show
from folkmoot.node.config import Home, LedgerConfig, NodeConfig, render_config
from folkmoot.node.model_file import ModelFileError, read_model
from folkmoot.node.recorded import RecordedError, RecordedModels
from folkmoot.node.store import Journal
from folkmoot.protocol.blob import ref_of
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.journal import Adopted, encode_entry, entry_kind
from folkmoot.protocol.messages import Final
from folkmoot.protocol.typed_data import struct_hash


@pytest.fixture(scope="module")
def federation() -> AuditedFederation:
    made = AuditedFederation()
    made.add_round()
    made.add_round(survivors=(0, 2, 3))
    made.add_round()
    return made


@pytest.fixture
def home(federation: AuditedFederation, tmp_path: Path) -> Home:
    home = federation.write_home(tmp_path / "alice")
    contract = f"0x{federation.contract.hex()}"
    config = NodeConfig(name="alice", ledger=LedgerConfig(rpc=("http://127.0.0.1:1",), contract=contract))
    home.config.write_text(render_config(config))
    Models(home.models).add_bytes(federation.models[3].tobytes())
    return home


def take(home: Home, number: int | None = None) -> tuple[Path, str]:
    """The exported file, and what was said on the way."""
    out = home.path / "out.safetensors"
    words = ["--home", str(home.path), "--out", str(out)]
    done = CliRunner().invoke(export, [*words, "--round", str(number)] if number else words)
    if done.exception:
        raise done.exception
    return out, done.output


def test_the_latest_model_comes_with_all_that_names_it(home: Home, federation: AuditedFederation) -> None:
    out, said = take(home)
    card, vector = read_model(out)
    assert np.array_equal(vector, federation.models[3])
    assert card.round == 3
    assert card.federation == federation.federation.id.hex()
    assert card.statement == struct_hash(federation.rounds[2].statement).hex()
    assert card.model == ref_of(federation.models[3].tobytes()).root.hex()
    assert card.architecture == federation.charter.model
    assert card.model in said
    with safe_open(out, framework="numpy") as file:
        assert set(file.keys()) == {"weight", "bias"}
        assert file.metadata()["round"] == "3"
        assert file.get_tensor("bias").tolist() == federation.models[3][6:].tolist()


@pytest.mark.parametrize("number", [1, 2])
def test_a_model_that_is_gone_is_computed_again(
    home: Home, federation: AuditedFederation, number: int
) -> None:
    out, said = take(home, number)
    assert f"the model of round {number} is no longer kept: computing {number} rounds again" in said
    card, vector = read_model(out)
    assert (card.round, vector.tobytes()) == (number, federation.models[number].tobytes())


def test_without_the_payloads_it_says_which_round_is_lacking(home: Home) -> None:
    shutil.rmtree(home.archive / "blobs")
    with pytest.raises(RecordedError, match=r"round 2: .* cannot be computed again: round 1: .* has gone"):
        take(home, 2)
    assert take(home, 3)


def test_a_round_learnt_from_others_comes_from_the_journal(home: Home, federation: AuditedFederation) -> None:
    record = federation.rounds[2].record
    shutil.rmtree(home.archive)
    Journal.create(home.store)
    with Journal.open(home.store) as journal:
        entry = Adopted(Final(record.attestations, record.model))
        journal.append([(3, entry_kind(entry), encode_entry(entry)), (3, "disclosure", b"\x00")])
    out, _ = take(home)
    assert read_model(out)[0].statement == struct_hash(federation.rounds[2].statement).hex()
    Models(home.models).remove(record.model.root)
    with pytest.raises(RecordedError, match=r"round 3: no record in this home's archive .* ask a member"):
        take(home)


def test_a_round_without_a_record_is_told_with_those_there_are(home: Home) -> None:
    with pytest.raises(
        RecordedError, match=r"round 9: no record in this home's archive \(it knows rounds 1 to 3\)"
    ):
        take(home, 9)
    shutil.rmtree(home.archive)
    with pytest.raises(RecordedError, match="no round is finished"):
        take(home)


def test_a_record_of_another_round_or_without_its_quorum_is_refused(
    home: Home, federation: AuditedFederation
) -> None:
    archive = Archive(home.archive)
    archive.add_record(1, archive.record(2) or b"")
    with pytest.raises(RecordedError, match="round 1: its record is of round 2"):
        take(home, 1)
    archive.add_record(1, b"\x00")
    with pytest.raises(RecordedError, match="cannot be read"):
        take(home, 1)


def test_a_kept_model_that_was_changed_is_not_taken(home: Home, federation: AuditedFederation) -> None:
    path = Models(home.models).place(ref_of(federation.models[3].tobytes()).root)
    path.write_bytes(bytes(32))
    out, said = take(home, 3)
    assert "computing 3 rounds again" in said
    assert np.array_equal(read_model(out)[1], federation.models[3])


def test_a_home_shows_its_rounds_and_its_model(home: Home) -> None:
    shown = CliRunner().invoke(show, ["--home", str(home.path), "--json"])
    found = json.loads(shown.output)
    assert (found["round"], found["recorded"], found["kept"], found["kind"]) == (
        3,
        [1, 2, 3],
        [3],
        "logistic",
    )
    assert found["tensors"][0] == {"name": "weight", "shape": [3, 2]}
    text = CliRunner().invoke(show, ["--home", str(home.path)]).output
    assert "3 rounds" in text and "weight [3, 2], bias [2]" in text


def test_a_file_shows_where_it_comes_from(home: Home) -> None:
    out, _ = take(home)
    shown = CliRunner().invoke(show, [str(out)])
    assert "audited" in shown.output and "statement" in shown.output
    assert CliRunner().invoke(show, []).exit_code == 2
    assert CliRunner().invoke(show, [str(out), "--home", str(home.path)]).exit_code == 2


def test_a_home_before_its_first_round_shows_the_charters_model(home: Home) -> None:
    shutil.rmtree(home.archive)
    assert "no round is finished yet" in CliRunner().invoke(show, ["--home", str(home.path)]).output


@pytest.mark.parametrize("at", range(0, 900, 37))
def test_a_model_file_changed_in_any_byte_never_passes(home: Home, at: int) -> None:
    out, _ = take(home)
    data = bytearray(out.read_bytes())
    data[-1 - at % len(data)] ^= 1
    out.write_bytes(data)
    try:
        card, vector = read_model(out)
    except FolkmootError as error:
        assert str(out) in str(error)
    else:
        assert ref_of(vector.tobytes()).root.hex() == card.model


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("hello")
    with pytest.raises(ModelFileError, match="cannot be read as a model"):
        read_model(path)


def test_recorded_models_needs_its_home(home: Home) -> None:
    home.charter.unlink()
    with pytest.raises(FolkmootError, match=r"charter\.toml"):
        RecordedModels(home)
