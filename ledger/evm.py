"""The ledger on an EVM chain: `EvmLedger`, and the deployment of its contract. The only file that uses web3.

web3 encodes and signs transactions; it is imported when the first one is made, because it costs a second of CPU and
25 MB that a node which only follows the record need not spend. What goes over the wire is `rpc.py`'s.
"""

import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from folkmoot.ledger.answers import BlockAnswer, ReceiptAnswer, parse, to_bytes, to_hex, to_int
from folkmoot.ledger.build import contract_build
from folkmoot.ledger.errors import LedgerRejected, LedgerUnavailable, NonceUsed
from folkmoot.ledger.port import PreparedTransaction
from folkmoot.ledger.reader import LedgerReader
from folkmoot.ledger.rpc import RpcClient, RpcError
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.types import Digest

_GWEI = 10**9
_GAS_MARGIN = 1.15
_KNOWN = ("already known", "already imported", "known transaction")
_REVERT_SELECTOR = bytes.fromhex("08c379a0")  # Error(string)
_POLL = 0.05


class Deployment(msgspec.Struct, frozen=True):
    """Where a contract was deployed; `contract` is its 20-byte address."""

    contract: bytes
    block: int
    block_hash: Digest
    transaction: Digest
    gas_used: int


class EvmLedger(LedgerReader):
    """The `Ledger` port over JSON-RPC. Without a gas key it follows and verifies, and `prepare` refuses."""

    def __init__(
        self,
        rpc_urls: Sequence[str],
        contract: bytes,
        gas_key: bytes | None = None,
        *,
        timeout: float = 10.0,
        first_block: int | None = None,
        span: int = 2000,
    ) -> None:
        """`gas_key`: 32 secret bytes of the account that pays; the rest as in `LedgerReader`."""
        super().__init__(rpc_urls, contract, timeout=timeout, first_block=first_block, span=span)
        self._gas_key = gas_key
        self._payer: _Payer | None = None

    def prepare(
        self,
        statement: Statement,
        signatures: Sequence[bytes],
        nonce: int | None = None,
        replaces: PreparedTransaction | None = None,
    ) -> PreparedTransaction:
        """See `Ledger.prepare`. Raises `LocalProtocolError` without a gas key."""
        if self._gas_key is None:
            raise LocalProtocolError("this node has no gas key: it cannot record statements")
        identity = self.identity()  # a transaction to an address without code would succeed and do nothing
        if self._payer is None:
            self._payer = _Payer(self._rpc, self._gas_key)
        call = _finalize_call(statement, signatures)
        with self._rpc.usable_answers():
            return self._payer.prepare(identity.chain_id, self._contract, call, nonce, replaces)

    def send(self, prepared: PreparedTransaction) -> None:
        """See `Ledger.send`."""
        with self._rpc.usable_answers():
            _broadcast(self._rpc, prepared)


def deploy(
    rpc_urls: Sequence[str],
    gas_key: bytes,
    charter_digest: Digest,
    attesters: Sequence[bytes],
    *,
    timeout: float = 10.0,
    wait: float = 120.0,
) -> Deployment:
    """Deploy the contract for a charter and wait (at most `wait` seconds) until a block holds it.

    `attesters`: 1 to 31 addresses of 20 bytes, in any order. Raises `LedgerRejected`, `LedgerUnavailable`.
    """
    rpc = RpcClient(rpc_urls, timeout)
    with rpc.usable_answers():
        chain_id = to_int(rpc.call("eth_chainId"))
        prepared = _Payer(rpc, gas_key).prepare(chain_id, None, _deploy_call(charter_digest, attesters))
        _broadcast(rpc, prepared)
        return _await_deployment(rpc, prepared.hash, time.monotonic() + wait)


def _await_deployment(rpc: RpcClient, transaction: Digest, deadline: float) -> Deployment:
    while (found := rpc.call("eth_getTransactionReceipt", to_hex(transaction))) is None:
        if time.monotonic() > deadline:
            raise LedgerUnavailable(
                f"the deployment {to_hex(transaction)} is in no block yet; look for it before deploying again"
            )
        time.sleep(_POLL)
    receipt = parse(found, ReceiptAnswer)
    if to_int(receipt.status) != 1:
        raise LedgerRejected("the deployment reverted", "see the transaction " + to_hex(transaction))
    return Deployment(
        contract=to_bytes(receipt.contract_address, 20),
        block=to_int(receipt.block_number),
        block_hash=to_bytes(receipt.block_hash, 32),
        transaction=transaction,
        gas_used=to_int(receipt.gas_used),
    )


