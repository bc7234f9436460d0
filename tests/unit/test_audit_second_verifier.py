"""docs/verify.py, which shares no code with the audit, gives the same answers on good and tampered bundles."""

import ast
import json
import lzma
import runpy
import subprocess
import sys
import zipfile
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from audit_bundles import TAMPERED, flip, make_bundle, offline, read, shown, statuses, write
from audited_federation import AuditedFederation, record, removal
from masked_federation import MaskedFederation

from folkmoot.ledger.audit_key import AuditKey, recover
from folkmoot.ledger.memory import MemoryChain, MemoryLedger
from folkmoot.protocol.charter_tables import Schedule
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.typed_data import keccak256

VERIFIER = Path(__file__).parents[2] / "docs" / "verify.py"


def verify(path: Path) -> tuple[int, dict[str, str]]:
    """Its exit code and statuses. -I: it runs without this project's packages on the path."""
    command = [sys.executable, "-I", str(VERIFIER), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == "", done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, answer["checks"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    federation = AuditedFederation()
    federation.add_round()
    federation.add_round(survivors=(0, 1, 3))
    federation.add_round()
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(federation, federation.write_home(folder / "alice").path, folder / "audit.zip")
    return folder / "audit.zip"


def test_what_zipfile_would_expand_at_once_is_not_read(tmp_path: Path) -> None:
    """A kilobyte of bzip2 is more than a gigabyte of zeros."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("packed.xz", lzma.compress(b""))
    command = [sys.executable, "-I", str(VERIFIER), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and "packed.xz" in done.stderr


def test_it_is_short_and_stands_alone() -> None:
    text = VERIFIER.read_text()
    assert len(text.splitlines()) <= 300
    imported = {
        name.name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert imported <= sys.stdlib_module_names


def test_its_arithmetic_is_that_of_others() -> None:
    own = runpy.run_path(str(VERIFIER))
    for size in (0, 1, 134, 135, 136, 137, 271, 272, 300):
        assert own["keccak"](b"a" * size) == keccak256(b"a" * size)
    for place in range(20):
        key, digest = AuditKey(sha256(b"key %d" % place).digest()), sha256(b"text %d" % place).digest()
        signature = key.sign(digest)
        assert own["recover"](digest, signature) == key.address
        changed, expected = flip(signature, 3 * place), None
        with suppress(RemoteProtocolError):
            expected = recover(digest, changed)
        assert own["recover"](digest, changed) == expected
    # s R = z G: the key would be the point at infinity, which is nobody's.
    point = own["G"][0].to_bytes(32, "big")
    assert own["recover"]((7).to_bytes(32, "big"), point + (7).to_bytes(32, "big")) is None


def test_same_answers_on_a_good_bundle(bundle: Path) -> None:
    code, found = verify(bundle)
    assert (code, set(found.values())) == (0, {"PASS"})
    theirs = statuses(offline(bundle))
    assert {id_: theirs[id_] for id_ in found} == found
    assert len(found) >= 13


@pytest.mark.parametrize("name", TAMPERED)
def test_same_answers_on_a_tampered_bundle(bundle: Path, tmp_path: Path, name: str) -> None:
    change, code, check = TAMPERED[name]
    files = read(bundle)
    change(files)
    bad = write(tmp_path / "bad.zip", files)
    theirs, (own_code, found) = statuses(offline(bad)), verify(bad)
    judged = {id_: status for id_, status in found.items() if "SKIPPED" not in (status, theirs[id_])}
    assert {id_: theirs[id_] for id_ in judged} == judged
    if check in found:
        assert own_code == code


def test_same_answers_in_secure_mode(tmp_path: Path) -> None:
    masked = MaskedFederation()
    masked.add_masked_round()
    make_bundle(masked, masked.write_home(tmp_path / "alice").path, tmp_path / "audit.zip")
    code, found = verify(tmp_path / "audit.zip")
    assert (code, found.pop("payloads"), set(found.values())) == (0, "SKIPPED", {"PASS"})


def test_same_answers_under_an_amended_charter(tmp_path: Path) -> None:
    made = AuditedFederation(schedule=Schedule(rounds=9, max_ahead=1))
    ledger = MemoryLedger(MemoryChain(made.identity), bytes(20))
    record(ledger, made.add_round().finalize)
    amendment, after = removal(made, "dave", effective=3)
    record(ledger, amendment)
    record(ledger, made.add_round().finalize)
    made.change_charter(after)
    record(ledger, made.add_round(survivors=(0, 1, 2)).finalize)
    home = made.write_home(tmp_path / "alice").path
    make_bundle(made, home, tmp_path / "audit.zip", ledger)
    code, found = verify(tmp_path / "audit.zip")
    theirs = statuses(offline(tmp_path / "audit.zip"))
    assert (code, set(found.values())) == (0, {"PASS"})
    assert {id_: theirs[id_] for id_ in found} == found
    files = read(tmp_path / "audit.zip")
    shown(lambda answers: answers["amendments"][0]["signatures"].pop())(files)
    shown(lambda answers: answers["amendments"][0]["signatures"].pop())(files)
    bad = write(tmp_path / "bad.zip", files)
    assert verify(bad)[1]["amendments"] == statuses(offline(bad))["amendments"] == "FAIL"
