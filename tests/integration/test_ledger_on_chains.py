"""`EvmLedger` and the contract on real chains, the embedded one and anvil: real keys, real HTTP."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from real_chains import (
    CHAIN_ID,
    CHAINS,
    CHARTER,
    FOUNDING,
    GAS_KEY,
    KEYS,
    PAYER,
    AnvilChain,
    EmbeddedChain,
    await_receipt,
    execute,
    record_rounds,
    require_anvil,
    sign,
    sign_body,
    statement,
)

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.build import expected_code_hash
from folkmoot.ledger.calls import Amend, Attest, Call, Checkpoint, Finalize, Report
from folkmoot.ledger.errors import LedgerRejected, NonceUsed, WrongLedger
from folkmoot.ledger.evm import Deployment, EvmLedger, deploy
from folkmoot.ledger.identity import Founding
from folkmoot.ledger.memory import MemoryChain, MemoryLedger
from folkmoot.ledger.port import Ledger, LedgerHead, Record
from folkmoot.protocol.charter import federation_id
from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.governance import Amendment, Change, Role, encode_changes
from folkmoot.protocol.messages import Signed, Statement, Vote
from folkmoot.protocol.typed_data import Domain, keccak256, signing_digest, struct_hash
from folkmoot.testnet import chains
from folkmoot.testnet.home import TestnetHome

pytestmark = pytest.mark.integration

RealChain = EmbeddedChain | AnvilChain


@pytest.fixture(scope="module", params=CHAINS)
def chain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealChain]:
    process = CHAINS[request.param](tmp_path_factory.mktemp(request.param))
    yield process
    process.stop()


@pytest.fixture
def deployment(chain: RealChain) -> Deployment:
    return deploy([chain.url], GAS_KEY, FOUNDING)


@pytest.fixture
def ledger(chain: RealChain, deployment: Deployment) -> EvmLedger:
    return EvmLedger([chain.url], deployment.contract, GAS_KEY)


def test_three_rounds_are_recorded_and_read_back(
    chain: RealChain, ledger: EvmLedger, deployment: Deployment
) -> None:
    identity = ledger.identity()
    assert (identity.chain_id, identity.contract, identity.charter_digest) == (
        CHAIN_ID,
        deployment.contract,
        CHARTER,
    )
    assert identity.code_hash == expected_code_hash()
    assert identity.attesters == tuple(key.address for key in KEYS)
    assert identity.quorum == 3
    assert identity.founded_at == deployment.block
    assert (identity.lead, identity.members) == (FOUNDING.lead, FOUNDING.members)
    head = ledger.head()
    assert (head.height, head.finalized_height) == (0, 0)
    assert head.digest == federation_id(CHARTER, CHAIN_ID, deployment.contract)

    made = record_rounds(ledger, deployment.contract, 3)

    records = ledger.records(1)
    assert [record.statement for record in records] == made
    assert [record.digest for record in records] == [struct_hash(body) for body in made]
    assert all(record.signers == tuple(key.address for key in KEYS[:3]) for record in records)
    assert all(record.submitter == PAYER for record in records)
    assert ledger.records(2, 2) == records[1:2]
    chain.mine(2)
    head = ledger.head()
    assert (head.height, head.digest, head.finalized_height) == (3, records[-1].digest, 3)
    # Read again by an auditor who has no key: the same.
    assert EvmLedger([_url(ledger)], deployment.contract).records(1) == records


def test_refused_statements_name_the_rule(ledger: EvmLedger, deployment: Deployment) -> None:
    contract, federation = deployment.contract, federation_id(CHARTER, CHAIN_ID, deployment.contract)
    body = statement(federation, 1, federation)
    good = sign(contract, body, KEYS[:3]).signatures
    outsider = AuditKey(keccak256(b"outsider"))
    with_outsider = sorted([*KEYS[:2], outsider], key=lambda key: key.address)
    cases = {
        "round": (statement(federation, 2, federation), None),
        "previous": (statement(CHARTER, 1, federation), None),
        "federation": (statement(federation, 1, CHARTER), None),
        "quorum": (body, good[:2]),
        "order": (body, (good[1], good[0], good[2])),
        "attester": (body, sign(contract, body, with_outsider).signatures),
        "high s": (body, (_high_s(good[0]), *good[1:])),
    }
    for reason, (wrong, signatures) in cases.items():
        with pytest.raises(LedgerRejected) as caught:
            signed = sign(contract, wrong, KEYS[:3])
            ledger.prepare(Finalize(wrong, signatures) if signatures else signed)
        assert caught.value.reason == reason
        assert caught.value.stale == (reason in ("round", "previous"))
    other_domain = signing_digest(Domain(CHAIN_ID + 1, contract), body)
    with pytest.raises(LedgerRejected):
        ledger.prepare(Finalize(body, tuple(key.sign(other_domain) for key in KEYS[:3])))


def _high_s(signature: bytes) -> bytes:
    """s of 255 one bits: above half the order. (The high form of a real signature almost never fits 255 bits.)"""
    return signature[:32] + ((1 << 255) - 1).to_bytes(32, "big")


def test_sending_twice_is_no_error_and_a_lost_race_is_told(ledger: EvmLedger, deployment: Deployment) -> None:
    contract, federation = deployment.contract, federation_id(CHARTER, CHAIN_ID, deployment.contract)
    first, second = (statement(federation, 1, federation, salt) for salt in (b"x", b"y"))
    mine = ledger.prepare(sign(contract, first, KEYS[:3]))
    theirs = ledger.prepare(sign(contract, second, KEYS[1:]), nonce=mine.nonce + 1)
    ledger.send(mine)
    ledger.send(mine)
    ledger.send(theirs)
    assert await_receipt(ledger, mine).succeeded
    assert not await_receipt(ledger, theirs).succeeded
    replacement = msgspec.structs.replace(mine, raw=theirs.raw)
    ledger.send(replacement)  # known, whatever the caller calls it
    late = statement(struct_hash(first), 2, federation)
    with pytest.raises(NonceUsed):
        ledger.send(ledger.prepare(sign(contract, late, KEYS[:3]), nonce=mine.nonce))


def test_a_replacement_keeps_the_nonce_and_outbids(ledger: EvmLedger, deployment: Deployment) -> None:
    federation = federation_id(CHARTER, CHAIN_ID, deployment.contract)
    body = statement(federation, 1, federation)
    call = sign(deployment.contract, body, KEYS[:3])
    stuck = ledger.prepare(call)
    again = ledger.prepare(call, replaces=stuck)
    assert again.nonce == stuck.nonce
    assert again.max_fee * 8 >= stuck.max_fee * 9
    assert again.raw != stuck.raw


def test_no_contract_other_code_and_no_key(chain: RealChain, deployment: Deployment) -> None:
    with pytest.raises(WrongLedger, match="is empty"):
        EvmLedger([chain.url], b"\x01" * 20).head()
    body = statement(CHARTER, 1, CHARTER)
    with pytest.raises(WrongLedger, match="is empty"):
        EvmLedger([chain.url], b"\x01" * 20, GAS_KEY).prepare(Finalize(body, ()))
    with pytest.raises(LocalProtocolError, match="no gas key"):
        EvmLedger([chain.url], deployment.contract).prepare(Finalize(body, ()))
    poor = EvmLedger([chain.url], deployment.contract, b"\x09" * 32)
    federation = federation_id(CHARTER, CHAIN_ID, deployment.contract)
    body = statement(federation, 1, federation)
    with pytest.raises(LedgerRejected, match="insufficient funds"):
        poor.send(poor.prepare(sign(deployment.contract, body, KEYS[:3])))


def test_a_second_url_takes_over(chain: RealChain, deployment: Deployment) -> None:
    dead = "http://127.0.0.1:9"
    assert EvmLedger([dead, chain.url], deployment.contract).head().height == 0


def test_many_clients_at_once_see_one_chain(chain: RealChain, deployment: Deployment) -> None:
    failures: list[BaseException] = []

    def follow() -> None:
        try:
            ledger = EvmLedger([chain.url], deployment.contract)
            deadline = time.monotonic() + 20
            while ledger.head().height < 2:
                assert time.monotonic() < deadline
            assert [record.statement.round for record in ledger.records(1)] == [1, 2]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=follow) for _ in range(4)]
    for thread in threads:
        thread.start()
    record_rounds(EvmLedger([chain.url], deployment.contract, GAS_KEY), deployment.contract, 2)
    for thread in threads:
        thread.join(timeout=30)
    assert not failures


def _url(ledger: EvmLedger) -> str:
    return ledger._rpc.names


# --- every call, on every ledger ----------------------------------------------------------------------------------


def test_every_call_is_recorded_and_read_back(
    chain: RealChain, ledger: EvmLedger, deployment: Deployment
) -> None:
    """The ledger in memory plays the same calls: records, amendments and head are the same, but for the blocks."""
    memory = MemoryLedger(MemoryChain(ledger.identity()), PAYER)
    calls = list(_story(deployment.contract))
    for call in calls:
        for one in (ledger, memory):
            execute(one, call)
    assert _heads(ledger.head()) == _heads(memory.head())
    assert ledger.head().height == 8
    assert list(map(_same, ledger.records(1))) == list(map(_same, memory.records(1)))
    assert list(map(_same, ledger.amendments())) == list(map(_same, memory.amendments()))
    assert [record.digest != record.signed for record in ledger.records(1)] == [
        *[False] * 2,
        *[True] * 3,
        *[False] * 3,
    ]
    # An auditor who comes later and has no key reads the same.
    later = EvmLedger([_url(ledger)], deployment.contract)
    assert later.records(1) == ledger.records(1)
    assert later.amendments() == ledger.amendments()
    for call in calls:
        with pytest.raises(LedgerRejected):
            ledger.prepare(call)


def _story(contract: bytes) -> Iterator[Call]:
    """Two rounds, one of them attested one by one; an amendment; a checkpoint; the amended charter's first rounds."""
    federation = federation_id(CHARTER, CHAIN_ID, contract)
    bodies = list(_statements(federation))
    new = AuditKey(keccak256(b"new attester"))
    yield sign(contract, bodies[0], KEYS[1:])
    for key in KEYS[:3]:
        yield Attest(bodies[1], sign_body(contract, bodies[1], [key])[0])
    changes = encode_changes((Change(KEYS[3].address, Role.REMOVED), Change(new.address, Role.ATTESTER)))
    amendment = Amendment(federation, 1, federation, _AMENDED, keccak256(b"blob"), 5000, 8, changes)
    yield Amend(amendment, sign_body(contract, amendment, KEYS[:3]))
    yield Checkpoint(tuple(bodies[2:6]), sign_body(contract, bodies[5], KEYS[:3]))
    yield sign(contract, bodies[6], KEYS[1:])
    votes = [Vote(federation, 3, 0, bytes([one]) * 32) for one in (1, 2)]
    yield Report(*(Signed(0, vote, sign_body(contract, vote, KEYS[3:])[0]) for vote in votes))
    yield sign(contract, bodies[7], sorted([*KEYS[:2], new], key=lambda key: key.address))


