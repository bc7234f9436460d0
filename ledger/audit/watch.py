"""`folkmoot audit watch`: audits again whenever there is something new, and tells what was not found before."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from folkmoot.ledger.audit.checks import Audited
from folkmoot.ledger.audit.report import AuditReport, Finding, Status
from folkmoot.ledger.audit.session import Outputs, Session, writing
from folkmoot.ledger.errors import LedgerReorganised, LedgerUnavailable, WrongLedger

_PASSING = frozenset({"finality"})
"""Checks whose findings come and go with every block."""


class Watch:
    """Runs a session's audit over and over."""

    def __init__(self, session: Session, export: Path | None) -> None:
        """`export`: a directory for the latest report and page, and a file for every finding."""
        self._session = session
        self._export = export
        self._known: set[str] = set()
        self._seen_at: object = None
        self.status = Status.PASS

    def run(
        self, every: float, *, until_misbehaviour: bool, pause: Callable[[float], None] = time.sleep
    ) -> Iterator[tuple[AuditReport, list[Finding]]]:
        """Yields each audit's report with the findings that are new; ends at the first misbehaviour if asked.

        `every`: seconds between two looks. A look is cheap while neither ledger nor archives have grown.
        """
        while True:
            place = self._place()
            if place is None or place != self._seen_at:
                audited = self._session.run()
                self._seen_at, self.status = place, audited.report.status
                yield audited.report, self._new(audited)
                if until_misbehaviour and self.status is Status.MISBEHAVIOUR:
                    return
            pause(every)

    def _place(self) -> object:
        """Changes when there is something new; None if a ledger does not answer, or not as before."""
        try:
            heads = [ledger.head() for ledger in self._session.ledgers]
        except (LedgerUnavailable, LedgerReorganised, WrongLedger):
            return None
        shown = [(head.height, head.digest, head.finalized_height) for head in heads]
        return shown, [source.marker() for source in self._session.sources]

    def _new(self, audited: Audited) -> list[Finding]:
        found = [one for one in audited.report.findings if one.check not in _PASSING]
        new = [one for one in found if one.id not in self._known]
        self._known |= {one.id for one in new}
        if self._export is not None:
            self._write(self._export, audited, new)
        return new

    def _write(self, folder: Path, audited: Audited, new: list[Finding]) -> None:
        with writing(folder):
            (folder / "findings").mkdir(parents=True, exist_ok=True)
            for finding in new:
                _replace(folder / "findings" / f"{finding.id}.json", msgspec.json.encode(finding))
            _replace(folder / "report.json", msgspec.json.encode(audited.report))
        self._session.export(audited, Outputs(html=folder / "report.html"))


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(msgspec.json.format(data) + b"\n")
    temporary.replace(path)
