"""Files of strangers: an audit bundle, each of the files in one, round records, and exported models."""

import hashlib
import io
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import msgspec
from audit_bundles import make_bundle
from audit_bundles import read as read_bundle
from audited_federation import AuditedFederation
from fuzzing import Target

from folkmoot.ledger.audit.bundle import open_bundle
from folkmoot.node.model_file import ModelCard, read_model, write_model
from folkmoot.protocol.blob import ref_of
from folkmoot.protocol.errors import FolkmootError, RemoteProtocolError
from folkmoot.protocol.record import decode_record

KINDS = {b"m": "manifest.json", b"l": "ledger/1.json", b"c": "charter/charter.toml"}


@cache
def good_files() -> dict[str, bytes]:
    """What is in a good bundle."""
    made = AuditedFederation()
    made.add_round()
    with tempfile.TemporaryDirectory() as folder:
        home = made.write_home(Path(folder, "alice"))
        make_bundle(made, home.path, Path(folder, "audit.zip"))
        return read_bundle(Path(folder, "audit.zip"))


def read(data: bytes) -> None:
    """The first byte says what the rest is: a ZIP file, one file of a bundle that fits else, a record, a model."""
    kind, rest = data[:1], data[1:]
    with tempfile.TemporaryDirectory(dir=_scratch()) as folder:
        path = Path(folder, "file")
        match kind:
            case b"z":
                path.write_bytes(rest)
                open_bundle(path, Path(folder, "unpacked"))
            case b"m" | b"l" | b"c":
                path.write_bytes(_packed(KINDS[kind], rest))
                open_bundle(path, Path(folder, "unpacked"))
            case b"r":
                decode_record(rest)
            case b"s":
                path.write_bytes(rest)
                read_model(path)


def _scratch() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _packed(name: str, data: bytes) -> bytes:
    """A good bundle with that one file instead of its own."""
    files = {**good_files(), name: data}
    if name != "manifest.json":
        manifest = msgspec.json.decode(files["manifest.json"])
        manifest["files"][name] = hashlib.sha256(data).hexdigest()
        files["manifest.json"] = msgspec.json.encode(manifest)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for each, content in files.items():
            archive.writestr(each, content)
    return packed.getvalue()


def _model() -> bytes:
    import numpy as np

    made = AuditedFederation()
    vector = np.zeros(made.charter.model.parameters, dtype=np.float32)
    card = ModelCard(name="fuzzed", federation="", charter="", round=1, model=ref_of(vector.data).root.hex(),
                     statement="", architecture=made.charter.model)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder, "model"), card, vector)
        return Path(folder, "model").read_bytes()


def seeds() -> list[bytes]:
    """A good bundle, its files, its record, a good model, and a small ZIP file."""
    files = good_files()
    record = next(data for name, data in files.items() if name.endswith(".record"))
    small = io.BytesIO()
    with zipfile.ZipFile(small, "w") as archive:
        archive.writestr("manifest.json", files["manifest.json"])
    return [b"z" + small.getvalue(), b"r" + record, b"s" + _model(),
            *(kind + files[name] for kind, name in KINDS.items())]  # fmt: skip


TARGET = Target("bundle", read, (FolkmootError, RemoteProtocolError), seeds, max_bytes=1 << 16)
