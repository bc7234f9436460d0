"""`folkmoot testnet`: a whole federation on this machine."""

import functools
from pathlib import Path
from typing import Any

import click
import msgspec

from folkmoot.protocol.charter import default_mode
from folkmoot.protocol.schema import Task
from folkmoot.testnet import cli_chaos
from folkmoot.testnet.home import Mode, OwnData, OwnModel, Plan, TestnetHome
from folkmoot.testnet.options import Command, takes_home
from folkmoot.testnet.plan_options import PLAN_OPTIONS

MAX_SHAPED = 16
"""Nodes with shaped links: each pair costs the relay two ports and up to four open files."""


@click.group()
def testnet() -> None:
    """Run a whole federation on this machine: real nodes, real data and a chain, for trying things out."""


for _command in cli_chaos.COMMANDS:
    testnet.add_command(_command)


def _takes_plan(command: Command) -> Command:
    """Adds the options that describe a testnet, passed on as `plan: Plan` and `fresh: bool`."""

    @functools.wraps(command)
    def with_plan(
        chain: str,
        fresh: bool,
        home: TestnetHome,
        file: Path | None,
        target: str | None,
        split_by: str | None,
        task: Task | None,
        leave_out: tuple[str, ...],
        model: str | None,
        mode: Mode | None,
        **fields: Any,
    ) -> None:
        if chain not in ("embedded", "anvil") and not chain.startswith(("http://", "https://")):
            raise click.BadParameter(
                f"{chain!r} is neither 'embedded' nor 'anvil' nor an http URL", param_hint="--chain"
            )
        if fields["links"] == "shaped" and fields["nodes"] > MAX_SHAPED:
            raise click.UsageError(f"--links shaped takes at most {MAX_SHAPED} nodes")
        _check_attack(fields["attack"], fields["nodes"])
        concentration = _concentration(split_by)
        data = _own_data(file, target, split_by, task, leave_out)
        own_model = _own_model(model) if model != "cnn" else None
        plan = msgspec.structs.replace(
            msgspec.convert({"chain": chain, "mode": mode or default_mode(fields["nodes"]), **fields}, Plan),
            data=data,
            model=own_model,
            kind="cnn" if model == "cnn" else "",
            split=split_by if file is None and concentration else "iid",
        )
        command(home=home, plan=plan, fresh=fresh)

    return functools.reduce(lambda taking, option: option(taking), reversed(PLAN_OPTIONS), with_plan)


def _own_data(
    file: Path | None, target: str | None, split_by: str | None, task: Task | None, leave_out: tuple[str, ...]
) -> OwnData | None:
    if file is None:
        if target or task or leave_out or (split_by and not _concentration(split_by)):
            raise click.UsageError(
                "--target, --split-by COL, --task and --leave-out are about your own rows: give --data"
            )
        return None
    if target is None:
        raise click.UsageError("--data needs --target: which column is to be predicted?")
    return OwnData(file=str(file), target=target, split_by=split_by or "iid", task=task, leave_out=leave_out)


def _check_attack(attack: str, nodes: int) -> None:
    from folkmoot.testnet.attacks import check_attack

    try:
        if attack:
            check_attack(attack, nodes)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--attack") from error


def _concentration(split_by: str | None) -> float:
    """The A of dirichlet:A, 0 for another split."""
    from folkmoot.testnet.dirichlet import concentration_of

    try:
        return concentration_of(split_by or "")
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--split-by") from error


def _own_model(source: str | None) -> OwnModel | None:
    if source is None:
        return None
    from folkmoot.testnet.own_model import find_model

    return find_model(source, Path.cwd())


@testnet.command()
@takes_home
@_takes_plan
def run(home: TestnetHome, plan: Plan, fresh: bool) -> None:
    """Start a federation, watch it to its last round, audit and compare it, and stop it.

    Exits with 0 only if all nodes hold the recorded model and the audit passes.
    """
    from folkmoot.testnet.running import run_testnet

    click.get_current_context().exit(run_testnet(home, plan, fresh=fresh))


@testnet.command()
@takes_home
@_takes_plan
def up(home: TestnetHome, plan: Plan, fresh: bool) -> None:
    """Start a federation, or a stopped one again, and leave it running."""
    from folkmoot.testnet.running import start_testnet

    start_testnet(home, plan, fresh=fresh)


@testnet.command()
@takes_home
def down(home: TestnetHome) -> None:
    """Stop all processes of a testnet; its files stay."""
    from folkmoot.testnet.overview import stop_testnet

    stop_testnet(home, click.echo)


@testnet.command()
@takes_home
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(home: TestnetHome, as_json: bool) -> None:
    """Show the nodes of a testnet and its chain."""
    from folkmoot.testnet.overview import read_overview, show_overview

    overview = read_overview(home)
    if as_json:
        click.echo(msgspec.json.encode(overview))
    else:
        show_overview(overview)
