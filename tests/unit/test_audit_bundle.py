"""Bundles: what goes in comes out with the same answers, and every kind of tampering is found."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from audit_bundles import TAMPERED, flip, make_bundle, offline, read, statuses, write
from audited_federation import AuditedFederation
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from masked_federation import MaskedFederation

from folkmoot.ledger.audit.packing import BundleError
from folkmoot.node.archive import Archive
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.fork import Fork, RecordedRound, encode_fork
from folkmoot.protocol.typed_data import struct_hash


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
    files = read(bundle)
    assert not any("key" in name or "sqlite" in name for name in files)
    assert not any(secret in data for data in files.values())


def test_links_in_an_archive_bring_nothing_from_elsewhere(
    federation: AuditedFederation, tmp_path: Path
) -> None:
    """Who hands an archive over would have the auditor's keys come back in the bundle."""
    home = federation.write_home(tmp_path / "alice").path
    key, archive = home / "keys" / "sealing.key", home / "archive"
    (archive / "forks").mkdir(exist_ok=True)
    fork = archive / "forks" / f"00000001-{'0' * 16}.fork"
    blob = next(path for path in (archive / "blobs").glob("??/*") if path.is_file())
    for link in (archive / "rounds" / "00000009.record", fork, blob):
        link.unlink(missing_ok=True)
        link.symlink_to(key)
    make_bundle(federation, home, tmp_path / "audit.zip")
    assert not any(key.read_bytes().strip() in data for data in read(tmp_path / "audit.zip").values())


@pytest.mark.parametrize("place", ["charter.sig/eve.sig", "charters/00.toml"])
def test_a_link_beside_the_charter_that_leads_elsewhere_is_refused(
    federation: AuditedFederation, tmp_path: Path, place: str
) -> None:
    home, secret = federation.write_home(tmp_path / "alice").path, tmp_path / "id_ed25519"
    secret.write_text("mine")
    link = home / place
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(secret)
    with pytest.raises(BundleError, match=r"is a link to .*id_ed25519, outside"):
        make_bundle(federation, home, tmp_path / "audit.zip")
    assert not (tmp_path / "audit.zip").exists()


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


def test_two_histories_that_a_node_kept_convict_from_the_bundle_too(tmp_path: Path) -> None:
    parted = AuditedFederation()
    made = parted.add_round()
    others = msgspec.structs.replace(made.statement, model=bytes(32))
    fork = Fork(struct_hash(made.statement), made.record, RecordedRound(others, (parted.say(2, others),)))
    home = parted.write_home(tmp_path / "alice")
    Archive(home.archive).add_fork(1, struct_hash(made.statement), encode_fork(fork))
    make_bundle(parted, home.path, tmp_path / "audit.zip")
    done = offline(tmp_path / "audit.zip")
    assert (done.exit_code, statuses(done)["equivocation"]) == (4, "MISBEHAVIOUR"), done.output


# --- tampering --------------------------------------------------------------------------------------------------------


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
        bad, {**read(good), "charter/charter.sig/bob.sig": b"00"}, mend=False
    ),
    "a path that leads out": lambda good, bad: write(bad, {**read(good), "archive/1/../../x": b"x"}),
    "an absolute path": lambda good, bad: write(bad, {**read(good), f"{bad.parent}/x": b"x"}),
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
    assert not (tmp_path / "x").exists()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_bytes_crash_it(bundle: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Whatever a forger puts into the files, the answer is one of the exit codes."""
    files = read(bundle)
    name = data.draw(st.sampled_from(sorted(set(files) - {"manifest.json"})))
    place = data.draw(st.integers(0, len(files[name]) - 1))
    files[name] = data.draw(
        st.sampled_from(
            [
                flip(files[name], place),
                files[name][:place],
                files[name][:place] + b"\xff" * 9 + files[name][place:],
                files[name][place:] + files[name][:place],
            ]
        )
    )
    done = offline(write(tmp_path / "bad.zip", files))
    error = done.exception
    assert error is None or isinstance(error, SystemExit | FolkmootError), error
    assert getattr(error, "exit_code", done.exit_code) in (0, 1, 2, 3, 4)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_answer_crashes_it(bundle: Path, tmp_path: Path, data: st.DataObject) -> None:
    """The same for what an RPC may have shown: any value in the place of another."""
    files = read(bundle)
    ledger = json.loads(files["ledger/1.json"])
    place, name = _draw_place(data, ledger)
    place[name] = data.draw(values)
    files["ledger/1.json"] = json.dumps(ledger).encode()
    done = offline(write(tmp_path / "bad.zip", files))
    error = done.exception
    assert error is None or isinstance(error, SystemExit | FolkmootError), error
    assert getattr(error, "exit_code", done.exit_code) in (0, 1, 2, 3, 4)


values = st.one_of(
    st.none(),
    st.integers(-1, 2**70),
    st.text(max_size=5),
    st.sampled_from(
        ["0x", "0x00", "0x" + "ff" * 20, "0x" + "ff" * 32, "0x" + "00" * 64, [], {}, [1], 2**63 - 1]
    ),
)


def _draw_place(data: st.DataObject, value: Any) -> tuple[Any, Any]:
    """A container somewhere in `value`, and the name of something in it."""
    while True:
        name = data.draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
        inner = value[name]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            return value, name
        value = inner


def test_offline_needs_no_rpc(bundle: Path) -> None:
    done = offline(bundle, "--rpc", "http://127.0.0.1:9")
    assert done.exit_code == 2 and "leave out" in done.output


@pytest.mark.parametrize("option", ["--html", "--bundle"])
def test_what_cannot_be_written_is_said(bundle: Path, tmp_path: Path, option: str) -> None:
    done = offline(bundle, option, str(tmp_path / "no" / "such" / "folder"))
    assert isinstance(done.exception, FolkmootError) and done.exception.exit_code == 2
    assert "cannot be written" in str(done.exception)


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
