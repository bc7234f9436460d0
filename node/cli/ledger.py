"""`folkmoot ledger`: the federation's contract, put on a chain, looked at, and made known to a node."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from folkmoot.node.cli import Entry, LazyGroup
from folkmoot.node.config import Home, LedgerConfig, NodeConfig, load_config
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.toml import ConfigError, decode_toml, toml_value

if TYPE_CHECKING:
    from folkmoot.ledger.reader import LedgerReader
    from folkmoot.protocol.charter import Charter

_HERE = "folkmoot.node.cli.ledger"

ledger = LazyGroup(
    name="ledger",
    help="The federation's public record: its contract on an EVM chain.",
    table={
        "accept": Entry(
            "folkmoot.node.cli.ledger_accept:accept", "Go on after the chain undid what was final.", "node"
        ),
        "deploy": Entry(f"{_HERE}:deploy", "Put the contract of a signed charter on the chain."),
        "dev": Entry(
            "folkmoot.testnet.ledger_dev:dev", "Run a chain for development on this machine.", "testnet"
        ),
        "status": Entry(f"{_HERE}:status", "Show a contract and how far its record is."),
        "use": Entry(f"{_HERE}:use", "Check a deployed contract and write it into node.toml."),
    },
)

_HOME = click.Path(path_type=Path, exists=True, file_okay=False)


class LedgerError(FolkmootError):
    """The contract cannot be deployed or used like this; the message says what to do."""

    exit_code = 2


def _contract(ctx: click.Context, param: click.Parameter, text: str | None) -> bytes | None:
    if text is None:
        return None
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", text):
        raise click.BadParameter(f"{text!r} is not an address: 0x and 40 hex digits", ctx, param)
    return bytes.fromhex(text[2:])


def url(ctx: click.Context, param: click.Parameter, text: str | None) -> str | None:
    """Checks an option that is a URL."""
    if text is not None and not text.startswith(("http://", "https://")):
        raise click.BadParameter(f"{text!r} is not a URL like http://127.0.0.1:8545", ctx, param)
    return text


@click.command()
@click.option("--home", type=_HOME, required=True, help="Your node's home, with the signed charter.")
@click.option(
    "--rpc", metavar="URL", required=True, callback=url, help="JSON-RPC end point of the charter's chain."
)
def deploy(home: Path, rpc: str) -> None:
    """Put the contract on the chain, once for the whole federation.

    The charter must be signed by all members; the gas key of HOME pays. Writes RPC and contract into HOME's node.toml
    and prints what the other members run.
    """
    from folkmoot.ledger.development import check_secret_keys
    from folkmoot.ledger.evm import deploy as deploy_contract
    from folkmoot.ledger.identity import founding_of
    from folkmoot.node.charter_files import load_charter
    from folkmoot.node.keys import GAS, public_keys, unlock
    from folkmoot.node.passphrase import read_passphrase

    place = Home(home)
    charter = load_charter(place)
    known = _configured(place)
    if known is not None:
        raise LedgerError(
            f"{place.config}: names the contract {known.contract} already: remove it to deploy another"
        )
    payer = public_keys(place.keys).gas_key
    check_secret_keys(charter, payer)
    _check_chain(rpc, charter, payer)
    (gas_key,) = unlock([place.keys / GAS], read_passphrase(os.environ))
    done = deploy_contract([rpc], gas_key, founding_of(charter))
    address = f"0x{done.contract.hex()}"
    write_ledger(place, rpc, address)
    click.echo(f"contract {address} in block {done.block}, {done.gas_used} gas; written into {place.config}")
    click.echo(f"the other members: folkmoot ledger use --home HOME --rpc {rpc} --contract {address}")


@click.command()
@click.option("--home", type=_HOME, required=True, help="Your node's home, with the signed charter.")
@click.option(
    "--rpc", metavar="URL", required=True, callback=url, help="JSON-RPC end point of the charter's chain."
)
@click.option(
    "--contract", metavar="ADDRESS", required=True, callback=_contract, help="What the deployer printed."
)
def use(home: Path, rpc: str, contract: bytes) -> None:
    """Check that a contract is this charter's and write it into HOME's node.toml."""
    from folkmoot.ledger.identity import check_identity
    from folkmoot.node.charter_files import load_charter

    place = Home(home)
    check_identity(_reader(rpc, contract).identity(), load_charter(place))
    write_ledger(place, rpc, f"0x{contract.hex()}")
    click.echo(f"the contract fits the charter; written into {place.config}")


@click.command()
@click.option("--home", type=_HOME, help="A node's home: its chain and contract, compared with its charter.")
@click.option("--rpc", metavar="URL", callback=url, help="JSON-RPC end point, without a home.")
@click.option("--contract", metavar="ADDRESS", callback=_contract, help="The contract, without a home.")
def status(home: Path | None, rpc: str | None, contract: bytes | None) -> None:
    """Show which contract it is, who signs for it and how many rounds it holds."""
    from folkmoot.ledger.identity import check_identity
    from folkmoot.node.charter_files import load_charter

    if home is not None:
        config = load_config(Home(home)).ledger
        rpc, contract = rpc or config.rpc[0], contract or bytes.fromhex(config.contract[2:])
    if rpc is None or contract is None:
        raise click.UsageError("give --home, or --rpc and --contract")
    reader = _reader(rpc, contract)
    identity, head = reader.identity(), reader.head()
    click.echo(
        f"contract    0x{contract.hex()} on chain {identity.chain_id}, founded in block {identity.founded_at}"
    )
    click.echo(f"code        0x{identity.code_hash.hex()}, the one that ships with this release")
    click.echo(f"charter     {identity.charter_digest.hex()}")
    click.echo(f"attesters   {identity.quorum} of {len(identity.attesters)} have to sign each round")
    click.echo(
        f"rounds      {head.height} recorded, {head.finalized_height} of them final (block {head.block})"
    )
    click.echo(f"head        {head.digest.hex()}")
    if home is not None:
        check_identity(identity, load_charter(Home(home)))
        click.echo(f"            all as the charter in {home} says")


def _reader(rpc: str, contract: bytes) -> "LedgerReader":
    from folkmoot.ledger.reader import LedgerReader

    return LedgerReader([rpc], contract)


def _check_chain(rpc: str, charter: "Charter", payer: str) -> None:
    """Raise where a deployment could only fail: another chain than the charter's, or an account without ether."""
    from folkmoot.ledger.answers import to_int
    from folkmoot.ledger.rpc import RpcClient

    client = RpcClient([rpc], timeout=10.0)
    with client.usable_answers():
        chain_id = to_int(client.call("eth_chainId"))
        balance = to_int(client.call("eth_getBalance", payer, "latest"))
    if chain_id != charter.ledger.chain_id:
        raise LedgerError(
            f"{rpc} is chain {chain_id}, but the charter says {charter.ledger.chain_id}: give its RPC"
        )
    if balance == 0:
        raise LedgerError(f"{payer} (your gas key) has no ether on chain {chain_id}: fund it first")


