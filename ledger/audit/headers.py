"""Block headers: made from what an RPC shows of a block, so that the block's hash can be computed again."""

from collections.abc import Mapping

import msgspec

from folkmoot.ledger.answers import to_bytes, to_int
from folkmoot.ledger.audit import rlp
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.typed_data import keccak256
from folkmoot.protocol.types import Digest

_NUMBERS = frozenset({
    "difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas", "blobGasUsed", "excessBlobGas",
})  # fmt: skip
_FIELDS = (
    "parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "difficulty",
    "number", "gasLimit", "gasUsed", "timestamp", "extraData", "mixHash", "nonce",
)  # fmt: skip
"""In every block since the first, in this order."""

_LATER_FIELDS = (
    "baseFeePerGas",  # London
    "withdrawalsRoot",  # Shanghai
    "blobGasUsed",  # Cancun
    "excessBlobGas",
    "parentBeaconBlockRoot",
    "requestsHash",  # Prague
    "blockAccessListHash",  # Amsterdam (EIP-7928)
)
"""What forks added, each behind the one before it; a chain may not have reached all of them."""


class Header(msgspec.Struct, frozen=True):
    """What is used of a header. `timestamp` is Unix seconds."""

    hash: Digest
    number: int
    state_root: Digest
    timestamp: int


def encode_header(block: Mapping[str, object]) -> bytes:
    """The RLP of a block's header, from `eth_getBlockByNumber`.

    Raises `RemoteProtocolError` if a field that every block has is missing or makes no sense.
    """
    later = [name for name in _LATER_FIELDS if block.get(name) is not None]
    return rlp.encode([_field(name, block.get(name)) for name in (*_FIELDS, *later)])


def read_header(data: bytes) -> Header:
    """A header from its RLP; its hash is computed here. Raises `RemoteProtocolError`."""
    fields = rlp.decode(data)
    if not isinstance(fields, list) or len(fields) < len(_FIELDS):
        raise RemoteProtocolError("not a block header")
    named = dict(zip(_FIELDS, fields, strict=False))
    state_root = named["stateRoot"]
    if not isinstance(state_root, bytes) or len(state_root) != 32:
        raise RemoteProtocolError("a block header without a state root")
    return Header(
        hash=keccak256(data),
        number=rlp.decode_int(named["number"]),
        state_root=state_root,
        timestamp=rlp.decode_int(named["timestamp"]),
    )


def _field(name: str, value: object) -> bytes:
    try:
        return rlp.encode_int(to_int(value)) if name in _NUMBERS else to_bytes(value)
    except RemoteProtocolError as error:
        raise RemoteProtocolError(f"the block's {name} is {error}") from error
