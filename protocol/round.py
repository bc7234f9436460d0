"""The life of a node over the rounds, as one state machine: `RoundMachine.handle(event, now) -> list[Effect]`.

No input or output, no clock, no randomness: time comes in, timers go out as data, and training, fetching, summing and
recording are effects that the engine carries out and answers with events. The daemon and the simulator run the same
machine. The rules are PROTOCOL.md sections 2 and 3; the flow of one round, in open mode:

    Fit -> READY -> roster -> Encode -> commitment -> Fetch -> receipt -> proposal -> vote (x Q = certificate)
        -> Aggregate -> lock (x Q = opening) -> statement -> attestation (x k) -> Record

`CurrentRound` is the round in work, `ClosedRounds` what comes after the opening, `RecallGate` what comes before the
first signature, `CatchUp` the way back of a node that fell behind. Here: which of them is at work, who is connected.
"""

from collections.abc import Iterable
from typing import assert_never

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.catchup import CatchUp, round_after, statement_of
from folkmoot.protocol.certificates import Federation, verify_final
from folkmoot.protocol.closing import ClosedRounds
from folkmoot.protocol.context import Context
from folkmoot.protocol.current import CurrentRound
from folkmoot.protocol.effects import Blame, CancelFit, Effect, Finished, Promote
from folkmoot.protocol.equivocation import verify_evidence
from folkmoot.protocol.errors import Ignore, RemoteProtocolError
from folkmoot.protocol.events import (
    Aggregated,
    Encoded,
    Event,
    FetchFailed,
    FitFailed,
    FrameReceived,
    HeadAdvanced,
    PayloadArrived,
    PayloadServed,
    PeerDown,
    PeerUp,
    SnapshotFailed,
    SnapshotReady,
    Started,
    Timer,
    TimerFired,
    Trained,
    TransferProgress,
)
from folkmoot.protocol.journal import Adopted, Attested, Began, Entry, SatOut, own_signed
from folkmoot.protocol.messages import (
    Evidence,
    Final,
    Frame,
    Hello,
    Lock,
    Recall,
    Recalled,
    Signed,
    Statement,
    round_of,
)
from folkmoot.protocol.recall import SIT_OUT, RecallGate, answer
from folkmoot.protocol.signing import Signer, Verifier
from folkmoot.protocol.steps import Outcome
from folkmoot.protocol.typed_data import struct_hash
from folkmoot.protocol.types import MemberId, Round
from folkmoot.protocol.validation import validate_attestation
from folkmoot.protocol.waiting import Waiting

ANNOUNCE_DELAYS = (2.0, 4.0, 8.0, 16.0)
"""Seconds after which a node repeats what it last said, again and again at the last one."""