def _broadcast(rpc: RpcClient, prepared: PreparedTransaction) -> None:
    """Send; a transaction that the chain knows already is sent. Raises `NonceUsed`, `LedgerRejected`."""
    try:
        rpc.call("eth_sendRawTransaction", to_hex(prepared.raw))
    except RpcError as error:
        message = error.message.lower()
        if any(known in message for known in _KNOWN):
            return
        if "nonce too low" not in message:
            raise _rejected(error) from error
        if rpc.call("eth_getTransactionReceipt", to_hex(prepared.hash)) is None:
            raise NonceUsed(error.message, "prepare the statement again") from error


class _Payer:
    """The account that pays: fills in nonce, gas and fees, and signs."""

    def __init__(self, rpc: RpcClient, gas_key: bytes) -> None:
        self._rpc = rpc
        self._account = _web3().eth.account.from_key(gas_key)

    def prepare(
        self,
        chain_id: int,
        to: bytes | None,
        data: bytes,
        nonce: int | None = None,
        replaces: PreparedTransaction | None = None,
    ) -> PreparedTransaction:
        """A signed transaction, sent nowhere yet; raises `LedgerRejected` if it would revert."""
        address = self._account.address
        call = {"from": address, "data": to_hex(data)} | ({"to": to_hex(to)} if to else {})
        try:
            gas = to_int(self._rpc.call("eth_estimateGas", call))
        except RpcError as error:
            raise _rejected(error) from error
        if replaces is not None:
            nonce = replaces.nonce
        if nonce is None:
            nonce = to_int(self._rpc.call("eth_getTransactionCount", address, "pending"))
        max_fee, tip, fees = self._fees(replaces)
        transaction: dict[str, Any] = {
            "chainId": chain_id,
            "nonce": nonce,
            "gas": int(gas * _GAS_MARGIN),
            "value": 0,
            "data": data,
            **fees,
        }
        if to:
            transaction["to"] = to
        signed = self._account.sign_transaction(transaction)
        return PreparedTransaction(
            raw=bytes(signed.raw_transaction), hash=bytes(signed.hash), nonce=nonce, max_fee=max_fee, tip=tip
        )

    def _fees(self, replaces: PreparedTransaction | None) -> tuple[int, int, dict[str, int]]:
        """(max fee, tip, transaction fields): EIP-1559 where the chain has a base fee, else one gas price.

        Twice the base fee survives five full blocks. Nodes accept a replacement only if it raises both by 10 %: ours
        raises them by an eighth.
        """
        base = parse(self._rpc.call("eth_getBlockByNumber", "latest", False), BlockAnswer).base_fee_per_gas
        if base is None:
            price = _outbid(to_int(self._rpc.call("eth_gasPrice")), replaces.max_fee if replaces else 0)
            return price, price, {"gasPrice": price}
        tip = _outbid(self._tip(), replaces.tip if replaces else 0)
        max_fee = _outbid(2 * to_int(base) + tip, replaces.max_fee if replaces else 0)
        return max_fee, tip, {"maxFeePerGas": max_fee, "maxPriorityFeePerGas": tip}

    def _tip(self) -> int:
        try:
            return to_int(self._rpc.call("eth_maxPriorityFeePerGas"))
        except RpcError:  # an optional method
            return _GWEI


def _outbid(market: int, before: int) -> int:
    return max(market, -(-before * 9 // 8))


def _finalize_call(statement: Statement, signatures: Sequence[bytes]) -> bytes:
    """The input of a transaction that records `statement`."""
    contract = _contract()
    fields = tuple(getattr(statement, field) for field in statement.__struct_fields__)
    pairs = [(signature[:32], signature[32:]) for signature in signatures]
    return to_bytes(contract.encode_abi("finalize", args=[fields, pairs]))


def _deploy_call(charter_digest: Digest, attesters: Sequence[bytes]) -> bytes:
    """The input of a transaction that deploys the contract."""
    return to_bytes(_contract().constructor(charter_digest, sorted(attesters)).data_in_transaction)


@lru_cache(maxsize=1)
def _contract() -> Any:
    """The contract as web3 sees it, bound to no address."""
    build = contract_build()
    return _web3().eth.contract(abi=build.abi, bytecode=build.creation_code)


@lru_cache(maxsize=1)
def _web3() -> Any:
    """A web3 without a provider, for encoding and signing.

    One of its dependencies (py_ecc) raises Python's recursion limit to 100000 when it is imported. With that limit
    a deeply nested message from a peer would overflow the C stack and kill the process, so the limit is put back.
    """
    limit = sys.getrecursionlimit()
    try:
        from web3 import Web3
    finally:
        sys.setrecursionlimit(limit)
    return Web3()


def _rejected(error: RpcError) -> LedgerRejected:
    """A node's refusal as ours; the contract's own word where it reverted with one."""
    return LedgerRejected(_revert_reason(error) or error.message)


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
