"""What a node's refusal of a transaction means.

JSON-RPC has no codes for it: every client has its own sentences. These are geth's and those of its relatives (Erigon,
the roll-ups), Nethermind's, Besu's and anvil's.
"""

from folkmoot.ledger.answers import to_bytes
from folkmoot.ledger.errors import LedgerRejected, NoFunds, NonceUsed, Underpriced
from folkmoot.ledger.rpc import RpcError
from folkmoot.protocol.errors import RemoteProtocolError

_KNOWN = ("already known", "alreadyknown", "already imported", "known transaction")
_NONCE_USED = ("nonce too low", "oldnonce")
_UNDERPRICED = (
    "underpriced",
    "max fee per gas less than",
    "fee too low",
    "feetoolow",
    "gas price below",
    "gas price too low",
    "higher gas price",
    "replacementnotallowed",
)
_NO_FUNDS = ("insufficient funds", "insufficientfunds", "insufficient balance", "upfront cost exceeds")
_REVERT_SELECTOR = bytes.fromhex("08c379a0")  # Error(string)


def is_known(error: RpcError) -> bool:
    """Whether the node has this very transaction already."""
    return _says(error, _KNOWN)


def explain_refusal(error: RpcError) -> LedgerRejected:
    """A node's refusal as ours; the contract's own word where it reverted with one."""
    if (reason := _revert_reason(error)) is not None:
        return LedgerRejected(reason)
    if _says(error, _NONCE_USED):
        return NonceUsed(error.message, "prepare the statement again")
    if _says(error, _UNDERPRICED):
        return Underpriced(error.message, "outbid it")
    if _says(error, _NO_FUNDS):
        return NoFunds(error.message, "send some of the chain's currency to the gas key's address")
    return LedgerRejected(error.message)


def _says(error: RpcError, words: tuple[str, ...]) -> bool:
    message = error.message.lower()
    return any(word in message for word in words)


def _revert_reason(error: RpcError) -> str | None:
    """The string of `Error(string)` in the error's data, if any: offset, length, text."""
    try:
        payload = to_bytes(error.data)
    except RemoteProtocolError:
        return None
    if payload[:4] != _REVERT_SELECTOR:
        return None
    length = int.from_bytes(payload[36:68], "big")
    return payload[68 : 68 + length].decode(errors="replace")
