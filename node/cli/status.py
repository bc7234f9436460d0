"""`folkmoot status`: what the node of a home is doing, from its status file alone. Imports nothing heavy."""

import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import click
import msgspec

from folkmoot.node.config import Home
from folkmoot.node.status_file import (
    LedgerStatus,
    NodeStatus,
    PrivacyStatus,
    RoundStatus,
    ShutOutMember,
    StatusError,
    is_running,
    read_status,
)

STALE_SECONDS = 10.0
"""A running node writes its status at least once a second; after this long something holds it up."""

_SHOWN_ROUNDS = 10
_LEAST_FREE = 100_000
_COLUMN_METRICS = ("accuracy", "auc", "rmse", "mae")
_ALL_METRICS = ("accuracy", "auc", "log_loss", "brier", "ece", "rmse", "mae")


@click.command()
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="The node's home directory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
def status(home: Path, as_json: bool) -> None:
    """Show what this node is doing: round, phase, peers, ledger and the rounds behind it."""
    report = read_status(Home(home).status)
    if report is None:
        raise StatusError(
            f"{Home(home).status}: no node has said anything in this home yet: start it with 'folkmoot run', or wait "
            "a few seconds if you just did"
        )
    running = is_running(report)
    if as_json:
        click.echo(msgspec.json.encode({"running": running, **msgspec.to_builtins(report)}))
    else:
        _show(report, running, time.time())
        if shutil.disk_usage(home).free < _LEAST_FREE:
            click.echo(
                f"the disk with {home} is full: what is shown may be old, and a running node waits for room"
            )


def describe_state(report: NodeStatus, running: bool, now: float) -> str:
    """Whether the node runs and how old its word is, at Unix time `now`."""
    age = max(0.0, now - report.updated)
    if not running:
        return f"not running (process {report.pid} is gone; last word {age:.0f} s ago)"
    if age > STALE_SECONDS:
        return f"running as process {report.pid}, but silent for {age:.0f} s: see its log"
    return f"running as process {report.pid}"


MODES = {
    "open": "open: members see each other's updates",
    "secure": "secure: nobody sees a single update, only sums",
}


def describe_ledger(ledger: LedgerStatus) -> str:
    """How far the record is, what waits for it, and what is wrong with it."""
    parts = {"sent": ledger.sent, "deferred": ledger.deferred}
    waiting = "".join(f", {count} of them {what}" for what, count in parts.items() if count)
    reason = f"\n{ledger.reason}" if ledger.reason else ""
    return f"{ledger.state}, {ledger.height} rounds recorded, {ledger.backlog} waiting{waiting}{reason}"


def describe_privacy(privacy: PrivacyStatus) -> str:
    """What of the budget is gone and left, and whether that is too little for another round."""
    left = max(0.0, privacy.epsilon - privacy.spent)
    rounds = f"every {privacy.window} rounds" if privacy.window else "all rounds"
    budget = f"epsilon {privacy.spent:.3g} spent and {left:.3g} left of {privacy.epsilon:g} for {rounds}"
    refused = f"\n{privacy.refused}" if privacy.refused else ""
    return f"{budget}, at delta {privacy.delta:g}{refused}"


def describe_shut_out(one: ShutOutMember, now: float) -> str:
    """Whom this node leaves alone, for how long from Unix time `now`, and why."""
    again = f" (time {one.times})" if one.times > 1 else ""
    until = time.strftime("%H:%M:%S", time.localtime(one.until))
    return f"{one.member} until {until}, {max(0.0, one.until - now):.0f} s{again}: {one.reason}"


def _show(report: NodeStatus, running: bool, now: float) -> None:
    from rich.console import Console

    console = Console()
    console.print(_summary(report, running, now))
    if report.history:
        console.print(_history(report.history[-_SHOWN_ROUNDS:]))


def _summary(report: NodeStatus, running: bool, now: float) -> object:
    from rich.table import Table

    rows = {
        "state": describe_state(report, running, now),
        "peer id": report.peer_id,
        "mode": MODES.get(report.mode, report.mode),
        "rounds": _progress(report, running),
        "peers": describe_peers(report, now) if running else "-",
        "model": report.model_digest or "none yet",
        "measured": format_metrics(report.metrics, _ALL_METRICS),
        **_own_models(report),
        "traffic": f"{format_size(report.bytes_sent)} sent, {format_size(report.bytes_received)} received",
        "memory": f"{report.rss_mb:.0f} MB (peak {report.peak_rss_mb:.0f}), trainer {report.trainer_peak_rss_mb:.0f}",
        "ledger": describe_ledger(report.ledger),
    }
    if report.privacy is not None:
        rows["privacy"] = describe_privacy(report.privacy)
    if running and report.declined:
        rows["takes no part"] = "\n".join(f"{name}: {why}" for name, why in sorted(report.declined.items()))
    if report.withheld:
        rows["no update"] = report.withheld
    if report.coming:
        rows["coming"] = "\n".join(report.coming)
    if report.refused:
        rows["refused"] = ", ".join(f"{kind}: {count}" for kind, count in sorted(report.refused.items()))
    if running and report.shut_out:
        rows["shut out"] = "\n".join(describe_shut_out(one, now) for one in report.shut_out)
    for one in report.misbehaviour:
        caught = f"{one.member}: {one.kind} (round {one.round}): {one.reason}"
        rows["caught"] = f"{rows['caught']}\n{caught}" if "caught" in rows else caught
    table = Table(title=report.name, show_header=False, title_justify="left")
    for key, value in rows.items():
        table.add_row(key, value)
    return table


