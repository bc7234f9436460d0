"""The file that a bundle is, in the hands of a forger: refused or judged, never a crash, never more than a limit."""

import lzma
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from audit_bundles import Files, flip, make_bundle, offline, read, write
from audited_federation import AuditedFederation
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from folkmoot.ledger.audit import Source, audit, load_signed_charter, packing
from folkmoot.ledger.audit.bundle import write_bundle
from folkmoot.ledger.audit.packing import PACKED, SMALL, BundleError, unpack
from folkmoot.ledger.audit.shown import ShownLedger
from folkmoot.protocol.errors import FolkmootError

ANY_NAME = re.compile("[a-z]+")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    federation = AuditedFederation()
    federation.add_round()
    federation.add_round(survivors=(0, 1, 3))
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(federation, federation.write_home(folder / "alice").path, folder / "audit.zip")
    return folder / "audit.zip"


def exit_code(done: Result) -> int:
    """Of an answer; an exception that is no error of ours is a crash."""
    error = done.exception
    assert error is None or isinstance(error, SystemExit | FolkmootError), error
    return int(getattr(error, "exit_code", done.exit_code))


def zipped(path: Path, packed: bytes) -> Path:
    return _zip(path, {PACKED: packed})


def _zip(path: Path, entries: Files) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


# --- what is written --------------------------------------------------------------------------------------------------


def test_what_goes_in_comes_out_and_what_is_alike_costs_nothing(tmp_path: Path) -> None:
    alike, large = bytes(range(256)) * 200, b"\x07" * (SMALL + 1)
    (tmp_path / "large").write_bytes(large)
    with packing.packing(tmp_path / "one.zip") as packer:
        packer.add_bytes("a", alike)
        packer.add_file("large", tmp_path / "large", is_blob=True)
        for name in "bcd":
            packer.add_bytes(name, alike)
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "one.zip", tmp_path / "out", ANY_NAME)
    found = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert found == dict.fromkeys("abcd", alike) | {"large": large}
    assert (tmp_path / "one.zip").stat().st_size < 1500
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert sorted(archive.namelist()) == ["large", PACKED]


def test_nothing_is_left_of_a_bundle_that_could_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(KeyError), packing.packing(tmp_path / "one.zip"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


# --- what is read -----------------------------------------------------------------------------------------------------


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), bit=st.integers(0, 7), cut=st.booleans())
def test_no_damage_to_the_file_crashes_it(
    bundle: Path, tmp_path: Path, place: float, bit: int, cut: bool
) -> None:
    data = bytearray(bundle.read_bytes())
    at = min(int(place * len(data)), len(data) - 1)
    data[at] ^= 1 << bit
    (tmp_path / "bad.zip").write_bytes(data[:at] if cut else data)
    assert exit_code(offline(tmp_path / "bad.zip")) in (0, 1, 2, 3, 4)


