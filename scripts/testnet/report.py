"""`HOME/report.json`: what a run of the testnet came to, put together from nodes, ledger, audit and baselines."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import msgspec

from folkmoot.ledger.audit.report import AuditReport, Status
from folkmoot.ledger.port import Record
from folkmoot.node.report.story import ALONE, PERSONAL, SHARED, Part, Story
from folkmoot.node.status_file import NodeStatus
from folkmoot.protocol.metrics import mean_metrics
from folkmoot.testnet.home import Plan
from folkmoot.testnet.learning import Baselines
from folkmoot.testnet.processes import TestnetError


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One node: how it did on the held-out data, with the others and alone, and what it used.

    `personal_metrics` are those of the model that it trains for itself near the common one, with `trainer.ditto`.

    `peak_rss_mb` is the sampled maximum of RssAnon + RssShmem, in 10^6 bytes.
    """

    name: str
    peer_id: str
    rounds: int
    model_digest: str
    accuracy: float | None
    personal_accuracy: float | None
    alone_accuracy: float | None
    metrics: dict[str, float]
    personal_metrics: dict[str, float]
    alone_metrics: dict[str, float]
    bytes_sent: int
    bytes_received: int
    peak_rss_mb: float
    trainer_peak_rss_mb: float


class RoundReport(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded round. `seconds` is the median over the nodes; `tx` and digests in hex.

    `metrics` are those of its model over all nodes' held-out rows; `accuracy` is one of them, null in regression.
    `by_node`: what each node measured on its own.
    """

    round: int
    participants: list[str]
    seconds: float
    model_digest: str
    statement: str
    tx: str
    gas: int
    accuracy: float | None
    metrics: dict[str, float]
    by_node: dict[str, dict[str, float]]


class AttackReport(msgspec.Struct, frozen=True, kw_only=True):
    """What attackers did: `metrics` are the honest nodes' mean with them, `without` those of the honest nodes' FedAvg.

    `backdoor`: how often a patched row was taken for the target, null for other attacks.
    """

    name: str
    attackers: list[str]
    metrics: dict[str, float]
    without: dict[str, float]
    backdoor: float | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file. CPU seconds are those of all processes, user and system; wall seconds from start to end.

    `worse_off`: a sentence for each node that is worse off with the federation than alone.
    """

    federation: str
    mode: str
    nodes: tuple[NodeReport, ...]
    pooled_accuracy: float | None
    pooled_metrics: dict[str, float]
    rounds: tuple[RoundReport, ...]
    worse_off: tuple[str, ...]
    audit: AuditReport
    attack: AttackReport | None = None
    cpu_seconds: float
    cpu_seconds_by_process: dict[str, float]
    wall_seconds: float

    @property
    def agreed(self) -> bool:
        """Whether every node holds the model that the ledger's last statement names."""
        recorded = self.rounds[-1].model_digest if self.rounds else None
        return bool(self.nodes) and {node.model_digest for node in self.nodes} == {recorded}

    @property
    def succeeded(self) -> bool:
        """What the exit code says."""
        return self.agreed and self.audit.status is Status.PASS


def node_reports(
    names: Sequence[str], statuses: Sequence[NodeStatus | None], baselines: Baselines
) -> tuple[NodeReport, ...]:
    """One entry per node, in charter order; of a node that never spoke only its baseline is known."""
    reports = []
    for name, status, alone in zip(names, statuses, baselines.alone, strict=True):
        seen = status or NodeStatus(name=name, pid=0, peer_id="", member=0)
        reports.append(
            NodeReport(
                name=name,
                peer_id=seen.peer_id,
                rounds=seen.rounds,
                model_digest=seen.model_digest,
                accuracy=seen.metrics.get("accuracy"),
                alone_accuracy=alone.get("accuracy"),
                metrics=seen.metrics,
                personal_accuracy=seen.ditto_metrics.get("accuracy"),
                personal_metrics=seen.ditto_metrics,
                alone_metrics=alone,
                bytes_sent=seen.bytes_sent,
                bytes_received=seen.bytes_received,
                peak_rss_mb=seen.peak_rss_mb,
                trainer_peak_rss_mb=seen.trainer_peak_rss_mb,
            )
        )
    return tuple(reports)


def attack_report(plan: Plan, nodes: Sequence[NodeReport], baselines: Baselines) -> AttackReport | None:
    """None without attackers."""
    if not plan.attack:
        return None
    honest = [node.metrics for node in nodes if node.name not in plan.attackers]
    return AttackReport(
        name=plan.attack_name,
        attackers=plan.attackers,
        metrics=mean_metrics(honest),
        without=baselines.honest,
        backdoor=baselines.backdoor,
    )


def round_reports(
    records: Sequence[Record], statuses: Sequence[NodeStatus | None]
) -> tuple[RoundReport, ...]:
    """What the ledger records of each round, with what the nodes measured in it."""
    histories = {
        status.name: {entry.round: entry for entry in status.history} for status in statuses if status
    }
    reports = []
    for record in records:
        number = record.statement.round
        by_node = {name: history[number] for name, history in histories.items() if number in history}
        entries = list(by_node.values())
        metrics = mean_metrics(entry.metrics for entry in entries)
        reports.append(
            RoundReport(
                round=number,
                participants=max((entry.participants for entry in entries), key=len, default=[]),
                seconds=median(entry.seconds for entry in entries) if entries else 0.0,
                model_digest=record.statement.model.hex(),
                statement=record.digest.hex(),
                tx=f"0x{record.transaction.hex()}",
                gas=record.gas_used,
                accuracy=metrics.get("accuracy"),
                metrics=metrics,
                by_node={name: entry.metrics for name, entry in by_node.items()},
            )
        )
    return tuple(reports)


def make_story(
    title: str, mode: str, names: Sequence[str], statuses: Sequence[NodeStatus | None], baselines: Baselines
) -> Story:
    """The same for the page with plots; all nodes hold out the same rows, so all have one calibration."""
    parts = [
        Part(
            name=name,
            rounds=status.history if status else [],
            models={
                SHARED: status.metrics if status else {},
                **({PERSONAL: status.ditto_metrics} if status and status.ditto_metrics else {}),
                ALONE: alone,
            },
            calibration=baselines.calibration,
        )
        for name, status, alone in zip(names, statuses, baselines.alone, strict=True)
    ]
    return Story(title=title, mode=mode, parts=parts, pooled=baselines.pooled)


def write_report(path: Path, report: Report) -> None:
    """Replace the file at `path`, whole; raises `TestnetError`."""
    temporary = path.with_suffix(".new")
    try:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        temporary.replace(path)
    except OSError as error:
        raise TestnetError(f"{path}: cannot be written: {error.strerror}") from error
