"""The auditor's commands: `folkmoot audit`, `audit watch`, and `audit dispute` for single updates under a permit."""

import signal
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from folkmoot.ledger.audit.report import exit_code_of
from folkmoot.ledger.audit.session import Outputs, encode_report, offline_session, online_session
from folkmoot.ledger.audit.sources import Source
from folkmoot.ledger.cli_options import (
    ARCHIVES,
    CHARTER,
    CONTRACT,
    DEFAULT_AGE,
    FILE,
    HOMES,
    JSON,
    MAX_AGE,
    OFFLINE,
    OUTPUT,
    RPCS,
    online,
)


@click.group(invoke_without_command=True)
@online
@OFFLINE
@click.option("--html", metavar="FILE", type=OUTPUT, help="Write the report as one self-contained page.")
@click.option(
    "--bundle",
    metavar="ZIP",
    type=OUTPUT,
    help="Write all that was looked at into one file, for --offline. Keys never go in.",
)
@JSON
@click.pass_context
def audit(
    ctx: click.Context,
    rpcs: tuple[str, ...],
    contract: bytes | None,
    homes: tuple[Path, ...],
    archives: tuple[Path, ...],
    charter_file: Path | None,
    first_block: int | None,
    max_age: float | None,
    state: Path | None,
    no_state: bool,
    offline: Path | None,
    html: Path | None,
    bundle: Path | None,
    as_json: bool,
) -> None:
    """Check a federation's rounds from the ledger and archives.

    The ledger alone shows an unbroken, signed record. With the charter and archives every round is checked down to its
    payloads; with a home (in open mode, with its keys) aggregation is replayed to the same model.

    \b
    Exit codes:
      0  pass           every check that was asked for holds
      1  fail           a check does not hold
      2  usage          the command, the charter file or the bundle cannot be used
      3  inconclusive   something is missing, or not yet final
      4  misbehaviour   a member's own signatures convict it, or the record was rewritten
      5  unreachable    the ledger does not answer
    """
    if ctx.invoked_subcommand is not None:
        return
    if archives and not homes and charter_file is None and offline is None:
        raise click.UsageError(
            "--archive needs --charter: without the members nothing in an archive can be checked"
        )
    sources = [*map(Source.of_home, homes), *map(Source, archives)]
    with ExitStack() as stack:
        if offline is not None:
            _refuse_ledger(rpcs, contract)
            session = offline_session(
                offline, sources, charter_file, state=state, max_age=max_age, stack=stack
            )
        else:
            asked, address = _required(rpcs, contract)
            session = online_session(
                asked,
                address,
                sources,
                charter_file,
                first_block=first_block,
                remembers=not no_state,
                state=state,
                max_age=DEFAULT_AGE if max_age is None else max_age,
            )
        audited = session.run()
        session.export(audited, Outputs(html, bundle))
    if as_json:
        click.echo(encode_report(audited))
    else:
        from folkmoot.ledger.audit.show import show_report  # 0.1 s, and `--json` needs none of it

        show_report(audited.report)
    ctx.exit(audited.report.exit_code)


@audit.command()
@online
@click.option(
    "--every",
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    default=15.0,
    show_default=True,
    help="How often to look.",
)
@click.option(
    "--until-misbehaviour", is_flag=True, help="End with exit code 4 at the first proof of misbehaviour."
)
@click.option(
    "--export",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep report.json, report.html and a file for each finding there.",
)
@JSON
@click.pass_context
def watch(
    ctx: click.Context,
    rpcs: tuple[str, ...],
    contract: bytes | None,
    homes: tuple[Path, ...],
    archives: tuple[Path, ...],
    charter_file: Path | None,
    first_block: int | None,
    max_age: float | None,
    state: Path | None,
    no_state: bool,
    every: float,
    until_misbehaviour: bool,
    export: Path | None,
    as_json: bool,
) -> None:
    """Keep auditing, and tell what is found when it is found.

    Looks again whenever the ledger or an archive has grown. Ended by a signal, the exit code is that of the last audit.
    With --json each finding is one line.
    """
    from folkmoot.ledger.audit.show import show_findings
    from folkmoot.ledger.audit.watch import Watch

    asked, address = _required(rpcs, contract)
    sources = [*map(Source.of_home, homes), *map(Source, archives)]
    session = online_session(
        asked,
        address,
        sources,
        charter_file,
        first_block=first_block,
        remembers=not no_state,
        state=state,
        max_age=DEFAULT_AGE if max_age is None else max_age,
    )
    watching = Watch(session, export)
    # Whoever stops it otherwise wants the exit code too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for report, new in watching.run(every, until_misbehaviour=until_misbehaviour):
            when = datetime.now(UTC).strftime("%H:%M:%S")
            if as_json:
                for finding in new:
                    click.echo(msgspec.json.encode(finding).decode())
            else:
                show_findings(when, new)
                click.echo(f"{when}  {report.status}  {report.subject.height or 0} rounds recorded")
    except KeyboardInterrupt:
        pass
    ctx.exit(exit_code_of(watching.status))


