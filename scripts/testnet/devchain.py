"""An Ethereum chain inside one Python process, for development: py-evm, one block for each transaction.

Only the methods that Folkmoot and an auditor use are there. Blocks depend on nothing but the genesis, the
transactions and their time stamps, so a chain that is replayed from its journal has the same block hashes.
It has no consensus and no witnesses: **development, not evidence**.

py-evm's own objects are `Any` here: its annotations wrap every integer and address in a type of its own.
"""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eth._utils.address import generate_contract_address
from eth.chains.base import MiningChain
from eth.consensus.applier import ConsensusApplier
from eth.consensus.noproof import NoProofConsensus
from eth.db.atomic import AtomicDB
from eth.exceptions import Revert
from eth.vm.forks.cancun import CancunVM
from eth.vm.spoof import SpoofTransaction
from eth_utils.exceptions import ValidationError

from folkmoot.ledger.answers import to_bytes, to_hex
from folkmoot.testnet.devchain_json import block_json, log_json, receipt_json, transaction_json

LABEL = "development, not evidence"
FUNDS = 10**24
"""Wei that a funded account starts with: a million ether."""

_GAS_LIMIT = 30_000_000
_NO_ADDRESS = bytes(20)

# py_ecc, which py-evm imports, raises the limit to 100000; a request of nested JSON would then overflow the C stack.
sys.setrecursionlimit(2000)


