"""What a round costs: the figures of docs/ledger.md, on py-evm with Cancun's rules."""

from typing import Any

import pytest
from faulty_rpc import CHAIN_ID, GAS_KEY, START

from folkmoot.ledger import evm
from folkmoot.ledger.audit_key import AuditKey
from folkmoot.protocol.charter import federation_id, quorum
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import Domain, keccak256, signing_digest, struct_hash
from folkmoot.testnet.devchain import DevChain

DIGEST = keccak256(b"charter")


class Gas:
    """A chain that tells what each transaction used."""

    def __init__(self) -> None:
        self._payer = evm._web3().eth.account.from_key(GAS_KEY)
        self._chain = DevChain(CHAIN_ID, [bytes.fromhex(self._payer.address[2:])], START)
        self._nonce = 0

    def use(self, to: bytes | None, data: bytes) -> tuple[int, dict[str, Any]]:
        fields = {"chainId": CHAIN_ID, "nonce": self._nonce, "gas": 5_000_000, "data": data, "value": 0}
        fields |= {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 0} | ({"to": to} if to else {})
        self._nonce += 1
        raw = bytes(self._payer.sign_transaction(fields).raw_transaction)
        receipt = self._chain.receipt(self._chain.mine(raw, START + self._nonce))
        assert receipt is not None
        return int(receipt["gasUsed"], 16), receipt


@pytest.mark.parametrize(
    ("attesters", "deployment", "round_", "too_late"),
    [(4, 822_000, 62_000, 31_500), (20, 1_541_000, 135_000, 42_500), (31, 2_035_000, 181_500, 50_000)],
)
def test_gas(attesters: int, deployment: int, round_: int, too_late: int) -> None:
    keys = sorted((AuditKey(keccak256(b"%d" % one)) for one in range(attesters)), key=lambda key: key.address)
    gas = Gas()
    deployed, receipt = gas.use(None, evm._deploy_call(DIGEST, [key.address for key in keys]))
    contract = bytes.fromhex(receipt["contractAddress"][2:])
    federation = federation_id(DIGEST, CHAIN_ID, contract)
    previous, used = federation, []
    for number in (1, 2):
        fields = [keccak256(b"%d %d" % (number, field)) for field in range(5)]
        body = Statement(federation, number, previous, *fields)
        signed = signing_digest(Domain(CHAIN_ID, contract), body)
        call = evm._finalize_call(body, [key.sign(signed) for key in keys[: quorum(attesters)]])
        used.append(gas.use(contract, call)[0])
        previous = struct_hash(body)
    reverted, receipt = gas.use(contract, call)
    assert receipt["status"] == "0x0"
    print(
        f"{attesters} attesters, {quorum(attesters)} sign: deployment {deployed}, rounds {used}, too late {reverted}"
    )
    assert deployed <= deployment and max(used) <= round_ and reverted <= too_late
