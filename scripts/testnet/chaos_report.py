"""What chaos came to: `chaos.json` in the testnet's home, and the same for people."""

from collections.abc import Iterable, Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from folkmoot.ledger.audit import AuditReport, Status
from folkmoot.node.status_file import NodeStatus
from folkmoot.testnet.disturbances import Disturbance
from folkmoot.testnet.home import TestnetHome
from folkmoot.testnet.processes import TestnetError


class NodeMemory(msgspec.Struct, frozen=True, kw_only=True):
    """RssAnon + RssShmem of a daemon, in 10^6 bytes, before and after; a restarted one begins anew."""

    name: str
    start_mb: float
    end_mb: float


class ChaosReport(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file. `rounds`: completed while there was chaos, by the node that is furthest.

    `deaths`: processes that nobody killed, with their last words. `seconds_to_heal`: from the end of the chaos until
    every node had completed two rounds more; null if they did not. `disagreement`: rounds whose models differ.
    """

    seed: int
    seconds: float
    disturbances: Sequence[Disturbance]
    rounds: int
    deaths: tuple[str, ...]
    seconds_to_heal: float | None
    disagreement: list[int]
    audit: AuditReport
    memory: list[NodeMemory]

    @property
    def held(self) -> bool:
        """Whether the testnet held."""
        healed = self.seconds_to_heal is not None and not self.disagreement
        return healed and not self.deaths and self.audit.status is Status.PASS


def compare_models(statuses: Iterable[NodeStatus]) -> list[int]:
    """The rounds for which two nodes hold different models, as far back as their histories go."""
    models: dict[int, set[str]] = {}
    for status in statuses:
        for row in status.history:
            models.setdefault(row.round, set()).add(row.model_digest)
    return sorted(number for number, digests in models.items() if len(digests) > 1)


def write_chaos_report(home: TestnetHome, report: ChaosReport) -> None:
    """Replace `chaos.json`; raises `TestnetError`."""
    try:
        home.chaos_report.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    except OSError as error:
        raise TestnetError(f"{home.chaos_report}: cannot be written: {error.strerror}") from error


def show_chaos_report(console: Console, home: TestnetHome, report: ChaosReport) -> None:
    """Print what was done, what came of it and whether the testnet held."""
    table = Table(title="memory of the nodes, MB")
    for heading in ("node", "before", "after"):
        table.add_column(heading, justify="left" if heading == "node" else "right")
    for node in report.memory:
        table.add_row(node.name, f"{node.start_mb:.0f}", f"{node.end_mb:.0f}")
    console.print(table)
    for line in _findings(report):
        console.print(Text(line), soft_wrap=True)
    verdict = "it held" if report.held else "it did not hold"
    console.print(Text(verdict, style="green" if report.held else "red"))
    console.print(Text(f"report: {home.chaos_report}"), soft_wrap=True)


def _findings(report: ChaosReport) -> list[str]:
    healed = report.seconds_to_heal
    bad = [check for check in report.audit.checks if check.status not in (Status.PASS, Status.SKIPPED)]
    return [
        f"{len(report.disturbances)} disturbances in {report.seconds:.0f} s, seed {report.seed}",
        f"{report.rounds} rounds completed meanwhile",
        *(report.deaths or ["no process died that was not killed"]),
        "the nodes did not go on together afterwards: see their logs"
        if healed is None
        else f"all nodes went on together within {healed:.1f} s",
        f"models differ in rounds {', '.join(map(str, report.disagreement))}"
        if report.disagreement
        else "all models agree",
        f"audit: {report.audit.status}",
        *(f"  {check.id}: {check.status}: {check.detail}" for check in bad),
    ]