class ChainError(Exception):
    """A refusal as JSON-RPC tells it."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class DevChain:
    """The chain and its indexes, in memory. Not thread-safe: its owner holds one lock."""

    def __init__(self, chain_id: int, funded: Iterable[bytes], timestamp: int) -> None:
        """Genesis at `timestamp` (seconds since 1970) with `FUNDS` for each funded address (20 bytes)."""
        self.chain_id = chain_id
        self._chain = _genesis(chain_id, funded, timestamp)
        self._blocks: list[dict[str, Any]] = []
        self._numbers: dict[str, int] = {}
        self._transactions: dict[str, dict[str, Any]] = {}
        self._receipts: dict[str, dict[str, Any]] = {}
        self._logs: list[dict[str, Any]] = []
        self._index(self._chain.get_canonical_block_by_number(0), ())

    # --- writing ----------------------------------------------------------------------------------------------------

    def next_timestamp(self) -> int:
        """A time stamp for the next block: now, but always later than the last block's."""
        parent: int = self._chain.get_canonical_head().timestamp
        return max(int(time.time()), parent + 1)

    def mine(self, raw: bytes, timestamp: int) -> str:
        """Execute a raw transaction in a block of its own; returns its hash. Raises `ChainError`."""
        transaction = self._decode(raw)
        name = to_hex(transaction.hash)
        if name in self._transactions:
            raise ChainError(-32003, "already known")
        self._check(transaction)
        self._chain.set_header_timestamp(timestamp)
        try:
            result, receipts, _ = self._chain.mine_all([transaction])
        except ValidationError as error:
            raise ChainError(-32003, str(error)) from error
        self._index(result.imported_block, receipts)
        return name

    def _decode(self, raw: bytes) -> Any:
        try:
            transaction = self._chain.get_vm().get_transaction_builder().decode(raw)
            transaction.validate()
        except (
            Exception
        ) as error:  # rlp and py-evm raise many kinds; all mean that the bytes are no transaction
            raise ChainError(-32602, f"not a transaction: {error}") from error
        if transaction.chain_id not in (None, self.chain_id):
            raise ChainError(
                -32003, f"invalid chain id for signer: have {transaction.chain_id} want {self.chain_id}"
            )
        return transaction

    def _check(self, transaction: Any) -> None:
        """The refusals that clients tell apart, in the words of other nodes."""
        state = self._chain.get_vm(self._head()).state
        nonce = state.get_nonce(transaction.sender)
        if transaction.nonce != nonce:
            low_or_high = "low" if transaction.nonce < nonce else "high (this chain has no queue)"
            raise ChainError(
                -32003, f"nonce too {low_or_high}: next nonce {nonce}, tx nonce {transaction.nonce}"
            )
        price = getattr(transaction, "max_fee_per_gas", None) or transaction.gas_price
        if state.get_balance(transaction.sender) < transaction.value + price * transaction.gas:
            raise ChainError(-32003, "insufficient funds for gas * price + value")

    def _index(self, block: Any, receipts: Sequence[Any]) -> None:
        """Write down once what will be read often."""
        header = block.header
        here = {"blockNumber": hex(header.block_number), "blockHash": to_hex(header.hash)}
        for transaction, receipt in zip(
            block.transactions, receipts, strict=True
        ):  # one, or none in the genesis
            name = to_hex(transaction.hash)
            place = here | {"transactionHash": name, "transactionIndex": "0x0"}
            logs = [log_json(log, place, index) for index, log in enumerate(receipt.logs)]
            created = (
                None if transaction.to else generate_contract_address(transaction.sender, transaction.nonce)
            )
            fee = header.base_fee_per_gas
            self._logs += logs
            self._transactions[name] = transaction_json(transaction, place, fee)
            self._receipts[name] = receipt_json(transaction, receipt, place, logs, created, fee)
        self._numbers[here["blockHash"]] = len(self._blocks)
        self._blocks.append(
            block_json(block, [to_hex(transaction.hash) for transaction in block.transactions])
        )

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def height(self) -> int:
        """The number of the last block."""
        return len(self._blocks) - 1

    def block(self, tag: object, full: bool = False) -> dict[str, Any] | None:
        """A block as JSON-RPC shows it, by tag, number or hash; with `full`, its transactions in place of hashes."""
        number = self._numbers.get(str(tag), -1) if _is_hash(tag) else self._number(tag)
        if not 0 <= number <= self.height:
            return None
        found = self._blocks[number]
        return (
            found | {"transactions": [self._transactions[name] for name in found["transactions"]]}
            if full
            else found
        )

    def transaction(self, name: object) -> dict[str, Any] | None:
        """A transaction as JSON-RPC shows it."""
        return self._transactions.get(str(name))

    def receipt(self, name: object) -> dict[str, Any] | None:
        """A transaction's receipt as JSON-RPC shows it."""
        return self._receipts.get(str(name))

    def logs(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Events by block range (or hash), address and topics."""
        if "blockHash" in query:
            first = last = self._numbers.get(query["blockHash"], -1)
        else:
            first = self._number(query.get("fromBlock", "latest"))
            last = self._number(query.get("toBlock", "latest"))
        addresses = _alternatives(query.get("address"))
        topics = [_alternatives(topic) for topic in query.get("topics") or []]
        return [
            log
            for log in self._logs
            if first <= int(log["blockNumber"], 16) <= last
            and (not addresses or log["address"] in addresses)
            and len(log["topics"]) >= len(topics)
            and all(
                not wanted or topic in wanted for topic, wanted in zip(log["topics"], topics, strict=False)
            )
        ]

    def base_fee(self) -> int:
        """Wei for each gas that the next block asks for."""
        return int(self._chain.header.base_fee_per_gas)

    def nonce(self, address: bytes, tag: object = "latest") -> int:
        """How many transactions an account has sent."""
        return int(self._state(tag).get_nonce(address))

    def balance(self, address: bytes, tag: object = "latest") -> int:
        """Wei of an account."""
        return int(self._state(tag).get_balance(address))

    def code(self, address: bytes, tag: object = "latest") -> bytes:
        """The run-time code at an address."""
        return bytes(self._state(tag).get_code(address))

    def storage(self, address: bytes, slot: int, tag: object = "latest") -> int:
        """One storage slot."""
        return int(self._state(tag).get_storage(address, slot))

    def call(self, query: Mapping[str, Any], tag: object = "latest") -> bytes:
        """What a call returns; raises `ChainError` with the revert's data."""
        return bytes(self._execute(query, tag)[1].output)

    def estimate_gas(self, query: Mapping[str, Any], tag: object = "latest") -> int:
        """Gas that a transaction uses, from one run; the caller adds its margin."""
        unsigned, computation = self._execute(query, tag)
        return int(unsigned.intrinsic_gas + computation.get_gas_used())

    # --- inside -----------------------------------------------------------------------------------------------------

    def _execute(self, query: Mapping[str, Any], tag: object) -> tuple[Any, Any]:
        vm = self._chain.get_vm(self._header(tag))
        sender = _address(query.get("from")) or _NO_ADDRESS
        unsigned = vm.get_transaction_builder().create_unsigned_transaction(
            nonce=vm.state.get_nonce(sender),
            gas_price=0,
            gas=int(query.get("gas", hex(_GAS_LIMIT)), 16),
            to=_address(query.get("to")),
            value=int(query.get("value", "0x0"), 16),
            data=to_bytes(query.get("input") or query.get("data") or "0x"),
        )
        with vm.in_costless_state() as state:
            computation = state.costless_execute_transaction(SpoofTransaction(unsigned, from_=sender))
        if computation.is_error:
            raise _failure(computation)
        return unsigned, computation

    def _number(self, tag: object) -> int:
        if tag in ("latest", "safe", "finalized", "pending"):
            return self.height
        return 0 if tag == "earliest" else int(str(tag), 16)

    def _head(self) -> Any:
        return self._chain.get_canonical_head()

    def _header(self, tag: object) -> Any:
        number = self._number(tag)
        if not 0 <= number <= self.height:
            raise ChainError(-32000, f"no block {tag}")
        return (
            self._head()
            if number == self.height
            else self._chain.get_canonical_block_header_by_number(number)
        )

    def _state(self, tag: object) -> Any:
        return self._chain.get_vm(self._header(tag)).state


def _genesis(chain_id: int, funded: Iterable[bytes], timestamp: int) -> Any:
    """A py-evm chain that asks for no proof of work; Cancun is what the contract is compiled for."""

    class Chain(MiningChain):
        vm_configuration = ConsensusApplier(NoProofConsensus).amend_vm_configuration(((0, CancunVM),))

        def create_header_from_parent(self, parent_header: Any, **fields: Any) -> Any:
            """Keeps the gas limit where it is."""
            return super().create_header_from_parent(
                parent_header, **{**fields, "gas_limit": parent_header.gas_limit}
            )

    Chain.chain_id = chain_id
    parameters: dict[str, Any] = {
        "coinbase": _NO_ADDRESS,
        "difficulty": 0,
        "extra_data": LABEL.encode(),
        "gas_limit": _GAS_LIMIT,
        "mix_hash": bytes(32),
        "nonce": bytes(8),
        "timestamp": timestamp,
    }
    account = {"balance": FUNDS, "nonce": 0, "code": b"", "storage": {}}
    state: dict[Any, Any] = dict.fromkeys(funded, account)
    return Chain.from_genesis(AtomicDB(), parameters, state)


def _failure(computation: Any) -> ChainError:
    """A failed call as other nodes tell it: code 3 with the revert's data, and its reason in the message."""
    error = computation.error
    if not isinstance(error, Revert):
        return ChainError(-32000, f"execution failed: {type(error).__name__}")
    data = bytes(computation.output)
    length = int.from_bytes(data[36:68], "big")
    reason = data[68 : 68 + length].decode(errors="replace")
    return ChainError(3, f"execution reverted: {reason}" if reason else "execution reverted", to_hex(data))


def _alternatives(value: object) -> set[str]:
    """A filter's one value, list of values, or null for any; in lower case."""
    if value is None:
        return set()
    return {str(item).lower() for item in (value if isinstance(value, list) else [value])}


def _address(value: object) -> bytes:
    return b"" if value is None else to_bytes(value, 20)


def _is_hash(tag: object) -> bool:
    return isinstance(tag, str) and len(tag) == 66