# --- node.toml ----------------------------------------------------------------------------------------------------


def _configured(home: Home) -> LedgerConfig | None:
    """The ledger that node.toml names; None while its lines are still comments."""
    text = _read(home)
    if not re.search(r"(?m)^\s*\[ledger\]", text):
        return None
    return load_config(home).ledger


def write_ledger(home: Home, rpc: str, contract: str) -> None:
    """Fill in the `[ledger]` table of node.toml, and leave the rest of the file as it is."""
    text = set_ledger(_read(home), rpc, contract)
    decode_toml(text, NodeConfig, str(home.config))  # better an error now than at the next start
    partial = home.config.with_suffix(".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(home.config)


def set_ledger(text: str, rpc: str, contract: str) -> str:
    """node.toml's `text` with this `[ledger]` table, in the place of the one it has, be that a comment or not."""
    table = f"[ledger]\nrpc = {toml_value([rpc])}\ncontract = {toml_value(contract)}\n"
    found = re.search(r"(?m)^(# )?\[ledger\]\n(?:(?!\[)(?!# \[).*\n)*?(?=\n|\Z|\[)", text)
    if found is None:
        return text.rstrip("\n") + "\n\n" + table
    return text[: found.start()] + table + text[found.end() :]


def _read(home: Home) -> str:
    try:
        return home.config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{home.config}: cannot be read: {error}: run 'folkmoot init' first") from error
