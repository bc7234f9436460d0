"""What calls of the contract cost: the figures of docs/ledger.md, on py-evm with Cancun's rules."""

from typing import Any

import pytest
from faulty_rpc import CHAIN_ID, GAS_KEY, START

from folkmoot.ledger import evm
from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.calldata import encode_call, encode_deployment, encode_enrolment
from folkmoot.ledger.calls import Amend, Attest, Checkpoint, Finalize, Report
from folkmoot.ledger.identity import Founding
from folkmoot.protocol.charter import federation_id, quorum
from folkmoot.protocol.governance import Amendment, Change, Role, encode_changes
from folkmoot.protocol.messages import Body, Signed, Statement, Vote
from folkmoot.protocol.typed_data import Domain, keccak256, signing_digest, struct_hash
from folkmoot.testnet.devchain import DevChain

CHARTER = keccak256(b"charter")
SIZES = (4, 20, 31)
"""Attesters: 3, 14 and 21 of them are a quorum."""


class Gas:
    """A federation on a chain that tells what each transaction used."""

    def __init__(self, attesters: int, others: int = 0) -> None:
        self.keys = sorted((AuditKey(keccak256(b"%d" % one)) for one in range(attesters)), key=_address)
        self.others = tuple(sorted(keccak256(b"other %d" % one)[:20] for one in range(others)))
        self._payer = evm._web3().eth.account.from_key(GAS_KEY)
        self._chain = DevChain(CHAIN_ID, [bytes.fromhex(self._payer.address[2:])], START)
        self._nonce = 0
        founding = Founding(CHARTER, tuple(map(_address, self.keys)), 5, self.others)
        self.deployment, receipt = self.use(None, encode_deployment(founding))
        self.contract = bytes.fromhex(receipt["contractAddress"][2:])
        self.federation = self.head = federation_id(CHARTER, CHAIN_ID, self.contract)
        self.round = 0

    def use(self, to: bytes | None, data: bytes, status: str = "0x1") -> tuple[int, dict[str, Any]]:
        fields = {"chainId": CHAIN_ID, "nonce": self._nonce, "gas": 15_000_000, "data": data, "value": 0}
        fields |= {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 0} | ({"to": to} if to else {})
        self._nonce += 1
        raw = bytes(self._payer.sign_transaction(fields).raw_transaction)
        receipt = self._chain.receipt(self._chain.mine(raw, START + self._nonce))
        assert receipt is not None
        assert receipt["status"] == status
        return int(receipt["gasUsed"], 16), receipt

    def call(self, call: Any, status: str = "0x1") -> int:
        return self.use(self.contract, encode_call(call), status)[0]

    def statement(self) -> Statement:
        """The next one, on the one before."""
        self.round += 1
        fields = [keccak256(b"%d %d" % (self.round, field)) for field in range(4)]
        body = Statement(self.federation, self.round, self.head, CHARTER, *fields)
        self.head = struct_hash(body)
        return body

    def sign(self, body: object) -> tuple[bytes, ...]:
        signed = signing_digest(Domain(CHAIN_ID, self.contract), body)
        return tuple(key.sign(signed) for key in self.keys[: quorum(len(self.keys))])

    def say(self, member: int, body: Body) -> Signed:
        return Signed(
            member, body, self.keys[member].sign(signing_digest(Domain(CHAIN_ID, self.contract), body))
        )


def _address(key: AuditKey) -> bytes:
    return key.address


@pytest.mark.parametrize(
    ("attesters", "deployment", "round_", "too_late"),
    [(4, 0, 85_000, 0), (20, 0, 150_000, 0), (31, 0, 200_000, 0)],
)
def test_a_round(attesters: int, deployment: int, round_: int, too_late: int) -> None:
    gas = Gas(attesters)
    calls = [Finalize(body := gas.statement(), gas.sign(body)) for _ in range(3)]
    used = [gas.call(call) for call in calls]
    late = gas.call(calls[-1], status="0x0")
    print(
        f"{attesters} attesters, {quorum(attesters)} sign: deployment {gas.deployment}, rounds {used}, too late {late}"
    )


@pytest.mark.parametrize("attesters", SIZES)
def test_a_checkpoint(attesters: int) -> None:
    gas = Gas(attesters)
    gas.call(Finalize(body := gas.statement(), gas.sign(body)))
    for rounds in (2, 10, 32):
        statements = tuple(gas.statement() for _ in range(rounds))
        used = gas.call(Checkpoint(statements, gas.sign(statements[-1])))
        print(f"{attesters} attesters: checkpoint of {rounds}: {used}, a round {used / rounds:.0f}")


@pytest.mark.parametrize("attesters", SIZES)
def test_attesting_one_by_one(attesters: int) -> None:
    gas = Gas(attesters)
    body = gas.statement()
    used = [gas.call(Attest(body, signature)) for signature in gas.sign(body)]
    print(f"{attesters} attesters: attest {used[0]}, {used[1]} ..., {used[-1]}; together {sum(used)}")


@pytest.mark.parametrize("attesters", SIZES)
def test_an_amendment(attesters: int) -> None:
    gas = Gas(attesters)
    add = encode_changes((Change(b"\x99" * 20, Role.MEMBER),))
    rotate = encode_changes((Change(gas.keys[0].address, Role.REMOVED), Change(b"\x77" * 20, Role.ATTESTER)))
    previous = gas.federation
    for number, changes in enumerate(((), add, rotate), start=1):
        amendment = Amendment(
            gas.federation, number, previous, bytes([number]) * 32, bytes(32), 5000, 6, changes
        )
        used = gas.call(Amend(amendment, gas.sign(amendment)))
        previous = struct_hash(amendment)
        print(f"{attesters} attesters: amendment of {len(changes)} changes: {used}")
    used_ = [gas.call(Finalize(body := gas.statement(), gas.sign(body))) for _ in range(5)]
    print(f"rounds {used_}: the fifth brings the amendments into force")


def test_a_report_and_an_enrolment() -> None:
    gas = Gas(4)
    votes = (Vote(gas.federation, 1, 0, bytes([one]) * 32) for one in (1, 2))
    print("report", gas.call(Report(*(gas.say(0, vote) for vote in votes))))
    gas = Gas(4, others=200)
    used = [gas.use(gas.contract, encode_enrolment(some))[0] for some in (gas.others[:100], gas.others[100:])]
    print(f"enrolment of 100: {used}")
