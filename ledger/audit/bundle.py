"""A bundle: everything that an audit looked at in one ZIP file, so that it can be made again without a network.

    manifest.json                    format, contract, chain, and the SHA-256 of every other file
    ledger/1.json, ledger/2.json …   what each RPC showed, with its proofs (`folkmoot.ledger.audit.shown`)
    charter/charter.toml, charter/charter.sig/<name>.sig, charter/charters/<digest>.toml
    archive/1/rounds/…, archive/1/blobs/…, archive/1/masked/…   what the records name, as archives have it
    report.json                      what the audit said that made the bundle; nobody has to believe it

Keys never go in: a bundle is made to be passed on. Reading trusts nothing: only these names, nothing larger than it
says, and every hash is checked first; what the files mean is for the audit to judge.
"""

import hashlib
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import msgspec

from folkmoot.ledger.audit.report import AuditReport
from folkmoot.ledger.audit.round_checks import commitments_named
from folkmoot.ledger.audit.shown import ShownLedger, decode_shown, encode_shown
from folkmoot.ledger.audit.sources import SignedCharter, Source, load_signed_charter, ref_of_file
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.errors import FolkmootError, RemoteProtocolError
from folkmoot.protocol.outer import Outer
from folkmoot.protocol.record import RoundRecord, decode_record
from folkmoot.protocol.types import Digest

_HEX = "[0-9a-f]"
_NAMES = re.compile(
    r"ledger/[1-9][0-9]?\.json|charter/charter\.toml|charter/charter\.sig/[a-z0-9][a-z0-9-]{0,31}\.sig|report\.json"
    rf"|charter/charters/{_HEX}{{64}}\.toml"
    rf"|archive/[1-9][0-9]{{0,2}}/(rounds/[0-9]{{8}}\.record|blobs/{_HEX}{{2}}/{_HEX}{{64}}"
    rf"|masked/[0-9]{{1,10}}/{_HEX}{{64}})"
)
_MANIFEST = "manifest.json"
_MAX_MANIFEST = 256 * 1024 * 1024
_PIECE = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every file: the same audit gives the same bytes."""


class BundleError(FolkmootError):
    """The file is no bundle, or is not what its manifest says."""

    exit_code = 2


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a bundle. `files`: SHA-256 in hex by name."""

    format: Literal["folkmoot/v1/bundle"] = "folkmoot/v1/bundle"
    contract: str
    chain_id: int
    development: bool
    files: dict[str, str]


@dataclass(frozen=True)
class Bundle:
    """An unpacked bundle."""

    contract: bytes
    development: bool
    ledgers: tuple[ShownLedger, ...]
    charter: SignedCharter | None
    sources: tuple[Source, ...]
    names: tuple[str, ...]


# --- writing --------------------------------------------------------------------------------------------------------


