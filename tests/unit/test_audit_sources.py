"""What the audit reads is what nodes write, and whatever else lies there is refused or left alone."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from audited_federation import TENSORS, AuditedFederation
from click.testing import CliRunner

from folkmoot.ledger.audit.sources import Lacking, Source, load_signed_charter, ref_of_file
from folkmoot.ledger.cli import audit
from folkmoot.node.archive import Archive, Models
from folkmoot.protocol.blob import CHUNK, ref_of
from folkmoot.protocol.charter import verify_charter
from folkmoot.protocol.errors import CharterError, RemoteProtocolError
from folkmoot.protocol.messages import MAX_FRAME
from folkmoot.protocol.record import MAX_RECORD
from folkmoot.protocol.toml import ConfigError

REPO = Path(__file__).parents[2]


@pytest.fixture
def federation() -> AuditedFederation:
    made = AuditedFederation()
    made.add_round()
    return made


@pytest.fixture
def home(federation: AuditedFederation, tmp_path: Path) -> Path:
    return federation.write_home(tmp_path / "alice").path


def test_charter_of_a_home_is_read_with_its_signatures(federation: AuditedFederation, home: Path) -> None:
    found = Source.of_home(home).charter()
    assert found is not None
    assert found.charter == federation.charter
    verify_charter(found.charter, found.signatures)


@pytest.mark.parametrize("content", [b"", b"zz", b"00" * 63, b"\xff", b"00" * 4000])
def test_malformed_signature_is_a_missing_one(home: Path, content: bytes) -> None:
    (home / "charter.sig" / "bob.sig").write_bytes(content)
    assert sorted(load_signed_charter(home / "charter.toml").signatures) == ["alice", "carol", "dave"]


def test_charter_that_is_none_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "charter.toml"
    with pytest.raises(CharterError, match=r"charter\.toml"):
        load_signed_charter(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CharterError, match=r"charter\.toml"):
        load_signed_charter(path)
    path.write_text("nmae = 'x'")
    with pytest.raises(ConfigError, match=r"charter\.toml.*nmae"):
        load_signed_charter(path)


def test_rounds_are_those_with_a_records_name(tmp_path: Path) -> None:
    Archive(tmp_path).add_record(12, b"record")
    for name in ("1.record", "abcdefgh.record", "00000003.txt", "-0000001.record"):
        (tmp_path / "rounds" / name).write_bytes(b"")
    source = Source(tmp_path)
    assert source.rounds() == [12]
    assert (source.record(12), source.record(3)) == (b"record", None)


def test_record_that_is_absurdly_long_is_not_read(tmp_path: Path) -> None:
    Archive(tmp_path).add_record(1, b"")
    os.truncate(tmp_path / "rounds" / "00000001.record", MAX_RECORD + 1)
    with pytest.raises(RemoteProtocolError, match="limit"):
        Source(tmp_path).record(1)


@pytest.mark.parametrize("size", [0, 1, CHUNK, 2 * CHUNK + 5])
def test_file_has_the_blobs_name(tmp_path: Path, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    ref = Archive(tmp_path).add_bytes(data)
    path = Source(tmp_path).blob(ref.root)
    assert path is not None
    assert ref_of_file(path) == ref == ref_of(data)


def test_pipe_in_a_blobs_place_does_not_hang_the_audit(tmp_path: Path) -> None:
    path = Archive(tmp_path).place(bytes(32))
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    source = Source(tmp_path)
    assert source.blob(bytes(32)) is None
    assert list(source.evidence()) == []


def test_evidence_is_told_by_its_beginning(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    for data in (
        b"",
        b"\x93",
        b"\x93\xa8evidence and more",
        b"something else",
        b"\x93\xa8evidence" + bytes(MAX_FRAME),
    ):
        archive.add_bytes(data)
    assert list(Source(tmp_path).evidence()) == [b"\x93\xa8evidence and more"]


def test_model_is_found_by_digest_wherever_it_lies(federation: AuditedFederation, tmp_path: Path) -> None:
    vector = federation.models[0]
    ref, home = ref_of(vector.tobytes()), tmp_path / "home"
    source = Source.of_home(home)
    assert source.vector(ref.root, TENSORS) is None

    (home / "models").mkdir(parents=True)
    named = {"weight": vector[:6].reshape(3, 2), "bias": vector[6:]}
    safetensors.numpy.save_file(named, home / "models" / "model0.safetensors")
    found = source.vector(ref.root, TENSORS)
    assert found is not None and found.tobytes() == vector.tobytes()
    assert source.vector(bytes(32), TENSORS) is None

    (home / "models" / "model0.safetensors").write_bytes(b"not safetensors")
    assert source.vector(ref.root, TENSORS) is None
    Archive(home / "archive").add_bytes(vector.tobytes())
    assert source.vector(ref.root, TENSORS) is not None


def test_model_with_other_contents_than_its_name_is_not_taken(
    federation: AuditedFederation, tmp_path: Path
) -> None:
    ref = Models(tmp_path / "models").add_bytes(federation.models[0].tobytes())
    (tmp_path / "models" / f"{ref.root.hex()}.f32").write_bytes(bytes(32))
    assert Source.of_home(tmp_path).vector(ref.root, TENSORS) is None


def test_safetensors_of_another_layout_is_not_taken(federation: AuditedFederation, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    named = {"weight": federation.models[0][:6].astype(np.float64)}
    safetensors.numpy.save_file(named, tmp_path / "models" / "model0.safetensors")
    root = ref_of(federation.models[0].tobytes()).root
    assert Source.of_home(tmp_path).vector(root, TENSORS) is None


def test_sealing_key_is_read_or_told_to_be_damaged(home: Path, federation: AuditedFederation) -> None:
    source = Source.of_home(home)
    assert list(source.sealing_secrets()) == [bytes(federation.keys[0].sealing)]
    (home / "keys" / "sealing.key").write_text("00ff")
    with pytest.raises(Lacking, match="damaged") as caught:
        list(source.sealing_secrets())
    assert "00ff" not in str(caught.value)
    assert list(Source(home / "archive").sealing_secrets()) == []


@pytest.mark.parametrize("content", [b"", b"not a database"])
def test_store_that_is_none_gives_no_content_key(home: Path, content: bytes) -> None:
    (home / "store.sqlite").write_bytes(content)
    assert Source.of_home(home).content_key(1, bytes(32), 0) is None


def test_whole_audit_needs_nothing_of_a_nodes_install(federation: AuditedFederation, home: Path) -> None:
    """Torch, trio, libp2p, web3 and the node's own code are made unimportable first."""
    script = f"""
import sys
for absent in ("torch", "trio", "libp2p", "multiaddr", "web3", "eth_tester", "sklearn", "folkmoot.node"):
    sys.modules[absent] = None
from click.testing import CliRunner
from folkmoot.ledger.cli import audit
done = CliRunner().invoke(audit, ["--rpc", "http://127.0.0.1:9", "--contract", "0x{federation.contract.hex()}",
                                  "--home", {str(home)!r}])
assert done.exit_code == 5, done.output
assert "payloads" in done.output and "UNREACHABLE" in done.output, done.output
"""
    environment = os.environ | {"PYTHONPATH": str(REPO / ".typing")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_folder_that_holds_archives_is_answered_with_theirs(tmp_path: Path) -> None:
    given = tmp_path / "nodes"
    (given / "alice" / "archive" / "rounds").mkdir(parents=True)
    done = CliRunner().invoke(audit, ["--archive", str(given), "--charter", str(tmp_path)])
    assert done.exit_code == 2 and f"give {given / 'alice' / 'archive'}" in done.output.replace("\n", " ")
    (tmp_path / "new").mkdir()
    done = CliRunner().invoke(audit, ["--archive", str(tmp_path / "new")])
    assert "needs --charter" in done.output  # an archive without rounds is one
