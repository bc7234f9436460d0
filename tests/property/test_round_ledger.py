"""The contract against its rules, example by example: exact quorums, then one corruption at a time.

Random signer lists almost never come near a quorum and let real mutants live (`>=` for `>` in the order of signers);
so every example starts from a valid call and breaks one thing. `MemoryChain` judges the same calls: the same verdict.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boa
import pytest
from eth.exceptions import Revert
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.build import contract_build, expected_code_hash
from folkmoot.ledger.calls import Finalize
from folkmoot.ledger.errors import LedgerRejected
from folkmoot.ledger.identity import Founding
from folkmoot.ledger.memory import MemoryChain, MemoryLedger
from folkmoot.protocol.charter import federation_id, quorum
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import Domain, keccak256, signing_digest, struct_hash

SOURCE = Path(__file__).parents[2] / "ledger" / "contract" / "RoundLedger.vy"
KEYS = sorted((AuditKey(keccak256(b"key %d" % index)) for index in range(32)), key=lambda key: key.address)
OUTSIDER = KEYS.pop(15)
CHARTER = keccak256(b"charter")
LEAD = 5
ROUND_LEDGER = boa.load_partial(str(SOURCE))


@dataclass
class Deployed:
    """A deployment and the same ledger in memory."""

    contract: Any
    memory: MemoryChain
    keys: list[AuditKey]

    @property
    def domain(self) -> Domain:
        return Domain(self.memory.identity.chain_id, self.memory.identity.contract)

    def statement(self, **changes: Any) -> Statement:
        """One that continues the head, but for `changes`."""
        head = self.memory.head()
        round_ = changes.pop("round", head.height + 1)
        fields = [keccak256(b"%d %d" % (round_, field)) for field in range(4)]
        body = Statement(self.memory.federation, round_, head.digest, head.config, *fields)
        return Statement(**{name: changes.get(name, getattr(body, name)) for name in body.__struct_fields__})

    def sign(self, body: Statement, keys: list[AuditKey], domain: Domain | None = None) -> list[bytes]:
        return [key.sign(signing_digest(domain or self.domain, body)) for key in keys]

    def finalize(self, body: Statement, signatures: list[bytes]) -> str | None:
        """Call the contract; None if it took the statement, else the reason of its revert."""
        fields = tuple(getattr(body, name) for name in body.__struct_fields__)
        try:
            self.contract.finalize(fields, [(signature[:32], signature[32:]) for signature in signatures])
        except boa.BoaError as error:
            return str(error.stack_trace.last_frame.pretty_vm_reason).strip("'\"")
        return None

    def finalize_in_memory(self, body: Statement, signatures: list[bytes]) -> str | None:
        try:
            self.memory.check(Finalize(body, tuple(signatures)))
        except LedgerRejected as error:
            return error.reason
        return None


def deployed(attesters: int) -> Deployed:
    keys = KEYS[:attesters]
    contract = ROUND_LEDGER.deploy(CHARTER, ["0x" + key.address.hex() for key in keys], 0, LEAD)
    founding = Founding(CHARTER, tuple(key.address for key in keys), LEAD)
    address = bytes.fromhex(contract.address[2:])
    identity = founding.identity(boa.env.evm.patch.chain_id, address, expected_code_hash())
    return Deployed(contract, MemoryChain(identity), keys)


def expect(ledger: Deployed, body: Statement, signatures: list[bytes], reason: str | None) -> None:
    """Both ledgers say `reason`, and a refusal changes nothing."""
    before = (ledger.contract.head(), ledger.contract.height())
    assert ledger.finalize(body, signatures) == reason
    # In memory a signature with high s is one that nobody made, as for the contract any other broken one is.
    assert ledger.finalize_in_memory(body, signatures) == ("order" if reason == "high s" else reason)
    after = (ledger.contract.head(), ledger.contract.height())
    assert after == (before if reason else (struct_hash(body), body.round))


attester_counts = st.sampled_from([1, 2, 3, 4, 5, 6, 7, 10, 16, 31])


@settings(max_examples=150)
@given(st.data())
def test_one_corruption_is_always_refused(data: st.DataObject) -> None:
    with boa.env.anchor():
        ledger = deployed(data.draw(attester_counts))
        chosen = data.draw(st.permutations(ledger.keys))[: quorum(len(ledger.keys))]
        keys = sorted(chosen, key=lambda key: key.address)
        body = ledger.statement()
        good = ledger.sign(body, keys)
        at = data.draw(st.integers(0, len(keys) - 1))
        corruption = data.draw(st.sampled_from(sorted(CORRUPTIONS)))
        statement, signatures, reason = CORRUPTIONS[corruption](ledger, body, keys, good, at)
        expect(ledger, statement, signatures, reason)
        # The uncorrupted call still works: what was refused left nothing behind.
        expect(ledger, body, good, None)


Call = tuple[Statement, list[bytes], str]


def duplicate(ledger: Deployed, body: Statement, keys: list[AuditKey], good: list[bytes], at: int) -> Call:
    """One signature twice, in place of another (or on top, where one is a quorum)."""
    if len(good) == 1:
        return body, good * 2, "order"
    other = at + 1 if at + 1 < len(good) else at - 1
    copied = [*good]
    copied[other] = good[at]
    return body, copied, "order"


def outsider(ledger: Deployed, body: Statement, keys: list[AuditKey], good: list[bytes], at: int) -> Call:
    """A signer who is no attester, in the right place of the order."""
    mixed = sorted([*keys[:at], OUTSIDER, *keys[at + 1 :]], key=lambda key: key.address)
    return body, ledger.sign(body, mixed), "attester"


def short(ledger: Deployed, body: Statement, keys: list[AuditKey], good: list[bytes], at: int) -> Call:
    """One signature too few."""
    return body, good[:at] + good[at + 1 :], "quorum"


def swap(ledger: Deployed, body: Statement, keys: list[AuditKey], good: list[bytes], at: int) -> Call:
    """Two signatures in the wrong order."""
    if len(good) == 1:
        return duplicate(ledger, body, keys, good, at)
    other = at + 1 if at + 1 < len(good) else at - 1
    swapped = [*good]
    swapped[at], swapped[other] = good[other], good[at]
    return body, swapped, "order"


def high_s(ledger: Deployed, body: Statement, keys: list[AuditKey], good: list[bytes], at: int) -> Call:
    """The smallest s above half the curve's order."""
    s = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A1
    return body, [*good[:at], good[at][:32] + s.to_bytes(32, "big"), *good[at + 1 :]], "high s"


