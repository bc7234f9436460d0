"""The round in work: from READY to the opening of one survivor set.

Handlers only take in what is new; `advance` then takes every step that the rules allow, deriving each from what is
known. PROTOCOL section 2, rules 1-7, in open mode (section 3).
"""

from dataclasses import dataclass

from folkmoot.protocol.ballot import Ballot
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import compute_exponents, verify_certificate, verify_opening
from folkmoot.protocol.context import Context
from folkmoot.protocol.effects import Aggregate, Blame, Encode, Fetch, Fit
from folkmoot.protocol.errors import Ignore, RemoteProtocolError
from folkmoot.protocol.events import (
    Aggregated,
    Encoded,
    FetchFailed,
    PayloadArrived,
    Timer,
    TimerKind,
    Trained,
)
from folkmoot.protocol.exchange import Exchange
from folkmoot.protocol.journal import Entered, Entry, Locked, Proposed, RosterTaken, Said, Voted
from folkmoot.protocol.messages import (
    Certificate,
    Commitment,
    Enter,
    Frame,
    Lock,
    Opening,
    Proposal,
    Propose,
    Ready,
    Receipt,
    Roster,
    Signed,
    SurvivorSet,
    Vote,
)
from folkmoot.protocol.types import Attempt, Digest, MemberId, Round
from folkmoot.protocol.validation import (
    MAX_ATTEMPTS_AHEAD,
    View,
    omitted_digest,
    validate_ballot,
    validate_commitment,
    validate_enter,
    validate_propose,
    validate_ready,
    validate_receipt,
    validate_roster,
)

STRETCH_AFTER = 4
"""Rounds in a row without a slow (but connected) member until it is waited for as long as the charter allows."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A decided round: the opening, what it rests on, and the model that the sums give."""

    opening: Opening
    certificate: Certificate
    exchange: Exchange
    model: BlobRef


