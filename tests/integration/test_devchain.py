"""The embedded chain as a process, the deployed contract and `EvmLedger`: real keys, real HTTP."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import urllib3

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.build import expected_code_hash
from folkmoot.ledger.calls import Finalize
from folkmoot.ledger.errors import LedgerRejected, LedgerUnavailable, NonceUsed, WrongLedger
from folkmoot.ledger.evm import Deployment, EvmLedger, deploy
from folkmoot.ledger.identity import Founding
from folkmoot.protocol.charter import federation_id
from folkmoot.protocol.errors import LocalProtocolError
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import Domain, keccak256, signing_digest, struct_hash

pytestmark = pytest.mark.integration

GAS_KEY = bytes(31) + b"\x07"
PAYER = AuditKey(GAS_KEY).address
CHARTER = keccak256(b"charter")
CHAIN_ID = 271_828
KEYS = sorted(
    (AuditKey(keccak256(b"attester %d" % index)) for index in range(4)), key=lambda key: key.address
)


FOUNDING = Founding(CHARTER, tuple(key.address for key in KEYS), lead=5)


class ChainProcess:
    """One `folkmoot.testnet.chain` process; `stop` waits for its exit."""

    def __init__(self, folder: Path, *options: str) -> None:
        address_file = folder / "chain.url"
        address_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "folkmoot.testnet.chain", "--address-file", str(address_file)]
        command += ["--chain-id", str(CHAIN_ID), "--fund", f"0x{PAYER.hex()}", *options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=os.environ | _python_path()
        )
        self.banner = self._first_line()
        self.url = address_file.read_text().strip()

    def _first_line(self) -> str:
        """The line that the chain prints once it answers."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 30)
        assert ready, "the chain did not start within 30 s"
        return self.process.stdout.readline()

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(timeout=10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


def _python_path() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(__file__).parents[2] / ".typing")}


def statement(previous: bytes, round_: int, federation: bytes, salt: bytes = b"") -> Statement:
    fields = [
        keccak256(b"%d %s " % (round_, name) + salt) for name in (b"base", b"survivors", b"model", b"a")
    ]
    return Statement(federation, round_, previous, CHARTER, *fields)


def sign(contract: bytes, body: Statement, keys: list[AuditKey]) -> Finalize:
    digest = signing_digest(Domain(CHAIN_ID, contract), body)
    return Finalize(body, tuple(key.sign(digest) for key in keys))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainProcess]:
    process = ChainProcess(tmp_path_factory.mktemp("chain"))
    yield process
    assert process.stop(signal.SIGINT) == 0


@pytest.fixture
def deployment(chain: ChainProcess) -> Deployment:
    return deploy([chain.url], GAS_KEY, FOUNDING)


@pytest.fixture
def ledger(chain: ChainProcess, deployment: Deployment) -> EvmLedger:
    return EvmLedger([chain.url], deployment.contract, GAS_KEY)


def record_rounds(ledger: EvmLedger, contract: bytes, count: int) -> list[Statement]:
    """Record `count` rounds on the head; returns their statements."""
    made = []
    head = ledger.head()
    previous = head.digest
    for round_ in range(head.height + 1, head.height + 1 + count):
        body = statement(previous, round_, federation_id(CHARTER, CHAIN_ID, contract))
        prepared = ledger.prepare(sign(contract, body, KEYS[:3]))
        ledger.send(prepared)
        receipt = ledger.receipt(prepared.hash)
        assert receipt is not None
        assert receipt.succeeded
        made.append(body)
        previous = struct_hash(body)
    return made


def test_the_chain_says_what_it_is(chain: ChainProcess) -> None:
    assert "development, not evidence" in chain.banner
    assert "development, not evidence" in str(rpc(chain.url, "web3_clientVersion")["result"])


def test_three_rounds_are_recorded_and_read_back(ledger: EvmLedger, deployment: Deployment) -> None:
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
    head = ledger.head()
    assert (head.height, head.digest, head.finalized_height) == (3, records[-1].digest, 3)
    # Read again by an auditor who has no key: the same.
    assert EvmLedger([_url(ledger)], deployment.contract).records(1) == records


