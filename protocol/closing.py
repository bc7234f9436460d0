"""Rounds that are decided: their statements, the attestations still coming in, and what a late peer needs.

PROTOCOL section 2, rules 8 and 9.
"""

from dataclasses import dataclass, field

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import compute_statement
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.context import Context
from folkmoot.protocol.effects import ArchiveRound, Attest, Promote, Record
from folkmoot.protocol.journal import Attested
from folkmoot.protocol.messages import Final, Frame, Lock, Opening, Ready, Roster, Signed, Statement
from folkmoot.protocol.metrics import Metrics, mean_metrics
from folkmoot.protocol.record import RoundRecord
from folkmoot.protocol.steps import Outcome
from folkmoot.protocol.typed_data import struct_hash
from folkmoot.protocol.types import Digest, MemberId, Round

KEPT = 3
"""Recorded rounds that stay in memory for peers a little behind; one without its quorum stays until it has it."""


@dataclass(slots=True)
class ClosedRound:
    """A round that this node finished itself."""

    entry: Attested
    statement: Statement
    digest: Digest
    recorded: bool = False
    attestations: dict[MemberId, Signed] = field(default_factory=dict)

    @property
    def record(self) -> RoundRecord:
        """For the archive, with the attestations so far."""
        entry = self.entry
        return RoundRecord(
            roster=entry.roster,
            commitments=entry.commitments,
            certificate=entry.certificate,
            opening=entry.opening,
            attestations=_sorted(self.attestations),
            model=entry.model,
            unmasking=entry.unmasking,
        )


