"""`folkmoot bench`: how fast this machine is at what a federation does."""

from pathlib import Path

import click
import msgspec

from folkmoot.testnet.cli_chaos import Delay, Rate
from folkmoot.testnet.home import CODECS, Mode, Ring


@click.group()
def bench() -> None:
    """Measure a federation's data path on this machine."""


@bench.command("round")
@click.option("--nodes", type=click.IntRange(1, 64), default=4, show_default=True, help="Daemons.")
@click.option(
    "--params",
    type=click.IntRange(1, 2_000_000_000),
    default=1_000_000,
    show_default=True,
    help="Parameters.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="Rounds that count; one more goes before them.",
)
@click.option(
    "--codec",
    type=click.Choice(CODECS),
    default="int4",
    show_default=True,
    help="How updates travel in open mode.",
)
@click.option(
    "--mode",
    type=click.Choice(["open", "secure"]),
    default="open",
    show_default=True,
    help="Sealed updates to everybody, or masked ones of which only the sum is seen.",
)
@click.option(
    "--ring",
    type=click.Choice([8, 16, 32]),
    default=16,
    show_default=True,
    help="Bits of a value in secure mode.",
)
@click.option(
    "--delay", type=Delay(), help="Added to all that a node sends, and to all that it receives: 25ms."
)
@click.option("--rate", type=Rate(), help="What a node can send, and as much receive: 100mbit.")
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    help="Keep everything in this empty folder; without it, a temporary one is used and removed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def bench_round(
    nodes: int,
    params: int,
    rounds: int,
    codec: str,
    mode: Mode,
    ring: Ring,
    delay: float | None,
    rate: float | None,
    home: Path | None,
    as_json: bool,
) -> None:
    """Average random numbers between real daemons, without training.

    Every daemon, its network, its archive and the embedded chain are those of a real federation; only the trainer is
    replaced by one that writes random numbers. The same bytes are then sent over plain trio TCP between as many
    processes: what the machine could do at best. With --delay or --rate both go through a relay that makes every
    node's line slow. Needs about 8 times the model's size (float32) of disk per node and round.
    """
    from folkmoot.testnet.bench_links import Lines
    from folkmoot.testnet.bench_round import Figures, Measure, measure
    from folkmoot.testnet.supervisor import interruptible

    def say(line: str) -> None:
        click.echo(line, err=True)

    def show(figures: Figures) -> None:
        for number, one in enumerate(figures.rounds, start=1):
            click.echo(f"round {number}: {one.seconds:.2f} s, {one.cpu_s:.1f} CPU s")
        click.echo(
            f"median {figures.median_seconds:.2f} s a round (plain TCP: {figures.trio_tcp_seconds:.2f} s); "
            f"{figures.sent_mb_per_node:.1f} MB sent and {figures.received_mb_per_node:.1f} MB received per node and "
            f"round; at most {figures.peak_rss_mb:.0f} MB of memory in a daemon"
        )

    lines = Lines(delay=delay or 0.0, rate=rate)
    with interruptible():
        what = Measure(
            nodes=nodes, parameters=params, rounds=rounds, codec=codec, mode=mode, ring=ring, lines=lines
        )
        figures = measure(what, home, say)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(figures)).decode())
    else:
        show(figures)
