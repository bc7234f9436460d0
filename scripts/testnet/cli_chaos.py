"""`folkmoot testnet`, continued: look into a testnet that runs, and break it on purpose."""

import os
import re
import sys

import click

from folkmoot.testnet.home import TestnetHome, read_testnet
from folkmoot.testnet.options import takes_home

MOST_LINES = 100_000
MAX_DELAY = 60.0
MAX_MINUTES = 7 * 24 * 60


class Delay(click.ParamType[float]):
    """`100ms` or `0.5s`, in seconds."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Fails for what is no such time, or a longer one than anything waits for."""
        number, unit = _measure(value)
        seconds = number * {"ms": 0.001, "s": 1.0}.get(unit, float("inf"))
        if not 0 <= seconds <= MAX_DELAY:
            self.fail(f"{value!r} is no time such as 100ms or 0.5s, at most {MAX_DELAY:.0f}s", param, ctx)
        return seconds


class Rate(click.ParamType[float]):
    """`100mbit`: bits a second, as bytes a second."""

    name = "RATE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Fails for what is no such rate, and for nothing at all."""
        number, unit = _measure(value)
        rate = number * {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}.get(unit, 0.0) / 8
        if rate <= 0:
            self.fail(f"{value!r} is no rate such as 500kbit, 100mbit or 1gbit", param, ctx)
        return rate


def _measure(value: object) -> tuple[float, str]:
    """Number and unit; the unit is empty if it is no such thing."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([a-z]+)", str(value).lower())
    return (float(found[1]), found[2]) if found else (0.0, "")


@click.command()
@takes_home
@click.argument("process", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("-n", "--lines", type=click.IntRange(0, MOST_LINES), default=20, show_default=True)
def logs(home: TestnetHome, process: str | None, follow: bool, lines: int) -> None:
    """Show the last lines of a node's log, or of all logs together, by time.

    PROCESS may also be chain, trainers or relay.
    """
    from folkmoot.testnet.log_lines import show_logs

    try:
        show_logs(home, process, lines, follow=follow, say=click.echo)
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not complain when it flushes the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.command()
@takes_home
@click.argument("node")
def kill(home: TestnetHome, node: str) -> None:
    """End a node at once (SIGKILL), as a power cut would."""
    from folkmoot.testnet import control

    control.kill(home, node)
    click.echo(f"killed {node}")


@click.command()
@takes_home
@click.argument("node")
def restart(home: TestnetHome, node: str) -> None:
    """Start a node that was killed; one that runs is stopped first."""
    from folkmoot.testnet import control

    process = control.restart(home, node)
    control.await_life(home, process)
    click.echo(f"started {node} (process {process.pid})")


@click.command()
@takes_home
@click.argument("node")
def pause(home: TestnetHome, node: str) -> None:
    """Freeze a node (SIGSTOP): its connections stay open, and nothing comes from it."""
    from folkmoot.testnet import control

    control.pause(home, node)
    click.echo(f"paused {node}")


@click.command()
@takes_home
@click.argument("node")
def resume(home: TestnetHome, node: str) -> None:
    """Let a paused node go on."""
    from folkmoot.testnet import control

    control.resume(home, node)
    click.echo(f"resumed {node}")


@click.command()
@takes_home
@click.argument("sides", metavar="A,B|C,D")
@click.option(
    "--silent", is_flag=True, help="Keep connections open and let nothing cross, as a dead router does."
)
def partition(home: TestnetHome, sides: str, silent: bool) -> None:
    """Cut all links between nodes on different sides, until 'heal' or another partition.

    Put quotes around the sides: the shell takes | for itself. Nodes on no side keep all their links. The testnet must
    have been started with --links shaped.
    """
    from folkmoot.testnet import relay_link, shaping

    parsed = shaping.parse_sides(sides, read_testnet(home).plan.names)
    relay_link.give(home, shaping.Partition(parsed, silent))
    click.echo("parted " + " | ".join(", ".join(side) for side in parsed))


@click.command()
@takes_home
def heal(home: TestnetHome) -> None:
    """Undo partitions and slowness: all links are whole and fast again."""
    from folkmoot.testnet import relay_link, shaping

    relay_link.give(home, shaping.Heal())
    click.echo("healed")


@click.command()
@takes_home
@click.argument("node")
@click.option(
    "--delay", type=Delay(), default="0ms", show_default=True, help="Added to each way, as in 100ms."
)
@click.option("--rate", type=Rate(), help="What the node sends, and receives, over all links, as in 100mbit.")
def slow(home: TestnetHome, node: str, delay: float, rate: float | None) -> None:
    """Make a node's line to all others slow, until 'heal'; without options it is fast again.

    The testnet must have been started with --links shaped.
    """
    from folkmoot.testnet import control, relay_link, shaping

    control.check_node(read_testnet(home), node)
    relay_link.give(home, shaping.Slow(node, delay, rate))
    click.echo(f"slowed {node} down" if delay or rate else f"{node} is as fast as the others")


@click.command()
@takes_home
@click.option("--minutes", type=click.FloatRange(0.1, MAX_MINUTES), default=5.0, show_default=True)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="Draws what is done, to whom and when.",
)
def chaos(home: TestnetHome, minutes: float, seed: int) -> None:
    """Kill, freeze, cut off and slow down nodes at random for a while, mend all, and report.

    Exits with 0 only if no process died that was not killed, all nodes went on together afterwards with the same
    models, and the audit passes. Links are disturbed only where the testnet was started with --links shaped. Ctrl-C
    mends what is broken and ends it without a report.
    """
    from rich.console import Console

    from folkmoot.testnet.chaos import Chaos
    from folkmoot.testnet.chaos_report import show_chaos_report, write_chaos_report
    from folkmoot.testnet.supervisor import interruptible

    with interruptible():
        report = Chaos(home, click.echo).run(minutes * 60, seed)
    write_chaos_report(home, report)
    show_chaos_report(Console(), home, report)
    click.get_current_context().exit(0 if report.held else 1)


@click.command()
@takes_home
@click.argument("node")
def join(home: TestnetHome, node: str) -> None:
    """Add a node to a running federation, which takes it in by an amendment of its charter.

    It takes part some rounds later: more than the --max-ahead of 'testnet up' (give a small one there).
    """
    from folkmoot.testnet import membership

    round_ = membership.join(home, node, click.echo)
    click.echo(f"started {node}: it takes part from round {round_} on")


@click.command()
@takes_home
@click.argument("node")
def leave(home: TestnetHome, node: str) -> None:
    """Remove a node from a running federation by an amendment; some rounds later it ends by itself."""
    from folkmoot.testnet import membership

    round_ = membership.leave(home, node, click.echo)
    click.echo(f"{node} belongs to the federation up to round {round_ - 1}, and then ends")


COMMANDS = (join, leave, logs, kill, restart, pause, resume, partition, heal, slow, chaos)
