"""Check 26, and the memory that it needs: the last head that an audit verified.

Without it a history that was rewritten between two audits looks as good as the first one. A file per federation; it
only ever moves forward, and is written whole or not at all.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from folkmoot.ledger.audit.report import Status, Tallies, Tally
from folkmoot.ledger.port import Record
from folkmoot.protocol.charter import federation_id
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.types import Digest, Round

if TYPE_CHECKING:
    from folkmoot.ledger.audit.ledger_checks import LedgerView

_MAX_FILE = 64 * 1024
_RESTS_ON = (
    "ledger",
    "agreement",
    "chain-id",
    "code-hash",
    "rounds",
    "hash-chain",
    "quorum",
    "headers",
    "proof",
    "memory",
)
"""What must hold before a head is remembered; INCONCLUSIVE and SKIPPED do not stand in its way."""


class MemoryUnusable(FolkmootError):
    """The file that remembers the last audit cannot be read or written, or is of another federation."""

    exit_code = 2


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """The last round in a final block that was verified, with its attestations; all bytes in hex.

    The final block is that of the same audit: where it lies tells an RPC that is behind from one that rolled back.
    """

    format: Literal["folkmoot/v1/audit-state"] = "folkmoot/v1/audit-state"
    federation: str
    chain_id: int
    contract: str
    height: Round
    head: str
    final_block: int
    final_hash: str
    shown: dict[str, Any] | None = None
    """The recorded statement at `height`: `show_record`."""


Recall: TypeAlias = Callable[[Digest], Remembered | None]
"""What an earlier audit verified of the federation with this id."""


def check_memory(view: "LedgerView", tally: Tally) -> None:
    """(26) The round that an earlier audit verified is still recorded, with the same statement."""
    remembered = view.remembered
    if remembered is None:
        tally.add(Status.SKIPPED, "nothing is remembered of an earlier audit")
        return
    federation = federation_id(view.identity.charter_digest, view.identity.chain_id, view.identity.contract)
    if remembered.federation != federation.hex():
        tally.add(Status.MISBEHAVIOUR, "the ledger is of another federation than the one audited before")
        return
    tally.remark(f"round {remembered.height} is as an earlier audit verified it")
    height, final = view.head.height, view.head.final
    where = f"{view.name}, block {view.head.block}"
    if view.known is not None and view.known.hex() != remembered.final_hash:
        told = f"0x{remembered.final_hash}, and is 0x{view.known.hex()} now"
        _tell(tally, remembered, None, f"block {remembered.final_block} was final as {told}", where)
    if remembered.height == 0:
        return
    record = next((one for one in view.records if one.statement.round == remembered.height), None)
    if record is not None and record.digest.hex() != remembered.head:
        told = f"fork: round {remembered.height} was 0x{remembered.head}, and is 0x{record.digest.hex()} now"
        _tell(tally, remembered, record, told, where)
    elif record is None and final.number < remembered.final_block:
        tally.add(
            Status.INCONCLUSIVE,
            f"{view.name} is behind: it shows {height} rounds, {remembered.height} were final before",
            where=where,
        )
    elif record is None:
        told = f"rolled back: {remembered.height} rounds were final, {height} are recorded now"
        _tell(tally, remembered, None, told, where)


def compose(views: Sequence["LedgerView"], tallies: Tallies) -> Remembered | None:
    """What to remember of an audit; None if something that it rests on is wrong, or nothing was shown."""
    wrong = (Status.FAIL, Status.MISBEHAVIOUR, Status.UNREACHABLE)
    if not views or any(tallies[id_].gravest in wrong for id_ in _RESTS_ON):
        return None
    view = views[0]
    identity, head = view.identity, view.head
    height = min(head.finalized_height, len(view.records))
    record = view.records[height - 1] if height else None
    federation = federation_id(identity.charter_digest, identity.chain_id, identity.contract)
    return Remembered(
        federation=federation.hex(),
        chain_id=identity.chain_id,
        contract=f"0x{identity.contract.hex()}",
        height=height,
        head=(record.digest if record else federation).hex(),
        final_block=head.final.number,
        final_hash=head.final.hash.hex(),
        shown=show_record(record) if record else None,
    )


def show_record(record: Record) -> dict[str, Any]:
    """A recorded statement with its attestations, in hex: half of the proof of a fork."""
    values = {name: getattr(record.statement, name) for name in Statement.__struct_fields__}
    return {
        "statement": {
            name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()
        },
        "digest": record.digest.hex(),
        "signatures": [signature.hex() for signature in record.signatures],
        "block": record.block,
        "block_hash": record.block_hash.hex(),
        "transaction": record.transaction.hex(),
    }


def remembered_record(remembered: Remembered | None) -> tuple[Statement, tuple[bytes, ...]] | None:
    """The statement that was verified, with its signatures; None if there is none that can be read."""
    if remembered is None or remembered.shown is None:
        return None
    try:
        values = remembered.shown["statement"]
        named = (values[name] for name in Statement.__struct_fields__)
        fields: list[Any] = [bytes.fromhex(value) if isinstance(value, str) else value for value in named]
        statement = Statement(*fields)
        return statement, tuple(map(bytes.fromhex, remembered.shown["signatures"]))
    except (KeyError, ValueError, TypeError):
        return None


def load(path: Path) -> Remembered | None:
    """What was remembered in `path`; None if there is no such file. Raises `MemoryUnusable`."""
    try:
        if path.stat().st_size > _MAX_FILE:
            raise MemoryUnusable(f"{path} is too large to be what an audit remembers; name another --state")
        return msgspec.json.decode(path.read_bytes(), type=Remembered)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise MemoryUnusable(
            f"{path}: what the last audit remembered cannot be read ({error}); restore it, or move it away to begin "
            "anew (what was verified before is then no longer held against the ledger)"
        ) from error


def save(path: Path, remembered: Remembered) -> None:
    """Write it in place of what was there, durably; an older height changes nothing. Raises `MemoryUnusable`."""
    known = load(path)
    if known is not None and (known.height, known.final_block) > (remembered.height, remembered.final_block):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(remembered)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError as error:
        raise MemoryUnusable(f"{path}: {error.strerror or error}; name another file with --state") from error


def default_path(federation: str) -> Path:
    """Where an audit remembers a federation (its id in hex) unless told otherwise."""
    base = os.environ.get("XDG_STATE_HOME")
    folder = Path(base) if base else Path.home() / ".local" / "state"
    return folder / "folkmoot" / "audit" / f"{federation}.json"


def _tell(tally: Tally, remembered: Remembered, record: Record | None, what: str, where: str) -> None:
    proof = {"remembered": msgspec.to_builtins(remembered), "shown": show_record(record) if record else None}
    tally.add(
        Status.MISBEHAVIOUR,
        what,
        round_=remembered.height or None,
        where=f"{where}; both heads: see the proof",
        proof=proof,
    )
