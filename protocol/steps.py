"""What to say next in the round in work: every step follows from what is known, and none is taken twice.

PROTOCOL section 2, rules 1-6. Only a node that may sign gets here; each step journals before it sends (rule 10).
"""

from dataclasses import dataclass

from folkmoot.protocol.attempts import Attempts
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import compute_exponents
from folkmoot.protocol.context import Context
from folkmoot.protocol.events import Encoded
from folkmoot.protocol.exchange import Exchange
from folkmoot.protocol.intake import Intake
from folkmoot.protocol.journal import Locked, Proposed, Said, Voted
from folkmoot.protocol.messages import (
    Certificate,
    Declined,
    Lock,
    Opening,
    Proposal,
    Propose,
    Ready,
    Roster,
    Signed,
    SurvivorSet,
    Unmasking,
    Vote,
)
from folkmoot.protocol.mode import Mode
from folkmoot.protocol.round_state import RoundState
from folkmoot.protocol.types import MemberId
from folkmoot.protocol.validation import omitted_digest


@dataclass(frozen=True, slots=True)
class Outcome:
    """A decided round: the opening, what it rests on, the model that the sums give, and what took their masks off."""

    opening: Opening
    certificate: Certificate
    exchange: Exchange
    model: BlobRef
    unmasking: Unmasking | None


