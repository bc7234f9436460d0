"""Chains as processes, the embedded one and anvil, and a small federation to record on them."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.calls import Call, Finalize
from folkmoot.ledger.evm import EvmLedger
from folkmoot.ledger.identity import Founding
from folkmoot.ledger.port import Ledger, PreparedTransaction, Receipt
from folkmoot.ledger.rpc import RpcClient
from folkmoot.protocol.charter import federation_id
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import Domain, keccak256, signing_digest, struct_hash
from folkmoot.testnet import anvil
from folkmoot.testnet.anvil import find_anvil

GAS_KEY = bytes(31) + b"\x07"
PAYER = AuditKey(GAS_KEY).address
CHARTER = keccak256(b"charter")
CHAIN_ID = 271_828
KEYS = sorted(
    (AuditKey(keccak256(b"attester %d" % index)) for index in range(4)), key=lambda key: key.address
)
FOUNDING = Founding(CHARTER, tuple(key.address for key in KEYS), lead=5)


class EmbeddedChain:
    """One `folkmoot.testnet.chain` process; `stop` waits for its exit."""

    def __init__(self, folder: Path, *options: str, chain_id: int = CHAIN_ID, payer: bytes = PAYER) -> None:
        address_file = folder / "chain.url"
        address_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "folkmoot.testnet.chain", "--address-file", str(address_file)]
        command += ["--chain-id", str(chain_id), "--fund", f"0x{payer.hex()}", *options]
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

    def mine(self, blocks: int = 1) -> None:
        """Nothing to do: what is in a block of this chain is final."""

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(timeout=10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


class AnvilChain:
    """One anvil; a block is final when two more stand on it. Skips the test where anvil is not installed."""

    def __init__(self, folder: Path, *options: str, chain_id: int = CHAIN_ID, payer: bytes = PAYER) -> None:
        require_anvil()
        self.child = anvil.start_anvil(folder / "anvil.log", chain_id, *options)
        self.url = anvil.await_anvil(self.child, folder / "anvil.log")
        self.rpc = RpcClient([self.url], 10.0)
        anvil.fund(self.url, [f"0x{payer.hex()}"])

    def mine(self, blocks: int = 1) -> None:
        """Put what is pending into a block, and more blocks on it."""
        self.rpc.call("anvil_mine", hex(blocks))

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.child.ref.signal(number)
        status = self.child.wait(10)
        assert status is not None
        return status


CHAINS = {"embedded": EmbeddedChain, "anvil": AnvilChain}


def require_anvil() -> None:
    """Skip the test where anvil is not installed; in continuous integration that is a failure."""
    if find_anvil() is None:
        if os.environ.get("CI") == "true":
            pytest.fail("anvil is not installed: scripts/test does it")
        pytest.skip("ANVIL IS NOT INSTALLED: scripts/test does it where there is npm")


def _python_path() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(__file__).parents[2] / ".typing")}


def statement(previous: bytes, round_: int, federation: bytes, salt: bytes = b"") -> Statement:
    names = (b"base", b"survivors", b"model", b"archive")
    fields = [keccak256(b"%d %s " % (round_, name) + salt) for name in names]
    return Statement(federation, round_, previous, CHARTER, *fields)


def sign_body(contract: bytes, body: object, keys: Sequence[AuditKey]) -> tuple[bytes, ...]:
    digest = signing_digest(Domain(CHAIN_ID, contract), body)
    return tuple(key.sign(digest) for key in keys)


def sign(contract: bytes, body: Statement, keys: Sequence[AuditKey]) -> Finalize:
    return Finalize(body, sign_body(contract, body, keys))


def execute(ledger: Ledger, call: Call) -> None:
    """Send a call, and wait until a block has it: anvil makes its blocks at once, but not before it answers."""
    prepared = ledger.prepare(call)
    ledger.send(prepared)
    assert await_receipt(ledger, prepared).succeeded


def await_receipt(ledger: Ledger, prepared: PreparedTransaction) -> Receipt:
    deadline = time.monotonic() + 10
    while (receipt := ledger.receipt(prepared.hash)) is None:
        assert time.monotonic() < deadline, "no block takes the transaction"
        time.sleep(0.01)
    return receipt


def record_rounds(ledger: EvmLedger, contract: bytes, count: int) -> list[Statement]:
    """Record `count` rounds on the head; returns their statements."""
    made = []
    head = ledger.head()
    previous = head.digest
    for round_ in range(head.height + 1, head.height + 1 + count):
        body = statement(previous, round_, federation_id(CHARTER, CHAIN_ID, contract))
        execute(ledger, sign(contract, body, KEYS[:3]))
        made.append(body)
        previous = struct_hash(body)
    return made
