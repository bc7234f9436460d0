"""Reports on a terminal. Everything is shown as `Text`: what an archive holds must not be read as markup."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from folkmoot.ledger.audit.grouping import group
from folkmoot.ledger.audit.report import COUNTED, AuditReport, Check, Finding, MemberRow, Status

if TYPE_CHECKING:
    from folkmoot.ledger.audit.dispute import DisputeReport

_STYLES = {
    Status.PASS: "green",
    Status.SKIPPED: "dim",
    Status.INCONCLUSIVE: "yellow",
    Status.UNREACHABLE: "yellow",
    Status.FAIL: "bold red",
    Status.MISBEHAVIOUR: "bold red",
}


def show_report(report: AuditReport) -> None:
    """Checks, who contributed, remarks, and the whole in the last line."""
    console = Console(highlight=False)
    console.print(_checks_table(report.checks))
    if any(member.contributed or member.rounds for member in report.members):
        console.print(_members_table(report.members))
    for note in report.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    console.print(Text(f"audit: {report.status}", style=_STYLES[report.status]))


def show_dispute(report: "DisputeReport") -> None:
    """Checks, the updates that could be opened, and the whole in the last line."""
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


def show_findings(when: str, findings: Iterable[Finding]) -> None:
    """One line for each kind, as they turn up."""
    console = Console(highlight=False)
    for found in group(findings):
        first, count = found.first, len(found.findings)
        ids = first.id if count == 1 else f"{first.id} and {count - 1} more"
        line = f"{when}  {first.status}  {first.check}  {found.told}  [{ids}]"
        console.print(Text(line, style=_STYLES[first.status]), soft_wrap=True)


def _checks_table(checks: Iterable[Check]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "check", "status", "detail"):
        table.add_column(heading, justify="right" if not heading else "left", overflow="fold")
    for number, check in enumerate(checks, start=1):
        status = Text(check.status, style=_STYLES[check.status])
        table.add_row(Text(str(number), style="dim"), Text(check.id), status, Text(check.detail))
    return table


def _members_table(members: Iterable[MemberRow]) -> Table:
    table = Table(box=None, pad_edge=False, caption=COUNTED, caption_justify="left")
    table.add_column("member")
    for heading in ("attested", "contributed", "others"):
        table.add_column(heading, justify="left" if heading == "others" else "right")
    for member in members:
        others = ", ".join(f"{count} {state}" for state, count in member.others.items())
        table.add_row(
            Text(member.name), Text(str(member.attested)), Text(str(member.contributed)), Text(others or "-")
        )
    return table
