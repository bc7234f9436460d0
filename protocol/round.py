"""The life of a node over the rounds, as one state machine: `RoundMachine.handle(event, now) -> list[Effect]`.

No input or output, no clock, no randomness: time comes in, timers go out as data, and training, fetching, summing and
recording are effects that the engine carries out and answers with events. The daemon and the simulator run the same
machine. The rules are PROTOCOL.md sections 2 to 4; the flow of one round, in open mode:

    Fit -> READY -> roster -> Encode -> commitment -> Fetch -> receipt -> proposal -> vote (x Q = certificate)
        -> Aggregate -> lock (x Q = opening) -> statement -> attestation (x k) -> Record

and in secure mode (`secure/mode.py`):

    Fit -> READY -> roster -> Encode -> commitment, shares -> FetchPart -> receipt -> proposal
        -> vote (x Q = certificate) -> seeds, SumParts, FetchSum -> Check -> fingerprint (x Q)
        -> lock (x Q = opening) -> shares -> Unmask -> statement -> attestation (x k) -> Record

`Rounds` leads from round to round (`CurrentRound` is the one in work, `ClosedRounds` those behind, `CatchUp` the way
back of a late node), `RecallGate` stands before the first signature. Here: events and frames find their place.
"""

from collections.abc import Iterable
from typing import assert_never

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.context import Context
from folkmoot.protocol.current import CurrentRound
from folkmoot.protocol.effects import Blame, Effect, Promote, RollBack, Send
from folkmoot.protocol.equivocation import verify_evidence
from folkmoot.protocol.errors import Forgotten, Ignore, RemoteProtocolError
from folkmoot.protocol.events import (
    Aggregated,
    BlobWanted,
    Checked,
    Encoded,
    Event,
    FetchFailed,
    FitFailed,
    FrameReceived,
    GatheringFailed,
    HeadAdvanced,
    Measured,
    PartArrived,
    PartFailed,
    PartsSummed,
    PayloadArrived,
    PayloadServed,
    PeerDown,
    PeerHeard,
    PeerSilent,
    PeerUp,
    RecordRead,
    SnapshotFailed,
    SnapshotReady,
    Started,
    SumArrived,
    SumFailed,
    TermsKnown,
    Timer,
    TimerFired,
    Trained,
    TransferProgress,
)
from folkmoot.protocol.journal import Entry, own_signed
from folkmoot.protocol.messages import (
    Evidence,
    Final,
    Frame,
    Hello,
    Recall,
    Recalled,
    Signed,
    Statement,
    round_of,
)
from folkmoot.protocol.recall import SIT_OUT, RecallGate, answer
from folkmoot.protocol.repeating import own_words
from folkmoot.protocol.rounds import FIRST_ANNOUNCEMENT, Rounds
from folkmoot.protocol.signing import Signer, Verifier
from folkmoot.protocol.terms import Terms
from folkmoot.protocol.types import Digest, MemberId, Round

ANNOUNCE_DELAYS = (FIRST_ANNOUNCEMENT, 4.0, 8.0, 16.0)
"""Seconds after which a node repeats what it last said, again and again at the last one."""


