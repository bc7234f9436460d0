"""The chain that a testnet records on: the embedded one or anvil, started here, or a node that runs elsewhere."""

import sys
import time
from collections.abc import Sequence

from folkmoot.ledger.answers import to_int
from folkmoot.ledger.errors import LedgerUnavailable
from folkmoot.ledger.rpc import RpcClient
from folkmoot.testnet import anvil
from folkmoot.testnet.home import TestnetHome
from folkmoot.testnet.processes import Child, TestnetError

EMBEDDED = "embedded"
ANVIL = "anvil"
STARTED_HERE = (EMBEDDED, ANVIL)
DEFAULT_CHAIN_ID = int.from_bytes(b"folk", "big")
START_SECONDS = 60.0
FUNDS = 10**18
"""Wei for each node of an outside chain: one ether, thousands of rounds."""

_POLL_SECONDS = 0.02
_RPC_SECONDS = 10.0


def start_chain(kind: str, home: TestnetHome, funded: Sequence[str]) -> Child:
    """Start a chain of one of the kinds `STARTED_HERE`, or start it again; `await_chain` says where it answers."""
    return _start_anvil(home) if kind == ANVIL else start_embedded(home, funded)


def await_chain(kind: str, home: TestnetHome, chain: Child, funded: Sequence[str]) -> str:
    """The chain's URL, once it answers, and `funded` have ether; raises `TestnetError` if it ends or takes too long."""
    if kind != ANVIL:
        return await_url(home, chain)
    url = anvil.await_anvil(chain, home.logs / "chain.log")
    anvil.fund(url, funded)
    home.chain_url.write_text(url + "\n", encoding="ascii")
    return url


def _start_anvil(home: TestnetHome) -> Child:
    """Its state is written every second, so that the chain outlives even a kill but for its last second."""
    home.chain.mkdir(parents=True, exist_ok=True)
    kept = ("--state", str(home.chain / "anvil.json"), "--state-interval", "1")
    # A block for each transaction, and one each second so that they become final.
    mining = ("--block-time", "1", "--mixed-mining", "--preserve-historical-states")
    return anvil.start_anvil(home.logs / "chain.log", DEFAULT_CHAIN_ID, *kept, *mining)


def start_embedded(home: TestnetHome, funded: Sequence[str]) -> Child:
    """Start the embedded chain, or start it again with all its blocks; `await_url` says where it answers.

    `funded`: addresses (0x-hex) with ether from the first block on; they must be the same at every start.
    """
    home.chain.mkdir(parents=True, exist_ok=True)
    home.chain_url.unlink(missing_ok=True)
    files = ["--address-file", str(home.chain_url), "--journal", str(home.chain / "journal.sqlite")]
    accounts = [word for address in funded for word in ("--fund", address)]
    command = [sys.executable, "-m", "folkmoot.testnet.chain", *files, *accounts]
    return Child.start("chain", command, home.logs / "chain.log")


def await_url(home: TestnetHome, chain: Child) -> str:
    """The embedded chain's URL, once it answers; raises `TestnetError` if it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while not home.chain_url.exists():
        if chain.poll() is not None:
            raise TestnetError(chain.why_it_ended())
        if time.monotonic() > deadline:
            raise TestnetError(f"chain: not ready after {START_SECONDS:.0f} s: see {chain.ref.log}")
        time.sleep(_POLL_SECONDS)
    return home.chain_url.read_text(encoding="ascii").strip()


def read_chain_id(url: str) -> int:
    """The EIP-155 id of the chain at `url`; raises `LedgerUnavailable`."""
    rpc = RpcClient([url], _RPC_SECONDS)
    with rpc.usable_answers():
        return to_int(rpc.call("eth_chainId"))


def fund(url: str, addresses: Sequence[str]) -> None:
    """Give each account ether from the first account that the node at `url` has unlocked (as anvil's are).

    Raises `TestnetError` if it has none: a testnet has no money of its own.
    """
    rpc = RpcClient([url], _RPC_SECONDS)
    with rpc.usable_answers():
        accounts = rpc.call("eth_accounts")
        if not accounts:
            raise TestnetError(
                f"the chain at {rpc.names} has no unlocked account to fund the nodes from: use a development node "
                "such as anvil, or leave out --chain"
            )
        for address in addresses:
            rpc.call("eth_sendTransaction", {"from": accounts[0], "to": address, "value": hex(FUNDS)})
        _await_funds(rpc, addresses)


def _await_funds(rpc: RpcClient, addresses: Sequence[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while any(to_int(rpc.call("eth_getBalance", address, "latest")) < FUNDS for address in addresses):
        if time.monotonic() > deadline:
            raise LedgerUnavailable(
                f"the chain at {rpc.names} puts no transactions into blocks: is it mining?"
            )
        time.sleep(_POLL_SECONDS)
