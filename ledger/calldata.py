"""Calls of the contract as a transaction carries them: written, and read strictly, because an RPC may lie.

Everything is whole 32-byte words: a struct's fields in a row, and for each list its offset, there its length and items.
Who reads follows the offsets wherever they lead, as the contract does: a submitter may have written them otherwise.
"""

from collections.abc import Sequence

from folkmoot.ledger.build import contract_build
from folkmoot.ledger.calls import REPORTED, Amend, Attest, Call, Checkpoint, Finalize, Report
from folkmoot.ledger.codec import WORD, decode_statement, decode_uint, words
from folkmoot.ledger.identity import Founding
from folkmoot.protocol.charter_tables import MAX_CHECKPOINT
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.governance import MAX_CHANGES, Amendment
from folkmoot.protocol.messages import Signed, Statement
from folkmoot.protocol.typed_data import encode_words

MAX_SIGNATURES = 31
ENROL_BATCH = 200
"""Members enrolled in one transaction: some five million gas."""

_STATEMENT = 8
_AMENDMENT = 7


def encode_call(call: Call) -> bytes:
    """The input of a transaction."""
    match call:
        case Finalize(statement, signatures):
            return _input("finalize", _statement(statement), _List(_signatures(signatures), len(signatures)))
        case Attest(statement, signature):
            return _input("attest", _statement(statement), signature)
        case Checkpoint(statements, signatures):
            listed = b"".join(map(_statement, statements))
            return _input(
                "checkpoint",
                _List(listed, len(statements)),
                _List(_signatures(signatures), len(signatures)),
            )
        case Amend(amendment, signatures):
            return _input("amend", _amendment(amendment), _List(_signatures(signatures), len(signatures)))
        case Report(first, second):
            return _report(first, second)


def encode_deployment(founding: Founding) -> bytes:
    """The input of a transaction that deploys the contract."""
    creation = bytes.fromhex(contract_build().creation_code[2:])
    others, lead = _uint(len(founding.others)), _uint(founding.lead)
    return creation + _tuple(founding.charter, _addresses(founding.attesters), others, lead)


def encode_enrolment(members: Sequence[bytes]) -> bytes:
    """The input of a transaction that enrols at most `ENROL_BATCH` members, ascending, who are no attesters."""
    return _input("enrol", _addresses(members))


def decode_call(data: bytes) -> Finalize | Checkpoint | Amend | None:
    """A call whose events do not say who signed; None for `attest`. Raises `RemoteProtocolError`, of others too."""
    build, arguments = contract_build(), data[4:]
    if data[:4] == build.selector("finalize"):
        return Finalize(_read_statement(arguments, 0), _read_signatures(arguments, _STATEMENT * WORD))
    if data[:4] == build.selector("checkpoint"):
        start, count = _read_list(arguments, 0, MAX_CHECKPOINT)
        statements = tuple(_read_statement(arguments, start + at * _STATEMENT * WORD) for at in range(count))
        return Checkpoint(statements, _read_signatures(arguments, WORD))
    if data[:4] == build.selector("amend"):
        return Amend(_read_amendment(arguments), _read_signatures(arguments, WORD))
    if data[:4] == build.selector("attest"):
        return None
    raise RemoteProtocolError("not a call of finalize, checkpoint, attest or amend")


# --- writing --------------------------------------------------------------------------------------------------------


class _List:
    """A list's items in a row, whose offset stands in its place."""

    def __init__(self, items: bytes, count: int) -> None:
        self.tail = _uint(count) + items


def _input(method: str, *arguments: "bytes | _List") -> bytes:
    return contract_build().selector(method) + _tuple(*arguments)


def _tuple(*fields: "bytes | _List") -> bytes:
    """Fields in a row, what has no fixed length after them."""
    offset = sum(WORD if isinstance(field, _List) else len(field) for field in fields)
    head, tail = b"", b""
    for field in fields:
        if isinstance(field, _List):
            head += _uint(offset + len(tail))
            tail += field.tail
        else:
            head += field
    return head + tail


class _Struct(_List):
    """A struct that holds a list: it has no fixed length either."""

    def __init__(self, *fields: "bytes | _List") -> None:
        self.tail = _tuple(*fields)


def _statement(statement: Statement) -> bytes:
    return b"".join(encode_words(statement))


def _amendment(amendment: Amendment) -> _Struct:
    *fixed, _ = encode_words(amendment)
    return _Struct(*fixed, _List(b"".join(amendment.changes), len(amendment.changes)))


def _signatures(signatures: Sequence[bytes]) -> bytes:
    return b"".join(signatures)


def _report(first: Signed, second: Signed) -> bytes:
    kind = REPORTED.index(type(first.body).__name__)
    listed = [_List(b"".join(each), len(each)) for each in map(encode_words, (first.body, second.body))]
    return _input("report", _uint(kind), *listed, first.signature, second.signature)


def _addresses(addresses: Sequence[bytes]) -> _List:
    return _List(b"".join(address.rjust(WORD, b"\0") for address in addresses), len(addresses))


def _uint(number: int) -> bytes:
    return number.to_bytes(WORD, "big")


# --- reading --------------------------------------------------------------------------------------------------------


def _read(data: bytes, at: int, size: int) -> bytes:
    found = data[at : at + size]
    if len(found) != size:
        raise RemoteProtocolError("the call is too short")
    return found


def _read_list(data: bytes, place: int, most: int) -> tuple[int, int]:
    """Where the items of the list are whose offset stands at `place`, and how many."""
    start = decode_uint(_read(data, place, WORD), 32)
    count = decode_uint(_read(data, start, WORD), 32)
    if count > most:
        raise RemoteProtocolError(f"the call has a list of {count}, at most {most} are possible")
    return start + WORD, count


def _read_items(data: bytes, place: int, most: int, size: int) -> tuple[bytes, ...]:
    start, count = _read_list(data, place, most)
    return tuple(_read(data, start + at * size, size) for at in range(count))


def _read_signatures(data: bytes, place: int) -> tuple[bytes, ...]:
    return _read_items(data, place, MAX_SIGNATURES, 2 * WORD)


def _read_statement(data: bytes, at: int) -> Statement:
    return decode_statement(words(_read(data, at, _STATEMENT * WORD)))


def _read_amendment(data: bytes) -> Amendment:
    inside = data[decode_uint(_read(data, 0, WORD), 32) :]
    federation, number, previous, charter, blob, size, effective = words(_read(inside, 0, _AMENDMENT * WORD))
    return Amendment(
        federation=federation,
        number=decode_uint(number, 63),
        previous=previous,
        charter=charter,
        blob=blob,
        size=decode_uint(size, 63),
        effective=decode_uint(effective, 63),
        changes=_read_items(inside, _AMENDMENT * WORD, MAX_CHANGES, WORD),
    )
