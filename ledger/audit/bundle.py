"""A bundle: everything that an audit looked at in one file, so that it can be made again without a network.

    manifest.json                    format, contract, chain, and the SHA-256 of the files that are not blobs
    ledger/1.json, ledger/2.json …   what each RPC showed, with its proofs (`folkmoot.ledger.audit.shown`)
    charter/charter.toml, charter/charter.sig/<name>.sig, charter/charters/<digest>.toml
    archive/1/rounds/…, archive/1/forks/…   records, and the proofs of histories that were given up
    archive/1/blobs/…, archive/1/masked/…   what the records name, as archives have it
    archive/1/privacy.jsonl          what a member spent of its privacy budget

How they lie in the file, `packing.py` says. Keys never go in: a bundle is made to be passed on. Reading trusts nothing:
only these names, nothing larger than it says, and every hash is checked first (a blob's is its name, and the audit's
business); what the files mean is for the audit to judge.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from folkmoot.ledger.audit.packing import BundleError, Packer, packing, unpack
from folkmoot.ledger.audit.round_checks import commitments_named
from folkmoot.ledger.audit.shown import ShownLedger, decode_shown, encode_shown
from folkmoot.ledger.audit.sources import SignedCharter, Source, load_signed_charter, ref_of_file
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.outer import Outer
from folkmoot.protocol.record import RoundRecord, decode_record
from folkmoot.protocol.types import Digest, Round

_HEX = "[0-9a-f]"
_NAMES = re.compile(
    r"manifest\.json|ledger/[1-9][0-9]?\.json|charter/charter\.toml|charter/charter\.sig/[a-z0-9][a-z0-9-]{0,31}\.sig"
    rf"|charter/charters/{_HEX}{{64}}\.toml"
    rf"|archive/[1-9][0-9]{{0,2}}/(privacy\.jsonl|rounds/[0-9]{{8}}\.record|forks/[0-9]{{8}}-{_HEX}{{16}}\.fork|blobs/{_HEX}{{2}}/{_HEX}{{64}}"
    rf"|masked/[0-9]{{1,10}}/{_HEX}{{64}})"
)
_BLOB = re.compile(r"archive/[0-9]+/(blobs|masked)/.*")
"""What is called by its contents."""

_MANIFEST = "manifest.json"
_MAX_MANIFEST = 64 * 1024 * 1024


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a bundle. `files`: SHA-256 in hex by name, of all but blobs."""

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
    *,
    contract: bytes,
    development: bool,
) -> None:
    """Write everything into `path`, in place of what was there. `charter`: the founding one."""
    files: dict[str, str] = {}
    with packing(path) as packer:
        for place, ledger in enumerate(ledgers, start=1):
            name = f"ledger/{place}.json"
            files[name] = packer.add_bytes(name, encode_shown(ledger))
        for name, file in (*_charter_files(charter), *_records(sources)):
            files[name] = packer.add_file(name, file)
        for name, log in _privacy_logs(sources):
            files[name] = packer.add_bytes(name, log)
        _add_blobs(packer, sources, charter.charter if charter else None)
        manifest = Manifest(
            contract=f"0x{contract.hex()}",
            chain_id=ledgers[0].identity().chain_id if ledgers else 0,
            development=development,
            files=files,
        )
        packer.add_bytes(_MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))


def _charter_files(charter: SignedCharter | None) -> Iterator[tuple[str, Path]]:
    if charter is None:
        return
    path = Path(charter.where)
    yield "charter/charter.toml", path
    for folder, kind in (("charter.sig", "*.sig"), ("charters", "*.toml")):
        for file in sorted((path.parent / folder).glob(kind)):
            if not file.resolve().is_relative_to(path.parent.resolve()):
                raise BundleError(
                    f"{file} is a link to {file.resolve()}, outside {path.parent}: what lies there would be given "
                    "away; put a copy in its place if that is meant"
                )
            yield f"charter/{folder}/{file.name}", file


