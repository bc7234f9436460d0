"""`folkmoot audit` as its user runs it, against the embedded chain over HTTP."""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audited_federation import AuditedFederation

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.evm import EvmLedger, deploy
from folkmoot.ledger.identity import founding_of
from folkmoot.node.archive import Archive
from folkmoot.protocol.messages import Evidence, Vote, encode

pytestmark = pytest.mark.integration

GAS_KEY = bytes(31) + b"\x09"
CHAIN_ID = 31_337
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / ".typing"), "COLUMNS": "200"}


@pytest.fixture(scope="module", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where these audits remember; not where the developer's do."""
    ENVIRONMENT["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An embedded chain of its own process."""
    address_file = tmp_path_factory.mktemp("chain") / "chain.url"
    command = [sys.executable, "-m", "folkmoot.testnet.chain", "--address-file", str(address_file)]
    command += ["--chain-id", str(CHAIN_ID), "--fund", f"0x{AuditKey(GAS_KEY).address.hex()}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 30)
        assert ready, "the chain did not start within 30 s"
        process.stdout.readline()
        yield address_file.read_text().strip()
        process.terminate()
        assert process.wait(timeout=10) == 0


@pytest.fixture(scope="module")
def recorded(url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[AuditedFederation, Path]:
    """Two rounds on the chain, and the home of one member."""
    federation = AuditedFederation(chain_id=CHAIN_ID)
    terms = federation.charter
    contract = deploy([url], GAS_KEY, founding_of(terms)).contract
    federation.settle(contract, CHAIN_ID)
    federation.add_round()
    federation.add_round(survivors=(0, 2, 3))
    federation.record_on(EvmLedger([url], contract, GAS_KEY))
    return federation, federation.write_home(tmp_path_factory.mktemp("homes") / "alice").path


@pytest.fixture
def home(recorded: tuple[AuditedFederation, Path], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(recorded[1], tmp_path / "alice"))


def audit(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "folkmoot.node.cli", "audit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)


def audit_json(federation: AuditedFederation, url: str, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """The exit code and the report."""
    done = audit("--rpc", url, "--contract", f"0x{federation.contract.hex()}", "--json", *arguments)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def statuses(report: dict[str, Any]) -> dict[str, str]:
    return {check["id"]: check["status"] for check in report["checks"]}


def test_home_of_a_member_passes_every_check(
    recorded: tuple[AuditedFederation, Path], url: str, home: Path
) -> None:
    code, report = audit_json(recorded[0], url, "--home", home)
    assert (code, report["status"]) == (0, "PASS"), report
    found = statuses(report)
    skipped = ["agreement", "finality", "sums", "fingerprints", "releases", "proof", "memory", "privacy"]
    assert [id_ for id_, status in found.items() if status != "PASS"] == skipped
    assert report["notes"] == ["development chain, not evidence"]
    assert report["format"] == "folkmoot/v1/audit"


def test_table_is_for_people(recorded: tuple[AuditedFederation, Path], url: str, home: Path) -> None:
    contract = f"0x{recorded[0].contract.hex()}"
    done = audit("--rpc", url, "--rpc", url, "--contract", contract, "--home", home)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "audit: PASS"
    assert "note: development chain, not evidence" in lines
    assert any(line.split()[:3] == ["22", "replay", "PASS"] for line in lines)


def test_ledger_alone(recorded: tuple[AuditedFederation, Path], url: str) -> None:
    code, report = audit_json(recorded[0], url)
    assert (code, statuses(report)["quorum"], statuses(report)["rosters"]) == (0, "PASS", "SKIPPED")


def test_archive_with_a_charter_file(recorded: tuple[AuditedFederation, Path], url: str, home: Path) -> None:
    arguments = ("--archive", home / "archive", "--charter", home / "charter.toml")
    code, report = audit_json(recorded[0], url, *arguments)
    assert (code, statuses(report)["payloads"], statuses(report)["replay"]) == (0, "PASS", "SKIPPED")


def test_exit_codes(recorded: tuple[AuditedFederation, Path], url: str, home: Path) -> None:
    federation, _ = recorded
    record = home / "archive" / "rounds" / "00000002.record"
    whole = record.read_bytes()
    record.unlink()
    assert audit_json(federation, url, "--home", home)[0] == 3
    record.write_bytes(whole[:-1])
    assert audit_json(federation, url, "--home", home)[0] == 1
    votes = (federation.say(1, Vote(federation.federation.id, 1, 9, bytes([value]) * 32)) for value in (1, 2))
    Archive(home / "archive").add_bytes(encode(Evidence(*votes)))
    assert audit_json(federation, url, "--home", home)[0] == 4
    record.write_bytes(whole)
    code, report = audit_json(federation, "http://127.0.0.1:9")
    assert (code, statuses(report)["ledger"]) == (5, "UNREACHABLE")
    nothing_there = audit("--rpc", url, "--contract", "0x" + "11" * 20, "--json")
    assert nothing_there.returncode == 1
    assert statuses(json.loads(nothing_there.stdout))["code-hash"] == "FAIL"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--contract", "0x" + "11" * 20], "--rpc"),
        (["--rpc", "http://127.0.0.1:9"], "--contract"),
        (["--rpc", "127.0.0.1:9", "--contract", "0x" + "11" * 20], "is not a URL"),
        (["--rpc", "http://127.0.0.1:9", "--contract", "0x11"], "is not an address"),
        (
            ["--rpc", "http://127.0.0.1:9", "--contract", "0x" + "11" * 20, "--home", "/no/such/home"],
            "does not exist",
        ),
    ],
    ids=["no rpc", "no contract", "url", "address", "home"],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], says: str) -> None:
    done = audit(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_charter_that_cannot_be_read_is_exit_code_2(url: str, home: Path) -> None:
    (home / "charter.toml").write_text("nmae = 'x'\n")
    done = audit("--rpc", url, "--contract", "0x" + "11" * 20, "--home", home)
    assert done.returncode == 2
    assert "did you mean 'name'?" in done.stderr


# --- outputs ----------------------------------------------------------------------------------------------------------


def test_page_and_bundle(
    recorded: tuple[AuditedFederation, Path], url: str, home: Path, tmp_path: Path
) -> None:
    bundle, page = tmp_path / "audit.zip", tmp_path / "report.html"
    code, report = audit_json(recorded[0], url, "--home", home, "--bundle", bundle, "--html", page)
    assert code == 0
    assert f"folkmoot audit --offline {bundle}" in page.read_text()
    shutil.rmtree(home)
    done = audit("--offline", bundle, "--json")
    again = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert again["subject"] == report["subject"] and again["rounds"] == report["rounds"]
    assert statuses(again)["headers"] == "PASS" and statuses(again)["proof"] == "SKIPPED"
    second = [sys.executable, "-I", str(Path(__file__).parents[2] / "docs" / "verify.py"), str(bundle)]
    told = json.loads(subprocess.run(second, capture_output=True, text=True, timeout=60, check=True).stdout)
    assert told["status"] == "PASS" and told["checks"]["headers"] == "PASS"


def test_a_verified_head_is_remembered(
    recorded: tuple[AuditedFederation, Path], url: str, tmp_path: Path
) -> None:
    federation, state = recorded[0], tmp_path / "state.json"
    assert statuses(audit_json(federation, url, "--state", state)[1])["memory"] == "SKIPPED"
    assert statuses(audit_json(federation, url, "--state", state)[1])["memory"] == "PASS"
    remembered = json.loads(state.read_text())
    assert remembered["height"] == 2
    state.write_text(json.dumps(remembered | {"head": "00" * 32}))
    code, report = audit_json(federation, url, "--state", state)
    assert (code, statuses(report)["memory"]) == (4, "MISBEHAVIOUR")
    state.write_text("?")
    damaged = audit("--rpc", url, "--contract", f"0x{federation.contract.hex()}", "--state", state)
    assert damaged.returncode == 2 and "move it away" in damaged.stderr
    by_default = Path(ENVIRONMENT["XDG_STATE_HOME"]) / "folkmoot" / "audit"
    assert [path.stem for path in by_default.iterdir()] == [federation.federation.id.hex()]


def test_watch_tells_what_is_new_and_ends_at_misbehaviour(
    recorded: tuple[AuditedFederation, Path], url: str, home: Path, tmp_path: Path
) -> None:
    federation, export = recorded[0], tmp_path / "watched"
    command = [
        sys.executable,
        "-m",
        "folkmoot.node.cli",
        "audit",
        "watch",
        "--rpc",
        url,
        "--json",
        "--every",
        "0.1",
    ]
    command += ["--contract", f"0x{federation.contract.hex()}", "--home", str(home), "--export", str(export)]
    command += ["--until-misbehaviour", "--no-state"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        deadline = time.monotonic() + 60
        while not (export / "report.html").exists():  # the first audit finds nothing
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        (home / "archive" / "rounds" / "00000002.record").unlink()
        missing = json.loads(process.stdout.readline())
        assert (missing["check"], missing["round"], missing["status"]) == ("records", 2, "INCONCLUSIVE")
        votes = (
            federation.say(1, Vote(federation.federation.id, 1, 9, bytes([value]) * 32)) for value in (1, 2)
        )
        Archive(home / "archive").add_bytes(encode(Evidence(*votes)))
        told = json.loads(process.stdout.readline())
        assert (told["check"], told["member"]) == ("equivocation", "bob")
        assert process.wait(timeout=60) == 4
    assert {path.stem for path in (export / "findings").iterdir()} >= {missing["id"], told["id"]}
    assert json.loads((export / "report.json").read_text())["status"] == "MISBEHAVIOUR"
