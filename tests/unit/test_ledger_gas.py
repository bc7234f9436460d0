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


def per_size(*figures: tuple[int, ...]) -> pytest.MarkDecorator:
    """For each of `SIZES` the most that each call may use."""
    return pytest.mark.parametrize(("attesters", "most"), list(zip(SIZES, figures, strict=True)))


def within(what: str, used: list[int], most: tuple[int, ...]) -> None:
    print(f"{what}: {' '.join(f'{one:,}' for one in used)}")
    assert all(one <= limit for one, limit in zip(used, most, strict=True)), (used, most)


@per_size(
    (3_050_000, 66_000, 66_000, 34_000),
    (3_780_000, 141_000, 141_000, 45_500),
    (4_280_000, 189_000, 189_000, 52_500),
)
def test_a_round(attesters: int, most: tuple[int, ...]) -> None:
    gas = Gas(attesters)
    first, second = (Finalize(body := gas.statement(), gas.sign(body)) for _ in range(2))
    used = [gas.deployment, gas.call(first), gas.call(second), gas.call(second, status="0x0")]
    within(f"{attesters} attesters: deployment, first round, second, one too late", used, most)


@per_size((76_000, 142_000, 324_000), (152_000, 218_000, 400_000), (200_000, 266_000, 448_000))
def test_a_checkpoint(attesters: int, most: tuple[int, ...]) -> None:
    gas = Gas(attesters)
    gas.call(Finalize(body := gas.statement(), gas.sign(body)))
    used = []
    for rounds in (2, 10, 32):
        statements = tuple(gas.statement() for _ in range(rounds))
        used.append(gas.call(Checkpoint(statements, gas.sign(statements[-1]))))
    within(f"{attesters} attesters: checkpoints of 2, 10 and 32 rounds", used, most)


@per_size((89_000, 72_000, 81_500), (89_000, 72_000, 81_500), (89_000, 72_000, 81_500))
def test_attesting_one_by_one(attesters: int, most: tuple[int, ...]) -> None:
    gas = Gas(attesters)
    body = gas.statement()
    used = [gas.call(Attest(body, signature)) for signature in gas.sign(body)]
    within(
        f"{attesters} attesters: the first attestation, the next, the last",
        [used[0], used[1], used[-1]],
        most,
    )


@per_size(
    (117_000, 138_000, 170_000, 91_000),
    (192_500, 213_500, 245_500, 167_000),
    (240_500, 261_500, 293_500, 215_000),
)
def test_an_amendment(attesters: int, most: tuple[int, ...]) -> None:
    gas = Gas(attesters)
    add = encode_changes((Change(b"\x99" * 20, Role.MEMBER),))
    rotate = encode_changes((Change(gas.keys[0].address, Role.REMOVED), Change(b"\x77" * 20, Role.ATTESTER)))
    previous, used = gas.federation, []
    for number, changes in enumerate(((), add, rotate), start=1):
        amendment = Amendment(
            gas.federation, number, previous, bytes([number]) * 32, bytes(32), 5000, 6, changes
        )
        used.append(gas.call(Amend(amendment, gas.sign(amendment))))
        previous = struct_hash(amendment)
    rounds = [gas.call(Finalize(body := gas.statement(), gas.sign(body))) for _ in range(5)]
    within(
        f"{attesters} attesters: amendments of terms, of a new member, of a key; the round before they hold",
        [*used, rounds[-1]],
        most,
    )


def test_a_report_and_an_enrolment() -> None:
    gas = Gas(4)
    votes = (Vote(gas.federation, 1, 0, bytes([one]) * 32) for one in (1, 2))
    used = [gas.call(Report(*(gas.say(0, vote) for vote in votes)))]
    gas = Gas(4, others=200)
    used += [
        gas.use(gas.contract, encode_enrolment(part))[0] for part in (gas.others[:100], gas.others[100:])
    ]
    within("a report, an enrolment of 100 members, of the other 100", used, (52_000, 2_370_000, 2_370_000))
