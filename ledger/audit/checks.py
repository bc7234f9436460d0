"""The audit, as a numbered list. An auditor trusts nobody's word: every point is recomputed here.

From the ledger alone:

 1. `ledger`        every RPC given answers
 2. `agreement`     several RPCs show the same record
 3. `chain-id`      the federation id is that of this chain, contract and charter
 4. `code-hash`     the contract runs the code that ships with this program (and that the charter names)
 5. `rounds`        one statement for every round, in order
 6. `hash-chain`    every statement names the one before it; the contract's head is the last
 7. `quorum`        enough different attesters signed every statement
 8. `bases`         every round starts from the model of the round before it
 9. `finality`      the blocks that hold the record are final

With the charter, too:

10. `charter`       signed by every member; its digest, attesters and quorum are the contract's

With archives, too, for every round in every archive:

11. `records`       the record is there and decodes
12. `rosters`       who takes part: named by the attempt's proposer from signed READYs, survivors among them
13. `certificates`  a quorum voted for the survivors
14. `openings`      a quorum locked survivors and sums
15. `statements`    the ledger's statement is what survivors and model give, and what the attesters signed
16. `commitments`   every survivor's signed commitment is the one named, for this round and roster; in secure mode it
                    is well-formed, and every pair committed to the same seed
17. `inclusion`     the statement's archive root covers every survivor (RFC 6962 proofs)
18. `payloads`      every payload is there, and is what was committed to; in secure mode, of those that are there
19. `sums`          secure mode: one signed sum for each shard, those that were locked, and every one is there
20. `fingerprints`  secure mode: a quorum's were given, and those of the survivors add up to those of the sums
21. `releases`      secure mode: pair seeds and shares are those committed to, and enough to take all masks off
22. `replay`        payloads opened with the keys of a home, or sums stripped of their masks, and aggregated again, end
                    in the same sums and model
23. `equivocation`  nobody signed two things of which an honest member signs one

From the ledger alone, again (numbers never change, so what came later stands at the end):

24. `headers`       the hash of the block that was read is that of its header, recomputed
25. `proof`         code, head, height, quorum, charter and federation are in that block's state (eth_getProof)
26. `memory`        what an earlier audit verified still stands: no fork, no roll-back
27. `amendments`    a signed chain to the contract's governance head; every round names the charter in force
28. `reports`       nobody was convicted on the chain of signing two things of which an honest member signs one

With archives:

29. `participation` what became of every member's contribution; nobody was left out although it had committed
30. `privacy`       the privacy logs that were given are those to which members committed round by round, and come to
                    no more than the charter's budget

A point that rests on another which did not hold is skipped, not judged: the first fault stands alone in the report,
and it alone keeps the whole from passing. So does a charter that is not signed, or a ledger that does not answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from folkmoot.ledger.audit import ledger_checks, memory, state
from folkmoot.ledger.audit.archives import RECORD_CHECKS
from folkmoot.ledger.audit.charters import Charters, check_charters, gather_charters, names_of
from folkmoot.ledger.audit.governance import check_amendments, check_reports, roles_of
from folkmoot.ledger.audit.headers import read_header
from folkmoot.ledger.audit.ledger_checks import LedgerView, PublicRecord
from folkmoot.ledger.audit.memory import Recall, Remembered
from folkmoot.ledger.audit.report import AuditReport, Subject, Tallies, printable_notes, worst_of
from folkmoot.ledger.audit.rounds import RoundsAudit
from folkmoot.ledger.audit.sources import SignedCharter, Source
from folkmoot.ledger.development import DEVELOPMENT_CHAINS
from folkmoot.protocol.charter import Charter, federation_id
from folkmoot.protocol.errors import RemoteProtocolError

PASSED = {
    "ledger": "{} answered",
    "agreement": "the RPCs agree",
    "chain-id": "as founded",
    "code-hash": "the shipped code",
    "rounds": "{} rounds",
    "hash-chain": "{} statements",
    "quorum": "{} statements",
    "bases": "{} rounds",
    "finality": "{} rounds",
    "charter": "signed by {} members",
    **dict.fromkeys(RECORD_CHECKS, "{} records"),
    "replay": "{} records",
    "equivocation": "{} signatures",
    "headers": "recomputed",
    "proof": "{} words of the contract's state",
    "memory": "nothing was rewritten",
    "amendments": "{} amendments",
    "reports": "{} reports",
    "participation": "{} rounds",
    "privacy": "{} updates",
}
"""Every check in its order, and what it says when all is well (`{}`: how many)."""

_VIEW_CHECKS = (
    *("chain-id", "code-hash", "rounds", "hash-chain", "quorum", "bases", "finality"),
    *("headers", "proof", "memory", "amendments", "reports"),
)
_CHARTER_CHECKS = (*RECORD_CHECKS, "replay", "equivocation", "participation", "privacy")
_ARCHIVE_CHECKS = (*RECORD_CHECKS, "participation", "privacy")


@dataclass(frozen=True)
class Audited:
    """An audit's outcome: the report, what to remember for the next one, and what the ledgers showed.

    `memory` is None if there is nothing to rely on.
    """

    report: AuditReport
    memory: Remembered | None
    views: tuple[LedgerView, ...]


def run_audit(
    ledger: PublicRecord,
    sources: Sequence[Source] = (),
    *,
    contract: bytes,
    charter: SignedCharter | None = None,
    others: Sequence[PublicRecord] = (),
    development: bool = False,
) -> AuditReport:
    """Check all that can be checked with what is given; see `audit`."""
    return audit(
        [ledger, *others], sources, contract=contract, charter=charter, development=development
    ).report


def audit(
    ledgers: Sequence[PublicRecord],
    sources: Sequence[Source] = (),
    *,
    contract: bytes,
    charter: SignedCharter | None = None,
    development: bool = False,
    recall: Recall | None = None,
    names: Sequence[str] = (),
    oldest: float | None = None,
) -> Audited:
    """Check all that can be checked with what is given; never raises for what ledgers or archives hold.

    `contract` (20 bytes) is the address that all `ledgers` read, through one RPC each, called `names`. Without
    `charter` a home among `sources` gives it. `development`: the chain is one that its owner can rewrite, unless its
    id says otherwise. `recall` tells what an earlier audit verified. `oldest` (Unix seconds): a chain whose newest
    block was made before it does not pass, unless it is one for development. Raises `CharterError` or `ConfigError` for
    a home's charter that cannot be read.
    """
    tallies = Tallies(PASSED)
    views = read_ledgers(ledgers, names, recall, tallies)
    # An RPC that lies would call itself a development node, of which less is asked; the chain id is in every signature.
    development = development and all(view.identity.chain_id in DEVELOPMENT_CHAINS for view in views)
    charters = gather_charters(charter, sources, views)
    check_ledger(
        views, charters.founding.charter if charters.founding else None, development, oldest, tallies
    )
    timeline = check_charters(charters, views, contract, tallies)
    if views:
        check_reports(views[0], names_of(charters), tallies["reports"])
    if timeline is None:
        tallies.skip("rests on `charter`" if charters.founding else "no charter was given", _CHARTER_CHECKS)
    elif not sources:
        tallies.skip("no archive was given", _ARCHIVE_CHECKS)
        tallies.skip("no home with its sealing key was given", ("replay",))
    rounds = RoundsAudit(timeline, contract, sources, views, tallies)
    rounds.run()
    checks = tallies.close()
    notes = ["development chain, not evidence"] if development else []
    report = AuditReport(
        status=worst_of(checks),
        checks=tuple(checks),
        notes=printable_notes([*notes, *rounds.notes]),
        subject=_subject(views, charters, contract),
        findings=tallies.findings,
        rounds=tuple(
            msgspec.structs.replace(row, status=tallies.worst_of_round(row.round)) for row in rounds.rows
        ),
        members=rounds.members,
    )
    return Audited(report, memory.compose(views, tallies), tuple(views))


def read_ledgers(
    ledgers: Sequence[PublicRecord], names: Sequence[str], recall: Recall | None, tallies: Tallies
) -> list[LedgerView]:
    """(1) What each RPC shows; only of those that answered."""
    views = []
    for place, ledger in enumerate(ledgers, start=1):
        name = names[place - 1] if names else f"RPC {place}"
        view = ledger_checks.read_view(ledger, name, tallies["ledger"], tallies["code-hash"], recall)
        if view is not None:
            views.append(view)
    return views


def check_ledger(
    views: Sequence[LedgerView],
    charter: Charter | None,
    development: bool,
    oldest: float | None,
    tallies: Tallies,
) -> None:
    """(2) to (9) and (24) to (26); to (7) archives may add."""
    ledger_checks.check_agreement(views, tallies["agreement"])
    if not views:
        tallies.skip("rests on an answer of the ledger", _VIEW_CHECKS)
        return
    view = views[0]
    ledger_checks.check_chain_id(view, charter, tallies["chain-id"])
    ledger_checks.check_code(view, charter, tallies["code-hash"])
    ledger_checks.check_rounds(view, tallies["rounds"])
    if tallies["rounds"].holds:
        ledger_checks.check_hash_chain(view, tallies["hash-chain"])
        ledger_checks.check_bases(view, charter, tallies["bases"])
    else:
        tallies.skip("rests on `rounds`", ("hash-chain", "bases"))
    ledger_checks.check_finality(view, development, tallies["finality"])
    for each in views:
        roles = roles_of(each.identity, each.amendments)
        state.check_headers(each, None if development else oldest, tallies["headers"])
        state.check_proof(each, roles, development, tallies["proof"])
        check_amendments(each, tallies["amendments"])
    memory.check_memory(view, tallies["memory"])


def _subject(views: Sequence[LedgerView], charters: Charters, contract: bytes) -> Subject:
    """What was audited, for the report's head."""
    name = charters.founding.charter.name if charters.founding else ""
    if not views:
        return Subject(name=name, contract=f"0x{contract.hex()}")
    identity, head, proof = views[0].identity, views[0].head, views[0].proof
    subject = Subject(
        federation=federation_id(identity.charter_digest, identity.chain_id, contract).hex(),
        name=name,
        chain_id=identity.chain_id,
        contract=f"0x{contract.hex()}",
        height=head.height,
        head=head.digest.hex(),
        block=head.block,
    )
    if proof is None or proof.latest is None:
        return subject
    try:
        header = read_header(proof.latest.header)
    except RemoteProtocolError:
        return subject
    return msgspec.structs.replace(subject, block_hash=header.hash.hex(), block_time=header.timestamp)
