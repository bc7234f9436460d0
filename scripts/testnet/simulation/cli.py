"""`folkmoot simulate`: a federation, or thousands of them, in virtual time."""

import time
from typing import get_args

import click

from folkmoot.protocol.charter_rules import check_charter
from folkmoot.protocol.charter_tables import RobustRule
from folkmoot.testnet.simulation.batch import LIMIT, Outcome, run_seeds
from folkmoot.testnet.simulation.faults import format_faults, parse_faults
from folkmoot.testnet.simulation.federation import Simulation, Violation
from folkmoot.testnet.simulation.folding import LEGEND, Folding
from folkmoot.testnet.simulation.node import simulated_charter
from folkmoot.testnet.simulation.setting import Setting, draw

MAX_MEMBERS = 256


@click.command()
@click.option(
    "--seed", type=int, default=0, show_default=True, help="It decides everything that is not given here."
)
@click.option(
    "--count", type=click.IntRange(1), help="Run this many seeds, from --seed on, and print what failed."
)
@click.option("--jobs", type=click.IntRange(1), help="With --count: how many at a time.  [default: cores]")
@click.option("--long", is_flag=True, help="Draw larger federations, more rounds and more of everything.")
@click.option(
    "--members", type=click.IntRange(1, MAX_MEMBERS), help="So many, and no faults but those of --faults."
)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="With --members.")
@click.option("--max-ahead", type=click.IntRange(1), default=50, show_default=True, help="With --members.")
@click.option(
    "--mode", type=click.Choice(["open", "secure"]), default="open", show_default=True, help="With --members."
)
@click.option(
    "--group-size",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="With --members in secure mode.",
)
@click.option(
    "--robust",
    type=click.Choice(get_args(RobustRule)),
    default="none",
    show_default=True,
    help="With --members; in secure mode across groups.",
)
@click.option(
    "--faults", default="", metavar="NAME=VALUE,...", help="With --members: as a failing run prints them."
)
@click.option(
    "--trace", is_flag=True, help="Print everything that reaches a node, and everything that it does."
)
def simulate(
    seed: int,
    count: int | None,
    jobs: int | None,
    long: bool,
    members: int | None,
    rounds: int,
    max_ahead: int,
    mode: str,
    group_size: int,
    robust: RobustRule,
    faults: str,
    trace: bool,
) -> None:
    """Run federations of the real round machine in virtual time, with faults and liars, and check every rule.

    Without --members the seed draws the federation and all that goes wrong in it. A failing run prints the command that
    replays it.
    """
    if count is not None:
        if members is not None or trace:
            raise click.UsageError("--count draws its federations: leave --members and --trace out")
        _run_many(range(seed, seed + count), long, jobs)
        return
    setting = draw(seed, long)
    if members is not None:
        secure = mode == "secure"
        terms = secure, group_size, robust
        setting = Setting(seed, members, rounds, *terms, max_ahead, parse_faults(faults))
        if secure:
            check_charter(
                simulated_charter(members, rounds, secure=True, group_size=group_size, robust=robust)
            )
        elif group_size:
            raise click.UsageError("--group-size is for --mode secure")
    elif faults:
        raise click.UsageError("--faults needs --members")
    _run_one(setting, trace)


def _run_one(setting: Setting, trace: bool) -> None:
    click.echo(_describe(setting))
    folding = Folding(click.echo)
    if trace:
        click.echo(LEGEND)
    simulation = Simulation.of(setting, folding.take if trace else None)
    began = time.perf_counter()
    try:
        simulation.run(LIMIT)
    except Violation as violation:
        folding.end()
        raise click.ClickException(str(violation)) from violation
    folding.end()
    click.echo(
        f"every rule held: {setting.rounds} rounds in {simulation.now:.1f} s, {simulation.delivered} messages "
        f"({simulation.bytes_sent / 1e6:.1f} MB; simulated in {time.perf_counter() - began:.1f} s)"
    )


def _describe(setting: Setting) -> str:
    mode, keys = "secure" if setting.secure else "open", "real" if setting.real_keys else "fake"
    faults = format_faults(setting.faults) or "none"
    return f"seed {setting.seed}: {setting.members} members, {mode} mode, {keys} signatures; faults: {faults}"


def _run_many(seeds: range, long: bool, jobs: int | None) -> None:
    began, outcomes = time.perf_counter(), list[Outcome]()
    for outcome in run_seeds(seeds, long, jobs):
        outcomes.append(outcome)
        if outcome.failure is not None:
            click.echo(f"seed {outcome.seed}: {outcome.failure}")
    failed = sum(outcome.failure is not None for outcome in outcomes)
    click.echo(
        f"{len(outcomes)} runs, {failed} failed: {sum(one.rounds for one in outcomes)} rounds, "
        f"{sum(one.messages for one in outcomes)} messages, {sum(one.seconds for one in outcomes) / 3600:.1f} h, "
        f"simulated in {time.perf_counter() - began:.0f} s"
    )
    if failed:
        raise SystemExit(1)