_AMENDED = keccak256(b"amended charter")


def _statements(federation: bytes) -> Iterator[Statement]:
    previous = federation
    for round_ in range(1, 9):
        body = statement(previous, round_, federation)
        yield (body := msgspec.structs.replace(body, config=CHARTER if round_ < 8 else _AMENDED))
        previous = struct_hash(body)


def _heads(head: LedgerHead) -> tuple[object, ...]:
    return head.height, head.digest, head.config, head.amendments, head.governance


def _same(record: msgspec.Struct) -> msgspec.Struct:
    """A record without what is the chain's."""
    return msgspec.structs.replace(record, transaction=b"", block=0, block_hash=b"", gas_used=0)


def test_members_that_are_no_attesters_are_enrolled(chain: RealChain) -> None:
    others = tuple(sorted(keccak256(b"other %d" % one)[:20] for one in range(220)))
    founding = Founding(CHARTER, FOUNDING.attesters, 7, others)
    done = deploy([chain.url], GAS_KEY, founding)
    ledger = EvmLedger([chain.url], done.contract, GAS_KEY)
    assert ledger.identity() == msgspec.structs.replace(
        founding.identity(CHAIN_ID, done.contract, expected_code_hash()), founded_at=done.block
    )
    record_rounds(ledger, done.contract, 1)


