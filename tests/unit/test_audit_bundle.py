"""Bundles: what goes in comes out with the same answers, and every kind of tampering is found."""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from audited_federation import CONTRACT, AuditedFederation
from click.testing import CliRunner, Result
from masked_federation import MaskedFederation

from folkmoot.ledger.audit import Audited, Source, audit, load_signed_charter
from folkmoot.ledger.audit.bundle import write_bundle
from folkmoot.ledger.audit.shown import ShownLedger
from folkmoot.ledger.cli import audit as command

Files = dict[str, bytes]


def make_bundle(federation: AuditedFederation, home: Path, path: Path) -> Audited:
    source = Source.of_home(home)
    audited = audit([federation.ledger()], [source], contract=CONTRACT, names=["RPC 1"])
    shown = [ShownLedger.of_view(view) for view in audited.views]
    charter = load_signed_charter(home / "charter.toml")
    write_bundle(path, shown, [source], charter, audited.report, contract=CONTRACT, development=True)
    return audited


@pytest.fixture(scope="module")
def federation() -> AuditedFederation:
    made = AuditedFederation()
    made.add_round()
    made.add_round(survivors=(0, 1, 3))
    made.add_round()
    return made


@pytest.fixture(scope="module")
def bundle(federation: AuditedFederation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    home = federation.write_home(folder / "alice")
    make_bundle(federation, home.path, folder / "audit.zip")
    return folder / "audit.zip"


def offline(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, ["--offline", str(path), "--json", *arguments])


def statuses(result: Result) -> dict[str, str]:
    return {check["id"]: check["status"] for check in json.loads(result.stdout)["checks"]}


def wrong(result: Result) -> set[str]:
    return {id_ for id_, status in statuses(result).items() if status not in ("PASS", "SKIPPED")}


def test_the_same_answers_without_a_network(bundle: Path, federation: AuditedFederation) -> None:
    done = offline(bundle)
    assert (done.exit_code, wrong(done)) == (0, set()), done.output
    found = statuses(done)
    assert found["payloads"] == "PASS" and found["replay"] == "SKIPPED"


def test_with_the_keys_of_a_home_it_is_replayed(bundle: Path) -> None:
    done = offline(bundle, "--home", str(bundle.parent / "alice"))
    assert (done.exit_code, statuses(done)["replay"]) == (0, "PASS")


def test_keys_stay_at_home(bundle: Path) -> None:
    secret = (bundle.parent / "alice" / "keys" / "sealing.key").read_bytes().strip()
    with zipfile.ZipFile(bundle) as archive:
        assert not any("key" in name or "sqlite" in name for name in archive.namelist())
        assert not any(secret in archive.read(name) for name in archive.namelist())


def test_the_same_audit_gives_the_same_bytes(bundle: Path, federation: AuditedFederation) -> None:
    make_bundle(federation, bundle.parent / "alice", bundle.with_name("again.zip"))
    assert bundle.read_bytes() == bundle.with_name("again.zip").read_bytes()


def test_secure_mode_is_replayed_from_the_bundle_alone(tmp_path: Path) -> None:
    masked = MaskedFederation()
    masked.add_masked_round()
    home = masked.write_home(tmp_path / "alice")
    make_bundle(masked, home.path, tmp_path / "audit.zip")
    shutil.rmtree(home.path)
    done = offline(tmp_path / "audit.zip")
    assert (done.exit_code, statuses(done)["replay"]) == (0, "PASS"), done.output


# --- tampering --------------------------------------------------------------------------------------------------------


def read(bundle: Path) -> Files:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, files: Files, *, mend: bool = True) -> Path:
    """`mend`: a careful forger makes the manifest fit."""
    if mend:
        manifest = json.loads(files["manifest.json"])
        manifest["files"] = {
            name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != "manifest.json"
        }
        files["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def flip(data: bytes, place: int = -1) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def first(files: Files, part: str) -> str:
    return next(name for name in sorted(files) if part in name)


def shown(edit: Callable[[dict], None]) -> Callable[[Files], None]:  # type: ignore[type-arg]
    """Change what the RPC is said to have shown."""

    def change(files: Files) -> None:
        ledger = json.loads(files["ledger/1.json"])
        edit(ledger)
        files["ledger/1.json"] = json.dumps(ledger).encode()

    return change


def other(text: str) -> str:
    return text[:-1] + ("0" if text[-1] != "0" else "1")


def in_statement(field: str) -> Callable[[Files], None]:
    def edit(ledger: dict) -> None:  # type: ignore[type-arg]
        statement = ledger["records"][1]["statement"]
        statement[field] = other(statement[field])

    return shown(edit)


def swap_signatures(ledger: dict) -> None:  # type: ignore[type-arg]
    first_, second, *_ = ledger["records"]
    first_["signatures"], second["signatures"] = second["signatures"], first_["signatures"]


def drop_last(ledger: dict) -> None:  # type: ignore[type-arg]
    ledger["records"].pop()


def drop_all_but_height(ledger: dict) -> None:  # type: ignore[type-arg]
    ledger["records"].pop()
    ledger["head"]["height"] -= 1
    ledger["head"]["finalized_height"] -= 1


def repeat_signature(ledger: dict) -> None:  # type: ignore[type-arg]
    record = ledger["records"][0]
    record["signatures"] = [record["signatures"][0]] * 3


def set_in(*path: str, value: object) -> Callable[[Files], None]:
    def edit(ledger: dict) -> None:  # type: ignore[type-arg]
        place = ledger
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = value

    return shown(edit)


def remove(part: str) -> Callable[[Files], None]:
    return lambda files: files.__delitem__(first(files, part))


def damage(part: str, place: int = -1) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        name = first(files, part)
        files[name] = flip(files[name], place)

    return change


def cut(part: str) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        name = first(files, part)
        files[name] = files[name][: len(files[name]) // 2]

    return change


def exchange_records(files: Files) -> None:
    one, two = "archive/1/rounds/00000001.record", "archive/1/rounds/00000002.record"
    files[one], files[two] = files[two], files[one]


def another_charter(files: Files) -> None:
    files["charter/charter.toml"] = files["charter/charter.toml"].replace(b"epochs = 1", b"epochs = 2")


TAMPERED: dict[str, tuple[Callable[[Files], None], int, str]] = {
    "a statement's model": (in_statement("model"), 1, "hash-chain"),
    "a statement's base": (in_statement("base"), 1, "hash-chain"),
    "a statement's survivors": (in_statement("survivors"), 1, "quorum"),
    "a statement's archive root": (in_statement("archive"), 1, "quorum"),
    "a statement's config": (in_statement("config"), 1, "amendments"),
    "the head": (set_in("head", "digest", value="0x" + "11" * 32), 1, "hash-chain"),
    "signatures exchanged": (shown(swap_signatures), 1, "quorum"),
    "one signature three times": (shown(repeat_signature), 1, "quorum"),
    "a hidden round": (shown(drop_last), 1, "rounds"),
    "a hidden round and a lower height": (shown(drop_all_but_height), 1, "hash-chain"),
    "another code hash": (set_in("identity", "code_hash", value="0x" + "22" * 32), 1, "code-hash"),
    "another chain": (set_in("identity", "chain_id", value=5), 1, "chain-id"),
    "another attester": (set_in("identity", "attesters", value=["0x" + "33" * 20]), 1, "charter"),
    "an amendment that is not there": (set_in("head", "amendments", value=1), 1, "amendments"),
    "a record's last byte": (damage("00000002.record"), 1, "records"),
    "half a record": (cut("00000001.record"), 1, "records"),
    "records exchanged": (exchange_records, 1, "openings"),
    "a record is gone": (remove("00000003.record"), 3, "records"),
    "a payload": (damage("blobs/", 5), 1, "payloads"),
    "half a payload": (cut("blobs/"), 1, "payloads"),
    "a payload is gone": (remove("blobs/"), 3, "payloads"),
    "the charter": (another_charter, 1, "charter"),
    "a member's signature is gone": (remove("bob.sig"), 1, "charter"),
    "a member's signature": (damage("carol.sig", 3), 1, "charter"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_found(bundle: Path, tmp_path: Path, name: str) -> None:
    change, code, check = TAMPERED[name]
    files = read(bundle)
    change(files)
    done = offline(write(tmp_path / "bad.zip", files))
    assert done.exit_code == code, done.output
    assert check in wrong(done), done.output


BROKEN: dict[str, Callable[[Path, Path], object]] = {
    "not a zip": lambda good, bad: bad.write_bytes(b"not a zip"),
    "cut off": lambda good, bad: bad.write_bytes(good.read_bytes()[:-100]),
    "damaged inside": lambda good, bad: bad.write_bytes(flip(good.read_bytes(), 200)),
    "without a manifest": lambda good, bad: write(
        bad, {name: data for name, data in read(good).items() if name != "manifest.json"}, mend=False
    ),
    "a manifest that is none": lambda good, bad: write(bad, {"manifest.json": b"[]"}, mend=False),
    "a file that the manifest lacks": lambda good, bad: write(
        bad, {**read(good), "archive/1/rounds/00000009.record": b"x"}, mend=False
    ),
    "a file that is not what the manifest says": lambda good, bad: write(
        bad, {**read(good), "report.json": b"{}"}, mend=False
    ),
    "a path that leads out": lambda good, bad: write(bad, {**read(good), "archive/1/../../x": b"x"}),
    "an absolute path": lambda good, bad: write(bad, {**read(good), "/tmp/x": b"x"}),
    "an answer that makes no sense": lambda good, bad: write(bad, {**read(good), "ledger/1.json": b"{}"}),
    "a contract that is none": lambda good, bad: write(
        bad, {**read(good), "manifest.json": read(good)["manifest.json"].replace(b'"0x', b'"0y', 1)}
    ),
    "a charter that is none": lambda good, bad: write(bad, {**read(good), "charter/charter.toml": b"?"}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_bundle_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    bad = tmp_path / "bad.zip"
    BROKEN[name](bundle, bad)
    done = offline(bad)
    error = done.exception
    assert error is not None and getattr(error, "exit_code", done.exit_code) == 2, (done.output, error)
    assert not (tmp_path / "x").exists() and not Path("/tmp/x").exists()


def test_offline_needs_no_rpc(bundle: Path) -> None:
    done = offline(bundle, "--rpc", "http://127.0.0.1:9")
    assert done.exit_code == 2 and "leave out" in done.output


def test_a_state_file_finds_a_bundle_of_another_history(bundle: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    assert offline(bundle, "--state", str(state)).exit_code == 0
    fork = AuditedFederation()
    for _ in range(3):
        fork.add_round(survivors=(0, 1, 2))
    make_bundle(fork, fork.write_home(tmp_path / "alice").path, tmp_path / "fork.zip")
    done = offline(tmp_path / "fork.zip", "--state", str(state))
    assert (done.exit_code, statuses(done)["memory"]) == (4, "MISBEHAVIOUR")
    assert msgspec.json.decode(state.read_bytes())["height"] == 3


def test_the_page_is_self_contained_and_escapes(federation: AuditedFederation, tmp_path: Path) -> None:
    home = federation.write_home(tmp_path / "<b>alice").path
    (home / "archive" / "rounds" / "00000001.record").write_bytes(b"?")
    make_bundle(federation, home, tmp_path / "audit.zip")
    done = offline(tmp_path / "audit.zip", "--html", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert done.exit_code == 1
    assert "FAIL" in page and "<svg" in page and "folkmoot audit --offline" in page
    for forbidden in ("<script", "<b>alice", "http://", "https://", "src=", "url(", "@import", "<link"):
        assert forbidden not in page
