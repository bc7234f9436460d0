"""The ledger: does it answer, is it the charter's, is there money, and does its clock agree."""

from collections.abc import Iterator

from folkmoot.ledger.answers import to_int
from folkmoot.ledger.development import DEVELOPMENT_CHAINS
from folkmoot.ledger.identity import check_identity
from folkmoot.ledger.reader import LedgerReader
from folkmoot.ledger.rpc import RpcClient, RpcError
from folkmoot.node.charters import load_timeline
from folkmoot.node.doctor.finding import Case, Finding, ok, problem, warning
from folkmoot.node.keys import folder_of, public_keys
from folkmoot.protocol.charter import quorum
from folkmoot.protocol.errors import FolkmootError

TIMEOUT_SECONDS = 5.0
FEW_ROUNDS = 100
"""With funds for fewer rounds than these the operator should think of it."""
SLOW_CLOCK_SECONDS = 5.0
"""No honest block is that far in the future."""


def check_ledger(case: Case) -> Iterator[Finding]:
    """All that depends on the chain; ends early where it does not answer."""
    config = case.config.ledger
    founding = load_timeline(case.home, ()).founding
    reader = LedgerReader(
        config.rpc,
        bytes.fromhex(config.contract[2:]),
        timeout=TIMEOUT_SECONDS,
        chain_id=founding.ledger.chain_id,
    )
    client = RpcClient(config.rpc, TIMEOUT_SECONDS)
    try:
        check_identity(reader.identity(), founding)
        head = reader.head()
        yield ok(
            "ledger",
            f"the charter's contract on chain {founding.ledger.chain_id}, {head.height} rounds recorded",
        )
        yield check_endpoints(reader, len(config.rpc))
        yield check_block_time(client, case.now, founding.ledger.chain_id)
        yield check_funds(client, case)
    except (FolkmootError, RpcError) as error:
        yield problem("ledger", str(error), "see ledger.rpc and ledger.contract in node.toml")


def check_endpoints(reader: LedgerReader, count: int) -> Finding:
    """Whether all RPC endpoints show the same history."""
    if count == 1:
        return warning("endpoints", "one RPC endpoint only", "add one of another operator to ledger.rpc")
    silent = reader.compare()
    if silent:
        return warning("endpoints", f"not compared: {'; '.join(silent)}", "replace those that do not answer")
    return ok("endpoints", f"{count} RPC endpoints agree")


def check_block_time(client: RpcClient, now: float, chain_id: int) -> Finding:
    """A block from the future means that this clock is slow. One from the past means nothing: the chain may be idle."""
    ahead = to_int(client.call("eth_getBlockByNumber", "latest", False)["timestamp"]) - now
    if ahead > SLOW_CLOCK_SECONDS and chain_id in DEVELOPMENT_CHAINS:
        why = "a development chain's goes ahead, a second with every block that it makes at once"
        return ok("chain's clock", f"the newest block is {ahead:.0f} s in the future: {why}")
    if ahead > SLOW_CLOCK_SECONDS:
        return warning(
            "chain's clock",
            f"the newest block is {ahead:.0f} s in the future",
            "set this machine's clock (NTP)",
        )
    return ok("chain's clock", f"the newest block is {max(0.0, -ahead):.0f} s old")


def check_funds(client: RpcClient, case: Case) -> Finding:
    """For how many rounds the gas key can pay, at the chain's price of now."""
    account = public_keys(folder_of(case.home.keys, case.member), case.home.keys).gas_key
    balance = to_int(client.call("eth_getBalance", account, "latest"))
    price = to_int(client.call("eth_gasPrice"))
    if not case.member.attester:
        return ok("funds", "no attester: others record the rounds")
    rounds = balance // max(1, price * round_gas(len(case.charter.attesters)))
    detail = f"{account} has {balance / 1e18:.6g}, enough for {min(rounds, 10**9):,} rounds"
    if rounds < FEW_ROUNDS:
        return warning(
            "funds", detail, f"send it some; fees above {case.config.ledger.max_fee_gwei:g} gwei wait"
        )
    return ok("funds", detail)


def round_gas(attesters: int) -> int:
    """About what recording one round takes (docs/ledger.md: 66 k at 3 signatures, 141 k at 14, 189 k at 21)."""
    return 45_000 + 6_900 * quorum(attesters)