class RoundMachine:
    """One member's state machine. `model0` names the starting weights."""

    def __init__(
        self,
        federation: Federation,
        me: MemberId,
        signer: Signer,
        verifier: Verifier,
        model0: BlobRef,
        *,
        first: Round = 1,
        terms: Terms | None = None,
    ) -> None:
        """`first`: the first round that `federation`'s charter rules; `terms`: all that are known (else this one)."""
        self._context = Context(federation, me, signer, verifier, first, terms)
        self._rounds = Rounds(self._context, model0)
        self._gate: RecallGate | None = RecallGate(self._context)

    # --- what others may look at ----------------------------------------------------------------------------

    @property
    def first(self) -> Round:
        """The first round under the charter that this machine works with."""
        return self._context.first

    @property
    def current(self) -> CurrentRound:
        """The round in work (beyond the charter's last one when all is done)."""
        return self._rounds.current

    @property
    def finished(self) -> bool:
        """Whether the charter's last round is done."""
        return self._rounds.finished

    @property
    def is_joining(self) -> bool:
        """Whether this node has yet to get its first model under this charter, from others."""
        return self._rounds.before_term

    @property
    def completed(self) -> Round:
        """How many rounds are done."""
        return self.current.round - 1

    @property
    def settled(self) -> Round:
        """The newest round of which it is certain that the ledger's final record has it as this node has."""
        return self._rounds.settled

    @property
    def contradicted(self) -> bool:
        """Whether the ledger's final record has another history than this node."""
        return self._rounds.contradicted

    @property
    def phase(self) -> str:
        """One word for people."""
        if self._rounds.term_over:
            return "changing the charter"
        if self.finished:
            return "done"
        if self._rounds.before_term:
            return "joining"
        if self._gate is not None:
            return "recalling"
        if self._rounds.catch_up.busy:
            return "catching up"
        if self._rounds.sitting_out:
            return "sitting out"
        if self._rounds.contradicted:
            return "rolling back"
        if self._rounds.too_far_ahead:
            return "waiting for the ledger"
        return self.current.phase

    @property
    def said(self) -> tuple[Signed, ...]:
        """What I signed that must be my only one in its place, of the rounds still of interest."""
        return self._context.register.said_by(self._context.me)

    def is_decided(self, round_: Round, roster: Digest) -> bool:
        """Whether a quorum has settled on this roster's updates: seeing them is of no use to a late mover."""
        return round_ < self.current.round or self.current.is_vouched(roster)

    # --- restart --------------------------------------------------------------------------------------------

    def restore(self, entries: Iterable[Entry], now: float) -> None:
        """Rebuild from the journal, oldest entry first; before `Started`."""
        self._context.now = now
        for entry in entries:
            if (signed := own_signed(entry)) is not None:
                self._context.register.note(signed)
            if self._gate is not None:
                self._gate.remember(entry)
            self._rounds.restore(entry)
        # Recording and archiving again does no harm; of the models only the newest becomes current again.
        effects = self._context.take_effects()
        promotes: list[Promote] = []
        for effect in effects:
            if isinstance(effect, Promote):
                promotes.append(effect)
            elif isinstance(effect, RollBack):
                promotes = [one for one in promotes if one.round < effect.fork.round]
        self._context.emit(*(one for one in effects if not isinstance(one, Promote)), *promotes[-1:])

    @property
    def has_recalled(self) -> bool:
        """Whether peers have confirmed that the journal holds all that I signed."""
        return self._gate is None

    def replace_journal(self) -> None:
        """The journal is new in place of a lost one: sit out, whatever peers hold. Before `restore`."""
        assert self._gate is not None
        self._gate.is_journal_new = True

    def skip_recall(self) -> None:
        """Sign without asking what was signed before: for who asked in the term before, in the same life."""
        self._gate = None

    def forget_what_was_signed(self) -> None:
        """Sign without asking, or minding, what was signed before. Only a simulated liar does that."""
        self._gate = None
        self._context.recalls = False

    # --- the one entry point --------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in what happened at `now` (seconds, any origin, never going back); returns what is to be done."""
        self._context.now = now
        match event:
            case Started():
                self._rounds.start()
                self._pass_gate_if_done()
            case FrameReceived(sender=sender, frame=frame):
                if not self._on_frame(sender, frame):
                    return (
                        self._context.take_effects()
                    )  # most frames say what is known: nothing follows from them
            case PeerUp(member=member):
                self._on_peer_up(member)
            case PeerDown(member=member):
                self._context.lose(member)
            case PeerSilent(member=member):
                self._context.silent.add(member)
            case PeerHeard(member=member):
                self._context.silent.discard(member)
            case (
                Trained() | FitFailed() | Encoded() | PayloadArrived() | FetchFailed() | TransferProgress()
                | PartArrived() | PartFailed() | PartsSummed() | SumArrived() | SumFailed() | Checked() | Measured()
                | GatheringFailed() | Aggregated()
            ):  # fmt: skip
                if event.round == self.current.round:
                    self.current.take_answer(event)
            case PayloadServed(root=root, member=member):
                self.current.on_served(root, member)
            case BlobWanted(root=root):
                self.current.on_wanted(root)
            case SnapshotReady(model=model):
                if self._rounds.on_snapshot(model):
                    self._context.broadcast(self._hello())
            case SnapshotFailed(model=model):
                self._rounds.on_snapshot_failed(model)
            case HeadAdvanced(height=height, statement=statement):
                self._rounds.on_head(height, statement)
                self._pass_gate_if_done()
            case RecordRead(rounds=recorded):
                if self._rounds.on_record(recorded):
                    self._context.broadcast(self._hello())
            case TermsKnown(terms=terms):
                self._context.learn(terms)
            case TimerFired(timer=timer):
                self._on_timer(timer)
            case _:
                assert_never(event)
        self._go_on()
        self._rounds.end_term()
        return self._context.take_effects()

    @property
    def _active(self) -> bool:
        """Whether this node may sign things in the current round."""
        return self._gate is None and self._rounds.active

    def _go_on(self) -> None:
        """Take every step that is possible, over as many rounds as it takes."""
        while self._active:
            due = [*self._rounds.take_early(), *((None, one) for one in self.current.take_deferred())]
            if due:
                for sender, frame in due:
                    self._on_frame(sender, frame)
                continue
            self.current.advance()
            outcome = self.current.outcome()
            if outcome is not None:
                self._rounds.close(outcome)
            elif not self.current.has_deferred:
                return

    # --- peers and time -------------------------------------------------------------------------------------

    def _on_peer_up(self, member: MemberId) -> None:
        self._context.find(member)
        self._context.send(member, self._hello())
        if self._gate is not None:
            self._context.send(member, Recall())
        self.current.fetch_missing()

    def _hello(self) -> Hello:
        return Hello(self.current.round, self.current.attempt, self._rounds.closed.latest_round)

    def _on_timer(self, timer: Timer) -> None:
        if timer.round != self.current.round:
            return
        if timer.kind == "announce":
            self._announce()
        else:
            self.current.on_timer(timer)

    def _announce(self) -> None:
        """Repeat what I last said: gossip and streams may have lost it; and look whether I fell behind."""
        context, rounds = self._context, self._rounds
        delay = ANNOUNCE_DELAYS[min(rounds.announced, len(ANNOUNCE_DELAYS) - 1)]
        rounds.announced += 1
        context.broadcast(self._hello())
        self._repeat(rounds.announced - 1)
        for member in sorted(context.up):
            self._send_private(member)
        if self._gate is not None:
            context.broadcast(Recall())
        if self.current.ready is not None and not context.everyone_up:
            context.announce(self.current.ready)
        self.current.fetch_missing()
        rounds.look_behind()
        context.start_timer("announce", self.current.round, 0, delay)

    def _repeat(self, announcement: int) -> None:
        """My words to everybody, what others said to a few of them."""
        context, repeating = self._context, self._rounds.repeating
        frames = self.current.frames_to_repeat()
        mine = own_words(frames, context.me)
        told_all = {one for one in context.up if repeating.is_told_all(one, announcement)}
        for members, said in ((told_all, frames), (context.up - told_all, mine)):
            context.emit(*(Send(tuple(sorted(members)), frame) for frame in said if members))
        for frame in self._rounds.closed.open_attestations():
            context.broadcast(frame)

    def _send_private(self, member: MemberId) -> None:
        for frame in self.current.frames_for(member):
            self._context.send(member, frame)

    # --- frames ---------------------------------------------------------------------------------------------

    def _on_frame(self, sender: MemberId | None, frame: Frame) -> bool:
        """Validate and take in one frame; a fault is counted against the neighbour that delivered it.

        Returns whether anything may follow from it.
        """
        try:
            if sender is not None and isinstance(frame, Hello | Recall | Recalled):
                self._on_neighbour(sender, frame)
            elif isinstance(frame, Final):
                self._on_final(frame)
            elif self._gate is not None:
                self._gate.keep(sender, frame)
            else:
                self._take_frame(sender, frame)
        except Forgotten:
            self._rounds.sit_out(max(round_of(frame), self._rounds.closed.latest_round) + SIT_OUT)
        except Ignore:
            return False
        except RemoteProtocolError as error:
            self._context.emit(Blame(sender, type(frame).__name__.lower(), str(error)))
        return True

    def _on_neighbour(self, sender: MemberId, frame: Hello | Recall | Recalled) -> None:
        """Unsigned frames between two connected members."""
        match frame:
            case Hello(round=round_, final=final):
                if final >= self.current.round and self._rounds.catch_up.is_news(sender, final):
                    self._context.send(sender, self._hello())  # which it answers with what I lack
                same = self._answer(sender) if round_ == self.current.round else []
                # What the record has otherwise is shown to nobody
                ended = [] if self._rounds.contradicted else self._rounds.closed.frames_after(round_, final)
                for one in [*ended, *same]:
                    self._context.send(sender, one)
                if round_ == self.current.round:
                    self._send_private(sender)
            case Recall():
                self._context.send(sender, answer(self._context, sender, self.completed))
            case Recalled():
                if self._gate is not None:
                    self._gate.on_recalled(sender, frame)
                    self._pass_gate_if_done()

    def _answer(self, member: MemberId) -> list[Frame]:
        """What a member that greets me may lack of the round that we are both in."""
        frames = self.current.frames_to_repeat()
        all_of_it = self._rounds.repeating.answers_all(member)
        return frames if all_of_it else own_words(frames, self._context.me)

    def _on_final(self, final: Final) -> None:
        """How a round ended: believed while I still recall, too, for to catch up nothing is signed."""
        if self._gate is not None:
            self._gate.on_final(final)
            self._pass_gate_if_done()
        self._rounds.on_final(final)

    def _pass_gate_if_done(self) -> None:
        gate = self._gate
        if gate is None:
            return
        gate.show(self._rounds.known_decided)
        if not gate.done:
            return
        if gate.unknown is not None or gate.is_journal_new:
            self._rounds.sit_out(max(gate.highest, self.completed + 1) + SIT_OUT)
        self._gate = None
        for sender, frame in gate.release():
            self._on_frame(sender, frame)

    def _take_frame(self, sender: MemberId | None, frame: Frame) -> None:
        """A frame that proves itself, whoever delivered it."""
        if isinstance(frame, Evidence):
            if not self._context.is_ours(frame.first.body.round):
                raise Ignore("evidence of a round under another charter")
            self._context.accuse(verify_evidence(frame, self._context.verifier), frame)
        elif isinstance(frame, Signed) and isinstance(frame.body, Statement):
            self._rounds.on_attestation(frame)
        elif round_of(frame) == self.current.round and self._active:
            self.current.take_frame(frame)
        else:
            self._rounds.keep_early(sender, frame)
