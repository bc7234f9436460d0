"""A federation of a few fake signers in its first round: all that they may say, well-formed until a test changes it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from msgspec.structs import replace

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import Federation, compute_exponents, compute_statement, roster_members
from folkmoot.protocol.charter import federation_id
from folkmoot.protocol.effects import Effect, Gossip, Persist, Send
from folkmoot.protocol.events import Event, FrameReceived, PeerUp, Started, Trained
from folkmoot.protocol.exchange import Exchange
from folkmoot.protocol.journal import Entry
from folkmoot.protocol.messages import (
    Body,
    Certificate,
    Commitment,
    Enter,
    Final,
    Frame,
    Lock,
    Omission,
    Opening,
    Proposal,
    Propose,
    Ready,
    Recalled,
    Receipt,
    Roster,
    Signed,
    Statement,
    Survivor,
    SurvivorSet,
    Vote,
    body_digest,
    roster_digest,
)
from folkmoot.protocol.round import RoundMachine
from folkmoot.protocol.signing import FakeSigner, FakeVerifier
from folkmoot.protocol.types import Attempt, Digest, MemberId
from folkmoot.protocol.validation import View, expected_payload_size, omitted_digest
from folkmoot.testnet.simulation.node import PARAMETERS, simulated_charter

BASE = bytes(32)
MODEL0 = BlobRef(BASE, 4 * PARAMETERS)
SUMS, MODEL = bytes([9]) * 32, bytes([8]) * 32

E = TypeVar("E", bound=Effect)


def mark(number: int) -> Digest:
    """Some digest, told apart by a number."""
    return bytes([number]) * 32


class SmallFederation:
    """Makes messages of round 1."""

    def __init__(self, members: int = 4, rounds: int = 3, max_ahead: int = 50) -> None:
        self.charter = simulated_charter(members, rounds, max_ahead)
        self.federation = Federation(federation_id(self.charter.digest, 1, bytes(20)), self.charter)
        self.verifier = FakeVerifier()
        self.members = range(members)
        self.quorum = self.charter.quorum
        self.groups = self.federation.groups(1)
        self.view = View(self.federation, self.verifier, 1, BASE, self.federation.id, 0)

    def sign(self, member: MemberId, body: Body) -> Signed:
        return Signed(member, body, FakeSigner(member).sign(body))

    def proposer(self, attempt: Attempt = 0) -> MemberId:
        return self.federation.proposer(1, BASE, attempt)

    # --- who takes part -------------------------------------------------------------------------------------

    def ready(self, member: MemberId, **changes: Any) -> Signed:
        body = Ready(1, BASE, bytes([member]), mark(1), mark(2), mark(3), 10 + member)
        return self.sign(member, replace(body, **changes))

    def roster(
        self, members: Iterable[MemberId] | None = None, attempt: Attempt = 0, **changes: Any
    ) -> Signed:
        readies = tuple(self.ready(member) for member in (self.members if members is None else members))
        bodies = [one.body for one in readies if isinstance(one.body, Ready)]
        exponents = compute_exponents(bodies, self.charter.faults) if bodies else b""
        body = Roster(1, attempt, BASE, readies, exponents)
        return self.sign(self.proposer(attempt), replace(body, **changes))

    def commitment(self, signer: MemberId, roster: Signed, /, **changes: Any) -> Signed:
        assert isinstance(roster.body, Roster)
        digest = roster_digest(roster.member, roster.body)
        size = expected_payload_size(self.view, len(roster.body.readies))
        root = mark(100 + signer)
        body = Commitment(self.federation.id, 1, digest, signer, root, size, mark(200))
        return self.sign(signer, replace(body, **changes))

    def exchange(self, me: MemberId, roster: Signed) -> Exchange:
        """With everybody's commitment; nothing held yet."""
        exchange = Exchange(me, roster)
        for member in exchange.members:
            exchange.add_commitment(self.commitment(member, roster))
        return exchange

    def receipt(self, member: MemberId, roster: Signed, holding: Iterable[MemberId]) -> Signed:
        assert isinstance(roster.body, Roster)
        held = tuple(body_digest(self.commitment(one, roster).body) for one in holding)
        digest = roster_digest(roster.member, roster.body)
        return self.sign(member, Receipt(1, roster.body.attempt, digest, held))

    # --- the ballot -----------------------------------------------------------------------------------------

    def survivors(
        self, roster: Signed, members: Sequence[MemberId] | None = None, **changes: Any
    ) -> SurvivorSet:
        assert isinstance(roster.body, Roster)
        chosen = roster_members(roster.body) if members is None else members
        digest = roster_digest(roster.member, roster.body)
        named = tuple(Survivor(one, body_digest(self.commitment(one, roster).body)) for one in chosen)
        body = SurvivorSet(1, BASE, self.federation.id, self.federation.config, digest, named)
        return replace(body, **changes)

    def propose(
        self,
        survivors: SurvivorSet,
        attempt: Attempt = 0,
        omitted: tuple[Omission, ...] = (),
        certificate: Certificate | None = None,
        member: MemberId | None = None,
        **changes: Any,
    ) -> Propose:
        body = Proposal(self.federation.id, 1, attempt, survivors.digest, omitted_digest(omitted))
        signer = self.proposer(attempt) if member is None else member
        return Propose(self.sign(signer, replace(body, **changes)), survivors, omitted, certificate)

    def vote(self, member: MemberId, survivors: SurvivorSet, attempt: Attempt = 0, **changes: Any) -> Signed:
        body = Vote(self.federation.id, 1, attempt, survivors.digest)
        return self.sign(member, replace(body, **changes))

    def lock(
        self, member: MemberId, survivors: SurvivorSet, attempt: Attempt = 0, sums: Digest = SUMS
    ) -> Signed:
        return self.sign(member, Lock(self.federation.id, 1, attempt, survivors.digest, sums))

    def certificate(
        self, survivors: SurvivorSet, attempt: Attempt = 0, members: Iterable[MemberId] | None = None
    ) -> Certificate:
        voters = range(self.quorum) if members is None else members
        return Certificate(survivors, tuple(self.vote(one, survivors, attempt) for one in voters))

    def opening(
        self, survivors: SurvivorSet, attempt: Attempt = 0, members: Iterable[MemberId] | None = None
    ) -> Opening:
        lockers = range(self.quorum) if members is None else members
        return Opening(survivors, tuple(self.lock(one, survivors, attempt) for one in lockers))

    def statement(self, survivors: SurvivorSet, model: Digest = MODEL, **changes: Any) -> Statement:
        return replace(compute_statement(self.federation, survivors, model), **changes)

    def final(self, statement: Statement, members: Iterable[MemberId] | None = None) -> Final:
        attesters = range(self.charter.attester_quorum) if members is None else members
        signed = tuple(self.sign(one, statement) for one in attesters)
        return Final(signed, BlobRef(statement.model, 4 * PARAMETERS))

    def enter(self, member: MemberId, attempt: Attempt) -> Signed:
        return self.sign(member, Enter(1, attempt))


