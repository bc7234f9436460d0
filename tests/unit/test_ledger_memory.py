"""The ledger in memory: the port's promises, and each fault doing what it says."""

import msgspec
import pytest

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.calls import Amend, Checkpoint, Finalize
from folkmoot.ledger.errors import LedgerRejected, LedgerUnavailable, NonceUsed
from folkmoot.ledger.memory import MemoryChain, MemoryLedger
from folkmoot.ledger.port import Ledger, LedgerIdentity, PreparedTransaction
from folkmoot.protocol.governance import Amendment, Change, Role, encode_changes
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import Domain, keccak256, signing_digest, struct_hash

KEYS = sorted((AuditKey(keccak256(b"key %d" % index)) for index in range(4)), key=lambda key: key.address)
IDENTITY = LedgerIdentity(
    chain_id=5,
    contract=b"\x11" * 20,
    code_hash=keccak256(b"code"),
    charter_digest=keccak256(b"charter"),
    attesters=tuple(key.address for key in KEYS),
    quorum=3,
    lead=5,
    members=bytes(32),
)
ALICE, BOB = b"\xaa" * 20, b"\xbb" * 20


def statement(chain: MemoryChain, salt: bytes = b"") -> Statement:
    head = chain.head()
    fields = [keccak256(b"%d" % field + salt) for field in range(4)]
    return Statement(chain.federation, head.height + 1, head.digest, head.config, *fields)


def sign(body: Statement, keys: list[AuditKey] = KEYS[:3]) -> Finalize:
    domain = Domain(IDENTITY.chain_id, IDENTITY.contract)
    return Finalize(body, tuple(key.sign(signing_digest(domain, body)) for key in keys))


def prepare(ledger: MemoryLedger, chain: MemoryChain, salt: bytes = b"") -> PreparedTransaction:
    body = statement(chain, salt)
    return ledger.prepare(sign(body))


def record(ledger: MemoryLedger, chain: MemoryChain, rounds: int = 1) -> None:
    for _ in range(rounds):
        ledger.send(prepare(ledger, chain))


def test_it_is_a_ledger() -> None:
    ledger: Ledger = MemoryLedger(MemoryChain(IDENTITY), ALICE)
    assert ledger.identity() == IDENTITY
    assert ledger.head().height == 0
    assert ledger.records(1) == []


def test_rounds_are_recorded_and_read_back() -> None:
    chain = MemoryChain(IDENTITY)
    ledger = MemoryLedger(chain, ALICE)
    record(ledger, chain, 3)
    records = ledger.records(1)
    assert [entry.statement.round for entry in records] == [1, 2, 3]
    assert [entry.statement.previous for entry in records[1:]] == [entry.digest for entry in records[:-1]]
    assert records[0].digest == struct_hash(records[0].statement)
    assert records[0].signers == tuple(key.address for key in KEYS[:3])
    assert ledger.records(2) == records[1:]
    assert ledger.records(2, 2) == records[1:2]
    head = ledger.head()
    assert (head.height, head.digest, head.finalized_height) == (3, records[-1].digest, 3)
    receipt = ledger.receipt(records[1].transaction)
    assert receipt is not None
    assert (receipt.block, receipt.succeeded) == (2, True)


def test_two_submitters_race_and_one_reverts() -> None:
    chain = MemoryChain(IDENTITY)
    alice, bob = MemoryLedger(chain, ALICE), MemoryLedger(chain, BOB)
    first, second = prepare(alice, chain), prepare(bob, chain, b"other")
    alice.send(first)
    bob.send(second)
    receipt = bob.receipt(second.hash)
    assert receipt is not None
    assert not receipt.succeeded
    assert [entry.submitter for entry in alice.records(1)] == [ALICE]
    with pytest.raises(LedgerRejected) as caught:
        bob.prepare(sign(alice.records(1)[0].statement))
    assert caught.value.stale


def test_sending_again_is_no_error_but_a_used_nonce_is() -> None:
    chain = MemoryChain(IDENTITY)
    ledger = MemoryLedger(chain, ALICE)
    first = prepare(ledger, chain)
    ledger.send(first)
    ledger.send(first)
    assert ledger.head().height == 1
    body = statement(chain)
    with pytest.raises(NonceUsed):
        ledger.send(ledger.prepare(sign(body), nonce=first.nonce))


def test_a_replacement_must_outbid() -> None:
    chain = MemoryChain(IDENTITY, automine=False)
    ledger = MemoryLedger(chain, ALICE)
    body = statement(chain)
    stuck = ledger.prepare(sign(body))
    ledger.send(stuck)
    same_price = ledger.prepare(sign(body, KEYS[1:]), nonce=stuck.nonce)
    with pytest.raises(LedgerRejected, match="underpriced"):
        ledger.send(same_price)
    better = ledger.prepare(sign(body), replaces=stuck)
    assert better.nonce == stuck.nonce
    ledger.send(better)
    chain.mine()
    assert ledger.receipt(stuck.hash) is None
    assert ledger.receipt(better.hash) is not None