def _own_models(report: NodeStatus) -> dict[str, str]:
    """How the models do that this member trains for itself, if it does."""
    rows = {"own (Ditto)": report.ditto_metrics, "rows alone": report.alone_metrics}
    return {name: format_metrics(metrics, _ALL_METRICS) for name, metrics in rows.items() if metrics}


def describe_peers(report: NodeStatus, now: float) -> str:
    """Who answers; and who does not, since when and why, one line each."""
    lines = [", ".join(report.peers) or "none answers"]
    for one in report.missing:
        why = one.error or "waiting for its call"
        tried = f" (tried {format_age(now - one.tried)} ago)" if one.tried else ""
        lines.append(f"not {one.member}, for {format_age(now - one.since)}: {why}{tried}")
    return "\n".join(lines)


def format_age(seconds: float) -> str:
    """A time span for people: 42 s, 17 min, 3 h, 5 days."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _progress(report: NodeStatus, running: bool) -> str:
    """How far it is, and what it does if it does anything."""
    completed = f"{report.rounds} completed"
    if report.phase == "no longer a member":
        return f"{completed}; this node is {report.phase} of the federation"
    if not running or report.phase == "starting":
        return completed
    if report.phase == "measuring":
        return f"{completed}; measuring the last model"
    if report.phase == "done":
        return f"{completed}, done: it goes on serving"
    if report.phase == "disk full":
        return f"{completed}; waiting in round {report.round}, because the disk is full: see the log"
    doing = f"{completed}, now {report.phase} in round {report.round} attempt {report.attempt}"
    up = len(report.peers) + 1
    return (
        f"{doing}\nonly {up} of the {report.quorum} nodes that a round needs are up"
        if up < report.quorum
        else doing
    )


def _history(rounds: list[RoundStatus]) -> object:
    from rich.table import Table

    table = Table()
    names = metric_names(row.metrics for row in rounds)
    by_all = any(row.members_metrics for row in rounds)  # never in secure mode
    headings = ["round", "took part", "seconds", " / ".join(names), *["by all"] * by_all, "traffic", "model"]
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("took part", "model") else "right")
    for row in rounds:
        table.add_row(
            str(row.round),
            " ".join(row.participants) or "(snapshot)",
            f"{row.seconds:.2f}",
            format_values(row.metrics, names),
            *[format_values(row.members_metrics, names)] * by_all,
            format_size(row.bytes),
            row.model_digest[:16],
        )
    return table


def format_size(size: float) -> str:
    """Bytes for people, in powers of 1000 and three digits: 999 B, 9.9 kB, 120 MB."""
    unit = "B"
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5 or unit == "GB":
            break
        size /= 1000
    return f"{size:.1f} {unit}" if size < 99.95 and unit != "B" else f"{size:.0f} {unit}"


def format_metrics(metrics: Mapping[str, float], names: Iterable[str] = _COLUMN_METRICS) -> str:
    """The measures called `names`, what people ask for first, with names; a dash where nothing was measured."""
    shown = [f"{name} {_number(metrics[name])}" for name in names if name in metrics]
    return ", ".join(shown) or "-"


def metric_names(rows: Iterable[Mapping[str, float]]) -> list[str]:
    """Which of `rows`' measures a column shows; its heading is their names."""
    measured = [name for row in rows for name in row]
    return [name for name in _COLUMN_METRICS if name in measured] or [_COLUMN_METRICS[0]]


def format_values(metrics: Mapping[str, float], names: Iterable[str]) -> str:
    """The measures called `names` without their names, or a dash where nothing was measured."""
    return " / ".join(_number(metrics[name]) for name in names if name in metrics) or "-"


def _number(value: float) -> str:
    """Four decimals; of a large one, as an error in the target's own units may be, six digits."""
    return f"{value:.4f}" if value < 100 else f"{value:.6g}"