def zero(ledger: Deployed, body: Statement, keys: list[AuditKey], good: list[bytes], at: int) -> Call:
    """A signature of zeros, which recovers to no address."""
    return body, [*good[:at], bytes(64), *good[at + 1 :]], "order"


def stale(ledger: Deployed, body: Statement, keys: list[AuditKey], good: list[bytes], at: int) -> Call:
    wrong = ledger.statement(round=body.round - 1)
    return wrong, ledger.sign(wrong, keys), "round"


def early(ledger: Deployed, body: Statement, keys: list[AuditKey], good: list[bytes], at: int) -> Call:
    wrong = ledger.statement(round=body.round + 1)
    return wrong, ledger.sign(wrong, keys), "round"


def other_history(
    ledger: Deployed, body: Statement, keys: list[AuditKey], good: list[bytes], at: int
) -> Call:
    wrong = ledger.statement(previous=body.model)
    return wrong, ledger.sign(wrong, keys), "previous"


def other_federation(
    ledger: Deployed, body: Statement, keys: list[AuditKey], good: list[bytes], at: int
) -> Call:
    wrong = ledger.statement(federation=body.model)
    return wrong, ledger.sign(wrong, keys), "federation"


def other_config(ledger: Deployed, body: Statement, keys: list[AuditKey], good: list[bytes], at: int) -> Call:
    wrong = ledger.statement(config=body.model)
    return wrong, ledger.sign(wrong, keys), "config"


CORRUPTIONS = {
    corruption.__name__: corruption
    for corruption in (
        duplicate,
        outsider,
        short,
        swap,
        high_s,
        zero,
        stale,
        early,
        other_history,
        other_federation,
        other_config,
    )
}