class ClosedRounds:
    """Collects attestations until k stand under a statement, then hands it on to outbox and archive."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._rounds: dict[Round, ClosedRound] = {}
        self._early: dict[Round, dict[MemberId, Signed]] = {}
        self.latest: Final | None = None

    @property
    def oldest(self) -> Round:
        """The oldest round for which attestations are still of use."""
        return min(self._rounds, default=0)

    def find(self, round_: Round) -> ClosedRound | None:
        """A round that this node finished itself, as long as it is kept."""
        return self._rounds.get(round_)

    def attest(self, outcome: Outcome) -> Attested:
        """Sign the statement of a decided round (rule 8: only for a model computed here), for the journal."""
        context, survivors = self._context, outcome.opening.survivors
        statement = compute_statement(context.federation, survivors, outcome.model.root)
        return Attested(
            opening=outcome.opening,
            certificate=outcome.certificate,
            roster=outcome.exchange.signed,
            commitments=outcome.exchange.commitments_of(survivors),
            model=outcome.model,
            attestation=context.sign(statement) if context.me in context.charter.attesters else None,
            unmasking=outcome.unmasking,
        )

    def add(self, entry: Attested) -> ClosedRound:
        """A round was decided (now, or, after a restart, according to the journal); promotes its model."""
        context, survivors = self._context, entry.opening.survivors
        statement = compute_statement(context.federation, survivors, entry.model.root)
        closed = ClosedRound(entry, statement, struct_hash(statement))
        self._rounds[statement.round] = closed
        members = survivors.members
        context.note_participants(members)
        measured = _metrics_of(entry.roster)
        context.emit(
            Promote(
                statement.round, entry.model, members, statement, context.me in members, measured, survivors
            )
        )
        if entry.attestation is not None:
            context.emit(Attest(entry.attestation))
        early = self._early.pop(statement.round, {})
        for signed in (entry.attestation, *early.values()):
            if signed is not None:
                self.add_attestation(signed)
        for old in [
            key for key, one in self._rounds.items() if one.recorded and key <= statement.round - KEPT
        ]:
            del self._rounds[old]
        return closed

    def add_attestation(self, signed: Signed) -> None:
        """Count a verified attestation; kept for later if its round is not closed here yet."""
        assert isinstance(signed.body, Statement)
        closed = self._rounds.get(signed.body.round)
        if closed is None and signed.body.round > self.latest_round:
            self._early.setdefault(signed.body.round, {})[signed.member] = signed
        elif closed is not None and closed.statement == signed.body:
            closed.attestations[signed.member] = signed
            self._record_if_complete(closed)

    def _record_if_complete(self, closed: ClosedRound) -> None:
        context = self._context
        if closed.recorded or len(closed.attestations) < context.charter.attester_quorum:
            return
        closed.recorded = True
        entry, attestations = closed.entry, _sorted(closed.attestations)
        self.adopt(Final(attestations, entry.model))
        context.emit(
            ArchiveRound(closed.record),
            Record(closed.statement, closed.digest, attestations, self._turn(entry)),
        )

    def give_up(self, round_: Round) -> None:
        """Forget what is closed from that round on: the final record has it otherwise."""
        self._rounds = {number: one for number, one in self._rounds.items() if number < round_}
        if self.latest_round >= round_:
            self.latest = None

    def _turn(self, entry: Attested) -> int:
        """Attesters known to be away are not waited for; if one is not, the later of two submissions reverts."""
        context = self._context
        before_me = submitting_before(context.charter, context.me, entry.opening)
        return sum(attester not in context.down for attester in before_me)

    def lacks_attestations(self, recorded: Round) -> bool:
        """Whether a round that the ledger does not have (it has those up to `recorded`) still lacks its quorum."""
        return any(not one.recorded and round_ > recorded for round_, one in self._rounds.items())

    def adopt(self, final: Final) -> None:
        """Remember the latest finished round, whoever computed it."""
        body = final.attestations[0].body
        assert isinstance(body, Statement)
        if self.latest is None or body.round > self.latest_round:
            self.latest = final
        self._early = {round_: kept for round_, kept in self._early.items() if round_ > body.round}

    @property
    def latest_round(self) -> Round:
        """The highest round known to be final; 0 at the founding."""
        if self.latest is None:
            return 0
        body = self.latest.attestations[0].body
        assert isinstance(body, Statement)
        return body.round

    def early_final(self, round_: Round, model_size: int) -> Final | None:
        """A statement of a round that is not finished here, under k attestations that came in one by one."""
        by_body: dict[Statement, dict[MemberId, Signed]] = {}
        for signed in self._early.get(round_, {}).values():
            assert isinstance(signed.body, Statement)
            by_body.setdefault(signed.body, {})[signed.member] = signed
        for statement, signatures in by_body.items():
            if len(signatures) >= self._context.charter.attester_quorum:
                return Final(_sorted(signatures), BlobRef(statement.model, model_size))
        return None

    def early_statement(self, round_: Round, digest: Digest) -> Statement | None:
        """The statement with that digest, if a member attested it here though its round is not closed."""
        bodies = (signed.body for signed in self._early.get(round_, {}).values())
        return next(
            (body for body in bodies if isinstance(body, Statement) and struct_hash(body) == digest), None
        )

    def frames_after(self, round_: Round, final: Round) -> list[Frame]:
        """What a peer that works on `round_`, and whose highest final round is `final`, needs to go on.

        It may have to finish a round itself (its attestation may be the one that lacks), so it is shown all of it.
        """
        frames: list[Frame] = []
        for closed in (self._rounds[key] for key in sorted(self._rounds) if key > final):
            if closed.statement.round >= round_:
                entry = closed.entry
                frames += [entry.opening, entry.certificate, entry.roster, *entry.commitments]
                if entry.unmasking is not None:
                    unmasking = entry.unmasking
                    frames += [*unmasking.sums, *unmasking.fingerprints, *unmasking.seeds, *unmasking.shares]
            frames.extend(_sorted(closed.attestations))
        if self.latest is not None and self.latest_round > final:
            frames.append(self.latest)
        return frames

    def open_attestations(self) -> list[Frame]:
        """My attestations that still lack a quorum, to be said again."""
        mine = (one.attestations.get(self._context.me) for one in self._rounds.values() if not one.recorded)
        return [signed for signed in mine if signed is not None]


def submitting_before(charter: Charter, me: MemberId | None, opening: Opening) -> tuple[MemberId, ...]:
    """The attesters that submit before me: (round + attempt) mod n comes first. Non-attesters come last."""
    lock = opening.locks[0].body
    assert isinstance(lock, Lock)
    attesters = charter.attesters
    first = (lock.round + lock.attempt) % len(attesters)
    order = (*attesters[first:], *attesters[:first])
    return order[: order.index(me)] if me in order else order


def _metrics_of(roster: Signed) -> Metrics:
    """What the members of a (verified) roster together measured on its base."""
    assert isinstance(roster.body, Roster)
    bodies = (signed.body for signed in roster.body.readies)
    mean = mean_metrics(dict(body.metrics) for body in bodies if isinstance(body, Ready))
    return tuple(mean.items())


def _sorted(by_member: dict[MemberId, Signed]) -> tuple[Signed, ...]:
    return tuple(by_member[member] for member in sorted(by_member))
