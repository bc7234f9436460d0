"""The ledger on an EVM chain: `EvmLedger`, and the deployment of its contract. The only file that uses web3.

web3 signs transactions; it is imported when the first one is made, because it costs a second of CPU and
25 MB that a node which only follows the record need not spend. What goes over the wire is `rpc.py`'s.
"""

import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from folkmoot.ledger.answers import BlockAnswer, ReceiptAnswer, parse, to_bytes, to_hex, to_int
from folkmoot.ledger.calldata import ENROL_BATCH, encode_call, encode_deployment, encode_enrolment
from folkmoot.ledger.calls import Call
from folkmoot.ledger.errors import LedgerRejected, LedgerUnavailable, NoFunds, NonceUsed
from folkmoot.ledger.fees import ETHER, GWEI, Fees, choose_fees
from folkmoot.ledger.identity import Founding
from folkmoot.ledger.port import PreparedTransaction
from folkmoot.ledger.reader import LedgerReader
from folkmoot.ledger.refusals import explain_refusal, is_known
from folkmoot.ledger.rpc import RpcClient, RpcError
from folkmoot.protocol.charter_tables import FINALITY_DEPTH
from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.types import Digest

_GAS_MARGIN = 1.15
_POLL = 0.05


class Deployment(msgspec.Struct, frozen=True):
    """Where a contract was deployed; `contract` is its 20-byte address, `gas_used` that of the whole founding."""

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
        chain_id: int | None = None,
        fee_cap: int | None = None,
        finality_depth: int = FINALITY_DEPTH,
    ) -> None:
        """`gas_key`: 32 secret bytes of the account that pays; the rest as in `LedgerReader`.

        `fee_cap`: the most wei that it pays for one gas.
        """
        super().__init__(
            rpc_urls,
            contract,
            timeout=timeout,
            first_block=first_block,
            span=span,
            chain_id=chain_id,
            finality_depth=finality_depth,
        )
        self._gas_key = gas_key
        self._fee_cap = fee_cap
        self._known_payer: _Payer | None = None

    def nonce(self) -> int:
        """See `Ledger.nonce`. Raises `LocalProtocolError` without a gas key."""
        payer = self._payer()
        with self._rpc.usable_answers():
            return payer.nonce("latest")

    def prepare(
        self, call: Call, nonce: int | None = None, replaces: PreparedTransaction | None = None
    ) -> PreparedTransaction:
        """See `Ledger.prepare`. Raises `LocalProtocolError` without a gas key."""
        payer = self._payer()
        identity = self.identity()  # a transaction to an address without code would succeed and do nothing
        with self._rpc.usable_answers():
            return payer.prepare(identity.chain_id, self._contract, encode_call(call), nonce, replaces)

    def send(self, prepared: PreparedTransaction) -> None:
        """See `Ledger.send`."""
        with self._rpc.usable_answers():
            _broadcast(self._rpc, prepared)

    def _payer(self) -> "_Payer":
        if self._gas_key is None:
            raise LocalProtocolError("this node has no gas key: it cannot record statements")
        if self._known_payer is None:
            self._known_payer = _Payer(self._rpc, self._gas_key, self._fee_cap)
        return self._known_payer


def deploy(
    rpc_urls: Sequence[str], gas_key: bytes, founding: Founding, *, timeout: float = 10.0, wait: float = 120.0
) -> Deployment:
    """Deploy the contract, enrol its members, and wait (at most `wait` seconds) until blocks hold all that.

    Raises `LedgerRejected`, `LedgerUnavailable`.
    """
    rpc = RpcClient(rpc_urls, timeout)
    with rpc.usable_answers():
        payer, chain_id = _Payer(rpc, gas_key), to_int(rpc.call("eth_chainId"))
        deadline = time.monotonic() + wait
        transaction, receipt = payer.execute(chain_id, None, encode_deployment(founding), deadline)
        contract = to_bytes(receipt.contract_address, 20)
        gas = to_int(receipt.gas_used)
        for start in range(0, len(founding.others), ENROL_BATCH):
            enrolling = encode_enrolment(founding.others[start : start + ENROL_BATCH])
            gas += to_int(payer.execute(chain_id, contract, enrolling, deadline)[1].gas_used)
    return Deployment(
        contract=contract,
        block=to_int(receipt.block_number),
        block_hash=to_bytes(receipt.block_hash, 32),
        transaction=transaction,
        gas_used=gas,
    )


def _await_receipt(rpc: RpcClient, transaction: Digest, deadline: float) -> ReceiptAnswer:
    while (found := rpc.call("eth_getTransactionReceipt", to_hex(transaction))) is None:
        if time.monotonic() > deadline:
            raise LedgerUnavailable(
                f"the deployment {to_hex(transaction)} is in no block yet; look for it before deploying again"
            )
        time.sleep(_POLL)
    receipt = parse(found, ReceiptAnswer)
    if to_int(receipt.status) != 1:
        raise LedgerRejected("the deployment reverted", "see the transaction " + to_hex(transaction))
    return receipt


