"""Check 10, and which charter rules which round: the founding one, then what amendments put in force."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from folkmoot.ledger.audit.ledger_checks import LedgerView
from folkmoot.ledger.audit.report import Status, Tallies, Tally
from folkmoot.ledger.audit.sources import SignedCharter, Source
from folkmoot.ledger.identity import founding_of
from folkmoot.ledger.port import LedgerIdentity
from folkmoot.protocol.amending import MAX_CHARTER
from folkmoot.protocol.blob import BlobRef, ref_of
from folkmoot.protocol.charter import Charter, federation_id, verify_charter
from folkmoot.protocol.charter_rules import decode_charter
from folkmoot.protocol.charter_tables import FINALITY_DEPTH
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.governance import Amendment
from folkmoot.protocol.timeline import Timeline
from folkmoot.protocol.types import Digest


@dataclass(frozen=True)
class Charters:
    """What was given of charters. `founding`: the one that the contract was deployed with, or the first given.

    `others` claim to be the founding charter, too, or are amended ones; `by_digest` has all.
    """

    founding: SignedCharter | None
    others: tuple[SignedCharter, ...]
    by_digest: Mapping[Digest, Charter]


def gather_charters(
    given: SignedCharter | None, sources: Sequence[Source], views: Sequence[LedgerView]
) -> Charters:
    """All charters that lie in `sources`, and the one that was given; without one, a source gives the founding one."""
    founded = views[0].identity.charter_digest if views else None
    amendments = [record.amendment for record in views[0].amendments] if views else []
    signed = [given] if given else [found for source in sources if (found := source.charter())]
    # A home that joined later may have its first charter from an amendment.
    founding = next((one for one in signed if one.charter.digest == founded), signed[0] if signed else None)
    known = {one.charter.digest: one.charter for one in signed}
    for each in (*([given] if given else ()), *signed):
        known |= {charter.digest: charter for charter in each.amended}
    for charter in _in_archives(amendments, sources):
        known[charter.digest] = charter
    return Charters(founding, tuple(one for one in signed if one is not founding), known)


def finality_depth(given: SignedCharter | None, sources: Sequence[Source]) -> int:
    """What makes a block final where the chain does not say it: the most that any charter at hand asks for."""
    signed = [given] if given else [found for source in sources if (found := source.charter())]
    charters = [charter for one in signed for charter in (one.charter, *one.amended)]
    return max((charter.ledger.finality_depth for charter in charters), default=FINALITY_DEPTH)


def check_charters(
    charters: Charters, views: Sequence[LedgerView], contract: bytes, tallies: Tallies
) -> Timeline | None:
    """(10) Signed by every member, and the contract's. Returns the charters by round; None if none is to rely on."""
    tally = tallies["charter"]
    if charters.founding is None:
        tally.add(Status.SKIPPED, "no charter was given")
        return None
    charter = charters.founding.charter
    amendments = [record.amendment for record in views[0].amendments] if views else []
    allowed = {charter.digest, *(amendment.charter for amendment in amendments)}
    for other in charters.others:
        if other.charter.digest not in allowed:
            tally.add(
                Status.FAIL,
                f"{other.where} is another charter than {charters.founding.where}",
                where=other.where,
            )
    try:
        verify_charter(charter, charters.founding.signatures)
    except CharterError as error:
        tally.add(Status.FAIL, str(error), where=charters.founding.where)
    for view in views:
        _check_founding(charter, view.identity, tally)
    tally.add_pass(len(charter.members))
    # On another chain than the charter's every signature and the federation's id would be wrong: (3) says it once.
    if not tally.holds or any(view.identity.chain_id != charter.ledger.chain_id for view in views):
        return None
    federation = federation_id(charter.digest, charter.ledger.chain_id, contract)
    timeline = Timeline(federation, charter, amendments, charters.by_digest)
    _check_gaps(timeline, tallies["amendments"])
    return timeline


def names_of(charters: Charters) -> Mapping[bytes, str]:
    """What the owner of an address is called, in whichever charter."""
    return {
        bytes.fromhex(member.audit_key[2:]): member.name
        for charter in charters.by_digest.values()
        for member in charter.members
    }


def _check_founding(charter: Charter, found: LedgerIdentity, tally: Tally) -> None:
    expected = founding_of(charter)
    if found.charter_digest != charter.digest:
        what = f"{charter.digest.hex()}, the contract's is {found.charter_digest.hex()}"
        tally.add(Status.FAIL, f"its digest is {what}")
    elif found.attesters != expected.attesters:
        tally.add(Status.FAIL, "the contract's attesters are not the charter's")
    elif found.members != expected.members:
        tally.add(Status.FAIL, "the contract's members are not the charter's")
    elif found.lead != expected.lead:
        tally.add(
            Status.FAIL, f"the contract's lead is {found.lead}, the charter's max_ahead is {expected.lead}"
        )


def _check_gaps(timeline: Timeline, tally: Tally) -> None:
    """(27) The charters that amendments name are here, and change what they may."""
    for span in timeline.spans:
        if span.charter is not None or span.amendment is None:
            continue
        where = f"the charter in force from round {span.first} on ({span.digest.hex()})"
        if span.problem:
            tally.add(Status.FAIL, f"{where}: {span.problem}", round_=span.first)
        else:
            tally.add(Status.INCONCLUSIVE, f"{where} was not given", round_=span.first)


def _in_archives(amendments: Sequence[Amendment], sources: Sequence[Source]) -> Iterator[Charter]:
    """Amended charters that archives keep as blobs."""
    for amendment in amendments:
        for source in sources:
            path = source.blob(amendment.blob)
            if path is None or path.stat().st_size != amendment.size or amendment.size > MAX_CHARTER:
                continue
            data = path.read_bytes()
            if ref_of(data) != BlobRef(amendment.blob, amendment.size):
                continue
            try:
                yield decode_charter(data, str(path))
            except CharterError:
                continue
