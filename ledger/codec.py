"""The contract's words and events: reading what an RPC shows of it, strictly, because an RPC may lie.

Everything here is whole 32-byte words, so slices suffice. What transactions carry is `calldata.py`'s.
"""

from collections.abc import Sequence

from folkmoot.ledger.audit_key import recover
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.governance import Amendment
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import Domain, keccak256, signing_digest_of
from folkmoot.protocol.types import Digest

WORD = 32
NO_ADDRESS = bytes(20)
FINALIZED_TOPIC = keccak256(
    b"Finalized(uint64,bytes32,bytes32,bytes32,bytes32,bytes32,bytes32,bytes32,address)"
)
ATTESTED_TOPIC = keccak256(b"Attested(uint64,bytes32,address,bytes32,bytes32)")
AMENDED_TOPIC = keccak256(b"Amended(uint64,bytes32,bytes32,bytes32,bytes32,uint64,uint64,address,bytes32[])")
_AMENDED_WORDS = 7


def words(data: bytes) -> list[bytes]:
    """`data` as 32-byte words; raises `RemoteProtocolError` if they do not fill it."""
    if len(data) % WORD:
        raise RemoteProtocolError(f"contract data of {len(data)} bytes is not whole words")
    return [data[at : at + WORD] for at in range(0, len(data), WORD)]


def decode_uint(word: bytes, bits: int) -> int:
    """An unsigned integer below 2**bits from one word; raises `RemoteProtocolError`."""
    value = int.from_bytes(word, "big")
    if len(word) != WORD or value >> bits:
        raise RemoteProtocolError(f"0x{word.hex()} is not a uint{bits}")
    return value


def decode_address(word: bytes) -> bytes:
    """20 bytes from one word; raises `RemoteProtocolError`."""
    return decode_uint(word, 160).to_bytes(20, "big")


def decode_addresses(data: bytes) -> tuple[bytes, ...]:
    """A returned `address[]`; raises `RemoteProtocolError`."""
    offset, count, *rest = words(data) if len(data) >= 2 * WORD else (b"", b"")
    if decode_uint(offset, 64) != WORD or decode_uint(count, 64) != len(rest):
        raise RemoteProtocolError("not a list of addresses")
    return tuple(decode_address(word) for word in rest)


def decode_finalized(
    federation: Digest, topics: Sequence[bytes], data: bytes
) -> tuple[Statement, Digest, bytes]:
    """The statement, its digest and its submitter from a `Finalized` event; raises `RemoteProtocolError`."""
    if len(topics) != 4 or topics[0] != FINALIZED_TOPIC or len(data) != 6 * WORD:
        raise RemoteProtocolError("not a Finalized event")
    previous, config, base, survivors, archive, submitter = words(data)
    statement = Statement(
        federation=federation,
        round=decode_uint(topics[1], 63),
        previous=previous,
        config=config,
        base=base,
        survivors=survivors,
        model=topics[3],
        archive=archive,
    )
    return statement, topics[2], decode_address(submitter)


def decode_attested(topics: Sequence[bytes], data: bytes) -> tuple[Digest, bytes, bytes]:
    """The statement's digest, the attester and its signature from an `Attested` event; raises `RemoteProtocolError`."""
    if len(topics) != 4 or topics[0] != ATTESTED_TOPIC or len(data) != 2 * WORD:
        raise RemoteProtocolError("not an Attested event")
    return topics[2], decode_address(topics[3]), data


def decode_amended(
    federation: Digest, topics: Sequence[bytes], data: bytes
) -> tuple[Amendment, Digest, bytes]:
    """The amendment, its digest and its submitter from an `Amended` event; raises `RemoteProtocolError`."""
    listed = words(data)
    if len(topics) != 4 or topics[0] != AMENDED_TOPIC or len(listed) < _AMENDED_WORDS:
        raise RemoteProtocolError("not an Amended event")
    previous, blob, size, effective, submitter, offset, count, *changes = listed
    if decode_uint(offset, 64) != 6 * WORD or decode_uint(count, 64) != len(changes):
        raise RemoteProtocolError("an Amended event without its list of changes")
    amendment = Amendment(
        federation=federation,
        number=decode_uint(topics[1], 63),
        previous=previous,
        charter=topics[3],
        blob=blob,
        size=decode_uint(size, 63),
        effective=decode_uint(effective, 63),
        changes=tuple(changes),
    )
    return amendment, topics[2], decode_address(submitter)


def decode_statement(fields: Sequence[bytes]) -> Statement:
    """A statement from its eight words; raises `RemoteProtocolError`."""
    federation, round_, *rest = fields
    return Statement(federation, decode_uint(round_, 63), *rest)


def recover_signers(domain: Domain, struct: Digest, signatures: Sequence[bytes]) -> tuple[bytes, ...]:
    """Who signed a struct of this hash, signature by signature; like the contract, `NO_ADDRESS` for nobody."""
    signed = signing_digest_of(domain, struct)
    return tuple(_recover_or_none(signed, signature) for signature in signatures)


def _recover_or_none(signed: Digest, signature: bytes) -> bytes:
    try:
        return recover(signed, signature)
    except RemoteProtocolError:
        return NO_ADDRESS
