"""What an Ethereum node answers, parsed strictly; raises `RemoteProtocolError` for what makes no sense."""

from typing import TypeVar

import msgspec

from folkmoot.protocol.errors import RemoteProtocolError

T = TypeVar("T")


class BlockAnswer(msgspec.Struct, rename="camel"):
    """`eth_getBlockByNumber`: what we use of it."""

    number: str
    hash: str
    base_fee_per_gas: str | None = None


class LogAnswer(msgspec.Struct, rename="camel"):
    """One of `eth_getLogs`."""

    address: str
    topics: list[str]
    data: str
    block_number: str
    block_hash: str
    transaction_hash: str
    log_index: str


class TransactionAnswer(msgspec.Struct):
    """`eth_getTransactionByHash`: what we use of it."""

    input: str
    to: str | None = None


class ReceiptAnswer(msgspec.Struct, rename="camel"):
    """`eth_getTransactionReceipt`: what we use of it."""

    block_number: str
    block_hash: str
    gas_used: str
    status: str
    contract_address: str | None = None


def parse(answer: object, kind: type[T]) -> T:
    """A JSON value as one of the structs above (or a list of them)."""
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise RemoteProtocolError(str(error)) from error


def to_int(text: object) -> int:
    """A quantity: 0x and hex digits."""
    if not isinstance(text, str) or not text.startswith("0x"):
        raise RemoteProtocolError(f"not a quantity: {str(text)[:80]!r}")
    try:
        return int(text, 16)
    except ValueError as error:
        raise RemoteProtocolError(f"not a quantity: {text[:80]!r}") from error


def to_bytes(text: object, size: int | None = None) -> bytes:
    """Data: 0x and pairs of hex digits; of `size` bytes if given."""
    if not isinstance(text, str) or not text.startswith("0x"):
        raise RemoteProtocolError(f"not data: {str(text)[:80]!r}")
    try:
        data = bytes.fromhex(text[2:])
    except ValueError as error:
        raise RemoteProtocolError(f"not data: {text[:80]!r}") from error
    return data if size is None else exactly(data, size)


def exactly(data: bytes, size: int) -> bytes:
    """`data` if it has `size` bytes."""
    if len(data) != size:
        raise RemoteProtocolError(f"{len(data)} bytes where {size} belong")
    return data


def to_hex(data: bytes) -> str:
    """Bytes as JSON-RPC writes them."""
    return f"0x{data.hex()}"