def test_the_same_calls_give_the_same_head_on_every_chain(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Fresh chains of one id, so that the contract has one address; the two EVMs share no code."""
    heads = []
    for name, kind in CHAINS.items():
        chain = kind(tmp_path_factory.mktemp(name))
        try:
            contract = deploy([chain.url], GAS_KEY, FOUNDING).contract
            ledger: Ledger = EvmLedger([chain.url], contract, GAS_KEY)
            for call in _story(contract):
                execute(ledger, call)
            heads.append(_heads(ledger.head()))
        finally:
            chain.stop()
    assert heads[0] == heads[1]


def test_a_testnets_anvil_comes_back_with_its_blocks(tmp_path: Path) -> None:
    require_anvil()
    home, payer, made = TestnetHome(tmp_path), f"0x{PAYER.hex()}", list[Record]()
    for life in range(2):
        child = chains.start_chain(chains.ANVIL, home, [payer])
        try:
            url = chains.await_chain(chains.ANVIL, home, child, [payer])
            assert home.chain_url.read_text().strip() == url
            if life == 0:
                contract = deploy([url], GAS_KEY, FOUNDING).contract
            ledger = EvmLedger([url], contract, GAS_KEY)
            record_in(chains.DEFAULT_CHAIN_ID, ledger, contract)
            made.append(ledger.records(1)[life])
            assert ledger.records(1) == made
        finally:
            child.ref.terminate()
            assert child.wait(10) == 0


def record_in(chain_id: int, ledger: EvmLedger, contract: bytes) -> None:
    head = ledger.head()
    body = statement(head.digest, head.height + 1, federation_id(CHARTER, chain_id, contract))
    digest = signing_digest(Domain(chain_id, contract), body)
    execute(ledger, Finalize(body, tuple(key.sign(digest) for key in KEYS[:3])))