@dataclass
class Driver:
    """Drives one machine by hand and keeps what it did."""

    town: SmallFederation
    me: MemberId
    now: float = 0.0
    journal: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        member = self.me
        self.machine = RoundMachine(
            self.town.federation, member, FakeSigner(member), self.town.verifier, MODEL0
        )

    def handle(self, event: Event, after: float = 0.01) -> list[Effect]:
        self.now += after
        effects = self.machine.handle(event, self.now)
        for effect in effects:
            if isinstance(effect, Persist):
                self.journal.extend(effect.entries)
        return effects

    def hear(self, frame: Frame, sender: MemberId | None = None) -> list[Effect]:
        """A frame by gossip, or from a neighbour."""
        return self.handle(FrameReceived(sender, frame))

    def boot(self) -> list[Effect]:
        """Start, connect to everybody, and have the recall answered by everybody (who know nothing)."""
        effects = self.handle(Started())
        for member in self.town.members:
            if member != self.me:
                effects += self.handle(PeerUp(member))
        for member in self.town.members:
            if member != self.me:
                effects += self.hear(Recalled(0, ()), member)
        return effects

    def restart(self) -> "Driver":
        """The same node after a crash, with what its journal holds."""
        again = Driver(self.town, self.me, self.now, list(self.journal))
        again.machine.restore(self.journal, self.now)
        return again

    def train(self) -> list[Effect]:
        body = self.town.ready(self.me).body
        assert isinstance(body, Ready)
        return self.handle(
            Trained(
                1, BASE, body.exponents, body.manifest, body.privacy_log, body.report, body.num_examples, ()
            )
        )


def frames(effects: Iterable[Effect]) -> list[Frame]:
    """What is sent or gossiped, in order."""
    return [one.frame for one in effects if isinstance(one, Send | Gossip)]


def bodies(effects: Iterable[Effect], kind: type[Body]) -> list[Body]:
    """Of the frames sent, the signed bodies of that kind."""
    sent = (frame.proposal if isinstance(frame, Propose) else frame for frame in frames(effects))
    return [one.body for one in sent if isinstance(one, Signed) and isinstance(one.body, kind)]


def of_kind(effects: Iterable[Effect], kind: type[E]) -> list[E]:
    """The effects of that kind."""
    return [one for one in effects if isinstance(one, kind)]
