"""What other members say about the round in work: validated, then taken in. `steps` draws the consequences."""

from typing import assert_never

from folkmoot.protocol.attempts import Attempts
from folkmoot.protocol.certificates import verify_certificate, verify_opening, verify_roster
from folkmoot.protocol.context import Context
from folkmoot.protocol.effects import Blame
from folkmoot.protocol.errors import Ignore, RemoteProtocolError
from folkmoot.protocol.exchange import Exchange
from folkmoot.protocol.journal import RosterTaken
from folkmoot.protocol.messages import (
    Certificate,
    Commitment,
    Declined,
    Enter,
    Fingerprint,
    Frame,
    Lock,
    Opening,
    Proposal,
    Propose,
    Ready,
    Receipt,
    Roster,
    Seeds,
    Share,
    Shares,
    Signed,
    Statement,
    Sum,
    SurvivorSet,
    Vote,
    body_digest,
    roster_digest,
)
from folkmoot.protocol.mode import Mode
from folkmoot.protocol.round_state import RoundState
from folkmoot.protocol.types import Digest, MemberId
from folkmoot.protocol.validation import (
    validate_ballot,
    validate_commitment,
    validate_declined,
    validate_propose,
    validate_ready,
    validate_receipt,
    validate_roster,
    validate_sender,
)
from folkmoot.protocol.work import Work

EARLY_ROSTERS = 4
"""Rosters, not known here yet, for which a member's commitment is kept."""


