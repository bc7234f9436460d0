"""The chain that a testnet records on: the embedded one, started here, or a development node that runs elsewhere."""

import sys
import time
from collections.abc import Sequence

from folkmoot.ledger.answers import to_int
from folkmoot.ledger.errors import LedgerUnavailable
from folkmoot.ledger.rpc import RpcClient
from folkmoot.testnet.home import TestnetHome
from folkmoot.testnet.processes import Child, TestnetError

EMBEDDED = "embedded"
START_SECONDS = 60.0
FUNDS = 10**18
"""Wei for each node of an outside chain: one ether, thousands of rounds."""

_POLL_SECONDS = 0.02
_RPC_SECONDS = 10.0


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
