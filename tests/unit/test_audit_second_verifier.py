"""docs/verify.py, which shares no code with the audit, gives the same answers on good and tampered bundles."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from audit_bundles import TAMPERED, make_bundle, offline, read, statuses, write
from audited_federation import AuditedFederation

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
