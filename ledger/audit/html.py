"""An audit's report as one page: nothing is fetched from elsewhere, no script runs, it prints well.

Everything that comes from ledgers and archives is escaped; the page forbids scripts and requests to itself too.
"""

import json
import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files

from folkmoot.ledger.audit import picture
from folkmoot.ledger.audit.grouping import Group, group, rounds_told
from folkmoot.ledger.audit.participation import State
from folkmoot.ledger.audit.report import COUNTED, AuditReport, Finding, MemberRow, Status

_VERDICTS = {
    Status.PASS: "Every check that was asked for holds.",
    Status.INCONCLUSIVE: "Something is missing, or not yet final: neither good nor bad is shown, nobody is convicted.",
    Status.UNREACHABLE: "The ledger did not answer. What lies in the archives was checked as far as it goes.",
    Status.FAIL: "What was given contradicts itself or the ledger.",
    Status.MISBEHAVIOUR: "There is proof that needs nobody's word: contradicting signatures, or a rewritten record.",
}
_MAX_SHOWN = 200
"""Findings on the page; the JSON report has all."""

_PROVES = (
    "Who took part in each round, what they committed to, and that a quorum of attesters signed the outcome.",
    "Where payloads or sums were given: that the recorded model is what they add up to, bit for bit.",
)
_PROVES_NOT = (
    "That the data are true, or lawfully held: nobody sees them.",
    "That members trained as agreed, or well; that noise was added where a member says so.",
    "That an excluded contribution was not simply late, where no proposer's reason is at hand.",
)


def render(report: AuditReport, *, command: Sequence[str], version: str, made_at: float) -> str:
    """The page. `command`: how to run the same audit again; `made_at`: Unix seconds."""
    title = f"Audit of {report.subject.name or 'a federation'}"
    style = files("folkmoot.ledger.audit").joinpath("page.css").read_text()
    body = [
        _head(report, title, version, made_at),
        _subject(report),
        _timeline(report),
        _members(report.members),
        _findings(report.findings),
        _checks(report),
        _again(command, version),
    ]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>{escape(title)}: {report.status}</title><style>{style}</style></head><body><main>",
            *filter(None, body),
            "</main></body></html>\n",
        ]
    )


def _head(report: AuditReport, title: str, version: str, made_at: float) -> str:
    when = datetime.fromtimestamp(made_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f'<header><h1>{escape(title)}</h1><span class="badge b-{report.status.lower()}">{report.status}</span>'
        f"<p>{escape(_VERDICTS.get(report.status, ''))} Made on {when} with folkmoot {escape(version)}.</p></header>"
    )


def _subject(report: AuditReport) -> str:
    subject, counts = report.subject, [check.status for check in report.checks]
    told = ", ".join(f"{counts.count(status)} {status}" for status in Status if status in counts)
    rows = [("checks", told)]
    if subject.height is not None:
        rows.append(("recorded rounds", str(subject.height)))
    rows += [
        ("federation id", subject.federation),
        (
            "contract",
            f"{subject.contract} on chain {subject.chain_id}" if subject.chain_id else subject.contract,
        ),
        ("head of the record", subject.head),
    ]
    if subject.block is not None:
        when = f", made {_time(subject.block_time)}" if subject.block_time else ""
        rows.append(("read at block", f"{subject.block}{when}"))
        rows.append(("its hash", f"0x{subject.block_hash}" if subject.block_hash else ""))
    cells = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows if value)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in report.notes[:_MAX_SHOWN])
    return f"<section><h2>Summary</h2><dl>{cells}</dl>{notes}</section>"


def _timeline(report: AuditReport) -> str:
    drawn = picture.draw(report)
    if not drawn:
        return ""
    entries = "".join(
        f'<li><svg width="13" height="13"><rect class="m-{state}" width="13" height="13" rx="3"/></svg>'
        f"<b>{state}{f' ({mark})' if mark else ''}</b>: {escape(meaning)}</li>"
        for state, mark, meaning in picture.legend()
    )
    shared = picture.rounds_per_column(len(report.rounds))
    note = (
        f"<p class='soft'>A column is {shared} rounds, and shows the worst of them.</p>" if shared > 1 else ""
    )
    first_row = f'<p class="soft">{escape(picture.FIRST_ROW)}</p>'
    picture_and_legend = f'<div class="wide">{drawn}</div><ul class="legend">{entries}</ul>'
    return f"<section><h2>Rounds</h2>{note}{picture_and_legend}{first_row}</section>"


