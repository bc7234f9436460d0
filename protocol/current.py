"""The round in work: from READY to the opening of one survivor set.

PROTOCOL section 2, rules 1-7. `state` is what is known, `intake` takes in what others say, `work` what the engine has
done, `attempts` keeps the deadlines, `mode` is what differs between open and secure mode (sections 3 and 4), and
`steps` says what follows from it all.
"""

from collections.abc import Mapping

from folkmoot.protocol.attempts import Attempts
from folkmoot.protocol.ballot import Ballot
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.context import Context
from folkmoot.protocol.events import Timer
from folkmoot.protocol.exchange import Exchange
from folkmoot.protocol.intake import Intake
from folkmoot.protocol.journal import Entered, Entry, Locked, Proposed, RosterTaken, Said, Voted
from folkmoot.protocol.messages import (
    Commitment,
    Declined,
    Enter,
    Frame,
    Lock,
    Proposal,
    Propose,
    Ready,
    Signed,
)
from folkmoot.protocol.mode import Delivered, Mode, OpenMode
from folkmoot.protocol.round_state import RoundState
from folkmoot.protocol.secure.mode import SecureMode
from folkmoot.protocol.steps import Outcome, Steps
from folkmoot.protocol.types import Attempt, Digest, MemberId, Round
from folkmoot.protocol.validation import View
from folkmoot.protocol.work import Done, Work


