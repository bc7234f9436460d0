"""What every part of the round machine works with: who I am, the present moment, and the effects so far."""

from collections import defaultdict
from collections.abc import Collection

from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.effects import Effect, Gossip, Persist, RecordEvidence, Send, StartTimer
from folkmoot.protocol.equivocation import Register, Slot, compute_slot
from folkmoot.protocol.errors import Forgotten
from folkmoot.protocol.events import Timer, TimerKind
from folkmoot.protocol.journal import Entry
from folkmoot.protocol.long_waits import LongWaits
from folkmoot.protocol.messages import Body, Evidence, Frame, Signed
from folkmoot.protocol.pace import Pace
from folkmoot.protocol.signing import Signer, Verifier
from folkmoot.protocol.terms import Rule, Terms
from folkmoot.protocol.types import Attempt, MemberId, Round

ACCUSATIONS = 8
"""Contradictions of one member that are kept and spread; a convict could go on for ever."""


class Context:
    """Shared by the parts of one `RoundMachine`; holds no rules."""

    def __init__(
        self,
        federation: Federation,
        me: MemberId,
        signer: Signer,
        verifier: Verifier,
        first: Round = 1,
        terms: Terms | None = None,
    ) -> None:
        """`first`: the first round of the term that `federation` rules; `terms`: all that are known."""
        self.federation = federation
        self.first = first
        self.learn(terms or Terms.single(Rule(federation, verifier, me)))
        self.charter = federation.charter
        self.me = me
        self.verifier = verifier
        self.register = Register()
        self.pace = Pace(federation.charter.schedule)
        self.now = 0.0
        self.round: Round = 1
        self.recalls = True
        self.up: set[MemberId] = set()
        self.down: set[MemberId] = set()
        self.silent: set[MemberId] = set()
        self.long_waits = LongWaits()
        self._accused: dict[MemberId, set[Slot | None]] = defaultdict(set)
        self._signer = signer
        self._effects: list[Effect] = []

    @property
    def members(self) -> range:
        """All members of the charter."""
        return range(len(self.charter.members))

    def learn(self, terms: Terms) -> None:
        """These terms are known now."""
        self.terms = terms
        rule = terms.at(self.first).rule
        self.last: Round | None = terms.last_of(self.first)
        """The last round under this charter; None as long as no amendment is known."""
        self.superseded = rule is None or rule.federation.config != self.federation.config
        """Whether another charter rules these rounds after all: a later amendment names the same first round.

        The ledger takes one only while nobody may work on that round yet.
        """

    def is_ours(self, round_: Round) -> bool:
        """Whether this charter rules the round: else member ids and keys mean something else in it."""
        return self.first <= round_ and (self.last is None or round_ <= self.last)

    @property
    def everyone_up(self) -> bool:
        """Whether a direct connection stands to every other member."""
        return len(self.up) == len(self.members) - 1

    def emit(self, *effects: Effect) -> None:
        """Ask for something; order matters."""
        self._effects.extend(effects)

    def take_effects(self) -> list[Effect]:
        """Hand over what was asked for since the last call."""
        effects, self._effects = self._effects, []
        return effects

    def persist(self, round_: Round, *entries: Entry) -> None:
        """Journal before whatever is emitted next."""
        self.emit(Persist(round_, entries))

    def sign(self, body: Body) -> Signed:
        """Sign as myself. The caller journals it before it is sent."""
        signed = Signed(self.me, body, self._signer.sign(body))
        self.register.note(signed)
        return signed

    def send(self, member: MemberId, frame: Frame) -> None:
        """To one member, if connected."""
        if member in self.up:
            self.emit(Send((member,), frame))

    def broadcast(self, frame: Frame) -> None:
        """To every connected member."""
        if self.up:
            self.emit(Send(tuple(sorted(self.up)), frame))

    def announce(self, frame: Frame) -> None:
        """To everybody: directly where a connection stands, by gossip for the others."""
        self.broadcast(frame)
        if not self.everyone_up:
            self.emit(Gossip(frame))

    def start_timer(self, kind: TimerKind, round_: Round, attempt: Attempt, delay: float) -> None:
        """Wake me up in `delay` seconds."""
        self.emit(StartTimer(Timer(kind, round_, attempt), delay))

    def turn_to(self, round_: Round) -> None:
        """That round is in work now."""
        self.round = round_
        self.register.forget_before(round_ - 1)

    def note(self, signed: Signed) -> bool:
        """Register a verified body; False (and evidence is recorded and spread) if its member said otherwise before.

        Raises `Forgotten` for what I said in this round or later, and do not know of (PROTOCOL section 2, rule 10).
        """
        mine = self.recalls and signed.member == self.me and signed.body.round >= self.round
        if mine and not self.register.knows(signed):
            raise Forgotten(
                f"own {type(signed.body).__name__} of round {signed.body.round}, not in the journal"
            )
        evidence = self.register.note(signed)
        if evidence is not None:
            self.accuse(signed.member, evidence)
        return evidence is None

    def accuse(self, member: MemberId, evidence: Evidence) -> None:
        """Keep and spread the proof that a member contradicted itself; once per contradiction, and not for ever."""
        known, slot = self._accused[member], compute_slot(evidence.first.body)
        if slot not in known and len(known) < ACCUSATIONS:
            known.add(slot)
            self.emit(RecordEvidence(member, evidence))
            self.announce(evidence)

    def note_participants(self, members: Collection[MemberId]) -> None:
        """A round was decided, with these in it."""
        self.long_waits.note(self.members, members)

    def find(self, member: MemberId) -> None:
        """A connection to a member stands."""
        self.up.add(member)
        self.down.discard(member)
        self.silent.discard(member)

    def lose(self, member: MemberId) -> None:
        """No connection to a member stands any more."""
        self.up.discard(member)
        self.down.add(member)
        self.silent.discard(member)