def test_gas_of_a_round_with_three_signatures(ledger: EvmLedger, deployment: Deployment) -> None:
    record_rounds(ledger, deployment.contract, 3)
    gas = [record.gas_used for record in ledger.records(1)]
    print(f"gas: deployment {deployment.gas_used}, rounds {gas}")
    assert max(gas) <= 63_000  # the first round too: no slot goes from zero to non-zero


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
    receipt = ledger.receipt(theirs.hash)
    assert receipt is not None
    assert not receipt.succeeded
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


def test_no_contract_other_code_and_no_key(chain: ChainProcess, deployment: Deployment) -> None:
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


def test_a_dead_and_a_silent_rpc_are_unavailable(tmp_path: Path) -> None:
    chain = ChainProcess(tmp_path)
    deployed = deploy([chain.url], GAS_KEY, FOUNDING)
    ledger = EvmLedger([chain.url], deployed.contract, timeout=1.0)
    assert ledger.head().height == 0
    chain.process.send_signal(signal.SIGSTOP)
    with pytest.raises(LedgerUnavailable, match="no answer in time"):
        ledger.head()
    chain.process.send_signal(signal.SIGCONT)
    assert ledger.head().height == 0
    chain.process.kill()
    chain.process.wait(timeout=10)
    with pytest.raises(LedgerUnavailable, match=r"127\.0\.0\.1:\d+ does not answer") as caught:
        ledger.head()
    assert caught.value.exit_code == 5
    chain.stop()


def test_a_second_url_takes_over(chain: ChainProcess, deployment: Deployment) -> None:
    dead = "http://127.0.0.1:9"
    assert EvmLedger([dead, chain.url], deployment.contract).head().height == 0


def test_a_journalled_chain_comes_back_the_same(tmp_path: Path) -> None:
    options = ("--journal", str(tmp_path / "chain.sqlite"))
    chain = ChainProcess(tmp_path, *options)
    deployed = deploy([chain.url], GAS_KEY, FOUNDING)
    ledger = EvmLedger([chain.url], deployed.contract, GAS_KEY)
    record_rounds(ledger, deployed.contract, 2)
    before = ledger.records(1)
    chain.process.kill()
    chain.stop()
    chain = ChainProcess(tmp_path, *options)
    again = EvmLedger([chain.url], deployed.contract, GAS_KEY)
    assert again.records(1) == before
    record_rounds(again, deployed.contract, 1)
    assert again.head().height == 3
    assert chain.stop() == 0


def rpc(url: str, method: str, *params: object) -> dict[str, object]:
    return post(url, msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))


def post(url: str, body: bytes) -> dict[str, object]:
    reply = urllib3.request("POST", url, body=body, timeout=5)
    return msgspec.json.decode(reply.data, type=dict[str, object])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"\xff{", -32700),
        (b"[" * 100_000, -32700),
        (b"[]", -32600),
        (b"7", -32600),
        (b'{"id":1,"method":7}', -32600),
        (b'{"id":1,"method":"eth_mine"}', -32601),
        (b'{"id":1,"method":"eth_call"}', -32602),
        (b'{"id":1,"method":"eth_call","params":[7]}', -32602),
        (b'{"id":1,"method":"eth_call","params":[{"to":"0x01"}]}', -32602),
        (b'{"id":1,"method":"eth_getLogs","params":[{"fromBlock":"zz"}]}', -32602),
        (b'{"id":1,"method":"eth_sendRawTransaction","params":["0x02c0"]}', -32602),
        (b'{"id":1,"method":"eth_getBalance","params":["0x' + b"00" * 20 + b'","0xffff"]}', -32000),
    ],
)
def test_bad_requests_get_errors(chain: ChainProcess, body: bytes, code: int) -> None:
    answer = post(chain.url, body)
    assert answer["error"]["code"] == code  # type: ignore[index]
    assert rpc(chain.url, "eth_chainId")["result"] == hex(CHAIN_ID)


def test_many_clients_at_once_see_one_chain(chain: ChainProcess, deployment: Deployment) -> None:
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