HOSTILE: dict[str, Callable[[Path, Files], Path]] = {
    "twice in the packed part": lambda path, files: zipped(
        path, lzma.compress(b"manifest.json 2\n{}manifest.json 2\n{}")
    ),
    "once here, once there": lambda path, files: write(path, files, beside={"manifest.json": b"{}"}),
    "a path that leads out of the packed part": lambda path, files: write(path, {**files, "../x": b"x"}),
    "a path that leads out of the ZIP file": lambda path, files: write(
        path, files, beside={"archive/1/../../../x": b"x"}
    ),
    "a folder's name": lambda path, files: write(path, files, beside={"archive/1/": b""}),
    "no packed part": lambda path, files: _zip(path, {"manifest.json": b"{}"}),
    "a packed part that is none": lambda path, files: zipped(path, b"nothing of the kind"),
    "half a packed part": lambda path, files: zipped(path, lzma.compress(bytes(5000))[:40]),
    "a size below zero": lambda path, files: zipped(path, lzma.compress(b"manifest.json -1\n{}")),
    "a size that is no number": lambda path, files: zipped(path, lzma.compress(b"manifest.json two\n{}")),
    "a size beyond the end": lambda path, files: zipped(
        path, lzma.compress(b"manifest.json 99999999999\n{}")
    ),
    "a line without an end": lambda path, files: zipped(path, lzma.compress(b"a" * 5000)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_file_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    path = HOSTILE[name](tmp_path / "bad.zip", read(bundle))
    assert exit_code(offline(path)) == 2
    assert not (tmp_path / "x").exists()


def test_entry_that_stands_twice_in_the_zip_file_is_refused(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.zip"
    path.write_bytes(bundle.read_bytes())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(PACKED, b"")
    assert exit_code(offline(path)) == 2


@pytest.mark.parametrize("beside", [False, True], ids=["packed", "beside"])
def test_bomb_is_refused_before_it_fills_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    monkeypatch.setattr(packing, "_MIN_ROOM", 1 << 20)
    zeros, path = bytes(16 << 20), tmp_path / "bomb.zip"
    if beside:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(PACKED, lzma.compress(b""))
            archive.writestr("a", zeros)
    else:
        zipped(path, lzma.compress(b"a %d\n" % len(zeros) + zeros))
    (tmp_path / "out").mkdir()
    with pytest.raises(BundleError, match="far larger inside"):
        unpack(path, tmp_path / "out", ANY_NAME)
    assert not (tmp_path / "out" / "a").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("name", [PACKED, "a"])
def test_file_that_is_packed_otherwise_is_refused_before_it_fills_the_memory(
    tmp_path: Path, method: int, name: str
) -> None:
    """A kilobyte of bzip2 is more than a gigabyte of zeros, and zipfile expands them at once."""
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w") as archive:
        if name != PACKED:
            archive.writestr(PACKED, lzma.compress(b""))
        archive.writestr(name, bytes(1 << 20), method)
    (tmp_path / "out").mkdir()
    with pytest.raises(BundleError, match="packed otherwise"):
        unpack(path, tmp_path / "out", ANY_NAME)


def test_memory_of_the_decompression_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_MEMORY", 1 << 20)
    with pytest.raises(BundleError, match=r"[Mm]emory"):
        unpack(zipped(tmp_path / "a.zip", lzma.compress(b"a 1\nx", preset=6)), tmp_path, ANY_NAME)


@pytest.mark.parametrize("height", [2**31, 2**63 - 1])
def test_absurd_height_is_judged_in_no_time(bundle: Path, tmp_path: Path, height: int) -> None:
    files = read(bundle)
    files["ledger/1.json"] = files["ledger/1.json"].replace(b'"height": 2', b'"height": %d' % height, 1)
    assert b'"height": %d' % height in files["ledger/1.json"]
    assert exit_code(offline(write(tmp_path / "bad.zip", files))) == 1


def test_damaged_copy_beside_a_good_one_is_in_the_bundle_too(tmp_path: Path) -> None:
    """What an audit found in archives, its bundle shows as well, though a good copy is there."""
    federation = AuditedFederation()
    federation.add_round()
    homes = [
        federation.write_home(tmp_path / name, place).path for place, name in enumerate(("alice", "bob"))
    ]
    damaged = sorted((homes[1] / "archive" / "blobs").glob("??/*"))[0]
    damaged.write_bytes(flip(damaged.read_bytes()))
    sources = [Source.of_home(home) for home in homes]
    audited = audit([federation.ledger()], sources, contract=federation.contract, names=["RPC 1"])
    ledgers = [ShownLedger.of_view(view) for view in audited.views]
    charter = load_signed_charter(homes[0] / "charter.toml")
    path = tmp_path / "audit.zip"
    write_bundle(path, ledgers, sources, charter, contract=federation.contract, development=True)
    assert audited.report.check("payloads").status == "FAIL"
    assert exit_code(offline(path)) == 1
