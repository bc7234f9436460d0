"""anvil while a block runs: what the embedded chain cannot do (state proofs, reorganisations)."""

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from real_chains import require_anvil

from folkmoot.ledger.rpc import RpcClient
from folkmoot.testnet.anvil import await_anvil, start_anvil


@contextmanager
def running_anvil(chain_id: int, *arguments: str) -> Iterator[str]:
    """Its URL while the block runs; skips the test where it is not installed (under CI=true: fails it)."""
    require_anvil()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "anvil.log"
        child = start_anvil(log, chain_id, *arguments)
        try:
            yield await_anvil(child, log)
        finally:
            child.popen.send_signal(signal.SIGTERM)
            child.popen.wait(timeout=20)


def call(url: str, method: str, *params: object) -> Any:
    """One JSON-RPC call."""
    return RpcClient([url], 20.0).call(method, *params)