class CurrentRound:
    """One node's part in one round: the parts put together, restart, and what to repeat."""

    def __init__(self, context: Context, round_: Round, base: BlobRef, previous: Digest) -> None:
        self._context = context
        self._state = RoundState(context, round_, base, previous)
        self._attempts = Attempts(context, self._state)
        self._work = Work(context, self._state, self._attempts)
        self._mode = self._make_mode()
        self._intake = Intake(context, self._state, self._attempts, self._work, self._mode)
        self._steps = Steps(context, self._state, self._attempts, self._intake, self._mode)

    def _make_mode(self) -> Mode:
        if self._state.is_secure:
            return SecureMode(self._context, self._state, self._attempts, self._work)
        return OpenMode(self._context, self._state, self._work)

    # --- where we stand -------------------------------------------------------------------------------------

    @property
    def round(self) -> Round:
        """The height in work."""
        return self._state.round

    @property
    def base(self) -> BlobRef:
        """The model that is trained on."""
        return self._state.base

    @property
    def previous(self) -> Digest:
        """The digest of the last statement (of the federation, in round 1)."""
        return self._state.previous

    @property
    def attempt(self) -> Attempt:
        """The try at this round that is in work."""
        return self._state.attempt

    @property
    def proposer(self) -> MemberId:
        """Who proposes in this attempt."""
        return self._state.proposer

    @property
    def ready(self) -> Signed | None:
        """My READY, once my update is trained."""
        return self._state.ready

    @property
    def declined(self) -> Mapping[MemberId, str]:
        """Who takes no part in this round, and why."""
        state = self._state
        said = {
            member: signed.body for member, signed in state.declined.items() if member not in state.readies
        }
        return {member: body.reason for member, body in said.items() if isinstance(body, Declined)}

    @property
    def proposed(self) -> bool:
        """Whether a survivor set is put to the vote in this attempt."""
        return self._state.proposal is not None

    @property
    def ballot(self) -> Ballot:
        """Votes and locks."""
        return self._state.ballot

    def is_vouched(self, roster: Digest) -> bool:
        """Whether a quorum voted for, or opened, a survivor set of this roster."""
        return self._state.is_vouched(roster)

    @property
    def view(self) -> View:
        """What validation needs to know."""
        return self._state.view

    @property
    def phase(self) -> str:
        """One word for people."""
        state = self._state
        if state.is_secure and state.ballot.opening() is not None:
            return "opening"
        if state.ballot.my_locks:
            return "locked"
        if state.is_secure and state.ballot.certificates():
            return "gathering"
        if state.proposal is not None:
            return "voting"
        if state.exchange is not None:
            return "exchange"
        if state.fit_failed:
            return "taking no part" if state.declines else "training failed"
        return "ready" if state.ready is not None else "training"

    # --- starting and restarting ----------------------------------------------------------------------------

    def start(self) -> None:
        """Ask for what is missing: the first time the training, after a restart whatever the journal left open."""
        self._work.fit()
        for exchange in self._state.exchanges.values():
            committed = self._context.me in exchange.commitments
            if self._state.is_secure and committed:
                self._work.encode(exchange)
            elif exchange.attempt == self._state.attempt:
                self._work.encode_if_due(exchange)
            self._mode.fetch_missing(exchange)

    def restore(self, entry: Entry) -> None:
        """Take back what the journal says was said."""
        state = self._state
        match entry:
            case Entered(attempt=attempt):
                self._attempts.restore(attempt)
            case Said(signed=Signed(body=Ready()) as signed):
                state.ready = state.readies[signed.member] = signed
            case Said(signed=Signed(body=Commitment(roster=roster)) as signed):
                state.exchanges[roster].add_commitment(signed)
            case RosterTaken(roster=signed):
                state.add_exchange(signed)
            case Proposed(propose=Propose(proposal=Signed(body=Proposal(attempt=attempt))) as propose):
                state.add_proposal(attempt, propose)
            case Voted(vote=vote, survivors=survivors, commitments=commitments):
                state.ballot.add_set(survivors)
                state.ballot.add_vote(vote)
                if (exchange := state.exchanges.get(survivors.roster)) is not None:
                    for one in commitments:
                        exchange.add_commitment(one)
            case Locked(lock=Signed(body=Lock() as body) as lock, certificate=certificate, model=model):
                state.count_certificate(certificate)
                state.ballot.add_lock(lock)
                if model is not None:
                    state.results[body.survivors] = (body.sums, model)
            case _:
                self._mode.restore(entry)

    # --- what happens ---------------------------------------------------------------------------------------

    def take_frame(self, frame: Frame) -> None:
        """Something that a member says about this round; raises `Ignore` or `RemoteProtocolError`."""
        self._intake.take(frame)

    def take_answer(self, event: Done | Delivered) -> None:
        """The engine has done something for this round, or could not."""
        if isinstance(event, Done):
            self._work.take(event)
        else:
            self._mode.take(event)

    def on_served(self, root: Digest, member: MemberId) -> None:
        """A peer has a payload from me."""
        self._work.on_served(root, member)

    def on_wanted(self, root: Digest) -> None:
        """A peer asks for a blob that is not here."""
        self._work.on_wanted(root)

    def on_timer(self, timer: Timer) -> None:
        """A deadline has passed."""
        if timer.kind == "refit":
            self._work.fit()
        else:
            self._attempts.on_timer(timer)

    def fetch_missing(self) -> None:
        """Ask again for payloads that nobody delivered."""
        self._mode.retry()
        for exchange in self._state.exchanges.values():
            self._mode.fetch_missing(exchange)

    def advance(self) -> None:
        """Take every step that the rules allow now; for a node that may sign."""
        self._steps.advance()

    def take_deferred(self) -> list[Signed | Propose]:
        """Frames that were early and are due now."""
        return self._attempts.take_deferred()

    @property
    def has_deferred(self) -> bool:
        """Whether such frames are due: this node has just come to their attempt."""
        return self._attempts.has_deferred

    def outcome(self) -> Outcome | None:
        """The decided round, once it is."""
        return self._steps.outcome()

    @property
    def elapsed(self) -> float:
        """Seconds that the exchange and the ballot of this attempt took so far."""
        return self._state.elapsed

    # --- repeating myself -----------------------------------------------------------------------------------

    def frames_to_repeat(self) -> list[Frame]:
        """What a peer that lost messages needs from me; sent on connection and with announcements."""
        state = self._state
        mine = state.ready or state.declined.get(self._context.me)
        frames: list[Frame] = [mine] if mine else []
        if state.attempt:
            frames.append(self._context.sign(Enter(state.round, state.attempt)))
        if (certificate := state.highest_certificate()) is not None:
            frames.append(certificate)  # before its roster, which is of use only with it
        for exchange in state.exchanges.values():
            if exchange is state.exchange or state.is_vouched(exchange.digest):
                frames.append(exchange.signed)
                frames.extend(exchange.commitments[member] for member in sorted(exchange.commitments))
            if self._is_due_a_receipt(exchange):
                frames.append(self._context.sign(exchange.receipt()))
        if state.proposal is not None:
            frames.append(state.proposal)
        frames.extend(state.ballot.mine())
        frames.extend(self._mode.frames_to_repeat())
        if (opening := state.ballot.opening()) is not None:
            frames.append(opening)
        return frames

    def frames_for(self, member: MemberId) -> list[Frame]:
        """The same, for that member's eyes only."""
        return self._mode.frames_for(member)

    def _is_due_a_receipt(self, exchange: Exchange) -> bool:
        takes_part = self._context.me in exchange.members and not self._state.i_propose
        return takes_part and exchange.attempt == self._state.attempt and bool(exchange.held)
