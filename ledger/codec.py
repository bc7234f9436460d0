"""The contract's words: reading what an RPC shows of it, strictly, because an RPC may lie.

Everything here is whole 32-byte words, so slices suffice; writing transactions is web3's (`evm.py`).
"""

from collections.abc import Sequence

from folkmoot.ledger.audit_key import recover
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import Domain, keccak256, signing_digest
from folkmoot.protocol.types import Digest

WORD = 32
NO_ADDRESS = bytes(20)
FINALIZED_TOPIC = keccak256(
    b"Finalized(uint64,bytes32,bytes32,bytes32,bytes32,bytes32,bytes32,bytes32,address)"
)
_STATEMENT_WORDS = 8
_MAX_SIGNATURES = 31


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


def decode_finalize_input(selector: bytes, data: bytes) -> tuple[Statement, tuple[bytes, ...]]:
    """The statement and the 64-byte signatures in a transaction's input; raises `RemoteProtocolError`."""
    if data[:4] != selector:
        raise RemoteProtocolError("not a call of finalize")
    arguments = data[4:]
    head = words(arguments[: (_STATEMENT_WORDS + 1) * WORD])
    if len(head) != _STATEMENT_WORDS + 1:
        raise RemoteProtocolError("call of finalize is too short")
    federation, round_, *rest = head[:_STATEMENT_WORDS]
    start = decode_uint(head[_STATEMENT_WORDS], 32)
    count = decode_uint(arguments[start : start + WORD], 32)
    signatures = arguments[start + WORD : start + WORD + 64 * count]
    if count > _MAX_SIGNATURES or len(signatures) != 64 * count:
        raise RemoteProtocolError(f"call of finalize does not hold its {count} signatures")
    statement = Statement(federation, decode_uint(round_, 63), *rest)
    return statement, tuple(signatures[at : at + 64] for at in range(0, len(signatures), 64))


def recover_signers(domain: Domain, statement: Statement, signatures: Sequence[bytes]) -> tuple[bytes, ...]:
    """Who signed, signature by signature; like the contract, `NO_ADDRESS` for what nobody can have signed."""
    signed = signing_digest(domain, statement)
    return tuple(_recover_or_none(signed, signature) for signature in signatures)


def _recover_or_none(signed: Digest, signature: bytes) -> bytes:
    try:
        return recover(signed, signature)
    except RemoteProtocolError:
        return NO_ADDRESS