def write_bundle(
    path: Path,
    ledgers: Sequence[ShownLedger],
    sources: Sequence[Source],
    charter: SignedCharter | None,
    report: AuditReport,
    *,
    contract: bytes,
    development: bool,
) -> None:
    """Write everything into `path`, in place of what was there. `charter`: the founding one."""
    temporary = path.with_name(f".{path.name}.part")
    files: dict[str, str] = {}
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for place, ledger in enumerate(ledgers, start=1):
                files |= _add_bytes(archive, f"ledger/{place}.json", encode_shown(ledger))
            for name, file in (*_charter_files(charter), *_archive_files(sources)):
                if name not in files:
                    files |= _add_file(archive, name, file)
            if charter is not None and sources:
                files |= _add_weights(archive, charter.charter, sources, files)
            told = msgspec.json.format(msgspec.json.encode(report))
            files |= _add_bytes(archive, "report.json", told)
            manifest = Manifest(
                contract=f"0x{contract.hex()}",
                chain_id=ledgers[0].identity().chain_id if ledgers else 0,
                development=development,
                files=files,
            )
            _add_bytes(archive, _MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _charter_files(charter: SignedCharter | None) -> Iterator[tuple[str, Path]]:
    if charter is None:
        return
    path = Path(charter.where)
    yield "charter/charter.toml", path
    for signature in sorted((path.parent / "charter.sig").glob("*.sig")):
        yield f"charter/charter.sig/{signature.name}", signature
    for amended in sorted((path.parent / "charters").glob("*.toml")):
        yield f"charter/charters/{amended.name}", amended


def _add_weights(
    archive: zipfile.ZipFile, charter: Charter, sources: Sequence[Source], known: Mapping[str, str]
) -> dict[str, str]:
    """The starting weights, as a blob: without them nothing can be replayed."""
    root = bytes.fromhex(charter.model.initial)
    name = f"archive/1/blobs/{root.hex()[:2]}/{root.hex()}"
    for source in sources:
        vector = source.vector(root, charter.model.tensors, Outer.of(charter).sections)
        if vector is not None and name not in known:
            return _add_bytes(archive, name, vector.astype("<f4", copy=False).tobytes())
    return {}


def _archive_files(sources: Sequence[Source]) -> Iterator[tuple[str, Path]]:
    """Records, what they name, and evidence. A blob that several archives hold alike goes in once."""
    packed: set[Digest] = set()
    for place, source in enumerate(sources, start=1):
        for number in source.rounds():
            yield f"archive/{place}/rounds/{number:08d}.record", source.record_path(number)
            for root in _named(source, number):
                for name, file in source.files_of(root):
                    if root not in packed:
                        yield f"archive/{place}/{name}", file
                        # A damaged copy must not stand for the good one of another archive.
                        if ref_of_file(file).root == root:
                            packed.add(root)
        for file in source.evidence_files():
            yield f"archive/{place}/blobs/{file.name[:2]}/{file.name}", file


def _named(source: Source, number: int) -> Iterator[Digest]:
    """Roots of the blobs that a round's record names."""
    try:
        data = source.record(number)
        record: RoundRecord | None = decode_record(data) if data else None
    except (RemoteProtocolError, OSError):
        return
    if record is not None:
        yield from commitments_named(record)


def _add_bytes(archive: zipfile.ZipFile, name: str, data: bytes) -> dict[str, str]:
    archive.writestr(_entry(name), data)
    return {name: hashlib.sha256(data).hexdigest()}


def _add_file(archive: zipfile.ZipFile, name: str, path: Path) -> dict[str, str]:
    state = hashlib.sha256()
    with path.open("rb") as file, archive.open(_entry(name), "w", force_zip64=True) as inside:
        while piece := file.read(_PIECE):
            state.update(piece)
            inside.write(piece)
    return {name: state.hexdigest()}


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


# --- reading --------------------------------------------------------------------------------------------------------


def open_bundle(path: Path, folder: Path) -> Bundle:
    """Unpack the bundle `path` into the empty `folder`; raises `BundleError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _read_manifest(archive)
            _unpack(archive, manifest, folder)
    except (
        zipfile.BadZipFile,
        OSError,
        EOFError,
        zlib.error,
        NotImplementedError,
        RuntimeError,
        ValueError,
    ) as error:
        raise BundleError(f"{path}: not a readable bundle: {error}") from error
    names = sorted((folder / "ledger").glob("*.json"), key=lambda file: int(file.stem))
    try:
        ledgers = tuple(decode_shown(file.read_bytes()) for file in names)
        contract = _contract(manifest)
    except RemoteProtocolError as error:
        raise BundleError(f"{path}: {error}") from error
    if not ledgers:
        raise BundleError(f"{path}: not a bundle of an audit: it shows no ledger")
    charter = folder / "charter" / "charter.toml"
    archives = sorted((folder / "archive").glob("*"), key=lambda each: int(each.name))
    return Bundle(
        contract=contract,
        development=manifest.development,
        ledgers=ledgers,
        charter=load_signed_charter(charter) if charter.is_file() else None,
        sources=tuple(Source(each, name=f"archive/{each.name} of the bundle") for each in archives),
        names=tuple(f"{path.name}: {ledger.name}" for ledger in ledgers),
    )


def _read_manifest(archive: zipfile.ZipFile) -> Manifest:
    if _MANIFEST not in archive.namelist():
        raise BundleError(f"{archive.filename}: no manifest.json in it: not a bundle")
    entry = archive.getinfo(_MANIFEST)
    if entry.file_size > _MAX_MANIFEST:
        raise BundleError(f"{archive.filename}: its manifest is too large")
    with archive.open(entry) as file:
        data = file.read(_MAX_MANIFEST)
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{archive.filename}: unreadable manifest: {error}") from error


def _unpack(archive: zipfile.ZipFile, manifest: Manifest, folder: Path) -> None:
    entries = [entry for entry in archive.infolist() if entry.filename != _MANIFEST]
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names):
        raise BundleError(f"{archive.filename}: a file stands in it twice")
    if set(names) != set(manifest.files):
        odd = sorted(set(names) ^ set(manifest.files))
        raise BundleError(
            f"{archive.filename}: its files are not those of its manifest: {', '.join(odd[:5])}"
        )
    for entry in entries:
        if not _NAMES.fullmatch(entry.filename):
            raise BundleError(f"{archive.filename}: a file with a strange name: {entry.filename!r}")
        target = folder / entry.filename
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as inside, target.open("wb") as file:
            found = _copy(inside, file, entry.file_size)
        if found != manifest.files[entry.filename]:
            raise BundleError(f"{archive.filename}: {entry.filename} is not what the manifest says")


def _copy(inside: IO[bytes], file: IO[bytes], size: int) -> str:
    """Copy at most `size` bytes; returns their SHA-256."""
    state, left = hashlib.sha256(), size
    while piece := inside.read(min(_PIECE, left + 1)):
        left -= len(piece)
        if left < 0:
            raise BundleError("a file is larger than it says")
        state.update(piece)
        file.write(piece)
    return state.hexdigest()


def _contract(manifest: Manifest) -> bytes:
    text = manifest.contract
    if not re.fullmatch("0x[0-9a-f]{40}", text):
        raise RemoteProtocolError(f"the manifest names no contract: {text[:60]!r}")
    return bytes.fromhex(text[2:])
