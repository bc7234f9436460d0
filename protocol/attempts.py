"""Attempts of one round: when to wait, when to give up, and how to stay together. PROTOCOL section 2, rule 7."""

from collections.abc import Collection

from folkmoot.protocol.context import Context
from folkmoot.protocol.errors import Ignore
from folkmoot.protocol.events import Timer, TimerKind
from folkmoot.protocol.journal import Entered
from folkmoot.protocol.messages import Enter, Proposal, Propose, Roster, Signed
from folkmoot.protocol.round_state import RoundState
from folkmoot.protocol.types import Attempt, MemberId
from folkmoot.protocol.validation import MAX_ATTEMPTS_AHEAD, omitted_digest, validate_enter

MAX_STRETCH = 4.0
"""Arriving payloads hold an attempt's time-out back, but only to this many times its length: a drip ends nothing."""


class Attempts:
    """Which attempt every member is known to be in, and the deadlines of mine."""

    def __init__(self, context: Context, state: RoundState) -> None:
        self._context = context
        self._state = state
        self._entered: dict[MemberId, Attempt] = {}
        self._later: dict[Attempt, dict[type, Signed | Propose]] = {}
        self._over: set[Timer] = set()
        self._timed: Attempt | None = None
        self._awaited: set[MemberId] = set()
        """Who is given a long wait in this round, whatever becomes of its heartbeats meanwhile."""

    def restore(self, attempt: Attempt) -> None:
        """The journal says that I entered this attempt."""
        self._state.attempt = self._entered[self._context.me] = attempt

    # --- going on -------------------------------------------------------------------------------------------

    def on_enter(self, signed: Signed) -> None:
        """A member went on; f+1 of them cannot all be lying, so I follow."""
        assert isinstance(signed.body, Enter)
        validate_enter(signed, self._state.view, self._entered.get(signed.member, 0))
        self._entered[signed.member] = signed.body.attempt
        ahead = sorted(self._entered.values(), reverse=True)
        faults = self._context.charter.faults
        if len(ahead) > faults and ahead[faults] > self._state.attempt:
            self._enter(ahead[faults])

    def give_up(self) -> None:
        """This attempt cannot come to its end any more (a lie was found in what it signed): do not wait."""
        self._enter(self._state.attempt + 1)

    def _enter(self, attempt: Attempt) -> None:
        """Give the attempts before `attempt` up and tell everybody, with the highest certificate known."""
        context, state = self._context, self._state
        state.attempt = self._entered[context.me] = attempt
        context.persist(state.round, Entered(state.round, attempt))
        if (certificate := state.highest_certificate()) is not None:
            context.broadcast(certificate)
        context.announce(context.sign(Enter(state.round, attempt)))
        self._later = {later: frames for later, frames in self._later.items() if later >= attempt}

    # --- deadlines ------------------------------------------------------------------------------------------

    def on_timer(self, timer: Timer) -> None:
        """A deadline has passed; what follows from it, `advance` does."""
        if timer.attempt != self._state.attempt:
            return
        self._over.add(timer)
        if timer.kind == "grace":  # never connected and not ready: not waited for again until they come up
            context = self._context
            context.down.update(set(context.members) - context.up - {context.me} - set(self._state.readies))

    def is_over(self, kind: TimerKind) -> bool:
        """Whether that deadline of this attempt has passed."""
        return Timer(kind, self._state.round, self._state.attempt) in self._over

    def start_timer(self, kind: TimerKind, delay: float) -> None:
        """Set a deadline of this attempt."""
        self._context.start_timer(kind, self._state.round, self._state.attempt, delay)

    def advance(self) -> None:
        """Act on the deadlines that have passed, and start those of this attempt when they are due."""
        state = self._state
        if state.quorum_ready_at is None and len(state.readies) >= state.quorum:
            state.quorum_ready_at = self._context.now
            self._awaited = self._context.long_waits.give(self._context.up - self._context.silent)
        self._skip_dead_proposer()
        self._skip_late_proposer()
        self._give_up_if_stuck()
        if self._timed != state.attempt and self._quorum_is_here:
            self._time()

    @property
    def _quorum_is_here(self) -> bool:
        """Whether a quorum is ready, or (later) in this attempt.

        Before that nothing can be decided in it, so its deadlines have no business to run: members whose clocks and
        time-outs differ would chase each other from attempt to attempt and never meet in one. (PBFT waits for 2f+1
        view-changes before it starts a view's timer, for the same reason.)
        """
        if self._state.attempt == 0:
            return self._state.quorum_ready_at is not None
        here = sum(attempt >= self._state.attempt for attempt in self._entered.values())
        return here >= self._state.quorum

    def _time(self) -> None:
        """Deadlines of this attempt: how long READYs (later: the proposer's) are waited for, and the whole."""
        context, state = self._context, self._state
        self._timed, state.attempt_began = state.attempt, context.now
        elapsed = context.now - state.began if state.attempt == 0 else 0.0
        grace, timeout = context.pace.grace(elapsed), context.pace.attempt_timeout(state.attempt)
        if state.attempt == 0 and self._awaited - set(state.readies) - state.absent:
            grace = context.charter.schedule.grace_max
            timeout += grace
        self.start_timer("grace", grace)
        self.start_timer("attempt", timeout)

    def wait_for_payloads(self, missing: Collection[MemberId]) -> None:
        """A quorum's payloads are here: start the grace for the others'. A slow line is waited for now and then."""
        context, state = self._context, self._state
        grace = context.pace.grace(state.elapsed)
        if state.attempt == 0 and self._awaited.intersection(missing):
            grace = context.charter.schedule.grace_max  # the attempt lasts as long as payloads still arrive
        self.start_timer("exchange", grace)

    def _skip_dead_proposer(self) -> None:
        """A proposer that died before it proposed, or takes no part, will not any more: no need for the time-out."""
        state = self._state
        for _ in self._context.members:
            waiting = state.quorum_ready_at is not None and state.proposal is None and self._enough_up
            if not waiting or not self._is_away(state.proposer):
                return
            self._enter(state.attempt + 1)

    def _is_away(self, proposer: MemberId) -> bool:
        """Gone, or taking no part; or silent, and not ready either."""
        silent = self._context.silent - self._awaited - set(self._state.readies)
        return proposer in self._state.absent | silent

    def _skip_late_proposer(self) -> None:
        """A proposer that is not ready when the grace is over names no roster in this attempt."""
        state = self._state
        if self.is_over("grace") and state.exchange is None and state.proposer not in state.readies:
            self._enter(state.attempt + 1)

    def _give_up_if_stuck(self) -> None:
        if not self.is_over("attempt"):
            return
        self._over.discard(Timer("attempt", self._state.round, self._state.attempt))
        now, timeout = self._context.now, self._context.pace.attempt_timeout(self._state.attempt)
        quiet = now - self._state.progress_at
        if quiet < timeout / 2 and self._state.elapsed < MAX_STRETCH * timeout:
            self.start_timer("attempt", timeout - quiet)  # a slow link is no reason to begin again
        elif self._enough_up:
            self._state.timed_out.add(self._state.attempt)
            self._enter(self._state.attempt + 1)
        else:
            self.start_timer("attempt", timeout)

    @property
    def _enough_up(self) -> bool:
        """Whether a quorum could act at all; without one, more attempts would only make the time-outs long."""
        return len(self._context.up) + 1 >= self._state.quorum

    @property
    def gathered(self) -> bool:
        """Whether the proposer need not wait any longer.

        Every member that is neither away, nor silent, nor takes no part is ready, or the grace is over; in a later
        attempt a quorum has entered it too (one that was entered early, because its proposer died, may find members
        still training).
        """
        context, state = self._context, self._state
        expected = set(context.members) - state.absent - (context.silent - self._awaited)
        ready = self.is_over("grace") or expected <= set(state.readies)
        return ready and (state.attempt == 0 or self._quorum_is_here)

    # --- early frames ---------------------------------------------------------------------------------------

    def defer(self, frame: Signed | Propose) -> None:
        """Keep a later attempt's roster or proposal until I get there (one each); raises `Ignore` if it is one."""
        signed = frame.proposal if isinstance(frame, Propose) else frame
        body, state = signed.body, self._state
        assert isinstance(body, Roster | Proposal)
        if body.round != state.round or not 0 < body.attempt - state.attempt <= MAX_ATTEMPTS_AHEAD:
            return
        # [IGNORE] It is not from the proposer of that attempt (on my base)
        if signed.member != state.proposer_of(body.attempt):
            raise Ignore("of a later attempt, not from its proposer")
        # [IGNORE] It shows something else than it signs; the true one may still come
        if isinstance(frame, Propose) and isinstance(body, Proposal):
            shown = (frame.survivors.digest, omitted_digest(frame.omitted))
            if shown != (body.survivors, body.omitted):
                raise Ignore("of a later attempt, and does not sign what it shows")
        self._context.verifier.verify(signed)
        self._later.setdefault(body.attempt, {}).setdefault(type(body), frame)
        raise Ignore("of a later attempt")

    def take_deferred(self) -> list[Signed | Propose]:
        """Frames that were early and are due now."""
        return list(self._later.pop(self._state.attempt, {}).values())

    @property
    def has_deferred(self) -> bool:
        """Whether there are any."""
        return self._state.attempt in self._later