class Intake:
    """Takes frames into the round's state; raises `Ignore` or `RemoteProtocolError` for what it does not take."""

    def __init__(
        self, context: Context, state: RoundState, attempts: Attempts, work: Work, mode: Mode
    ) -> None:
        self._context = context
        self._state = state
        self._attempts = attempts
        self._work = work
        self._mode = mode
        self._early: dict[MemberId, dict[Digest, Signed]] = {}

    def take(self, frame: Frame) -> None:
        """A frame of this round that proves itself, whoever delivered it."""
        match frame:
            case Signed(member=member):
                validate_sender(member, len(self._context.members))
                self._take_signed(frame)
            case Propose():
                self._on_propose(frame)
            case Certificate():
                self._on_certificate(frame)
            case Opening():
                self._on_opening(frame)
            case Seeds(member=member) | Shares(member=member):
                validate_sender(member, len(self._context.members))
                self._mode.take_frame(frame)
            case _:
                raise Ignore("nothing about a round")

    def _take_signed(self, signed: Signed) -> None:
        match signed.body:
            case Ready():
                self._on_ready(signed)
            case Declined():
                validate_declined(signed, self._state.view, self._state.declined.get(signed.member))
                self._state.declined[signed.member] = signed
            case Roster():
                self._on_roster(signed)
            case Commitment():
                self._on_commitment(signed)
            case Receipt():
                self._on_receipt(signed)
            case Vote() | Lock():
                self._on_ballot(signed)
            case Enter():
                self._attempts.on_enter(signed)
            case Share() | Sum() | Fingerprint():
                self._mode.take_frame(signed)
            case Proposal() | Statement():
                raise Ignore("comes in a frame of its own")
            case _:
                assert_never(signed.body)

    # --- who takes part -------------------------------------------------------------------------------------

    def _on_ready(self, signed: Signed) -> None:
        """A member's update is trained."""
        validate_ready(signed, self._state.view, self._state.readies.get(signed.member))
        self._state.readies[signed.member] = signed

    def _on_roster(self, signed: Signed) -> None:
        """The proposer names who takes part."""
        assert isinstance(signed.body, Roster)
        self._attempts.defer(signed)
        digest = roster_digest(signed.member, signed.body)
        if digest not in self._state.exchanges and self._state.is_vouched(digest):
            self._take_vouched(signed)
            return
        validate_roster(signed, self._state.view, self._state.exchange)
        if self._context.note(signed) and self._state.exchange is None:
            self.take_roster(signed)

    def take_roster(self, signed: Signed) -> None:
        """A roster of this attempt is accepted (or, by its proposer, named): journal, encode, and open what waits."""
        exchange = self._add_roster(signed)
        self._work.encode_if_due(exchange)

    def _take_vouched(self, signed: Signed) -> None:
        """A roster of whatever attempt, of which the others certified a set: I need it to finish with them."""
        verify_roster(signed, self._context.federation, self._context.verifier)
        self._context.note(signed)
        self._add_roster(signed)

    def _add_roster(self, signed: Signed) -> Exchange:
        self._context.persist(self._state.round, RosterTaken(signed))
        exchange = self._state.add_exchange(signed)
        for kept in self._early.values():
            if (commitment := kept.pop(exchange.digest, None)) is not None:
                self._take_early_commitment(exchange, commitment)
        return exchange

    # --- payloads -------------------------------------------------------------------------------------------

    def _on_commitment(self, signed: Signed) -> None:
        """A roster member has committed to its payload; may come before the roster."""
        assert isinstance(signed.body, Commitment)
        exchange = self._state.exchanges.get(signed.body.roster)
        if exchange is not None:
            self._take_commitment(exchange, signed)
            return
        self._context.verifier.verify(signed)
        if signed.member == self._context.me:
            self._context.note(signed)
        kept = self._early.setdefault(signed.member, {})
        if len(kept) < EARLY_ROSTERS:
            kept.setdefault(signed.body.roster, signed)

    def _take_commitment(self, exchange: Exchange, signed: Signed) -> None:
        validate_commitment(signed, self._state.view, exchange)
        if self._context.note(signed):
            exchange.add_commitment(signed)
        elif self._state.is_certified_payload(exchange.digest, body_digest(signed.body)):
            exchange.replace_commitment(signed)
        else:
            raise Ignore("a second commitment, which is evidence only")
        self._mode.fetch_missing(exchange)

    def _take_early_commitment(self, exchange: Exchange, signed: Signed) -> None:
        try:
            self._take_commitment(exchange, signed)
        except Ignore:
            pass
        except RemoteProtocolError as error:
            self._context.emit(Blame(signed.member, "commitment", str(error)))

    def _on_receipt(self, signed: Signed) -> None:
        """A member tells the proposer what it holds."""
        assert isinstance(signed.body, Receipt)
        exchange = self._state.exchanges.get(signed.body.roster)
        if exchange is None:
            raise Ignore("receipt for a roster that is not known here")
        validate_receipt(signed, self._state.view, exchange)
        exchange.add_receipt(signed.member, signed.body)

    # --- the ballot -----------------------------------------------------------------------------------------

    def _on_propose(self, frame: Propose) -> None:
        """A survivor set is put to the vote."""
        state = self._state
        if isinstance(frame.proposal.body, Proposal):
            self._attempts.defer(frame)
        validate_propose(frame, state.view, state.exchanges.get(frame.survivors.roster))
        if frame.certificate is not None:
            self._take_certificate(frame.certificate)
        if self._context.note(frame.proposal) and state.proposal is None:
            state.add_proposal(state.attempt, frame)

    def _on_ballot(self, signed: Signed) -> None:
        """A vote or a lock, of any attempt of this round."""
        validate_ballot(signed, self._state.view)
        if self._context.note(signed):
            if isinstance(signed.body, Vote):
                self._state.ballot.add_vote(signed)
            else:
                self._state.ballot.add_lock(signed)

    def _on_certificate(self, certificate: Certificate) -> None:
        """Q votes, shown by anybody."""
        self._check_here(certificate.survivors)
        verify_certificate(certificate, self._context.federation, self._context.verifier)
        self._take_certificate(certificate)

    def _take_certificate(self, certificate: Certificate) -> None:
        self._state.count_certificate(certificate)
        exchange = self._state.exchanges.get(certificate.survivors.roster)
        if exchange is not None:
            self._mode.fetch_missing(exchange)

    def _on_opening(self, opening: Opening) -> None:
        """Q locks, shown by anybody."""
        self._check_here(opening.survivors)
        verify_opening(opening, self._context.federation, self._context.verifier)
        self._state.ballot.add_set(opening.survivors)
        for lock in opening.locks:
            self._context.note(lock)
            self._state.ballot.add_lock(lock)

    def _check_here(self, survivors: SurvivorSet) -> None:
        # [IGNORE] It builds on what I build on (else one of us is behind)
        if (survivors.round, survivors.base, survivors.previous) != (
            self._state.round,
            self._state.base.root,
            self._state.previous,
        ):
            raise Ignore("certificate of another round or base")