class CurrentRound:
    """Everything that one node knows and has said about the round in work."""

    def __init__(self, context: Context, round_: Round, base: BlobRef, previous: Digest) -> None:
        self._context = context
        self._quorum = context.charter.quorum
        self.round = round_
        self.base = base
        self.previous = previous
        self.attempt: Attempt = 0
        self.ready: Signed | None = None
        self.fit_failed = False
        self.ballot = Ballot(context.me, self._quorum)
        self._readies: dict[MemberId, Signed] = {}
        self._began = context.now
        self._quorum_ready_at: float | None = None
        self._progress_at = context.now
        self._entered: dict[MemberId, Attempt] = {}
        self._exchanges: dict[Digest, Exchange] = {}
        self._early: dict[Digest, dict[MemberId, Signed]] = {}
        self._later: dict[Attempt, list[Signed | Propose]] = {}
        self._proposals: dict[Attempt, Propose] = {}
        self._results: dict[Digest, tuple[Digest, BlobRef]] = {}
        self._aggregating: set[Digest] = set()
        self._over: set[Timer] = set()

    # --- where we stand -------------------------------------------------------------------------------------

    @property
    def view(self) -> View:
        """What validation needs to know."""
        context = self._context
        return View(
            context.federation, context.verifier, self.round, self.base.root, self.previous, self.attempt
        )

    @property
    def proposer(self) -> MemberId:
        """Who proposes in this attempt."""
        return self._context.federation.proposer(self.round, self.base.root, self.attempt)

    @property
    def _i_propose(self) -> bool:
        return self.proposer == self._context.me

    @property
    def exchange(self) -> Exchange | None:
        """The exchange of this attempt's own roster."""
        return next((one for one in self._exchanges.values() if one.attempt == self.attempt), None)

    @property
    def proposal(self) -> Propose | None:
        """This attempt's proposal."""
        return self._proposals.get(self.attempt)

    @property
    def phase(self) -> str:
        """One word for people."""
        if self.ballot.my_locks:
            return "locked"
        if self.proposal is not None:
            return "voting"
        if self.exchange is not None:
            return "exchange"
        if self.fit_failed:
            return "training failed"
        return "ready" if self.ready is not None else "training"

    def _is_over(self, timer: Timer) -> bool:
        return timer in self._over

    # --- starting and restarting ----------------------------------------------------------------------------

    def start(self) -> None:
        """Ask for what is missing: the first time the training, after a restart whatever the journal left open."""
        context = self._context
        if self.ready is None:
            context.emit(Fit(self.round, self.base))
        for exchange in self._exchanges.values():
            self._encode_if_due(exchange)
            self.fetch_missing(exchange)
        if self.attempt:
            self._start_attempt()

    def restore(self, entry: Entry) -> None:
        """Take back what the journal says was said."""
        match entry:
            case Entered(attempt=attempt):
                self.attempt = self._entered[self._context.me] = attempt
            case Said(signed=Signed(body=Ready()) as signed):
                self.ready = self._readies[signed.member] = signed
            case Said(signed=Signed(body=Commitment() as commitment) as signed):
                self._exchanges[commitment.roster].add_commitment(signed)
            case RosterTaken(roster=roster):
                self._add_exchange(Exchange(self._context.me, roster))
            case Proposed(propose=propose):
                self._take_proposal(propose)
            case Voted(vote=vote, survivors=survivors, commitments=commitments):
                self.ballot.add_set(survivors)
                self.ballot.add_vote(vote)
                if (exchange := self._exchanges.get(survivors.roster)) is not None:
                    for one in commitments:
                        exchange.add_commitment(one)
            case Locked(lock=Signed(body=Lock() as body) as lock, certificate=certificate, model=model):
                self._count_certificate(certificate)
                self.ballot.add_lock(lock)
                self._results[body.survivors] = (body.sums, model)
            case _:
                pass

    # --- what comes in: training and payloads ---------------------------------------------------------------

    def on_trained(self, event: Trained) -> None:
        """Announce READY, journalled first."""
        if self.ready is not None or event.base != self.base.root:
            return
        body = Ready(
            round=self.round,
            base=event.base,
            exponents=event.exponents,
            manifest=event.manifest,
            privacy_log=event.privacy_log,
            report=event.report,
            num_examples=event.num_examples,
            accuracy=event.accuracy,
        )
        self.ready = self._context.sign(body)
        self._context.persist(self.round, Said(self.ready))
        self._context.announce(self.ready)
        self._add_ready(self.ready)

    def on_encoded(self, event: Encoded) -> None:
        """Commit to the payload that now lies in the archive."""
        exchange, me = self._exchanges.get(event.roster), self._context.me
        if exchange is None or me in exchange.commitments:
            return
        body = Commitment(
            federation=self._context.federation.id,
            round=self.round,
            roster=event.roster,
            member=me,
            root=event.payload.root,
            size=event.payload.size,
            key=event.key,
        )
        signed = self._context.sign(body)
        self._context.persist(self.round, Said(signed))
        exchange.add_commitment(signed)
        self._context.broadcast(signed)
        self._hold(exchange, me)

    def on_payload(self, event: PayloadArrived) -> None:
        """A payload is held; tell the proposer."""
        exchange = self._exchanges.get(event.roster)
        member = exchange.member_of(event.commitment) if exchange else None
        if exchange is not None and member is not None:
            exchange.fetching.discard(member)
            self._hold(exchange, member)

    def on_fetch_failed(self, event: FetchFailed) -> None:
        """Nobody delivered it; the next announcement, or a peer that comes up, tries again."""
        exchange = self._exchanges.get(event.roster)
        member = exchange.member_of(event.commitment) if exchange else None
        if exchange is not None and member is not None:
            exchange.fetching.discard(member)

    def on_served(self, root: Digest, member: MemberId) -> None:
        """A peer has a payload from me."""
        for exchange in self._exchanges.values():
            exchange.add_forwarded(root, member)

    def on_progress(self) -> None:
        """Bytes still flow: the attempt is not stuck."""
        self._progress_at = self._context.now

    def on_aggregated(self, event: Aggregated) -> None:
        """The sums of a survivor set, and the model that they give."""
        self._results[event.survivors] = (event.sums, event.model)

    def _hold(self, exchange: Exchange, member: MemberId) -> None:
        self.on_progress()
        exchange.held.add(member)
        if exchange.attempt == self.attempt:
            if not self._i_propose:
                self._context.send(self.proposer, self._context.sign(exchange.receipt()))
            elif len(exchange.held) == self._quorum < len(exchange.members):
                elapsed = self._context.now - (self._quorum_ready_at or self._context.now)
                self._timer("exchange", self._context.pace.grace(elapsed))

    # --- what comes in: messages ----------------------------------------------------------------------------

    def on_ready(self, signed: Signed) -> None:
        """A member's update is trained."""
        validate_ready(signed, self.view, self._readies.get(signed.member))
        self._add_ready(signed)

    def _add_ready(self, signed: Signed) -> None:
        self._readies[signed.member] = signed
        if len(self._readies) >= self._quorum and self._quorum_ready_at is None:
            self._quorum_ready_at = self._context.now
            self._start_attempt()

    def on_roster(self, signed: Signed) -> None:
        """The proposer names who takes part."""
        assert isinstance(signed.body, Roster)
        self._defer_if_later(signed.body.round, signed.body.attempt, signed)
        validate_roster(signed, self.view, self.exchange)
        if self._context.note(signed) and self.exchange is None:
            self._take_roster(signed)

    def _take_roster(self, signed: Signed) -> None:
        self._context.persist(self.round, RosterTaken(signed))
        exchange = Exchange(self._context.me, signed)
        self._add_exchange(exchange)
        if self._quorum_ready_at is None:  # the roster itself shows a quorum of READYs
            self._quorum_ready_at = self._context.now
            self._start_attempt()
        for ready in exchange.roster.readies:
            self._readies.setdefault(ready.member, ready)
        self._encode_if_due(exchange)
        for commitment in self._early.pop(exchange.digest, {}).values():
            try:
                self._take_commitment(exchange, commitment)
            except RemoteProtocolError as error:
                self._context.emit(Blame(commitment.member, "commitment", str(error)))

    def _add_exchange(self, exchange: Exchange) -> None:
        self._exchanges[exchange.digest] = exchange

    def _encode_if_due(self, exchange: Exchange) -> None:
        me = self._context.me
        if me in exchange.members and me not in exchange.commitments:
            self._context.emit(Encode(self.round, exchange.digest, exchange.members))

    def on_commitment(self, signed: Signed) -> None:
        """A roster member has committed to its payload; may come before the roster."""
        assert isinstance(signed.body, Commitment)
        if signed.body.round != self.round:
            raise Ignore("commitment of another round")
        exchange = self._exchanges.get(signed.body.roster)
        if exchange is not None:
            self._take_commitment(exchange, signed)
        elif len(self._early) <= MAX_ATTEMPTS_AHEAD:
            self._early.setdefault(signed.body.roster, {}).setdefault(signed.member, signed)

    def _take_commitment(self, exchange: Exchange, signed: Signed) -> None:
        validate_commitment(signed, self.view, exchange)
        if self._context.note(signed):
            exchange.add_commitment(signed)
            self.fetch_missing(exchange)

    def on_receipt(self, signed: Signed) -> None:
        """A member tells the proposer what it holds."""
        assert isinstance(signed.body, Receipt)
        exchange = self._exchanges.get(signed.body.roster)
        if exchange is None:
            raise Ignore("receipt for a roster that is not known here")
        validate_receipt(signed, self.view, exchange)
        exchange.add_receipt(signed.member, signed.body)

    def on_propose(self, frame: Propose) -> None:
        """A survivor set is put to the vote."""
        proposal = frame.proposal.body
        if isinstance(proposal, Proposal):
            self._defer_if_later(proposal.round, proposal.attempt, frame)
        validate_propose(frame, self.view, self._exchanges.get(frame.survivors.roster))
        if frame.certificate is not None:
            self._count_certificate(frame.certificate)
        if self._context.note(frame.proposal) and self.proposal is None:
            self._take_proposal(frame)

    def _take_proposal(self, frame: Propose) -> None:
        assert isinstance(frame.proposal.body, Proposal)
        self._proposals[frame.proposal.body.attempt] = frame
        self.ballot.add_set(frame.survivors)

    def on_ballot(self, signed: Signed) -> None:
        """A vote or a lock, of any attempt of this round."""
        validate_ballot(signed, self.view)
        if self._context.note(signed):
            if isinstance(signed.body, Vote):
                self.ballot.add_vote(signed)
            else:
                self.ballot.add_lock(signed)

    def on_certificate(self, certificate: Certificate) -> None:
        """Q votes, shown by anybody."""
        self._check_here(certificate.survivors)
        verify_certificate(certificate, self._context.federation, self._context.verifier)
        self._count_certificate(certificate)

    def on_opening(self, opening: Opening) -> None:
        """Q locks, shown by anybody."""
        self._check_here(opening.survivors)
        verify_opening(opening, self._context.federation, self._context.verifier)
        self.ballot.add_set(opening.survivors)
        for lock in opening.locks:
            self.ballot.add_lock(lock)

    def _check_here(self, survivors: SurvivorSet) -> None:
        if (survivors.round, survivors.previous) != (self.round, self.previous):
            raise Ignore("certificate of another round")

    def _count_certificate(self, certificate: Certificate) -> None:
        self.ballot.add_set(certificate.survivors)
        for vote in certificate.votes:
            if vote.member != self._context.me:  # what I voted, the journal knows
                self.ballot.add_vote(vote)

    def _defer_if_later(self, round_: Round, attempt: Attempt, frame: Signed | Propose) -> None:
        """Keep what belongs to a later attempt until this node gets there (a few frames each, no more)."""
        if round_ == self.round and self.attempt < attempt <= self.attempt + MAX_ATTEMPTS_AHEAD:
            kept = self._later.setdefault(attempt, [])
            if frame not in kept and len(kept) < 4:
                kept.append(frame)
            raise Ignore("of a later attempt")

    # --- attempts -------------------------------------------------------------------------------------------

    def on_enter(self, signed: Signed) -> None:
        """A member went on; f+1 of them cannot all be lying, so I follow."""
        assert isinstance(signed.body, Enter)
        validate_enter(signed, self.view, self._entered.get(signed.member, 0))
        self._entered[signed.member] = signed.body.attempt
        ahead = sorted(self._entered.values(), reverse=True)
        faults = self._context.charter.faults
        if len(ahead) > faults and ahead[faults] > self.attempt:
            self.enter(ahead[faults])

    def enter(self, attempt: Attempt) -> None:
        """Give the attempts before `attempt` up and tell everybody, with the highest certificate known."""
        context = self._context
        self.attempt = attempt
        context.persist(self.round, Entered(self.round, attempt))
        signed = context.sign(Enter(self.round, attempt))
        self._entered[context.me] = attempt
        certificate = self._highest_certificate()
        if certificate is not None:
            context.broadcast(certificate)
        context.announce(signed)
        self._start_attempt()
        self._later = {later: frames for later, frames in self._later.items() if later >= attempt}

    def take_deferred(self) -> list[Signed | Propose]:
        """Frames that were early and are due now."""
        return self._later.pop(self.attempt, [])

    def _start_attempt(self) -> None:
        """Time-outs of this attempt: how long READYs (later: ENTERs) are waited for, and the whole."""
        context = self._context
        elapsed = context.now - self._began if self.attempt == 0 else 0.0
        stretched = any(context.missed[member] >= STRETCH_AFTER for member in context.up - set(self._readies))
        self._timer("grace", context.charter.schedule.grace_max if stretched else context.pace.grace(elapsed))
        self._timer("attempt", context.pace.attempt_timeout(self.attempt))

    def _timer(self, kind: TimerKind, delay: float) -> None:
        self._context.start_timer(kind, self.round, self.attempt, delay)

    def on_timer(self, timer: Timer) -> None:
        """A deadline of this attempt has passed."""
        if timer.attempt != self.attempt:
            return
        self._over.add(timer)
        if timer.kind == "grace":
            self._context.down.update(self._unseen())
            if self.exchange is None and self.proposer not in self._readies:
                self.enter(self.attempt + 1)
        elif timer.kind == "attempt":
            timeout = self._context.pace.attempt_timeout(self.attempt)
            quiet = self._context.now - self._progress_at
            if quiet < timeout / 2:  # payloads still arrive: a slow link is no reason to begin again
                self._timer("attempt", timeout - quiet)
            elif self._enough_up:
                self.enter(self.attempt + 1)
            else:
                self._timer("attempt", timeout)

    @property
    def _enough_up(self) -> bool:
        """Whether a quorum could act at all; without one, more attempts would only make the time-outs long."""
        return len(self._context.up) + 1 >= self._quorum

    def _unseen(self) -> set[MemberId]:
        """Members that never connected and are not ready: not waited for again until they come up."""
        context = self._context
        return set(context.members) - context.up - {context.me} - set(self._readies)

    def fetch_missing(self, exchange: Exchange | None = None) -> None:
        """Pull every payload that is committed to and not held: from its sender first, then from anyone."""
        for one in [exchange] if exchange else list(self._exchanges.values()):
            if self._context.me not in one.members:
                continue
            for member in sorted(set(one.commitments) - one.held - one.fetching):
                one.fetching.add(member)
                sources = (member, *(other for other in one.members if other != member))
                self._context.emit(Fetch(one.commitments[member], one.members, sources))

    # --- the steps ------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Take every step that the rules allow now; none is taken twice."""
        self._skip_dead_proposer()
        self._name_roster()
        self._propose()
        self._vote()
        self._aggregate()
        self._lock()

    def _skip_dead_proposer(self) -> None:
        """A proposer that died before it proposed will not any more; no need to wait for the time-out."""
        for _ in self._context.members:
            waiting = self._quorum_ready_at is not None and self.proposal is None and self._enough_up
            if waiting and self.proposer in self._context.down:
                self.enter(self.attempt + 1)

    def _name_roster(self) -> None:
        """Rule 2: the proposer names the roster when all live members are ready, or after the grace."""
        if not self._i_propose or self.exchange is not None or self.proposal is not None:
            return
        if self._quorum_ready_at is None or self.ready is None or self._repropose_set() is not None:
            return
        if not self._is_over(Timer("grace", self.round, self.attempt)) and not self._all_here():
            return
        readies = self._roster_readies()
        bodies = [ready.body for ready in readies if isinstance(ready.body, Ready)]
        roster = Roster(
            round=self.round,
            attempt=self.attempt,
            base=self.base.root,
            readies=readies,
            exponents=compute_exponents(bodies, self._context.charter.faults),
        )
        signed = self._context.sign(roster)
        self._take_roster(signed)
        self._context.broadcast(signed)

    def _roster_readies(self) -> tuple[Signed, ...]:
        """Everybody who is ready and not known to be away; with too few of those, everybody who is ready."""
        present = [member for member in sorted(self._readies) if member not in self._context.down]
        chosen = present if len(present) >= self._quorum else sorted(self._readies)
        return tuple(self._readies[member] for member in chosen)

    def _all_here(self) -> bool:
        """First attempt: every member not known to be away is ready. Later: a quorum has entered it."""
        if self.attempt == 0:
            return set(self._context.members) - self._context.down <= set(self._readies)
        return sum(attempt >= self.attempt for attempt in self._entered.values()) >= self._quorum

    def _propose(self) -> None:
        """Rule 4, and the end of rule 6: the highest certificate's set again, else the survivors of my roster."""
        if not self._i_propose or self.proposal is not None:
            return
        survivors, exchange = self._repropose_set(), self.exchange
        certificate = None
        if survivors is not None:
            if not self._all_here() and not self._is_over(Timer("grace", self.round, self.attempt)):
                return
            certificate, exchange = self._highest_certificate(), self._exchanges.get(survivors.roster)
        elif exchange is not None:
            patient = not self._is_over(Timer("exchange", self.round, self.attempt))
            members = exchange.choose_survivors(self._quorum, self._context.down, patient)
            survivors = self._survivor_set(exchange, members) if members else None
        if survivors is None or exchange is None:
            return
        omitted = exchange.omissions({survivor.member for survivor in survivors.survivors})
        body = Proposal(
            self._context.federation.id, self.round, self.attempt, survivors.digest, omitted_digest(omitted)
        )
        propose = Propose(self._context.sign(body), survivors, omitted, certificate)
        self._context.persist(self.round, Proposed(propose))
        self._context.broadcast(propose)
        self._take_proposal(propose)

    def _survivor_set(self, exchange: Exchange, members: tuple[MemberId, ...]) -> SurvivorSet:
        return SurvivorSet(
            round=self.round,
            base=self.base.root,
            previous=self.previous,
            config=self._context.federation.config,
            roster=exchange.digest,
            survivors=exchange.survivors_of(members),
        )

    def _highest_certificate(self) -> Certificate | None:
        for attempt, digest in self.ballot.certificates():
            certificate = self.ballot.certificate(attempt, digest)
            if certificate is not None:
                return certificate
        return None

    def _repropose_set(self) -> SurvivorSet | None:
        """The set of the highest certificate whose payloads I hold."""
        for _, digest in self.ballot.certificates():
            survivors = self.ballot.get_set(digest)
            if survivors is not None and self._holds(survivors):
                return survivors
        return None

    def _holds(self, survivors: SurvivorSet) -> bool:
        exchange = self._exchanges.get(survivors.roster)
        return exchange is not None and exchange.holds(survivors)

    def _vote(self) -> None:
        """Rule 5: once per attempt, for what I hold, or for what a certificate vouches."""
        proposal = self.proposal
        if proposal is None or not self.ballot.may_vote(self.attempt, proposal.survivors):
            return
        survivors = proposal.survivors
        exchange = self._exchanges.get(survivors.roster)
        holds = (
            exchange is not None and exchange.holds(survivors) and not exchange.contradicts(proposal.omitted)
        )
        if not holds and not self.ballot.is_certified(survivors.digest):
            return
        body = Vote(self._context.federation.id, self.round, self.attempt, survivors.digest)
        vote = self._context.sign(body)
        commitments = exchange.commitments_of(survivors) if exchange else ()
        self._context.persist(self.round, Voted(vote, survivors, commitments))
        self.ballot.add_vote(vote)
        self._context.broadcast(vote)

    def _aggregate(self) -> None:
        """Sum what I voted for (while others' votes travel), and what is certified."""
        mine = [self.ballot.get_set(digest) for digest in self.ballot.my_votes.values()]
        certified = [self.ballot.get_set(digest) for _, digest in self.ballot.certificates()]
        for survivors in mine + certified:
            if (
                survivors is None
                or survivors.digest in self._aggregating
                or survivors.digest in self._results
            ):
                continue
            exchange = self._exchanges.get(survivors.roster)
            if exchange is not None and exchange.holds(survivors):
                self._aggregating.add(survivors.digest)
                commitments = exchange.commitments_of(survivors)
                self._context.emit(Aggregate(self.base, survivors, exchange.roster, commitments))

    def _lock(self) -> None:
        """Rule 6: with the certificate and the checked sums in hand, journalled first."""
        for attempt, digest in self.ballot.certificates():
            certificate = self.ballot.certificate(attempt, digest)
            if (
                certificate is None
                or digest not in self._results
                or not self.ballot.may_lock(attempt, digest)
            ):
                continue
            sums, model = self._results[digest]
            lock = self._context.sign(Lock(self._context.federation.id, self.round, attempt, digest, sums))
            self._context.persist(self.round, Locked(lock, certificate, model))
            self.ballot.add_lock(lock)
            self._context.broadcast(lock)

    def outcome(self) -> Outcome | None:
        """The decided round, once the opening and everything that it rests on is here."""
        opening = self.ballot.opening()
        if opening is None or not isinstance(lock := opening.locks[0].body, Lock):
            return None
        certificate = self.ballot.certificate(lock.attempt, lock.survivors)
        exchange = self._exchanges.get(opening.survivors.roster)
        sums, model = self._results.get(lock.survivors, (None, None))
        if certificate is None or exchange is None or model is None or sums != lock.sums:
            return None
        return Outcome(opening, certificate, exchange, model)

    def seconds_since_quorum(self) -> float:
        """How long the exchange and the ballot took so far."""
        return self._context.now - (self._quorum_ready_at or self._context.now)

    # --- repeating myself -----------------------------------------------------------------------------------

    def current_frames(self) -> list[Frame]:
        """What a peer that lost messages needs from me; sent on connection and with announcements."""
        frames: list[Frame] = [self.ready] if self.ready else []
        if self.attempt:
            frames.append(self._context.sign(Enter(self.round, self.attempt)))
        if self.exchange is not None:
            frames.append(self.exchange.signed)
        for exchange in self._exchanges.values():
            frames.extend(exchange.commitments[member] for member in sorted(exchange.commitments))
            if not self._i_propose and exchange.attempt == self.attempt and exchange.held:
                frames.append(self._context.sign(exchange.receipt()))
        if self.proposal is not None:
            frames.append(self.proposal)
        if (certificate := self._highest_certificate()) is not None:
            frames.append(certificate)
        frames.extend(self.ballot.mine())
        if (opening := self.ballot.opening()) is not None:
            frames.append(opening)
        return frames
