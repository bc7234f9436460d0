"""From round to round: which one is in work, whether this node may sign in it, how it ends, and how a late node skips.

PROTOCOL section 2: rule 8 (attest once a round is decided), rule 9 (`max_ahead`, terms), rule 10 (sitting out),
rule 11 (rolling back).
"""

from contextlib import suppress

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.catchup import CatchUp, statement_of
from folkmoot.protocol.certificates import verify_final
from folkmoot.protocol.closing import ClosedRounds
from folkmoot.protocol.context import Context
from folkmoot.protocol.current import CurrentRound
from folkmoot.protocol.effects import CancelFit, Finished, Promote, RollBack, TermEnded
from folkmoot.protocol.errors import Ignore, RemoteProtocolError
from folkmoot.protocol.fork import Fork, RecordedRound
from folkmoot.protocol.history import History
from folkmoot.protocol.journal import Adopted, Attested, Began, Entry, RolledBack, SatOut
from folkmoot.protocol.messages import Evidence, Final, Frame, Lock, Signed, round_of
from folkmoot.protocol.repeating import Repeating
from folkmoot.protocol.steps import Outcome
from folkmoot.protocol.typed_data import struct_hash
from folkmoot.protocol.types import Digest, MemberId, Round
from folkmoot.protocol.validation import validate_attestation
from folkmoot.protocol.waiting import Waiting

FIRST_ANNOUNCEMENT = 2.0
"""Seconds after which a node repeats what it said, for the first time in a round."""

LAST_CALLS = 3
"""Times that a node repeats what it said in a round, before it holds that nobody is left there to hear it."""