def test_a_nonce_gap_waits() -> None:
    chain = MemoryChain(IDENTITY)
    ledger = MemoryLedger(chain, ALICE)
    body = statement(chain)
    late = ledger.prepare(sign(body), nonce=1)
    ledger.send(late)
    assert ledger.receipt(late.hash) is None
    ledger.send(ledger.prepare(sign(body), nonce=0))
    chain.mine()
    receipt = ledger.receipt(late.hash)
    assert receipt is not None
    assert not receipt.succeeded


def test_a_reorganisation_takes_records_back_for_good() -> None:
    chain = MemoryChain(IDENTITY, finality=2)
    ledger = MemoryLedger(chain, ALICE)
    record(ledger, chain, 4)
    head = ledger.head()
    assert (head.height, head.finalized_height) == (4, 2)
    before = ledger.records(1)
    chain.reorg(2)
    after = ledger.head()
    assert (after.height, after.block) == (2, head.block)
    assert after.digest == before[1].digest
    assert ledger.records(1) == before[:2]
    assert ledger.receipt(before[3].transaction) is None
    # The lost transaction can be sent again, the same bytes, once its nonce is next.
    record(ledger, chain)
    assert ledger.head().height == 3
    with pytest.raises(ValueError, match="cannot replace"):
        chain.reorg(100)


def test_block_hashes_differ_after_a_reorganisation() -> None:
    chain = MemoryChain(IDENTITY)
    ledger = MemoryLedger(chain, ALICE)
    first = prepare(ledger, chain)
    ledger.send(first)
    before = ledger.receipt(first.hash)
    chain.reorg(1)
    ledger.send(first)
    after = ledger.receipt(first.hash)
    assert before is not None
    assert after is not None
    assert (after.block, before.block) == (2, 1)
    assert before.block_hash != after.block_hash


def test_faults() -> None:
    chain = MemoryChain(IDENTITY)
    ledger = MemoryLedger(chain, ALICE)
    ready = prepare(ledger, chain)
    ledger.down = True
    for call in (ledger.identity, ledger.head, lambda: ledger.records(1), lambda: ledger.send(ready)):
        with pytest.raises(LedgerUnavailable):
            call()
    ledger.down = False
    ledger.fail_next = 1
    with pytest.raises(LedgerUnavailable):
        ledger.send(ready)
    assert ledger.head().height == 0
    # The error that is a success: it was sent, and only the answer got lost.
    ledger.lose_replies = 1
    with pytest.raises(LedgerUnavailable):
        ledger.send(ready)
    assert ledger.receipt(ready.hash) is not None
    ledger.send(ready)
    assert ledger.head().height == 1


def test_a_simulation_may_inject_cheap_signatures() -> None:
    chain = MemoryChain(IDENTITY, lambda body, signature: signature[:20])
    ledger = MemoryLedger(chain, ALICE)
    body = statement(chain)
    ledger.send(ledger.prepare(Finalize(body, tuple(key.address + bytes(44) for key in KEYS[:3]))))
    assert ledger.records(1)[0].signers == tuple(key.address for key in KEYS[:3])
    with pytest.raises(LedgerRejected, match="attester"):
        second = sign(statement(chain))
        ledger.prepare(Finalize(second.statement, (b"\x01" * 64, *second.signatures[:2])))


def test_amendments_come_into_force_and_are_undone_with_their_blocks() -> None:
    chain = MemoryChain(IDENTITY, others=(b"\x77" * 20,), finality=3)
    ledger = MemoryLedger(chain, ALICE)
    record(ledger, chain)
    changes = (Change(KEYS[3].address, Role.REMOVED), Change(b"\x77" * 20, Role.ATTESTER))
    amendment = Amendment(
        chain.federation, 1, chain.federation, bytes(32), bytes(32), 5000, 7, encode_changes(changes)
    )
    domain = Domain(IDENTITY.chain_id, IDENTITY.contract)
    call = Amend(amendment, tuple(key.sign(signing_digest(domain, amendment)) for key in KEYS[1:]))
    ledger.send(ledger.prepare(call))
    (found,) = ledger.amendments()
    assert (found.amendment, found.digest, found.submitter) == (amendment, struct_hash(amendment), ALICE)
    assert found.signers == tuple(key.address for key in KEYS[1:])
    head = ledger.head()
    assert (head.height, head.amendments, head.governance) == (1, 1, found.digest)
    assert head.config == IDENTITY.charter_digest
    chain.reorg(1)
    assert ledger.amendments() == []
    assert ledger.head().governance == chain.federation
    ledger.send(ledger.prepare(call))
    record(ledger, chain, 5)
    assert (ledger.head().height, ledger.head().config) == (6, bytes(32))
    body = statement(chain)
    with pytest.raises(LedgerRejected, match="attester"):
        ledger.prepare(sign(body, KEYS[1:]))
    record(ledger, chain)


def test_a_checkpoint_is_read_as_records_that_share_their_signatures() -> None:
    chain = MemoryChain(IDENTITY)
    ledger = MemoryLedger(chain, ALICE)
    first = statement(chain)
    second = msgspec.structs.replace(first, round=2, previous=struct_hash(first))
    ledger.send(ledger.prepare(Checkpoint((first, second), sign(second).signatures)))
    records = ledger.records(1)
    assert [record.statement for record in records] == [first, second]
    assert {record.signed for record in records} == {struct_hash(second)}
    assert len({record.transaction for record in records}) == 1
