"""Bundles of small federations, and all the ways in which a test tampers with them."""

import hashlib
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

from audited_federation import CONTRACT, AuditedFederation
from click.testing import CliRunner, Result

from folkmoot.ledger.audit import Audited, Source, audit, load_signed_charter
from folkmoot.ledger.audit.bundle import write_bundle
from folkmoot.ledger.audit.packing import PACKED
from folkmoot.ledger.audit.shown import ShownLedger
from folkmoot.ledger.cli import audit as command
from folkmoot.ledger.memory import MemoryLedger

Files = dict[str, bytes]


def make_bundle(
    federation: AuditedFederation, home: Path, path: Path, ledger: MemoryLedger | None = None
) -> Audited:
    source = Source.of_home(home)
    audited = audit([ledger or federation.ledger()], [source], contract=CONTRACT, names=["RPC 1"])
    shown = [ShownLedger.of_view(view) for view in audited.views]
    charter = load_signed_charter(home / "charter.toml")
    write_bundle(path, shown, [source], charter, contract=CONTRACT, development=True)
    return audited


def offline(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, ["--offline", str(path), "--json", *arguments])


def statuses(result: Result) -> dict[str, str]:
    return {check["id"]: check["status"] for check in json.loads(result.stdout)["checks"]}


def read(bundle: Path) -> Files:
    """All files in a bundle, by name."""
    with zipfile.ZipFile(bundle) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    packed = io.BytesIO(lzma.decompress(files.pop(PACKED)))
    while line := packed.readline():
        name, size = line.decode().split()
        files[name] = packed.read(int(size))
    return files


def write(path: Path, files: Files, *, mend: bool = True, beside: Files | None = None) -> Path:
    """`mend`: a careful forger makes the manifest fit. `beside`: files of the ZIP file itself."""
    if mend:
        manifest = json.loads(files["manifest.json"])
        manifest["files"] = {
            name: hashlib.sha256(data).hexdigest()
            for name, data in files.items()
            if name != "manifest.json" and "/blobs/" not in name and "/masked/" not in name
        }
        files["manifest.json"] = json.dumps(manifest).encode()
    packed = b"".join(b"%s %d\n%s" % (name.encode(), len(data), data) for name, data in files.items())
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in ({PACKED: lzma.compress(packed, preset=0)} | (beside or {})).items():
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