class RoundMachine:
    """One member's state machine. `model0` names the starting weights."""

    def __init__(
        self, federation: Federation, me: MemberId, signer: Signer, verifier: Verifier, model0: BlobRef
    ) -> None:
        self._context = Context(federation, me, signer, verifier)
        self._closed = ClosedRounds(self._context)
        self._catch_up = CatchUp(self._context)
        self._gate: RecallGate | None = RecallGate(self._context)
        self._early = Waiting()
        self._sit_out_through: Round = 0
        self._recorded: Round = 0
        self._announced = 0
        self._begun = False
        self._current = CurrentRound(self._context, 1, model0, federation.id)

    # --- what others may look at ----------------------------------------------------------------------------

    @property
    def current(self) -> CurrentRound:
        """The round in work (beyond the charter's last one when all is done)."""
        return self._current

    @property
    def finished(self) -> bool:
        """Whether the charter's last round is done."""
        return self._current.round > self._context.charter.schedule.rounds

    @property
    def completed(self) -> Round:
        """How many rounds are done."""
        return self._current.round - 1

    @property
    def phase(self) -> str:
        """One word for people."""
        if self.finished:
            return "done"
        if self._gate is not None:
            return "recalling"
        if self._catch_up.busy:
            return "catching up"
        if self._sitting_out:
            return "sitting out"
        if self._too_far_ahead:
            return "waiting for the ledger"
        return self._current.phase

    # --- restart --------------------------------------------------------------------------------------------

    def restore(self, entries: Iterable[Entry], now: float) -> None:
        """Rebuild from the journal, oldest entry first; before `Started`."""
        self._context.now = now
        for entry in entries:
            self._restore(entry)
        # Recording and archiving again does no harm; of the models only the newest becomes current again.
        effects = self._context.take_effects()
        promotes = [effect for effect in effects if isinstance(effect, Promote)]
        self._context.emit(*(one for one in effects if not isinstance(one, Promote)), *promotes[-1:])

    def _restore(self, entry: Entry) -> None:
        if (signed := own_signed(entry)) is not None:
            self._context.register.note(signed)
            if self._gate is not None:
                self._gate.remember(signed)
        match entry:
            case Began(round=round_, base=base, previous=previous):
                self._take_place(round_, base, previous)
                self._begun = True
            case Attested():
                closed = self._closed.add(entry)
                self._leave(closed.statement.round + 1, entry.model, closed.digest)
            case Adopted(final=final):
                self._adopt(final)
                self._leave(round_after(final), final.model, struct_hash(statement_of(final)))
            case SatOut(through=through):
                self._sit_out_through = through
            case _:
                self._current.restore(entry)

    def _leave(self, round_: Round, base: BlobRef, previous: bytes) -> None:
        """The round before `round_` is done; if the node stopped right there, `_start` begins the next one."""
        self._current = CurrentRound(self._context, round_, base, previous)
        self._begun = False

    def _take_place(self, round_: Round, base: BlobRef, previous: bytes) -> None:
        self._current = CurrentRound(self._context, round_, base, previous)
        self._context.register.forget_before(round_ - 1)
        if self._gate is not None:
            self._gate.journal_reaches(round_)

    def skip_recall(self) -> None:
        """Sign without asking what was signed before. Only a simulated liar does that."""
        self._gate = None

    # --- the one entry point --------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in what happened at `now` (seconds, any origin, never going back); returns what is to be done."""
        self._context.now = now
        match event:
            case Started():
                self._start()
            case FrameReceived(sender=sender, frame=frame):
                self._on_frame(sender, frame)
            case PeerUp(member=member):
                self._on_peer_up(member)
            case PeerDown(member=member):
                self._context.up.discard(member)
                self._context.down.add(member)
            case (
                Trained() | FitFailed() | Encoded() | PayloadArrived() | FetchFailed()
                | TransferProgress() | Aggregated()
            ):  # fmt: skip
                if event.round == self._current.round:
                    self._current.take_answer(event)
            case PayloadServed(root=root, member=member):
                self._current.on_served(root, member)
            case SnapshotReady(model=model):
                self._on_snapshot(model)
            case SnapshotFailed(model=model):
                self._catch_up.fail(model)
                self._take_early()
            case HeadAdvanced(height=height):
                self._on_head(height)
            case TimerFired(timer=timer):
                self._on_timer(timer)
            case _:
                assert_never(event)
        self._go_on()
        return self._context.take_effects()

    def _go_on(self) -> None:
        """Take every step that is possible, over as many rounds as it takes."""
        while self._active:
            self._current.advance()
            outcome = self._current.outcome()
            deferred = self._current.take_deferred()
            if outcome is not None:
                self._close(outcome)
            elif deferred:
                for frame in deferred:
                    self._on_frame(None, frame)
            else:
                return

    # --- rounds ---------------------------------------------------------------------------------------------

    @property
    def _too_far_ahead(self) -> bool:
        return self._current.round > self._recorded + self._context.charter.schedule.max_ahead

    @property
    def _sitting_out(self) -> bool:
        return self._current.round <= self._sit_out_through

    @property
    def _active(self) -> bool:
        """Whether this node may sign things in the current round."""
        blocked = self._gate is not None or self._catch_up.busy or self._sitting_out
        return self._begun and not (blocked or self.finished or self._too_far_ahead)

    def _start(self) -> None:
        if self._begun:
            self._resume()
        else:
            self._begin(self._current.round, self._current.base, self._current.previous)
        self._pass_gate_if_done()

    def _begin(self, round_: Round, base: BlobRef, previous: bytes) -> None:
        """Take up a round, unless the ledger is too far behind (then `_on_head` does)."""
        self._take_place(round_, base, previous)
        self._catch_up.forget()
        self._announced = 0
        self._context.persist(round_, Began(round_, base, previous))
        self._begun = True
        self._resume()

    def _resume(self) -> None:
        """Start, or after a restart go on with, the current round."""
        self._context.start_timer("announce", self._current.round, 0, ANNOUNCE_DELAYS[0])
        if self.finished:
            self._context.emit(Finished(self.completed))
        elif not self._too_far_ahead:
            self._take_up()

    def _take_up(self) -> None:
        if not self._sitting_out:
            self._current.start()
        self._take_early()

    def _close(self, outcome: Outcome) -> None:
        """Rule 8: the round is decided and its model computed here; attest and go on."""
        context, lock = self._context, outcome.opening.locks[0].body
        assert isinstance(lock, Lock)
        context.pace.note(self._current.seconds_since_quorum())
        entry = self._closed.attest(outcome)
        context.persist(lock.round, entry)
        closed = self._closed.add(entry)
        if entry.attestation is not None:
            context.broadcast(entry.attestation)
        if self._current.ready is None:
            context.emit(CancelFit(self._current.round))
        self._begin(lock.round + 1, entry.model, closed.digest)

    def _on_head(self, height: Round) -> None:
        was_waiting = self._too_far_ahead
        self._recorded = max(self._recorded, height)
        if was_waiting and not self._too_far_ahead and self._begun and not self.finished:
            self._take_up()

    # --- catching up ----------------------------------------------------------------------------------------

    def _on_final(self, final: Final) -> None:
        """A peer shows a finished round. If it is mine or later, I am behind."""
        statement = verify_final(final, self._context.federation, self._context.verifier)
        if statement.round < self._current.round:
            for signed in final.attestations:
                self._closed.add_attestation(signed)
            return
        self._catch_up.offer(final)
        if statement.round > self._current.round or not self._current.proposed:
            self._catch_up.fetch()

    def _on_snapshot(self, model: BlobRef) -> None:
        final = self._catch_up.take(model)
        if final is None:
            return
        statement = statement_of(final)
        self._context.persist(statement.round, Adopted(final))
        self._context.emit(CancelFit(self._current.round))
        self._adopt(final)
        self._begin(statement.round + 1, model, struct_hash(statement))
        self._broadcast_hello()

    def _adopt(self, final: Final) -> None:
        """A finished round whose model is here now, or was before a restart, becomes current."""
        statement = statement_of(final)
        self._closed.adopt(final)
        survivors = self._current.ballot.get_set(statement.survivors)
        members = tuple(survivor.member for survivor in survivors.survivors) if survivors else ()
        included = self._context.me in members
        self._context.emit(Promote(statement.round, final.model, members, statement, included))

    # --- peers and time -------------------------------------------------------------------------------------

    def _on_peer_up(self, member: MemberId) -> None:
        self._context.up.add(member)
        self._context.down.discard(member)
        self._context.send(member, self._hello())
        if self._gate is not None:
            self._context.send(member, Recall())
        self._current.fetch_missing()

    def _hello(self) -> Hello:
        return Hello(self._current.round, self._current.attempt, self._closed.latest_round)

    def _broadcast_hello(self) -> None:
        self._context.broadcast(self._hello())

    def _on_timer(self, timer: Timer) -> None:
        if timer.round != self._current.round:
            return
        if timer.kind == "announce":
            self._announce()
        else:
            self._current.on_timer(timer)

    def _announce(self) -> None:
        """Repeat what I last said: gossip and streams may have lost it; and look whether I fell behind."""
        context = self._context
        delay = ANNOUNCE_DELAYS[min(self._announced, len(ANNOUNCE_DELAYS) - 1)]
        self._announced += 1
        self._broadcast_hello()
        for frame in [*self._current.frames_to_repeat(), *self._closed.open_attestations()]:
            context.broadcast(frame)
        if self._gate is not None:
            context.broadcast(Recall())
        if self._current.ready is not None and not context.everyone_up:
            context.announce(self._current.ready)
        self._current.fetch_missing()
        early = self._closed.early_final(self._current.round, self._current.base.size)
        if early is not None and not self._catch_up.offered:
            self._catch_up.offer(early)
        self._catch_up.fetch()
        context.start_timer("announce", self._current.round, 0, delay)

    # --- frames ---------------------------------------------------------------------------------------------

    def _on_frame(self, sender: MemberId | None, frame: Frame) -> None:
        """Validate and take in one frame; a fault is counted against the neighbour that delivered it."""
        try:
            if sender is not None and isinstance(frame, Hello | Recall | Recalled):
                self._on_neighbour(sender, frame)
            elif self._gate is not None:
                self._gate.keep(sender, frame)
            else:
                self._take_frame(sender, frame)
        except Ignore:
            pass
        except RemoteProtocolError as error:
            self._context.emit(Blame(sender, type(frame).__name__.lower(), str(error)))

    def _on_neighbour(self, sender: MemberId, frame: Hello | Recall | Recalled) -> None:
        """Unsigned frames between two connected members."""
        match frame:
            case Hello(round=round_, final=final):
                same = self._current.frames_to_repeat() if round_ == self._current.round else []
                for one in [*self._closed.frames_after(round_, final), *same]:
                    self._context.send(sender, one)
            case Recall():
                self._context.send(sender, answer(self._context, sender, self.completed))
            case Recalled():
                if self._gate is not None:
                    self._gate.on_recalled(sender, frame)
                    self._pass_gate_if_done()

    def _pass_gate_if_done(self) -> None:
        gate = self._gate
        if gate is None or not gate.done:
            return
        if gate.unknown is not None:
            self._sit_out_through = max(gate.highest, self._current.round) + SIT_OUT
            self._context.persist(self._current.round, SatOut(self._sit_out_through))
        self._gate = None
        for sender, frame in gate.release():
            self._on_frame(sender, frame)

    def _take_frame(self, sender: MemberId | None, frame: Frame) -> None:
        """A frame that proves itself, whoever delivered it."""
        if isinstance(frame, Final):
            self._on_final(frame)
        elif isinstance(frame, Evidence):
            self._context.accuse(verify_evidence(frame, self._context.verifier), frame)
        elif isinstance(frame, Signed) and isinstance(frame.body, Statement):
            validate_attestation(frame, self._current.view, self._closed.oldest)
            if self._context.note(frame):
                self._closed.add_attestation(frame)
        elif round_of(frame) == self._current.round and self._active:
            self._current.take_frame(frame)
        elif round_of(frame) in (self._current.round, self._current.round + 1) and not self._sitting_out:
            self._early.keep(sender, frame)

    def _take_early(self) -> None:
        for sender, frame in self._early.take():
            self._on_frame(sender, frame)
