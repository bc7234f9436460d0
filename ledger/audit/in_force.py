"""Under which charter a round was made, for who looks at that round alone: the ledger's amendments say it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from folkmoot.ledger.audit.charters import check_charters, gather_charters
from folkmoot.ledger.audit.checks import PASSED, check_ledger, read_ledgers
from folkmoot.ledger.audit.ledger_checks import PublicRecord
from folkmoot.ledger.audit.report import Finding, Status, Tallies, Tally
from folkmoot.ledger.audit.sources import SignedCharter, Source
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.errors import CharterError, RemoteProtocolError
from folkmoot.protocol.record import decode_record
from folkmoot.protocol.timeline import Span
from folkmoot.protocol.types import Digest, Round

_SHAKEN = (Status.FAIL, Status.MISBEHAVIOUR)


@dataclass(frozen=True)
class Ground:
    """What an audit of one round stands on.

    `contract` (20 bytes) is the address that all `ledgers` read, through RPCs called `names`; there may be none: then
    only rounds under the founding charter can be looked at. `charter` is the founding one; without it a home among
    `sources` gives it. `oldest`: as for `audit`.
    """

    contract: bytes
    sources: Sequence[Source]
    charter: SignedCharter | None = None
    ledgers: Sequence[PublicRecord] = ()
    names: Sequence[str] = ()
    development: bool = False
    oldest: float | None = None


def federation_at(number: Round, ground: Ground, tally: Tally) -> Federation | None:
    """The federation under the charter that was in force in a round; None if that is not shown, which `tally` tells.

    Raises `CharterError` if there is no charter at all, or a home's cannot be read.
    """
    tallies = Tallies(PASSED)
    views = read_ledgers(ground.ledgers, ground.names, None, tallies)
    charters = gather_charters(ground.charter, ground.sources, views)
    if charters.founding is None:
        raise CharterError("no charter: give --charter, or a --home that has one")
    check_ledger(views, charters.founding.charter, ground.development, ground.oldest, tallies)
    timeline = check_charters(charters, views, ground.contract, tallies)
    span = timeline.span_at(number) if timeline is not None else None
    for finding in _told(tallies, span):
        tally.add(finding.status, finding.what, where=finding.where)
    if timeline is None or span is None or span.charter is None or tally.gravest in _SHAKEN:
        return None
    if not views and _named_in_record(number, ground.sources) not in (None, span.digest):
        why = "name its ledger too, whose amendments show what was in force"
        tally.add(Status.INCONCLUSIVE, f"round {number} was not made under the founding charter: {why}")
        return None
    tally.add_pass()
    return Federation(timeline.federation, span.charter)


def _told(tallies: Tallies, span: Span | None) -> Iterator[Finding]:
    """What stands against relying on the ledger and on the charter of `span`; gaps elsewhere do not matter here."""
    for finding in tallies.findings:
        is_elsewhere = finding.check == "amendments" and span is not None and finding.round != span.first
        # A block that is not final yet may hold newer rounds, but no older charter.
        if finding.check != "finality" and not (finding.round is not None and is_elsewhere):
            yield finding


def _named_in_record(number: Round, sources: Sequence[Source]) -> Digest | None:
    """The charter that a record of the round names; None if there is no record to be read."""
    for source in sources:
        try:
            if (data := source.record(number)) is not None:
                return decode_record(data).opening.survivors.config
        except (RemoteProtocolError, OSError):
            continue
    return None