def _records(sources: Sequence[Source]) -> Iterator[tuple[str, Path]]:
    """All records; those of one round, which are much alike, come together."""
    for number in _rounds(sources):
        for place, source in enumerate(sources, start=1):
            if source.has_record(number):
                yield f"archive/{place}/rounds/{number:08d}.record", source.record_path(number)
    for place, source in enumerate(sources, start=1):
        for file in source.fork_files():
            yield f"archive/{place}/forks/{file.name}", file


def _privacy_logs(sources: Sequence[Source]) -> Iterator[tuple[str, bytes]]:
    for place, source in enumerate(sources, start=1):
        try:
            log = source.privacy_log()
        except (RemoteProtocolError, OSError):
            continue
        if log is not None:
            yield f"archive/{place}/privacy.jsonl", log


def _add_blobs(packer: Packer, sources: Sequence[Source], charter: Charter | None) -> None:
    """What records name, evidence, and the starting weights: without those nothing can be replayed."""
    added: set[str] = set()
    for name, file in _blob_files(sources):
        if name not in added:
            packer.add_file(name, file, is_blob=True)
            added.add(name)
    if charter is None or not sources:
        return
    root = bytes.fromhex(charter.model.initial)
    name = f"archive/1/blobs/{root.hex()[:2]}/{root.hex()}"
    sections = Outer.of(charter).sections
    vectors = (source.vector(root, charter.model.shared, sections) for source in sources)
    weights = next((vector for vector in vectors if vector is not None), None)
    if weights is not None and name not in added:
        packer.add_bytes(name, weights.astype("<f4", copy=False).tobytes())


def _blob_files(sources: Sequence[Source]) -> Iterator[tuple[str, Path]]:
    """Good copies of a blob come once; a damaged one always: the same must be found in the bundle."""
    packed: set[str] = set()
    for number in _rounds(sources):
        for place, source in enumerate(sources, start=1):
            for root in _named(source, number):
                for name, file in source.files_of(root):
                    if ref_of_file(file).root != root:
                        yield f"archive/{place}/{name}", file
                    elif name not in packed:
                        packed.add(name)
                        yield f"archive/{place}/{name}", file
    for place, source in enumerate(sources, start=1):
        for file in source.evidence_files():
            yield f"archive/{place}/blobs/{file.name[:2]}/{file.name}", file


def _rounds(sources: Sequence[Source]) -> list[Round]:
    return sorted({number for source in sources for number in source.rounds()})


def _named(source: Source, number: int) -> Iterator[Digest]:
    """Roots of the blobs that a round's record names."""
    try:
        data = source.record(number)
        record: RoundRecord | None = decode_record(data) if data else None
    except (RemoteProtocolError, OSError):
        return
    if record is not None:
        yield from commitments_named(record)


# --- reading --------------------------------------------------------------------------------------------------------


def open_bundle(path: Path, folder: Path) -> Bundle:
    """Unpack the bundle `path` into the empty `folder`; raises `BundleError`."""
    found = unpack(path, folder, _NAMES)
    manifest = _read_manifest(path, folder / _MANIFEST)
    _check_files(path, found, manifest.files)
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


def _read_manifest(path: Path, file: Path) -> Manifest:
    if not file.is_file():
        raise BundleError(f"{path}: no {_MANIFEST} in it: not a bundle")
    if file.stat().st_size > _MAX_MANIFEST:
        raise BundleError(f"{path}: its manifest is too large")
    try:
        return msgspec.json.decode(file.read_bytes(), type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: unreadable manifest: {error}") from error


def _check_files(path: Path, found: Mapping[str, str], named: Mapping[str, str]) -> None:
    """The files, by their digests, are those of the manifest, and blobs, which it does not name."""
    odd = [name for name in found if name not in named and name != _MANIFEST and not _BLOB.fullmatch(name)]
    if odd := sorted({*odd, *(named.keys() - found.keys())}):
        raise BundleError(f"{path}: its files are not those of its manifest: {', '.join(odd[:5])}")
    for name, digest in named.items():
        if found[name] != digest:
            raise BundleError(f"{path}: {name} is not what the manifest says")


def _contract(manifest: Manifest) -> bytes:
    text = manifest.contract
    if not re.fullmatch("0x[0-9a-f]{40}", text):
        raise RemoteProtocolError(f"the manifest names no contract: {text[:60]!r}")
    return bytes.fromhex(text[2:])