@settings(max_examples=20)
@given(st.data())
def test_signatures_for_anything_else_do_not_count(data: st.DataObject) -> None:
    """Another chain, another contract, or one field changed after signing: the signers recovered are strangers."""
    with boa.env.anchor():
        ledger = deployed(data.draw(attester_counts))
        keys = ledger.keys[: quorum(len(ledger.keys))]
        body = ledger.statement()
        signed = body
        domain = ledger.domain
        what = data.draw(st.sampled_from(["chain", "contract", "base", "survivors", "model", "archive"]))
        if what == "chain":
            domain = Domain(domain.chain_id + 1, domain.contract)
        elif what == "contract":
            domain = Domain(domain.chain_id, bytes(20))
        else:
            signed = ledger.statement(**{what: keccak256(b"other")})
        signatures = ledger.sign(signed, keys, domain)
        reason = ledger.finalize(body, signatures)
        assert reason in ("order", "attester")
        assert ledger.finalize_in_memory(body, signatures) == reason


@settings(max_examples=15)
@given(st.data())
def test_every_quorum_or_more_is_taken_in_a_chain(data: st.DataObject) -> None:
    with boa.env.anchor():
        ledger = deployed(data.draw(attester_counts))
        for _ in range(3):
            count = data.draw(st.integers(quorum(len(ledger.keys)), len(ledger.keys)))
            chosen = data.draw(st.permutations(ledger.keys))[:count]
            body = ledger.statement()
            signatures = ledger.sign(body, sorted(chosen, key=lambda key: key.address))
            expect(ledger, body, signatures, None)
            account = MemoryLedger(ledger.memory, bytes(20))
            account.send(account.prepare(Finalize(body, tuple(signatures))))


@pytest.mark.parametrize("attesters", range(1, 32))
def test_quorum_and_identity_for_every_size(attesters: int) -> None:
    with boa.env.anchor():
        ledger = deployed(attesters)
        contract, identity = ledger.contract, ledger.memory.identity
        assert contract.quorum() == quorum(attesters)
        assert contract.charter_digest() == CHARTER
        assert [bytes.fromhex(address[2:]) for address in contract.attesters()] == list(identity.attesters)
        federation = federation_id(CHARTER, identity.chain_id, identity.contract)
        assert contract.federation() == contract.head() == federation == ledger.memory.federation
        assert contract.height() == 0
        assert contract.founded_at() == boa.env.evm.patch.block_number
        # Nothing of a deployment is in its code: one hash for all.
        assert keccak256(boa.env.get_code(contract.address)) == expected_code_hash()


@pytest.mark.parametrize(
    ("attesters", "reason"),
    [
        ([], "no attesters"),
        ([bytes(20)], "attesters not ascending"),
        ([KEYS[1].address, KEYS[0].address], "attesters not ascending"),
        ([KEYS[0].address, KEYS[0].address], "attesters not ascending"),
    ],
)
def test_the_constructor_takes_only_an_ascending_list(attesters: list[bytes], reason: str) -> None:
    with boa.reverts(reason):
        ROUND_LEDGER.deploy(CHARTER, ["0x" + address.hex() for address in attesters], 0, LEAD)


def test_thirty_two_attesters_are_too_many() -> None:
    data = contract_build().creation_code[2:] + _encoded([*KEYS, OUTSIDER])
    with pytest.raises(Revert):
        boa.env.deploy_code(bytecode=bytes.fromhex(data))


def _encoded(keys: list[AuditKey]) -> str:
    addresses = sorted(key.address for key in keys)
    words = [CHARTER, *(number.to_bytes(32, "big") for number in (128, 0, LEAD, len(addresses)))]
    return b"".join([*words, *(address.rjust(32, b"\0") for address in addresses)]).hex()


def test_the_event_holds_the_whole_statement() -> None:
    with boa.env.anchor():
        ledger = deployed(4)
        body = ledger.statement()
        assert ledger.finalize(body, ledger.sign(body, ledger.keys[:3])) is None
        (event,) = ledger.contract.get_logs()
        shown = {name: getattr(event, name) for name in body.__struct_fields__ if name != "federation"}
        assert shown == {name: getattr(body, name) for name in shown}
        assert event.digest == struct_hash(body)
        assert event.submitter == boa.env.eoa
