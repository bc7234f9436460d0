"""The audit's way through the rounds, one by one: what was read of one is forgotten before the next."""

from collections.abc import Iterable, Mapping, Sequence

from folkmoot.ledger.audit import ledger_checks
from folkmoot.ledger.audit.archives import SETTLED, CaseAudit, read_round
from folkmoot.ledger.audit.equivocation import EquivocationSearch
from folkmoot.ledger.audit.governance import recover_all, roles_of
from folkmoot.ledger.audit.ledger_checks import LedgerView
from folkmoot.ledger.audit.memory import remembered_record
from folkmoot.ledger.audit.participation import Participation, State, read_journals
from folkmoot.ledger.audit.privacy_checks import PrivacyAudit
from folkmoot.ledger.audit.report import MemberRow, RoundRow, Status, Tallies
from folkmoot.ledger.audit.round_checks import Case, Frame
from folkmoot.ledger.audit.secure_checks import fingerprints_in
from folkmoot.ledger.audit.sources import Source
from folkmoot.ledger.port import Record
from folkmoot.ledger.signing import KeyVerifier
from folkmoot.protocol.certificates import Federation, roster_members
from folkmoot.protocol.messages import Lock, Signed, Statement
from folkmoot.protocol.timeline import Span, Timeline
from folkmoot.protocol.typed_data import Domain, struct_hash
from folkmoot.protocol.types import Digest, MemberId, Round