def _members(members: Sequence[MemberRow]) -> str:
    if not members:
        return ""
    states = [state.value for state in State if state is not State.CONTRIBUTED]
    heading = "".join(f'<th class="n">{name}</th>' for name in ("attested", "contributed", *states))
    rows = []
    for member in members:
        counts = [member.attested, member.contributed, *(member.others.get(state, 0) for state in states)]
        cells = "".join(f'<td class="n{"" if count else " z"}">{count}</td>' for count in counts)
        rows.append(f"<tr><td>{escape(member.name)}</td><td>{escape(member.role)}</td>{cells}</tr>")
    reasons = [_reasons(member) for member in members if member.rounds]
    return (
        '<section><h2>Members</h2><div class="wide"><table><thead><tr><th>member</th><th>role</th>'
        f"{heading}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="soft">{escape(COUNTED)}</p>{"".join(reasons)}</section>'
    )


def _reasons(member: MemberRow) -> str:
    alike: dict[tuple[str, str], list[int]] = {}
    for one in member.rounds:
        alike.setdefault((one.state, one.why), []).append(one.round)
    lines = "".join(
        f"<li>{rounds_told(rounds)}: <b>{escape(state)}</b>, {escape(why)}</li>"
        for (state, why), rounds in list(alike.items())[:_MAX_SHOWN]
    )
    count = len(member.rounds)
    told = f"{escape(member.name)}: {count} {'round' if count == 1 else 'rounds'} that did not count"
    return f"<details><summary>{told}</summary><ul>{lines}</ul></details>"


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return "<section><h2>Findings</h2><p>None.</p></section>"
    groups = group(findings)
    rows = "".join(map(_finding_row, groups[:_MAX_SHOWN]))
    more = sum(len(one.findings) for one in groups[_MAX_SHOWN:])
    note = f'<p class="soft">And {more} more, in the JSON report.</p>' if more > 0 else ""
    return (
        '<section><h2>Findings</h2><table class="cards"><thead><tr><th>status</th><th>check</th><th>id</th>'
        f"<th>what, and where</th></tr></thead><tbody>{rows}</tbody></table>{note}</section>"
    )


def _finding_row(found: Group) -> str:
    first, count = found.first, len(found.findings)
    number = f' <span class="soft">and {count - 1} more</span>' if count > 1 else ""
    evidence = _evidence(first) if count == 1 else _each(found.findings)
    return (
        f'<tr><td class="t t-{first.status.lower()}">{first.status}</td><td><code>{escape(first.check)}</code></td>'
        f"<td><code>{first.id}</code>{number}</td><td>{escape(found.told)}{evidence}</td></tr>"
    )


def _each(findings: Sequence[Finding]) -> str:
    lines = "".join(
        f"<li><code>{one.id}</code> {escape(one.what)}{_proof(one)}</li>" for one in findings[:_MAX_SHOWN]
    )
    more = len(findings) - _MAX_SHOWN
    rest = f"<li>and {more} more, in the JSON report</li>" if more > 0 else ""
    return f"<details><summary>one by one</summary><ul>{lines}{rest}</ul></details>"


def _evidence(finding: Finding) -> str:
    # Most findings begin with the place where they were made.
    is_told = finding.what.startswith(finding.where)
    where = "" if is_told else f'<div class="soft">{escape(finding.where)}</div>'
    return where + _proof(finding)


def _proof(finding: Finding) -> str:
    if finding.proof is None:
        return ""
    shown = escape(json.dumps(finding.proof, indent=1))
    return f"<details><summary>proof</summary><pre>{shown}</pre></details>"


def _checks(report: AuditReport) -> str:
    rows = "".join(
        f'<tr><td class="n">{check.number}</td><td><code>{escape(check.id)}</code></td>'
        f'<td class="t t-{check.status.lower()}">{check.status}</td><td>{escape(check.detail)}</td></tr>'
        for check in report.checks
    )
    return (
        '<section><h2>Checks</h2><table class="cards"><thead><tr><th class="n"></th><th>check</th><th>status</th>'
        f"<th>detail</th></tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _again(command: Sequence[str], version: str) -> str:
    return (
        "<section><h2>Do it again</h2><p>Nothing on this page has to be believed. Whoever has the same archives, or "
        "the bundle, runs:</p>"
        f"<pre>{escape(shlex.join(command))}</pre><p>folkmoot {escape(version)}</p>"
        f"<h2 style='margin-top:1.2rem'>What the record proves</h2>{_list(_PROVES)}"
        f"<h2>What it cannot</h2>{_list(_PROVES_NOT)}</section>"
    )


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s after 1970"
