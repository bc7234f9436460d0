"""The auditor's commands: `folkmoot audit`, and `folkmoot audit dispute` for single updates under a permit."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from folkmoot.ledger.audit import (
    AuditReport,
    Check,
    SignedCharter,
    Source,
    Status,
    load_signed_charter,
    run_audit,
)
from folkmoot.ledger.errors import LedgerUnavailable
from folkmoot.ledger.reader import LedgerReader
from folkmoot.ledger.rpc import RpcClient, RpcError

if TYPE_CHECKING:
    from rich.table import Table

    from folkmoot.ledger.audit.dispute import DisputeReport

_DEVELOPMENT = ("folkmoot-embedded", "eth-tester", "ethereumtester", "anvil", "hardhat", "ganache")
"""How clients whose owner can rewrite the chain name themselves (`web3_clientVersion`)."""

_STYLES = {
    Status.PASS: "green",
    Status.SKIPPED: "dim",
    Status.INCONCLUSIVE: "yellow",
    Status.UNREACHABLE: "yellow",
    Status.FAIL: "bold red",
    Status.MISBEHAVIOUR: "bold red",
}

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _address(ctx: click.Context, param: click.Parameter, text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        address = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        address = b""
    if len(address) != 20:
        raise click.BadParameter(f"{text!r} is not an address: 0x and 40 hex digits", ctx, param)
    return address


def _urls(ctx: click.Context, param: click.Parameter, urls: tuple[str, ...]) -> tuple[str, ...]:
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise click.BadParameter(f"{url!r} is not a URL like http://127.0.0.1:8545", ctx, param)
    return urls


_CONTRACT = click.option(
    "--contract", metavar="ADDRESS", callback=_address, help="The federation's contract.  [required]"
)
_HOMES = click.option(
    "--home",
    "homes",
    metavar="HOME",
    type=_FOLDER,
    multiple=True,
    help="A node's home: its archive, charter and keys. May be repeated.",
)
_ARCHIVES = click.option(
    "--archive",
    "archives",
    metavar="DIR",
    type=_FOLDER,
    multiple=True,
    help="An archive that you were given. May be repeated.",
)
_CHARTER = click.option(
    "--charter",
    "charter_file",
    metavar="FILE",
    type=_FILE,
    help="charter.toml, with charter.sig/ beside it; without it, a home's.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")


@click.group(invoke_without_command=True)
@click.option(
    "--rpc",
    "rpcs",
    metavar="URL",
    multiple=True,
    callback=_urls,
    help="JSON-RPC end point of the chain; give several and they are compared.  [required]",
)
@_CONTRACT
@_HOMES
@_ARCHIVES
@_CHARTER
@click.option(
    "--first-block",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="Block of the contract's deployment: older ones are not searched.",
)
@_JSON
@click.pass_context
def audit(
    ctx: click.Context,
    rpcs: tuple[str, ...],
    contract: bytes | None,
    homes: tuple[Path, ...],
    archives: tuple[Path, ...],
    charter_file: Path | None,
    first_block: int,
    as_json: bool,
) -> None:
    """Check a federation's rounds from the ledger and archives.

    The ledger alone shows an unbroken, signed record. With the charter and archives every round is checked down to its
    payloads; with a home (in open mode, with its keys) aggregation is replayed to the same model.

    \b
    Exit codes:
      0  pass           every check that was asked for holds
      1  fail           a check does not hold
      2  usage          the command or the charter file is wrong
      3  inconclusive   something is missing, or not yet final
      4  misbehaviour   a member's own signatures convict it
      5  unreachable    the ledger does not answer
    """
    if ctx.invoked_subcommand is not None:
        return
    if not rpcs or contract is None:
        raise click.UsageError(f"missing option '{'--contract' if rpcs else '--rpc'}'")
    charter: SignedCharter | None = load_signed_charter(charter_file) if charter_file else None
    sources = [*map(Source.of_home, homes), *map(Source, archives)]
    ledger, *others = (LedgerReader([url], contract, first_block=first_block) for url in rpcs)
    report = run_audit(
        ledger,
        sources,
        contract=contract,
        charter=charter,
        others=others,
        development=any(map(_is_development, rpcs)),
    )
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        _print_table(report)
    ctx.exit(report.exit_code)


@audit.command()
@click.option(
    "--permit",
    "permit_file",
    metavar="FILE",
    type=_FILE,
    required=True,
    help="permit.toml, with permit.sig/ beside it.",
)
@click.option(
    "--answers",
    "answer_files",
    metavar="FILE",
    type=_FILE,
    multiple=True,
    help="A member's answer to the permit; one for each survivor.",
)
@_CONTRACT
@_HOMES
@_ARCHIVES
@_CHARTER
@_JSON
@click.pass_context
def dispute(
    ctx: click.Context,
    permit_file: Path,
    answer_files: tuple[Path, ...],
    contract: bytes | None,
    homes: tuple[Path, ...],
    archives: tuple[Path, ...],
    charter_file: Path | None,
    as_json: bool,
) -> None:
    """Open single updates of a round in secure mode, under a permit that a quorum of the members signed.

    Tells weight and size of every update that the permit names, and whether its member was honest about it. Your key,
    which the permit names, lies in keys/sealing.key of a home. Exit codes are those of 'folkmoot audit'.
    """
    from folkmoot.ledger.audit.dispute import load_federation, run_dispute
    from folkmoot.ledger.audit.replay import sealing_secrets
    from folkmoot.ledger.permit_files import load_permit

    if contract is None:
        raise click.UsageError("missing option '--contract'")
    sources = [*map(Source.of_home, homes), *map(Source, archives)]
    federation = load_federation(charter_file, sources, contract)
    answers = {str(path): _read_answer(path) for path in answer_files}
    secrets = sealing_secrets(sources)
    report = run_dispute(federation, contract, load_permit(permit_file), answers, sources, secrets)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        _print_dispute(report)
    ctx.exit(report.exit_code)


def _read_answer(path: Path) -> bytes:
    from folkmoot.protocol.secure.permit import MAX_ANSWER

    with path.open("rb") as file:
        return file.read(MAX_ANSWER + 1)


def _is_development(url: str) -> bool:
    """Whether the chain says that it is one for development; what does not answer says nothing."""
    try:
        version = str(RpcClient([url], timeout=10.0).call("web3_clientVersion"))
    except (LedgerUnavailable, RpcError):
        return False
    return version.lower().startswith(_DEVELOPMENT)


def _print_table(report: AuditReport) -> None:
    from rich.console import Console  # 0.1 s, and `--json` needs none of it
    from rich.text import Text

    console = Console(highlight=False)
    console.print(_checks_table(report.checks))
    for note in report.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    console.print(Text(f"audit: {report.status}", style=_STYLES[report.status]))


def _print_dispute(report: "DisputeReport") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(_checks_table(report.checks))
    sizes = Table(box=None, pad_edge=False)
    for heading in ("member", "weight", "tensor", "norm", "largest"):
        sizes.add_column(heading, justify="left" if heading in ("member", "tensor") else "right")
    for update in report.updates:
        for tensor in update.tensors:
            shown = (
                update.member,
                str(update.weight),
                tensor.name,
                f"{tensor.norm:.6g}",
                f"{tensor.largest:.6g}",
            )
            sizes.add_row(*map(Text, shown))
    if report.updates:
        console.print(sizes)
    console.print(Text(f"dispute: {report.status}", style=_STYLES[report.status]))


def _checks_table(checks: Iterable[Check]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("", "check", "status", "detail"):
        table.add_column(heading, justify="right" if not heading else "left", overflow="fold")
    for number, check in enumerate(checks, start=1):
        # Text, not str: what an archive holds must not be read as markup.
        status = Text(check.status, style=_STYLES[check.status])
        table.add_row(Text(str(number), style="dim"), Text(check.id), status, Text(check.detail))
    return table
