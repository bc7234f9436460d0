"""Findings of one kind together: what was found in two hundred rounds is told once, with the rounds."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from folkmoot.protocol.types import Round

if TYPE_CHECKING:
    from folkmoot.ledger.audit.report import Finding

_MAX_RUNS, _MAX_SOURCES = 12, 3
_BLOB = re.compile(r": (blobs|masked)/\S+ in .*")
"""Which blob it is, at the end of what a finding says."""


@dataclass
class Group:
    """Findings of one check that say the same of several rounds or archives, as they came."""

    text: str
    """What all of them say, after the place."""
    findings: list["Finding"] = field(default_factory=list)
    sources: dict[str, None] = field(default_factory=dict)
    """Names of the archives, in order."""

    @property
    def first(self) -> "Finding":
        """One of them, to show for all."""
        return self.findings[0]

    @property
    def told(self) -> str:
        """All of them in one sentence."""
        if len(self.findings) == 1:
            return self.first.what
        rounds = {one.round for one in self.findings if one.round is not None}
        return f"{rounds_told(rounds)}{self._where()}{self.text}"

    def _where(self) -> str:
        if not self.sources:
            return ""
        if len(self.sources) > _MAX_SOURCES:
            return f" in {len(self.sources)} archives"
        return f" in {', '.join(short_names(list(self.sources)))}"


def group(findings: Iterable["Finding"]) -> list[Group]:
    """The findings, those of one kind together, in the order of each kind's first."""
    groups: dict[tuple[object, ...], Group] = {}
    for finding in findings:
        source, text = _split(finding)
        kind = (finding.check, finding.status, finding.member, text)
        found = groups.setdefault(kind, Group(text))
        found.findings.append(finding)
        if source:
            found.sources[source] = None
    return list(groups.values())


def _split(finding: "Finding") -> tuple[str, str]:
    """The archive that a finding names, if it does, and what it says besides round and archive."""
    start = f"round {finding.round}"
    if finding.round is None or not finding.what.startswith((f"{start} ", f"{start}:")):
        return "", finding.what
    source, text = finding.where.removeprefix(f"{start} in "), finding.what.removeprefix(start)
    if not source or not text.startswith(f" in {source}"):
        return "", _BLOB.sub("", text)
    return source, _BLOB.sub("", text.removeprefix(f" in {source}"))


def rounds_told(rounds: Iterable[Round]) -> str:
    """Rounds as people write them: "rounds 3-40, 52"."""
    found = spans(rounds)
    more = sum(last - first + 1 for first, last in found[_MAX_RUNS:])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in found[:_MAX_RUNS]]
    told = ", ".join(shown) + (f" and {more} more" if more else "")
    return f"round {told}" if told.isdecimal() else f"rounds {told}"


def spans(rounds: Iterable[Round]) -> tuple[tuple[Round, Round], ...]:
    """Runs of consecutive rounds, as (first, last)."""
    found: list[tuple[Round, Round]] = []
    for number in sorted(rounds):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)


def short_names(names: Sequence[str]) -> Iterator[str]:
    """Paths without the folders that all of them begin with."""
    if any(" " in name for name in names):
        return iter(names)
    parts = [name.split("/") for name in names]
    shortest = min(map(len, parts), default=1)
    start = 0
    while start < shortest - 1 and len({one[start] for one in parts}) == 1:
        start += 1
    return ("/".join(one[start:]) for one in parts)