def _refuse_ledger(rpcs: tuple[str, ...], contract: bytes | None) -> None:
    if rpcs or contract is not None:
        raise click.UsageError(
            "--offline takes ledger and contract from the bundle: leave out --rpc and --contract"
        )


def _required(rpcs: tuple[str, ...], contract: bytes | None) -> tuple[tuple[str, ...], bytes]:
    if not rpcs or contract is None:
        raise click.UsageError(f"missing option '{'--contract' if rpcs else '--rpc'}'")
    return rpcs, contract


@audit.command()
@click.option(
    "--permit",
    "permit_file",
    metavar="FILE",
    type=FILE,
    required=True,
    help="permit.toml, with permit.sig/ beside it.",
)
@click.option(
    "--answers",
    "answer_files",
    metavar="FILE",
    type=FILE,
    multiple=True,
    help="A member's answer to the permit; one for each survivor.",
)
@RPCS
@CONTRACT
@OFFLINE
@HOMES
@ARCHIVES
@CHARTER
@MAX_AGE
@JSON
@click.pass_context
def dispute(
    ctx: click.Context,
    permit_file: Path,
    answer_files: tuple[Path, ...],
    rpcs: tuple[str, ...],
    contract: bytes | None,
    offline: Path | None,
    homes: tuple[Path, ...],
    archives: tuple[Path, ...],
    charter_file: Path | None,
    max_age: float | None,
    as_json: bool,
) -> None:
    """Open single updates of a round in secure mode, under a permit that a quorum of the members signed.

    Tells weight and size of every update that the permit names, and whether its member was honest about it. Your key,
    which the permit names, lies in keys/sealing.key of a home; older ones may lie in keys/2/sealing.key and so on, or
    in other homes. A round under an amended charter needs --rpc, or a bundle: only the ledger says what was in force.
    Exit codes are those of 'folkmoot audit'.
    """
    from folkmoot.ledger.audit.dispute import run_dispute
    from folkmoot.ledger.audit.replay import sealing_secrets
    from folkmoot.ledger.audit.show import show_dispute
    from folkmoot.ledger.permit_files import load_permit

    sources = [*map(Source.of_home, homes), *map(Source, archives)]
    answers = {str(path): _read_answer(path) for path in answer_files}
    with ExitStack() as stack:
        if offline is not None:
            _refuse_ledger(rpcs, contract)
            session = offline_session(
                offline, sources, charter_file, state=None, max_age=max_age, stack=stack
            )
        elif contract is None:
            raise click.UsageError("missing option '--contract'")
        else:
            session = online_session(
                rpcs,
                contract,
                sources,
                charter_file,
                first_block=None,
                remembers=False,
                state=None,
                max_age=DEFAULT_AGE if max_age is None else max_age,
            )
        report = run_dispute(session.ground(), load_permit(permit_file), answers, sealing_secrets(sources))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        show_dispute(report)
    ctx.exit(report.exit_code)


def _read_answer(path: Path) -> bytes:
    from folkmoot.protocol.secure.permit import MAX_ANSWER

    with path.open("rb") as file:
        return file.read(MAX_ANSWER + 1)