class Steps:
    """Takes the steps of one node."""

    def __init__(
        self, context: Context, state: RoundState, attempts: Attempts, intake: Intake, mode: Mode
    ) -> None:
        self._context = context
        self._state = state
        self._attempts = attempts
        self._intake = intake
        self._mode = mode

    def advance(self) -> None:
        """Take every step that the rules allow now."""
        self._say_ready()
        self._decline()
        self._attempts.advance()
        self._commit()
        self._name_roster()
        self._propose()
        self._vote()
        self._mode.advance()
        self._lock()

    # --- READY, roster, commitment --------------------------------------------------------------------------

    def _say_ready(self) -> None:
        """Rule 1: my update is trained."""
        state, trained = self._state, self._state.trained
        if trained is None or state.ready is not None:
            return
        body = Ready(
            round=state.round,
            base=trained.base,
            exponents=trained.exponents,
            manifest=trained.manifest,
            privacy_log=trained.privacy_log,
            report=trained.report,
            num_examples=0 if state.is_secure else trained.num_examples,
            metrics=() if state.is_secure or self._context.charter.is_private else trained.metrics,
            mask_key=trained.mask_key if state.is_secure else b"",
        )
        state.ready = self._context.sign(body)
        self._context.persist(state.round, Said(state.ready))
        self._context.announce(state.ready)
        state.readies[self._context.me] = state.ready

    def _decline(self) -> None:
        """There will be no update of mine: nobody need wait for it."""
        state, me = self._state, self._context.me
        if state.declines and state.ready is None and me not in state.declined:
            state.declined[me] = self._context.sign(Declined(state.round, state.base.root, state.declines))
            self._context.announce(state.declined[me])

    def _commit(self) -> None:
        """Rule 3: commit to each payload of mine that now lies in the archive."""
        encoded, self._state.encoded = self._state.encoded, {}
        for event in encoded.values():
            exchange = self._state.exchanges.get(event.roster)
            if exchange is not None:
                self._commit_to(event, exchange)

    def _commit_to(self, event: Encoded, exchange: Exchange) -> None:
        context = self._context
        if context.me not in exchange.commitments:
            signed = context.sign(self._mode.commit(event, exchange))
            context.persist(self._state.round, Said(signed))
            exchange.add_commitment(signed)
            context.broadcast(signed)
        self._mode.committed(event, exchange)

    def _name_roster(self) -> None:
        """Rule 2: the proposer names the roster when all live members are ready, or after the grace."""
        state = self._state
        if not state.i_propose or state.exchange is not None or state.proposal is not None:
            return
        if state.quorum_ready_at is None or state.ready is None or not self._attempts.gathered:
            return
        if self._certificate_to_repropose() is not None:
            return
        readies = self._roster_readies()
        bodies = [ready.body for ready in readies if isinstance(ready.body, Ready)]
        roster = Roster(
            round=state.round,
            attempt=state.attempt,
            base=state.base.root,
            readies=readies,
            exponents=compute_exponents(bodies, self._context.charter.faults),
        )
        signed = self._context.sign(roster)
        self._intake.take_roster(signed)
        self._context.broadcast(signed)

    def _roster_readies(self) -> tuple[Signed, ...]:
        """Everybody who is ready and not known to be away; with too few of those, everybody who is ready.

        Without those that failed in this round's earlier attempts, as far as there are enough others (rule 2).
        """
        readies, down = self._state.readies, self._context.down
        present = [member for member in sorted(readies) if member not in down]
        chosen = present if len(present) >= self._state.quorum else sorted(readies)
        for member in self._suspects():
            if member in chosen and self._state.groups.can_spare(member, chosen):
                chosen.remove(member)
        return tuple(readies[member] for member in chosen)

    def _suspects(self) -> list[MemberId]:
        """Who failed most often first; of equals, in each attempt another one, for suspicion is no proof."""
        counts, members = self._mode.suspects(), len(self._context.members)
        return sorted(counts, key=lambda one: (-counts[one], (one - self._state.attempt) % members))

    # --- proposal, vote, lock -------------------------------------------------------------------------------

    def _propose(self) -> None:
        """Rule 4, and the end of rule 6: the highest certificate's set again, else the survivors of my roster."""
        state = self._state
        if not state.i_propose or state.proposal is not None:
            return
        certificate, exchange = self._certificate_to_repropose(), state.exchange
        if certificate is not None:
            if self._attempts.gathered:
                survivors = certificate.survivors
                self._put_to_vote(survivors, state.exchanges[survivors.roster], certificate)
        elif exchange is not None:
            patient = not self._attempts.is_over("exchange")
            members = exchange.choose_survivors(state.groups, self._context.down, patient)
            if members is not None:
                self._put_to_vote(self._survivor_set(exchange, members), exchange, None)

    def _certificate_to_repropose(self) -> Certificate | None:
        """The end of rule 6: the highest certificate that I could bring to its end."""
        certificates = self._state.certificates()
        return next((one for one in certificates if self._mode.can_finish(one.survivors)), None)

    def _survivor_set(self, exchange: Exchange, members: tuple[MemberId, ...]) -> SurvivorSet:
        return SurvivorSet(
            round=self._state.round,
            base=self._state.base.root,
            previous=self._state.previous,
            config=self._context.federation.config,
            roster=exchange.digest,
            survivors=exchange.survivors_of(members),
        )

    def _put_to_vote(
        self, survivors: SurvivorSet, exchange: Exchange, certificate: Certificate | None
    ) -> None:
        context, state = self._context, self._state
        omitted = exchange.omissions(survivors.members)
        body = Proposal(
            context.federation.id, state.round, state.attempt, survivors.digest, omitted_digest(omitted)
        )
        propose = Propose(context.sign(body), survivors, omitted, certificate)
        context.persist(state.round, Proposed(propose))
        context.broadcast(propose)
        state.add_proposal(state.attempt, propose)

    def _vote(self) -> None:
        """Rule 5: once per attempt, for what I hold, or for what a certificate vouches."""
        context, state, proposal = self._context, self._state, self._state.proposal
        if proposal is None or not state.ballot.may_vote(state.attempt, proposal.survivors):
            return
        survivors = proposal.survivors
        exchange = state.exchanges.get(survivors.roster)
        contradicted = exchange is not None and exchange.contradicts(proposal.omitted)
        ready = state.holds(survivors) and not contradicted
        if not ready and not state.ballot.is_certified(survivors.digest):
            return
        vote = context.sign(Vote(context.federation.id, state.round, state.attempt, survivors.digest))
        commitments = exchange.commitments_of(survivors) if exchange else ()
        context.persist(state.round, Voted(vote, survivors, commitments))
        state.ballot.add_vote(vote)
        context.broadcast(vote)

    def _lock(self) -> None:
        """Rule 6: with the certificate and the checked sums in hand, journalled first."""
        context, state = self._context, self._state
        for attempt, digest in state.ballot.certificates():
            if not state.ballot.may_lock(attempt, digest):
                continue
            sums = self._mode.sums_to_lock(attempt, digest)
            certificate = state.ballot.certificate(attempt, digest)
            if sums is None or certificate is None:
                continue
            lock = context.sign(Lock(context.federation.id, state.round, attempt, digest, sums))
            model = state.results[digest][1] if digest in state.results else None
            context.persist(
                state.round, *self._mode.entries_of_lock(digest), Locked(lock, certificate, model)
            )
            state.ballot.add_lock(lock)
            context.broadcast(lock)

    def outcome(self) -> Outcome | None:
        """The decided round, once the opening and everything that it rests on is here."""
        state = self._state
        opening = state.ballot.opening()
        if opening is None or not isinstance(lock := opening.locks[0].body, Lock):
            return None
        certificate = state.ballot.certificate(lock.attempt, lock.survivors)
        exchange = state.exchanges.get(opening.survivors.roster)
        sums, model = state.results.get(lock.survivors, (None, None))
        if certificate is None or exchange is None or model is None or sums != lock.sums:
            return None
        if not self._mode.is_proven(lock):
            return None
        return Outcome(opening, certificate, exchange, model, self._mode.unmasking(lock.survivors))
