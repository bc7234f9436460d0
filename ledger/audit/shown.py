"""What an RPC showed, as a file: the public record that an offline audit reads in place of a chain.

JSON, with all bytes in hex after "0x". Nothing in it is believed more than an RPC is: what can be computed (who signed,
digests, hashes) is computed again.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

import msgspec

from folkmoot.ledger.audit.governance import ReportRecord
from folkmoot.ledger.audit.headers import read_header
from folkmoot.ledger.audit.ledger_checks import LedgerView
from folkmoot.ledger.audit.state import StateProof, Unproven
from folkmoot.ledger.codec import recover_signers
from folkmoot.ledger.port import AmendmentRecord, LedgerHead, LedgerIdentity, Record
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.governance import Amendment
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import Domain
from folkmoot.protocol.types import Digest, Round

T = TypeVar("T", bound=msgspec.Struct)


class ShownRecord(msgspec.Struct, frozen=True):
    """A `Record` without what follows from the rest."""

    statement: dict[str, Any]
    digest: Digest
    signed: Digest
    signatures: tuple[bytes, ...]
    transaction: Digest
    block: int
    block_hash: Digest
    gas_used: int
    submitter: bytes


class ShownAmendment(msgspec.Struct, frozen=True):
    """An `AmendmentRecord` without what follows from the rest."""

    amendment: dict[str, Any]
    digest: Digest
    signatures: tuple[bytes, ...]
    transaction: Digest
    block: int
    block_hash: Digest
    gas_used: int
    submitter: bytes


class ShownFile(msgspec.Struct, frozen=True, kw_only=True):
    """The file's contents. `proof` and `unproven`: at most one of them."""

    format: Literal["folkmoot/v1/shown"] = "folkmoot/v1/shown"
    name: str
    identity: LedgerIdentity
    head: LedgerHead
    records: tuple[ShownRecord, ...]
    amendments: tuple[ShownAmendment, ...] = ()
    reports: tuple[ReportRecord, ...] = ()
    proof: StateProof | None = None
    unproven: Unproven | None = None


class ShownLedger:
    """The public record in such a file."""

    def __init__(self, file: ShownFile) -> None:
        self._file = file
        domain = Domain(file.identity.chain_id, file.identity.contract)
        self._records = [_record(shown, domain) for shown in file.records]
        self._amendments = [_amendment(shown, domain) for shown in file.amendments]

    @classmethod
    def of_view(cls, view: LedgerView) -> "ShownLedger":
        """What an audit was shown."""
        file = ShownFile(
            name=view.name,
            identity=view.identity,
            head=view.head,
            records=tuple(map(_shown, view.records)),
            amendments=tuple(map(_shown_amendment, view.amendments)),
            reports=view.reports,
            proof=view.proof if isinstance(view.proof, StateProof) else None,
            unproven=view.proof if isinstance(view.proof, Unproven) else None,
        )
        return cls(file)

    @property
    def name(self) -> str:
        """What the RPC was called."""
        return self._file.name

    @property
    def file(self) -> ShownFile:
        """The file's contents."""
        return self._file

    def identity(self) -> LedgerIdentity:
        """See `Ledger.identity`."""
        return self._file.identity

    def head(self) -> LedgerHead:
        """See `Ledger.head`."""
        return self._file.head

    def records(self, first: Round, last: Round | None = None) -> list[Record]:
        """See `Ledger.records`."""
        return [
            record
            for record in self._records
            if record.statement.round >= first and (last is None or record.statement.round <= last)
        ]

    def amendments(self) -> list[AmendmentRecord]:
        """See `Ledger.amendments`."""
        return list(self._amendments)

    def reports(self) -> list[ReportRecord]:
        """See `Reporting.reports`."""
        return list(self._file.reports)

    def prove(self, head: LedgerHead, members: Iterable[bytes]) -> StateProof | Unproven:
        """See `Provable.prove`."""
        return self._file.proof or self._file.unproven or Unproven("no proof is in the file")

    def block_hash(self, number: int) -> Digest | None:
        """See `Provable.block_hash`: of the two blocks that are in the file."""
        shown = self._file.proof or self._file.unproven
        for block in (shown.latest, shown.final) if shown else ():
            if block is not None:
                try:
                    header = read_header(block.header)
                except RemoteProtocolError:
                    continue
                if header.number == number:
                    return header.hash
        return None


def encode_shown(ledger: ShownLedger) -> bytes:
    """The file's bytes."""
    plain = msgspec.to_builtins(ledger.file, builtin_types=(bytes,))
    return msgspec.json.format(msgspec.json.encode(_to_hex(plain)))


def decode_shown(data: bytes) -> ShownLedger:
    """Read such a file strictly; raises `RemoteProtocolError`."""
    try:
        plain = _from_hex(msgspec.json.decode(data))
        return ShownLedger(msgspec.convert(plain, ShownFile, builtin_types=(bytes,)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, TypeError) as error:
        raise RemoteProtocolError(f"not what an RPC showed: {error}") from error


def _shown(record: Record) -> ShownRecord:
    values = {name: getattr(record, name) for name in ShownRecord.__struct_fields__ if name != "statement"}
    return ShownRecord(statement=_fields(record.statement), **values)


def _shown_amendment(record: AmendmentRecord) -> ShownAmendment:
    values = {name: getattr(record, name) for name in ShownAmendment.__struct_fields__ if name != "amendment"}
    return ShownAmendment(amendment=_fields(record.amendment), **values)


def _record(shown: ShownRecord, domain: Domain) -> Record:
    values = {name: getattr(shown, name) for name in ShownRecord.__struct_fields__ if name != "statement"}
    signers = recover_signers(domain, shown.signed, shown.signatures)
    return Record(statement=_named(shown.statement, Statement), signers=signers, **values)


def _amendment(shown: ShownAmendment, domain: Domain) -> AmendmentRecord:
    values = {name: getattr(shown, name) for name in ShownAmendment.__struct_fields__ if name != "amendment"}
    signers = recover_signers(domain, shown.digest, shown.signatures)
    return AmendmentRecord(amendment=_named(shown.amendment, Amendment), signers=signers, **values)


def _fields(struct: msgspec.Struct) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def _named(values: Mapping[str, object], kind: type[T]) -> T:
    """A struct, which is positional everywhere else, from its named fields."""
    if set(values) != set(kind.__struct_fields__):
        raise ValueError(f"a {kind.__name__} with other fields than it has")
    ordered = [str(kind.__struct_config__.tag), *(values[name] for name in kind.__struct_fields__)]
    return msgspec.convert(ordered, kind, builtin_types=(bytes,))


def _to_hex(value: object) -> object:
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if isinstance(value, dict):
        return {name: _to_hex(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_to_hex(inner) for inner in value]
    return value


def _from_hex(value: object) -> object:
    if isinstance(value, str) and value.startswith("0x"):
        return bytes.fromhex(value[2:])
    if isinstance(value, dict):
        return {name: _from_hex(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_from_hex(inner) for inner in value]
    return value
