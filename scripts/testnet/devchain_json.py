"""py-evm's objects as Ethereum JSON-RPC shows them (https://ethereum.github.io/execution-apis/)."""

from collections.abc import Sequence
from typing import Any

import rlp  # type: ignore[import-untyped]

from folkmoot.ledger.answers import to_hex


def block_json(block: Any, transactions: Sequence[str]) -> dict[str, Any]:
    """A block; every header field is there, so that its hash can be computed again."""
    header = block.header
    return {
        "number": hex(header.block_number),
        "hash": to_hex(header.hash),
        "parentHash": to_hex(header.parent_hash),
        "sha3Uncles": to_hex(header.uncles_hash),
        "miner": to_hex(header.coinbase),
        "stateRoot": to_hex(header.state_root),
        "transactionsRoot": to_hex(header.transaction_root),
        "receiptsRoot": to_hex(header.receipt_root),
        "logsBloom": f"0x{header.bloom:0512x}",
        "difficulty": hex(header.difficulty),
        "gasLimit": hex(header.gas_limit),
        "gasUsed": hex(header.gas_used),
        "timestamp": hex(header.timestamp),
        "extraData": to_hex(header.extra_data),
        "mixHash": to_hex(header.mix_hash),
        "nonce": to_hex(header.nonce),
        "baseFeePerGas": hex(header.base_fee_per_gas),
        "withdrawalsRoot": to_hex(header.withdrawals_root),
        "blobGasUsed": hex(header.blob_gas_used),
        "excessBlobGas": hex(header.excess_blob_gas),
        "parentBeaconBlockRoot": to_hex(header.parent_beacon_block_root),
        "size": hex(len(rlp.encode(block))),
        "transactions": list(transactions),
        "uncles": [],
        "withdrawals": [],
    }


def transaction_json(transaction: Any, place: dict[str, str], base_fee: int) -> dict[str, Any]:
    """A mined transaction, legacy or EIP-1559; `place` says in which block."""
    kind = getattr(transaction, "type_id", 0)
    shown: dict[str, Any] = {
        "blockNumber": place["blockNumber"],
        "blockHash": place["blockHash"],
        "transactionIndex": place["transactionIndex"],
        "hash": place["transactionHash"],
        "type": hex(kind),
        "from": to_hex(transaction.sender),
        "to": to_hex(transaction.to) if transaction.to else None,
        "nonce": hex(transaction.nonce),
        "gas": hex(transaction.gas),
        "gasPrice": hex(gas_price(transaction, base_fee)),
        "value": hex(transaction.value),
        "input": to_hex(transaction.data),
        "r": hex(transaction.r),
        "s": hex(transaction.s),
        "v": hex(transaction.y_parity if kind else transaction.v),
    }
    if kind:
        shown["chainId"] = hex(transaction.chain_id)
        shown["yParity"] = hex(transaction.y_parity)
        shown["accessList"] = [
            {"address": to_hex(address), "storageKeys": [f"0x{slot:064x}" for slot in slots]}
            for address, slots in transaction.access_list
        ]
    if kind == 2:
        shown["maxFeePerGas"] = hex(transaction.max_fee_per_gas)
        shown["maxPriorityFeePerGas"] = hex(transaction.max_priority_fee_per_gas)
    return shown


def receipt_json(
    transaction: Any,
    receipt: Any,
    place: dict[str, str],
    logs: Sequence[dict[str, Any]],
    created: bytes | None,
    base_fee: int,
) -> dict[str, Any]:
    """The receipt of the only transaction of a block; `created` is the address of the contract it deployed."""
    return {
        **place,
        "type": hex(getattr(transaction, "type_id", 0)),
        "from": to_hex(transaction.sender),
        "to": to_hex(transaction.to) if transaction.to else None,
        "contractAddress": to_hex(created) if created else None,
        "gasUsed": hex(receipt.gas_used),
        "cumulativeGasUsed": hex(receipt.gas_used),
        "effectiveGasPrice": hex(gas_price(transaction, base_fee)),
        "logs": list(logs),
        "logsBloom": f"0x{receipt.bloom:0512x}",
        "status": "0x1" if receipt.state_root == b"\x01" else "0x0",
    }


def log_json(log: Any, place: dict[str, str], index: int) -> dict[str, Any]:
    """An event."""
    return {
        **place,
        "address": to_hex(log.address),
        "topics": [f"0x{topic:064x}" for topic in log.topics],
        "data": to_hex(log.data),
        "logIndex": hex(index),
        "removed": False,
    }


def gas_price(transaction: Any, base_fee: int) -> int:
    """Wei that each gas of a mined transaction cost."""
    if getattr(transaction, "type_id", 0) != 2:
        return int(transaction.gas_price)
    return min(int(transaction.max_fee_per_gas), base_fee + int(transaction.max_priority_fee_per_gas))
