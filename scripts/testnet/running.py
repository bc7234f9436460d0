"""`testnet run` and `testnet up`: a federation from nothing to its report."""

import resource
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from folkmoot.ledger.audit import AuditReport, Source, Status, run_audit
from folkmoot.ledger.audit.rpc_record import RpcRecord
from folkmoot.ledger.port import Record
from folkmoot.node.charter_files import read_charter
from folkmoot.node.cli.status import format_metrics, format_size, format_values, metric_names
from folkmoot.node.report.folder import ReportError, write_folder
from folkmoot.node.report.story import Story, losses
from folkmoot.testnet import learning
from folkmoot.testnet.chains import STARTED_HERE
from folkmoot.testnet.home import Plan, TestnetHome
from folkmoot.testnet.report import (
    AttackReport,
    Report,
    attack_report,
    make_story,
    node_reports,
    round_reports,
    write_report,
)
from folkmoot.testnet.supervisor import Supervisor, interruptible
from folkmoot.testnet.table import make_display


def start_testnet(home: TestnetHome, plan: Plan, *, fresh: bool) -> None:
    """Bring a testnet up and leave it running."""
    console = Console()
    with interruptible(), Supervisor(home, plan, fresh=fresh, say=console.print) as supervisor:
        supervisor.start()
        supervisor.release()
    console.print(
        f"look: folkmoot testnet status --home {home.path}\nstop: folkmoot testnet down --home {home.path}"
    )


def run_testnet(home: TestnetHome, plan: Plan, *, fresh: bool) -> int:
    """Run a testnet to its end, write and print its report; the exit code."""
    console = Console()
    report, story = _run(home, plan, fresh, console)
    write_report(home.report, report)
    show_report(console, home, report)
    _write_page(console, home, story)
    return 0 if report.succeeded else 1


def _write_page(console: Console, home: TestnetHome, story: Story) -> None:
    """A run is none the worse where its plots cannot be drawn."""
    try:
        console.print(Text(f"page, plots and CSV: {write_folder(home.report_folder, story)}"), soft_wrap=True)
    except ReportError as error:
        console.print(Text(f"no page with plots: {error}", style="red"), soft_wrap=True)


def _run(home: TestnetHome, plan: Plan, fresh: bool, console: Console) -> tuple[Report, Story]:
    began, cpu_before = time.monotonic(), _cpu_seconds()
    with (
        interruptible(),
        make_display(console) as display,
        Supervisor(home, plan, fresh=fresh, say=display.say) as supervisor,
    ):
        supervisor.start()
        statuses = supervisor.wait(display)
        comparing = supervisor.begin_baselines()
        display.say("all rounds recorded: stopping the nodes, auditing, training the models to compare with")
        supervisor.stop_nodes()
        records, audit = _check(home, supervisor.testnet.rpc, supervisor.testnet.contract, plan)
        baselines = learning.baselines(comparing)
        testnet = supervisor.testnet
    name = read_charter(home.node(plan.names[0])).name
    story = make_story(name, testnet.mode, plan.names, statuses, baselines)
    nodes = node_reports(plan.names, statuses, baselines)
    report = Report(
        federation=testnet.federation,
        mode=testnet.mode,
        nodes=nodes,
        attack=attack_report(plan, nodes, baselines),
        pooled_accuracy=baselines.pooled.get("accuracy"),
        pooled_metrics=baselines.pooled,
        rounds=round_reports(records, statuses),
        worse_off=tuple(map(str, losses(story))),
        audit=audit,
        cpu_seconds=_cpu_seconds() - cpu_before,
        cpu_seconds_by_process=supervisor.cpu_seconds,
        wall_seconds=time.monotonic() - began,
    )
    return report, story


def _check(home: TestnetHome, rpc: str, contract: str, plan: Plan) -> tuple[Sequence[Record], AuditReport]:
    """What the ledger holds, and what an auditor with all homes says of it."""
    address = bytes.fromhex(contract[2:])
    ledger = RpcRecord(rpc, address)
    homes = [Source.of_home(home.node(name).path) for name in plan.names]
    audit = run_audit(ledger, homes, contract=address, development=plan.chain in STARTED_HERE)
    return ledger.records(1), audit


def _cpu_seconds() -> float:
    """User and system time of this process and of all that it started and waited for, and so on down."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def show_report(console: Console, home: TestnetHome, report: Report) -> None:
    """Print who reached what, whether all agree, what the audit says and where everything lies."""
    console.print(_measures(report))
    console.print(Text(f"trained on the pooled data: {format_metrics(report.pooled_metrics)}"))
    if report.attack is not None:
        console.print(Text(_attack_told(report.attack), style="yellow"), soft_wrap=True)
    for sentence in report.worse_off:
        console.print(Text(sentence, style="yellow"), soft_wrap=True)
    _show_agreement(console, report)
    for check in report.audit.checks:
        console.print(Text(f"  {check.id:<13} {check.status:<12} {check.detail}"), soft_wrap=True)
    style = "green" if report.audit.status is Status.PASS else "red"
    console.print(Text(f"audit: {report.audit.status}", style=style))
    console.print(
        Text(
            f"{report.wall_seconds:.1f} s in all, {report.cpu_seconds:.1f} CPU seconds over all processes\n"
            f"report: {home.report}\nnodes, with their logs: {home.path / 'nodes'}"
        ),
        soft_wrap=True,
    )


def _attack_told(attack: AttackReport) -> str:
    told = f"{attack.name} by {', '.join(attack.attackers)}: {format_metrics(attack.metrics)}; the other nodes alone, "
    told += f"averaged plainly: {format_metrics(attack.without)}"
    if attack.backdoor is not None:
        told += f"; {100 * attack.backdoor:.0f} % of patched rows taken for the target"
    return told


def _measures(report: Report) -> Table:
    names = metric_names(node.alone_metrics for node in report.nodes)
    table = Table(title=f"{' / '.join(names)} on the held-out data")
    has_personal = any(node.personal_metrics for node in report.nodes)
    personal = ["personal model"] * has_personal
    for heading in ("node", "shared model", *personal, "trained alone", "rounds", "traffic", "memory"):
        table.add_column(heading, justify="left" if heading == "node" else "right")
    for node in report.nodes:
        table.add_row(
            node.name,
            format_values(node.metrics, names),
            *[format_values(node.personal_metrics, names)] * has_personal,
            format_values(node.alone_metrics, names),
            str(node.rounds),
            format_size(node.bytes_sent + node.bytes_received),
            f"{node.peak_rss_mb:.0f} + {node.trainer_peak_rss_mb:.0f} MB",
        )
    return table


def _show_agreement(console: Console, report: Report) -> None:
    if report.agreed:
        text = f"all {len(report.nodes)} nodes hold the recorded model {report.rounds[-1].model_digest}"
        console.print(Text(text, style="green"), soft_wrap=True)
        return
    recorded = report.rounds[-1].model_digest if report.rounds else "no model"
    held = "".join(f"\n  {node.name}: {node.model_digest or 'none'}" for node in report.nodes)
    console.print(
        Text(f"the nodes do not all hold the recorded model {recorded}:{held}", style="red"), soft_wrap=True
    )
