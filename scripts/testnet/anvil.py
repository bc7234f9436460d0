"""anvil, a real Ethereum node for development, from npm: `scripts/test` puts it under `.tools/`.

The platform's own program is started, not npm's wrapper, so that its pid is the chain's.
"""

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from folkmoot.ledger.answers import to_int
from folkmoot.ledger.rpc import RpcClient
from folkmoot.testnet.processes import Child, TestnetError

VARIABLE = "FOLKMOOT_ANVIL"
"""Names the program, wherever it is."""

FUNDS = 10**21
"""Wei for each account: a thousand ether."""

_PACKAGES = Path(__file__).resolve().parents[2] / ".tools" / "node_modules" / "@foundry-rs"
_LISTENING = b"Listening on 127.0.0.1:"
_START_SECONDS = 30.0
_POLL_SECONDS = 0.02


def find_anvil() -> Path | None:
    """The program: what the variable names, else the checkout's, else that on the PATH; None if there is none."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    installed = sorted(_PACKAGES.glob("anvil-*/bin/anvil*"))
    if installed:
        return installed[0]
    found = shutil.which("anvil")
    return Path(found) if found else None


def start_anvil(log: Path, chain_id: int, *options: str) -> Child:
    """Start it on a free port of the loopback; raises `TestnetError` if it is not installed.

    Blocks are made for each transaction at once; a block is final when two more stand on it.
    """
    program = find_anvil()
    if program is None:
        raise TestnetError(
            "anvil is not installed: npm install --ignore-scripts --prefix .tools @foundry-rs/anvil@1.7.1, in the "
            f"checkout; or name the program with {VARIABLE}"
        )
    fixed = ("--host", "127.0.0.1", "--port", "0", "--chain-id", str(chain_id), "--accounts", "0")
    if log.exists():  # an earlier life's port must not be read
        log.replace(log.with_suffix(".old"))
    return Child.start("chain", [str(program), *fixed, "--slots-in-an-epoch", "1", *options], log)


def await_anvil(chain: Child, log: Path) -> str:
    """The URL at which it answers; raises `TestnetError` if it ends or takes too long."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        _, found, rest = log.read_bytes().partition(_LISTENING)
        if found and b"\n" in rest:
            return f"http://127.0.0.1:{int(rest.split()[0])}"
        if chain.poll() is not None:
            raise TestnetError(chain.why_it_ended())
        if time.monotonic() > deadline:
            raise TestnetError(f"chain: anvil is not ready after {_START_SECONDS:.0f} s: see {log}")
        time.sleep(_POLL_SECONDS)


def fund(url: str, addresses: Sequence[str]) -> None:
    """Give each account ether, out of nothing; one that has some keeps it."""
    rpc = RpcClient([url], _START_SECONDS)
    with rpc.usable_answers():
        for address in addresses:
            if to_int(rpc.call("eth_getBalance", address, "latest")) == 0:
                rpc.call("anvil_setBalance", address, hex(FUNDS))
