"""What must hold in every schedule, checked while a simulation runs. PROTOCOL section 2."""

from collections import defaultdict
from collections.abc import Iterable

from folkmoot.protocol.certificates import verify_certificate
from folkmoot.protocol.effects import Accuse, Blame, Effect, Gossip, Persist, RecordEvidence, Send
from folkmoot.protocol.equivocation import Slot, compute_slot
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.journal import Attested, Entry, Locked, RosterTaken, Voted, own_signed
from folkmoot.protocol.messages import (
    Certificate,
    Final,
    Frame,
    Hello,
    Lock,
    Opening,
    Propose,
    Recalled,
    Roster,
    Signed,
    SurvivorSet,
    Vote,
    encode,
    round_of,
)
from folkmoot.protocol.types import Attempt, Digest, MemberId, Round
from folkmoot.testnet.simulation.charters import Charters
from folkmoot.testnet.simulation.node import LARGEST_EXPONENT, Node
from folkmoot.testnet.simulation.trace import describe_frame


class Broken(AssertionError):
    """A rule that holds in every schedule was broken."""


class Invariants:
    """Watches what honest nodes write down and say; raises `Broken`."""

    def __init__(self, charters: Charters, liars: Iterable[int], may_fork: bool = False) -> None:
        """`may_fork`: more members forget what they signed than may be faulty, so that rounds may be opened twice."""
        self._charters = charters
        self._liars = frozenset(liars)
        self._may_fork = may_fork
        # By people, who have different ids under different charters
        self._journalled: dict[int, set[bytes]] = defaultdict(set)
        self._said: dict[tuple[int, Slot], Signed] = {}
        self._opened: dict[Round, tuple[Digest, Digest]] = {}
        self._sets: dict[tuple[int, Digest], set[Digest]] = defaultdict(set)
        self._voters: dict[tuple[Attempt, Digest], set[MemberId]] = defaultdict(set)

    def check(self, node: Node, effect: Effect) -> None:
        """Look at one effect before it is carried out."""
        if node.person in self._liars:
            return
        match effect:
            case Persist(entries=entries):
                for entry in entries:
                    self._check_entry(node, entry)
            case Send(frame=frame) | Gossip(frame=frame):
                self._check_frame(node, frame)
            case RecordEvidence(member=member) if not self._lies(node, member):
                raise Broken(
                    f"{node.name} holds evidence against honest member {member}: {describe_frame(effect.evidence)}"
                )
            case Accuse(member=member, kind=kind, reason=reason) if not self._lies(node, member):
                raise Broken(f"{node.name} accuses honest member {member} of a {kind}: {reason}")
            case Blame(member=member, kind=kind, reason=reason) if not self._lies(node, member):
                raise Broken(f"{node.name} blames honest member {member} for a {kind}: {reason}")
            case _:
                pass

    def _lies(self, node: Node, member: MemberId | None) -> bool:
        """Whether a node may say that of a member (None: of nobody in particular)."""
        assert node.era is not None
        return member is None or node.era.people[member] in self._liars

    # --- members that come and go ---------------------------------------------------------------------------

    def check_hearing(self, receiver: Node, sender: Node, frame: Frame) -> None:
        """Nobody speaks about a round with who is no member in it any more.

        Who comes later is shown how the rounds before it ended, and nothing else of them.
        """
        if sender.person in self._liars or isinstance(frame, Hello | Recalled):
            return
        if not (round_ := round_of(frame)):
            return
        era = self._charters.at(round_)
        comes_later = isinstance(frame, Final) and self._charters.takes_in_after(round_, receiver)
        if not era.has(receiver) and not comes_later:
            raise Broken(
                f"{sender.name} speaks with {receiver.name}, which is no member in round {round_}: "
                f"{describe_frame(frame)}"
            )

    # --- rule 10: journal first, and never two things in one place ------------------------------------------

    def _check_frame(self, me: Node, frame: Frame) -> None:
        for signed in _signed_in(frame):
            slot = compute_slot(signed.body)
            if slot is None or signed.member != self._charters.at(signed.body.round).ids.get(me.person):
                continue
            if encode(signed) not in self._journalled[me.person]:
                raise Broken(f"{me.name} sends what its journal lacks: {describe_frame(signed)}")
            first = self._said.setdefault((me.person, slot), signed)
            if first != signed:
                both = " and ".join(map(describe_frame, (first, signed)))
                raise Broken(f"{me.name} says two things in one place: {both}{_difference(first, signed)}")

    def _check_entry(self, me: Node, entry: Entry) -> None:
        signed = own_signed(entry)
        if signed is not None:
            self._check_membership(me, signed)
            self._journalled[me.person].add(encode(signed))
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

    def _check_membership(self, me: Node, signed: Signed) -> None:
        """Who signs about a round is a member in it, and works under the charter that the ledger has for it."""
        era = self._charters.at(signed.body.round)
        if me.era is not era:
            raise Broken(
                f"{me.name} signs in round {signed.body.round} under another charter than is in force"
            )

    # --- the ballot -----------------------------------------------------------------------------------------

    def _check_vote(self, me: Node, vote: Vote, survivors: SurvivorSet) -> None:
        """Rule 5: one survivor set per roster, unless there can be a certificate for the other one."""
        sets = self._sets[me.person, survivors.roster]
        if sets - {vote.survivors} and not self._may_be_certified(vote):
            raise Broken(f"{me.name} votes for a second set of one roster, and without a certificate")
        sets.add(vote.survivors)
        self._voters[vote.attempt, vote.survivors].add(me.member)

    def _may_be_certified(self, vote: Vote) -> bool:
        era = self._charters.at(vote.round)
        needed = era.federation.charter.quorum - len(self._liars.intersection(era.people))
        return any(
            len(voters) >= needed for (_, digest), voters in self._voters.items() if digest == vote.survivors
        )

    def _check_lock(self, me: Node, lock: Lock, certificate: Certificate) -> None:
        """Rule 6: no lock without the certificate of its attempt."""
        try:
            era = self._charters.at(lock.round)
            attempt = verify_certificate(certificate, era.federation, era.verifier)
        except RemoteProtocolError as error:
            raise Broken(f"{me.name} locks on a bad certificate: {error}") from error
        if (attempt, certificate.survivors.digest) != (lock.attempt, lock.survivors):
            raise Broken(f"{me.name} locks on a certificate of another attempt or set")

    def _check_scales(self, me: Node, exponents: bytes) -> None:
        """Rule 2: up to f liars raise no common scale above what somebody honest announced."""
        if max(exponents) > LARGEST_EXPONENT:
            raise Broken(
                f"{me.name} takes a roster with the scale {max(exponents)}, which no honest member needs"
            )

    def _check_opened(self, lock: Lock) -> None:
        """At most one survivor set, and one sum, is ever opened in a round, unless there may be two histories."""
        if self._may_fork:
            return
        if self._opened.setdefault(lock.round, (lock.survivors, lock.sums)) != (lock.survivors, lock.sums):
            raise Broken(f"round {lock.round} was opened twice")


def _difference(first: Signed, second: Signed) -> str:
    """In which fields two bodies of one place differ."""
    names = first.body.__struct_fields__
    differ = [name for name in names if getattr(first.body, name) != getattr(second.body, name)]
    return f" (they differ in {', '.join(differ) or 'the signature'})"


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