class Rounds:
    """The round in work, those behind it, and the frames that wait for the one before it."""

    def __init__(self, context: Context, model0: BlobRef) -> None:
        self._context = context
        self.closed = ClosedRounds(context)
        self.catch_up = CatchUp(context)
        self.current = CurrentRound(context, 1, model0, context.federation.id)
        self.announced = 0
        self.repeating = Repeating(context.me, len(context.members))
        self._begun = False
        self._recorded: Round = 0
        self._sit_out_through: Round = 0
        self._early = Waiting()
        self._early_is_due = False
        self._term_ended = False
        self._history = History(context, self.closed)
        self._branch = self._history.branch

    # --- where we stand -------------------------------------------------------------------------------------

    @property
    def settled(self) -> Round:
        """The newest of my rounds that the final record has as I have it."""
        return min(self._branch.confirmed, self.current.round - 1)

    @property
    def finished(self) -> bool:
        """Whether the charter's last round is done."""
        return self.current.round > self._context.charter.schedule.rounds

    @property
    def term_over(self) -> bool:
        """Whether another charter rules the round that would be next."""
        last = self._context.last
        superseded = self._context.superseded or self._term_ended
        return superseded or (last is not None and self.current.round > last)

    @property
    def before_term(self) -> bool:
        """Whether I have yet to learn how the round before this charter's first one ended."""
        return self.current.round < self._context.first

    @property
    def left_behind(self) -> bool:
        """Whether the final record has all rounds under this charter, and nobody helps me to the end of them.

        Who did get there has gone on under the next one, where I may know nobody by the keys of this one.
        """
        last = self._context.last
        if last is None or self.contradicted or self.catch_up.busy:
            return False
        return self.current.round <= last <= self._recorded and self.announced >= LAST_CALLS

    @property
    def too_far_ahead(self) -> bool:
        """Whether the ledger has to record more before this round may be worked on (rule 9)."""
        return self.current.round > self._recorded + self._context.charter.schedule.max_ahead

    @property
    def known_decided(self) -> Round:
        """The highest round that is known to be decided, from what I hold."""
        return max(self.closed.latest_round, self.current.round - 1)

    @property
    def sitting_out(self) -> bool:
        """Whether I may have signed things in this round that my journal lacks (rule 10)."""
        return self.current.round <= self._sit_out_through

    @property
    def active(self) -> bool:
        """Whether this node may sign things in the current round, as far as the rounds are concerned."""
        blocked = self.catch_up.busy or self.sitting_out or self.finished or self.too_far_ahead
        blocked = blocked or self.contradicted
        return self._begun and not blocked and not self.term_over and not self.before_term

    # --- beginning ------------------------------------------------------------------------------------------

    def restore(self, entry: Entry) -> None:
        """Take back what the journal says."""
        match entry:
            case Began(round=round_, base=base, previous=previous):
                self._turn_to(round_, base, previous)
                self._begun = True
            case Attested():
                closed = self.closed.add(entry)
                self._turn_to(closed.statement.round + 1, entry.model, closed.digest)
            case Adopted(final=final):
                for signed in final.attestations:  # of a round that I finished myself, at the end of a term
                    self.closed.add_attestation(signed)
                self._adopt(final)
                statement = statement_of(final)
                self._turn_to(statement.round + 1, final.model, struct_hash(statement))
            case SatOut(through=through):
                self._sit_out_through = max(self._sit_out_through, through)
            case RolledBack():
                self._give_up(entry)
            case _:
                self.current.restore(entry)

    def _turn_to(self, round_: Round, base: BlobRef, previous: Digest) -> None:
        self.current = CurrentRound(self._context, round_, base, previous)
        self._context.turn_to(round_)
        self._begun = False
        self._branch.hold(round_ - 1, previous)

    def start(self) -> None:
        """Begin, or after a restart go on with, the current round."""
        if self._begun:
            self._resume()
        else:
            self._begin(self.current.round, self.current.base, self.current.previous)

    def _begin(self, round_: Round, base: BlobRef, previous: Digest) -> None:
        self._turn_to(round_, base, previous)
        self.catch_up.forget()
        self.announced = 0
        self.repeating = Repeating(self._context.me, len(self._context.members))
        self._context.persist(round_, Began(round_, base, previous))
        self._begun = True
        self._resume()
        self._history.compare()

    def _resume(self) -> None:
        self._context.start_timer("announce", self.current.round, 0, FIRST_ANNOUNCEMENT)
        if self.term_over or self.before_term:
            return
        if self.finished:
            self._context.emit(Finished(self.current.round - 1))
        elif not self.too_far_ahead:
            self._take_up()

    def _take_up(self) -> None:
        self._early_is_due = True
        if not self.sitting_out:
            self.current.start()

    def on_head(self, height: Round, statement: Digest) -> None:
        """The ledger's finalised record has reached `height`, with that statement."""
        was_waiting = self.too_far_ahead
        self._recorded = max(self._recorded, height)
        waits = self.finished or self.term_over or self.before_term
        if was_waiting and not self.too_far_ahead and self._begun and not waits:
            self._take_up()
        if statement:
            self._history.note_final(height, statement)

    def sit_out(self, through: Round) -> None:
        """Sign nothing through the last round in which I could have signed before.

        What turns up later, of an older round, does not shorten that.
        """
        if through > self._sit_out_through:
            self._sit_out_through = through
            self._context.persist(self.current.round, SatOut(through))

    # --- ending ---------------------------------------------------------------------------------------------

    def close(self, outcome: Outcome) -> None:
        """Rule 8: the round is decided and its model computed here; attest and go on."""
        context, lock = self._context, outcome.opening.locks[0].body
        assert isinstance(lock, Lock)
        context.pace.note(self.current.elapsed)
        entry = self.closed.attest(outcome)
        context.persist(lock.round, entry)
        closed = self.closed.add(entry)
        if entry.attestation is not None:
            context.broadcast(entry.attestation)
        if self.current.ready is None:
            context.emit(CancelFit(self.current.round))
        self._begin(lock.round + 1, entry.model, closed.digest)

    def end_term(self) -> None:
        """Once the last round under this charter has its quorum of attestations: hand over to the next one.

        Not before, for nobody else can attest these rounds. What others lack they get as that round's end, which the
        next term's machine begins with; a round before it that lacks attestations here must be on the ledger.
        A term that was superseded before anybody could work in it has no round to wait for; one that was left behind
        goes on as a member that joins, with how that round ended.
        """
        context, latest = self._context, self.closed.latest
        if self._term_ended:
            return
        if context.superseded:
            self._term_ended = True
            context.emit(TermEnded(context.first - 1))
        elif self.left_behind and context.last is not None:
            self._term_ended = True
            context.emit(CancelFit(self.current.round), TermEnded(context.last))
        if not self.term_over or self._term_ended or latest is None or context.last is None:
            return
        if self.closed.latest_round < context.last or self.closed.lacks_attestations(self._recorded):
            return
        self._term_ended = True
        context.persist(self.closed.latest_round, Adopted(latest))
        context.emit(TermEnded(self.current.round - 1))

    def on_attestation(self, signed: Signed) -> None:
        """A member's word for a statement; raises `Ignore` or `RemoteProtocolError`."""
        if not self._context.is_ours(signed.body.round):
            raise Ignore("attestation of a round under another charter")
        validate_attestation(signed, self.current.view, self.closed.oldest)
        if self._context.note(signed):
            self.closed.add_attestation(signed)

    # --- rolling back (rule 11) -----------------------------------------------------------------------------

    @property
    def contradicted(self) -> bool:
        """Whether the final record has another statement than this node; nothing is signed until that is settled."""
        return self._history.contradicted

    def on_record(self, recorded: tuple[RecordedRound, ...]) -> bool:
        """The final record's rounds; whether I had to give up my own."""
        fork = self._history.find_fork(recorded)
        if fork is None:
            if not self.contradicted:
                self.catch_up.fetch()
            return False
        base = BlobRef(fork.statement.base, self.current.base.size)
        self._roll_back(fork, base)
        self._follow(recorded[-1])
        return True

    def _roll_back(self, recorded: RecordedRound, base: BlobRef) -> None:
        """Go on from the last round that both histories share; sign nothing where I may have signed before."""
        context, statement = self._context, recorded.statement
        lost, held = self.closed.find(statement.round), self._branch.held_at(statement.round)
        assert held is not None  # else there were no fork
        fork = Fork(held, lost.record if lost is not None else None, recorded)
        entry = RolledBack(fork, base, self.current.round)
        # Under the last of the rounds that it is about: whenever any of them is read again, so is this.
        context.persist(entry.through, entry)
        context.emit(CancelFit(self.current.round))
        self._give_up(entry)
        self._begin(statement.round, base, statement.previous)
        for signed in recorded.attestations:
            first = lost.attestations.get(signed.member) if lost is not None else None
            if first is not None and context.is_ours(statement.round):
                context.accuse(signed.member, Evidence(first, signed))

    def _give_up(self, entry: RolledBack) -> None:
        fork, statement = entry.fork, entry.fork.recorded.statement
        self.closed.give_up(fork.round)
        self._context.emit(RollBack(fork, self._branch.give_up(fork.round)))
        self._sit_out_through = max(self._sit_out_through, entry.through)
        self._turn_to(fork.round, entry.base, statement.previous)

    def _follow(self, recorded: RecordedRound) -> None:
        """Skip to the end of the record, if it shows its attestations; else a peer that is there will show them."""
        if recorded.attestations:
            model = BlobRef(recorded.statement.model, self.current.base.size)
            with suppress(Ignore, RemoteProtocolError):
                self.on_final(Final(recorded.attestations, model))

    # --- falling behind -------------------------------------------------------------------------------------

    def on_final(self, final: Final) -> None:
        """A peer shows a finished round; if it is mine or later, I am behind. Raises `RemoteProtocolError`."""
        rule = self._context.terms.at(round_of(final)).rule
        if rule is None:
            raise Ignore("final of a round whose charter is not here")
        statement = verify_final(final, rule.federation, rule.verifier)
        if self._branch.refuses(statement):
            raise Ignore("final of a round that the ledger has otherwise")
        if statement.round < self.current.round:
            for signed in final.attestations:
                self.closed.add_attestation(signed)
            return
        continues, skips = self._history.is_continued_by(statement), statement.round > self.current.round
        if continues:
            self.catch_up.offer(final)
        if (skips or not continues) and self._history.asks_ledger(again=not continues):
            return
        if not continues:
            raise Ignore("final of a round that does not continue mine: the ledger decides")
        if skips or not self.current.proposed:
            self.catch_up.fetch()

    def look_behind(self) -> None:
        """Now and then: if my round was finished without me, fetch its model."""
        early = self.closed.early_final(self.current.round, self.current.base.size)
        if early is not None and self._history.takes(statement_of(early)):
            self.catch_up.offer(early)
        if not self._history.awaits_ledger:
            self.catch_up.fetch()

    def on_snapshot(self, model: BlobRef) -> bool:
        """A model arrived; whether it took me to a later round."""
        final = self.catch_up.take(model)
        if final is None:
            return False
        statement = statement_of(final)
        if not self._history.takes(statement):  # the ledger has said more meanwhile
            self.catch_up.forget()
            self._early_is_due = True
            return False
        self._context.persist(statement.round, Adopted(final))
        self._context.emit(CancelFit(self.current.round))
        self._adopt(final)
        self._begin(statement.round + 1, model, struct_hash(statement))
        return True

    def on_snapshot_failed(self, model: BlobRef) -> None:
        """Nobody delivered it: my own round goes on, with what came meanwhile."""
        self.catch_up.fail(model)
        self._early_is_due = True

    def _adopt(self, final: Final) -> None:
        """A finished round whose model is here now, or was before a restart, becomes current."""
        statement = statement_of(final)
        self.closed.adopt(final)
        survivors = self.current.ballot.get_set(statement.survivors)
        members = survivors.members if survivors else ()
        included = self._context.me in members
        self._context.emit(
            Promote(statement.round, final.model, members, statement, included, survivors=survivors)
        )

    # --- early frames ---------------------------------------------------------------------------------------

    def keep_early(self, sender: MemberId | None, frame: Frame) -> None:
        """Keep what belongs to this round, in which I may not act yet, or to the next one."""
        if round_of(frame) in (self.current.round, self.current.round + 1) and not self.sitting_out:
            self._early.keep(sender, frame)

    def take_early(self) -> list[tuple[MemberId | None, Frame]]:
        """What was kept, once its round is taken up."""
        if not self._early_is_due:
            return []
        self._early_is_due = False
        return self._early.take()
