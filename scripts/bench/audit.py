"""How long an audit from events takes: `.venv/bin/python scripts/bench/audit.py [ROUNDS] [ATTESTERS]`.

Records ROUNDS (1000) statements, each under a quorum of ATTESTERS (21: k = 14) signatures, on anvil (`scripts/test`
installs it), then audits the contract in a process of its own on one core, as `folkmoot audit --rpc` does, for all
rounds and for the first tenth: seconds, CPU seconds and the highest memory of each.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

from folkmoot.ledger.audit import audit
from folkmoot.ledger.audit.rpc_record import RpcRecord
from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.calls import Finalize
from folkmoot.ledger.evm import EvmLedger, deploy
from folkmoot.ledger.identity import Founding
from folkmoot.protocol.charter import federation_id, quorum
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import Domain, signing_digest, struct_hash
from folkmoot.testnet.anvil import await_anvil, fund, start_anvil

CHAIN_ID = 31_337
GAS_KEY = bytes(31) + b"\x09"
CHARTER = sha256(b"charter").digest()


def record(url: str, contract: bytes, keys: list[AuditKey], first: int, last: int, head: bytes) -> bytes:
    """Put rounds `first` to `last` on the contract, whose head is `head`; the new head."""
    ledger = EvmLedger([url], contract, GAS_KEY)
    domain, federation = Domain(CHAIN_ID, contract), federation_id(CHARTER, CHAIN_ID, contract)
    model = sha256(b"model %d" % (first - 1)).digest()
    for number in range(first, last + 1):
        base, model = model, sha256(b"model %d" % number).digest()
        statement = Statement(federation, number, head, CHARTER, base, sha256(base).digest(), model, CHARTER)
        digest = signing_digest(domain, statement)
        signed = sorted((key.address, key.sign(digest)) for key in keys[: quorum(len(keys))])
        prepared = ledger.prepare(Finalize(statement, tuple(signature for _, signature in signed)))
        ledger.send(prepared)
        while ledger.receipt(prepared.hash) is None:
            time.sleep(0.001)
        head = struct_hash(statement)
    return head


def measure(url: str, contract: bytes) -> None:
    """Audit once and print the figures as JSON; in a process of its own, on its first core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    began = time.monotonic()
    report = audit([RpcRecord(url, contract)], contract=contract, development=True).report
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "rounds": len(report.rounds),
        "status": report.status,
        "seconds": round(time.monotonic() - began, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "memory_mb": round(usage.ru_maxrss / 1024, 1),
    }
    print(json.dumps(figures))


def main(rounds: int, attesters: int) -> None:
    """Record, and measure on the way."""
    keys = sorted(
        (AuditKey(sha256(b"%d" % one).digest()) for one in range(attesters)), key=lambda key: key.address
    )
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "anvil.log"
        chain = start_anvil(log, CHAIN_ID)
        try:
            url = await_anvil(chain, log)
            fund(url, [f"0x{AuditKey(GAS_KEY).address.hex()}"])
            founding = Founding(CHARTER, tuple(key.address for key in keys), lead=50)
            contract = deploy([url], GAS_KEY, founding).contract
            head, done = federation_id(CHARTER, CHAIN_ID, contract), 0
            for until in (max(1, rounds // 10), rounds):
                head, done = record(url, contract, keys, done + 1, until, head), until
                subprocess.run([sys.executable, __file__, "--measure", url, contract.hex()], check=True)
        finally:
            chain.popen.terminate()
            chain.popen.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], bytes.fromhex(sys.argv[3]))
    else:
        given = [int(word) for word in sys.argv[1:]]
        main(*(given + [1000, 21][len(given) :]))