def _broadcast(rpc: RpcClient, prepared: PreparedTransaction) -> None:
    """Send; a transaction that the chain knows already is sent. Raises `LedgerRejected`, see `Ledger.send`."""
    try:
        rpc.call("eth_sendRawTransaction", to_hex(prepared.raw))
    except RpcError as error:
        if is_known(error):
            return
        refusal = explain_refusal(error)
        used = isinstance(refusal, NonceUsed)
        if used and rpc.call("eth_getTransactionReceipt", to_hex(prepared.hash)) is not None:
            return  # by itself
        raise refusal from error


class _Payer:
    """The account that pays: fills in nonce, gas and fees, and signs."""

    def __init__(self, rpc: RpcClient, gas_key: bytes, fee_cap: int | None = None) -> None:
        self._rpc = rpc
        self._account = _web3().eth.account.from_key(gas_key)
        self._fee_cap = fee_cap

    def nonce(self, tag: str) -> int:
        """How many transactions the account has sent: in blocks ("latest"), or also in the pool ("pending")."""
        return to_int(self._rpc.call("eth_getTransactionCount", self._account.address, tag))

    def prepare(
        self,
        chain_id: int,
        to: bytes | None,
        data: bytes,
        nonce: int | None = None,
        replaces: PreparedTransaction | None = None,
    ) -> PreparedTransaction:
        """A signed transaction, sent nowhere yet.

        Raises `LedgerRejected` if it would revert, `FeesTooHigh`, or `NoFunds` if the account could not pay for it.
        """
        call = {"from": self._account.address, "data": to_hex(data)} | ({"to": to_hex(to)} if to else {})
        try:
            # On the pending block, which some nodes take for default, what is to be replaced would be in the way.
            gas = to_int(self._rpc.call("eth_estimateGas", call, "latest"))
        except RpcError as error:
            raise explain_refusal(error) from error
        if replaces is not None:
            nonce = replaces.nonce
        elif nonce is None:
            nonce = self.nonce("pending")
        fees, fields = self._fees(replaces)
        gas = int(gas * _GAS_MARGIN)
        self._check_funds(gas * fees.max_fee)
        transaction: dict[str, Any] = {
            "chainId": chain_id,
            "nonce": nonce,
            "gas": gas,
            "value": 0,
            "data": data,
            **fields,
        }
        if to:
            transaction["to"] = to
        signed = self._account.sign_transaction(transaction)
        raw, hash_ = bytes(signed.raw_transaction), bytes(signed.hash)
        return PreparedTransaction(raw=raw, hash=hash_, nonce=nonce, max_fee=fees.max_fee, tip=fees.tip)

    def execute(
        self, chain_id: int, to: bytes | None, data: bytes, deadline: float
    ) -> tuple[Digest, ReceiptAnswer]:
        """Make and send a transaction, and wait for the block that holds it; its hash and receipt."""
        prepared = self.prepare(chain_id, to, data)
        _broadcast(self._rpc, prepared)
        return prepared.hash, _await_receipt(self._rpc, prepared.hash, deadline)

    def _check_funds(self, cost: int) -> None:
        """Better here than by the node's refusal: nothing is signed, and it says which account lacks what."""
        address = self._account.address
        balance = to_int(self._rpc.call("eth_getBalance", address, "latest"))
        if balance < cost:
            raise NoFunds(
                f"insufficient funds: the gas key's account {address} has {balance / ETHER:.9f}, a transaction may "
                f"cost {cost / ETHER:.9f}",
                "send it some of the chain's currency",
            )

    def _fees(self, replaces: PreparedTransaction | None) -> tuple[Fees, dict[str, int]]:
        """The fees, and as fields of a transaction: EIP-1559 where the chain has a base fee, else one gas price."""
        base = parse(self._rpc.call("eth_getBlockByNumber", "latest", False), BlockAnswer).base_fee_per_gas
        if base is None:
            fees = choose_fees(0, to_int(self._rpc.call("eth_gasPrice")), self._fee_cap, replaces)
            return fees, {"gasPrice": fees.max_fee}
        fees = choose_fees(to_int(base), self._tip(), self._fee_cap, replaces)
        return fees, {"maxFeePerGas": fees.max_fee, "maxPriorityFeePerGas": fees.tip}

    def _tip(self) -> int:
        try:
            return to_int(self._rpc.call("eth_maxPriorityFeePerGas"))
        except RpcError:  # an optional method
            return GWEI


@lru_cache(maxsize=1)
def _web3() -> Any:
    """A web3 without a provider, for signing.

    One of its dependencies (py_ecc) raises Python's recursion limit to 100000 when it is imported. With that limit
    a deeply nested message from a peer would overflow the C stack and kill the process, so the limit is put back.
    """
    limit = sys.getrecursionlimit()
    try:
        from web3 import Web3
    finally:
        sys.setrecursionlimit(limit)
    return Web3()