class RoundsAudit:
    """Checks 7, 11 to 23, 29 and 30 over all rounds, and what the report tells of each."""

    def __init__(
        self,
        timeline: Timeline | None,
        contract: bytes,
        sources: Sequence[Source],
        views: Sequence[LedgerView],
        tallies: Tallies,
    ) -> None:
        """`timeline`: None if there is no charter to rely on; then only the ledger is looked at."""
        self._timeline = timeline
        self._sources = sources
        self._views = views
        self._tallies = tallies
        self._records = {record.statement.round: record for record in views[0].records} if views else {}
        self._roles = roles_of(views[0].identity, views[0].amendments) if views else None
        self._differing = _differing(self._records, views[1:])
        self._search = EquivocationSearch(sources if timeline else (), tallies["equivocation"])
        self._participation = Participation(tallies["participation"])
        self._privacy = PrivacyAudit(sources, timeline, tallies["privacy"]) if timeline and sources else None
        self._domain = Domain(timeline.founding.ledger.chain_id if timeline else 0, contract)
        self._span: Span | None = None
        self._frame: Frame | None = None
        self._audit: CaseAudit | None = None
        self.rows: list[RoundRow] = []
        self.notes: list[str] = []
        self._enter(1)

    def run(self) -> None:
        """Look at every round that anything given knows of, ascending."""
        rounds = {*self._records, *self._search.rounds}
        if self._timeline is not None:
            rounds |= {number for source in self._sources for number in source.rounds()}
        for number in sorted(rounds):
            self._enter(number)
            self._check_round(number)
        self._participation.tell_unexplained()
        if self._privacy is not None:
            self._privacy.close()

    def _enter(self, number: Round) -> None:
        """Take the charter that rules a round; there is no frame for rounds whose charter is not here."""
        span = self._timeline.span_at(number) if self._timeline is not None else None
        if span is self._span:
            return
        replay = self._audit.replay if self._audit is not None else None
        self._span, self._frame, self._audit = span, None, None
        if self._timeline is not None and span is not None and span.charter is not None:
            federation = Federation(self._timeline.federation, span.charter)
            self._frame = _frame_of(federation, self._domain, self._sources, self._records)
            self._audit = CaseAudit(self._frame, self._tallies, replay) if self._sources else None
            self._participation.expect(self._frame)

    @property
    def members(self) -> tuple[MemberRow, ...]:
        """What became of every member's contributions."""
        return self._participation.rows()

    def _check_round(self, number: Round) -> None:
        cases: list[Case] = []
        if self._audit is not None:
            cases = list(read_round(number, self._sources, self._tallies["records"]))
        attestations = [signed for case in cases for signed in case.record.attestations]
        attested = self._check_quorum(number, attestations)
        if self._frame is None:
            self._add_row(number, None)
            return
        signed = [*self._on_first_ledger(number, attested), *self._on_other_ledgers(number)]
        faults, settled = self._check_cases(number, cases)
        convicted = self._search.add_round(number, self._frame, [case.record for case in cases], signed)
        faults |= dict.fromkeys(convicted, (State.EQUIVOCATED, "signed contradicting things in this round"))
        if settled is not None:
            seen = read_journals(number, self._sources, self._frame)
            self._participation.add_round(settled, self._frame, seen, faults)
            if self._privacy is not None:
                self._privacy.add_round(settled, self._frame)
        self._note_ill_formed(number)
        self._add_row(number, settled)

    def _check_cases(
        self, number: Round, cases: Sequence[Case]
    ) -> tuple[dict[MemberId, tuple[State, str]], Case | None]:
        """What the records' checks found of members, and a record whose roster and survivors hold, if there is one."""
        faults: dict[MemberId, tuple[State, str]] = {}
        settled = None
        if self._frame is None or self._audit is None:
            return faults, None
        self._frame.fingerprints.clear()
        for case in cases:
            for sums, signed in fingerprints_in(case):
                self._frame.fingerprints.setdefault(sums, []).append(signed)
        for case in cases:
            held = self._held_by_ledger(number)
            faults |= self._audit.check(case, held)
            if settled is None and held.issuperset(SETTLED):
                settled = case
        self._frame.measured.clear()
        return faults, settled

    def _check_quorum(self, number: Round, attestations: Iterable[Signed]) -> Mapping[bytes, bytes]:
        """(7) Who attested the round on the first ledger, with what signature."""
        record = self._records.get(number)
        if record is None or self._roles is None:
            return {}
        tally = self._tallies["quorum"]
        return ledger_checks.check_quorum(self._views[0], record, self._roles, attestations, tally)

    def _held_by_ledger(self, number: Round) -> set[str]:
        """Whether the ledger can say anything of the round: it answered, and its events have no gap there."""
        if not self._views:
            return set()
        is_gap = number <= self._views[0].head.height and number not in self._records
        return {"ledger"} if is_gap else {"ledger", "rounds"}

    def _on_first_ledger(self, number: Round, attested: Mapping[bytes, bytes]) -> Iterable[Signed]:
        """The attestations on the first ledger, which check (7) has verified."""
        assert self._frame is not None
        for member, entry in enumerate(self._frame.federation.charter.members):
            signature = attested.get(bytes.fromhex(entry.audit_key[2:]))
            if signature is None:
                continue
            self._participation.add_attestation(self._frame, member)
            record = self._records[number]
            if record.signed == record.digest:  # of a checkpoint only the last statement bears signatures
                yield Signed(member, record.statement, signature)

    def _on_other_ledgers(self, number: Round) -> Iterable[Signed]:
        """Attestations of other statements, which other RPCs or an earlier audit saw; those that are well signed."""
        assert self._frame is not None
        for record in self._differing.get(number, ()):
            yield from _attestations(record.statement, record.signatures, self._frame, self._domain)
        mine = self._records.get(number)
        before = remembered_record(self._views[0].remembered) if self._views else None
        if before is not None and before[0].round == number and (mine is None or before[0] != mine.statement):
            yield from _attestations(*before, self._frame, self._domain)

    def _note_ill_formed(self, number: Round) -> None:
        if self._frame is None or self._audit is None or self._audit.replay is None:
            return
        for member in self._audit.replay.ill_formed.get(number, ()):
            self.notes.append(
                f"round {number}: the payload of {self._frame.name(member)} is ill-formed and counted as zero"
            )

    def _add_row(self, number: Round, case: Case | None) -> None:
        record = self._records.get(number)
        lock = case.record.opening.locks[0].body if case is not None else None
        self.rows.append(
            RoundRow(
                round=number,
                status=Status.PASS,  # what was found is put in at the end: checks of the chain come first
                recorded=record is not None,
                block=record.block if record else None,
                signatures=len(record.signatures) if record else None,
                named=len(roster_members(case.roster)) if case else None,
                survivors=len(case.survivors.survivors) if case else None,
                attempt=lock.attempt if isinstance(lock, Lock) else None,
                digest=record.digest.hex() if record else None,
                model=record.statement.model.hex() if record else None,
            )
        )


def _differing(
    records: Mapping[Round, Record], views: Iterable[LedgerView]
) -> Mapping[Round, Sequence[Record]]:
    """What other RPCs show in place of `records`."""
    found: dict[Round, list[Record]] = {}
    for record in (record for view in views for record in view.records):
        mine = records.get(record.statement.round)
        if mine is None or mine.statement != record.statement:
            found.setdefault(record.statement.round, []).append(record)
    return found


def _attestations(
    statement: Statement, signatures: Sequence[bytes], frame: Frame, domain: Domain
) -> Iterable[Signed]:
    """Who signed a statement, as far as the signatures are good and a member's."""
    members = {
        bytes.fromhex(entry.audit_key[2:]): member
        for member, entry in enumerate(frame.federation.charter.members)
    }
    for signer, signature in recover_all(domain, struct_hash(statement), signatures).items():
        if signer in members:
            yield Signed(members[signer], statement, signature)


def _frame_of(
    federation: Federation, domain: Domain, sources: Sequence[Source], records: Mapping[Round, Record]
) -> Frame:
    recorded: dict[Round, Statement] = {number: record.statement for number, record in records.items()}
    prints: dict[Digest, list[Signed]] = {}
    return Frame(federation, KeyVerifier(federation, domain), sources, recorded, prints)
