"""What must hold in every schedule, checked while a simulation runs. PROTOCOL section 2."""

from collections import defaultdict
from collections.abc import Iterable

from folkmoot.protocol.certificates import Federation, verify_certificate
from folkmoot.protocol.effects import Accuse, Blame, Effect, Gossip, Persist, RecordEvidence, Send
from folkmoot.protocol.equivocation import Slot, compute_slot
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.journal import Attested, Entry, Locked, RosterTaken, Voted, own_signed
from folkmoot.protocol.messages import (
    Certificate,
    Final,
    Frame,
    Lock,
    Opening,
    Propose,
    Roster,
    Signed,
    SurvivorSet,
    Vote,
    encode,
)
from folkmoot.protocol.signing import Verifier
from folkmoot.protocol.types import Attempt, Digest, MemberId, Round
from folkmoot.testnet.simulation.node import LARGEST_EXPONENT, Node


class Broken(AssertionError):
    """A rule that holds in every schedule was broken."""


class Invariants:
    """Watches what honest nodes write down and say; raises `Broken`."""

    def __init__(self, federation: Federation, verifier: Verifier, liars: Iterable[MemberId]) -> None:
        self._federation = federation
        self._verifier = verifier
        self._liars = frozenset(liars)
        self._journalled: dict[MemberId, set[bytes]] = defaultdict(set)
        self._said: dict[tuple[MemberId, Slot], Signed] = {}
        self._opened: dict[Round, tuple[Digest, Digest]] = {}
        self._sets: dict[tuple[MemberId, Digest], set[Digest]] = defaultdict(set)
        self._voters: dict[tuple[Attempt, Digest], set[MemberId]] = defaultdict(set)

    def check(self, node: Node, effect: Effect) -> None:
        """Look at one effect before it is carried out."""
        if node.member in self._liars:
            return
        match effect:
            case Persist(entries=entries):
                for entry in entries:
                    self._check_entry(node.member, entry)
            case Send(frame=frame) | Gossip(frame=frame):
                self._check_frame(node.member, frame)
            case RecordEvidence(member=member) if member not in self._liars:
                raise Broken(f"{node.name} holds evidence against honest member {member}: {effect.evidence}")
            case Accuse(member=member, kind=kind, reason=reason) if member not in self._liars:
                raise Broken(f"{node.name} accuses honest member {member} of a {kind}: {reason}")
            case Blame(member=member, kind=kind, reason=reason) if member not in (None, *self._liars):
                raise Broken(f"{node.name} blames honest member {member} for a {kind}: {reason}")
            case _:
                pass

    # --- rule 10: journal first, and never two things in one place ------------------------------------------

    def _check_frame(self, me: MemberId, frame: Frame) -> None:
        for signed in _signed_in(frame):
            slot = compute_slot(signed.body)
            if signed.member != me or slot is None:
                continue
            if encode(signed) not in self._journalled[me]:
                raise Broken(f"member {me} sends what its journal lacks: {signed}")
            if self._said.setdefault((me, slot), signed) != signed:
                raise Broken(f"member {me} says two things: {signed} and {self._said[me, slot]}")

    def _check_entry(self, me: MemberId, entry: Entry) -> None:
        signed = own_signed(entry)
        if signed is not None:
            self._journalled[me].add(encode(signed))
        match entry:
            case Voted(vote=Signed(body=Vote() as vote), survivors=survivors):
                self._check_vote(me, vote, survivors)
            case Locked(lock=Signed(body=Lock() as lock), certificate=certificate):
                self._check_lock(me, lock, certificate)
            case RosterTaken(roster=Signed(body=Roster(exponents=exponents))):
                self._check_scales(me, exponents)
            case Attested(opening=Opening(locks=(Signed(body=Lock() as lock), *_))):
                self._check_opened(lock)
            case _:
                pass

    # --- the ballot -----------------------------------------------------------------------------------------

    def _check_vote(self, me: MemberId, vote: Vote, survivors: SurvivorSet) -> None:
        """Rule 5: one survivor set per roster, unless there can be a certificate for the other one."""
        sets = self._sets[me, survivors.roster]
        if sets - {vote.survivors} and not self._may_be_certified(vote.survivors):
            raise Broken(f"member {me} votes for a second set of one roster, and without a certificate")
        sets.add(vote.survivors)
        self._voters[vote.attempt, vote.survivors].add(me)

    def _may_be_certified(self, survivors: Digest) -> bool:
        needed = self._federation.charter.quorum - len(self._liars)
        return any(
            len(voters) >= needed for (_, digest), voters in self._voters.items() if digest == survivors
        )

    def _check_lock(self, me: MemberId, lock: Lock, certificate: Certificate) -> None:
        """Rule 6: no lock without the certificate of its attempt."""
        try:
            attempt = verify_certificate(certificate, self._federation, self._verifier)
        except RemoteProtocolError as error:
            raise Broken(f"member {me} locks on a bad certificate: {error}") from error
        if (attempt, certificate.survivors.digest) != (lock.attempt, lock.survivors):
            raise Broken(f"member {me} locks on a certificate of another attempt or set")

    def _check_scales(self, me: MemberId, exponents: bytes) -> None:
        """Rule 2: up to f liars raise no common scale above what somebody honest announced."""
        if max(exponents) > LARGEST_EXPONENT:
            raise Broken(
                f"member {me} takes a roster with the scale {max(exponents)}, which no honest member needs"
            )

    def _check_opened(self, lock: Lock) -> None:
        """At most one survivor set, and one sum, is ever opened in a round."""
        if self._opened.setdefault(lock.round, (lock.survivors, lock.sums)) != (lock.survivors, lock.sums):
            raise Broken(f"round {lock.round} was opened twice")


def _signed_in(frame: Frame) -> tuple[Signed, ...]:
    match frame:
        case Signed():
            return (frame,)
        case Certificate(votes=several) | Opening(locks=several) | Final(attestations=several):
            return several
        case Propose(proposal=proposal, certificate=certificate):
            return (proposal, *(certificate.votes if certificate else ()))
        case _:
            return ()
