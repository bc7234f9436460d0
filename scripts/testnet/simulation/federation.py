"""A federation of `RoundMachine`s in virtual time: seeded schedules, lost and repeated messages, crashes, liars.

The machines are those of the daemon, as are the rules of aggregation, masks and contract; only their effects are
carried out by stand-ins. A run is a function of its seed and faults, so that a failure can be replayed: its message
ends with the command.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from folkmoot.protocol.charter_tables import RobustRule
from folkmoot.protocol.effects import (
    Accuse,
    ArchiveRound,
    Effect,
    Gossip,
    Persist,
    Promote,
    ReadRecord,
    Record,
    RecordEvidence,
    RollBack,
    Send,
    StartTimer,
    TermEnded,
)
from folkmoot.protocol.events import (
    Event,
    FrameReceived,
    PeerDown,
    PeerSilent,
    PeerUp,
    TimerFired,
)
from folkmoot.protocol.messages import Frame, Propose, Signed, decode_frame, encode
from folkmoot.protocol.signing import Signer
from folkmoot.protocol.types import MemberId, Round
from folkmoot.testnet.simulation.afterwards import Afterwards
from folkmoot.testnet.simulation.assembly import Assembly
from folkmoot.testnet.simulation.chain import SimulatedLedger
from folkmoot.testnet.simulation.charters import Charters
from folkmoot.testnet.simulation.crossing import Crossing
from folkmoot.testnet.simulation.disks import Disks
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.governing import Governing
from folkmoot.testnet.simulation.histories import Histories
from folkmoot.testnet.simulation.invariants import Broken, Invariants
from folkmoot.testnet.simulation.keeping_up import KeepingUp
from folkmoot.testnet.simulation.keys import FakeKeys, RealKeys
from folkmoot.testnet.simulation.liars import Liars
from folkmoot.testnet.simulation.links import Links
from folkmoot.testnet.simulation.lives import Lives
from folkmoot.testnet.simulation.masked_workshop import MaskedWorkshop
from folkmoot.testnet.simulation.mishaps import Mishaps
from folkmoot.testnet.simulation.node import Node, simulated_charter
from folkmoot.testnet.simulation.remembering import remembered_shares, without_collector
from folkmoot.testnet.simulation.setting import Setting
from folkmoot.testnet.simulation.timeline import Timeline
from folkmoot.testnet.simulation.trace import describe_effect, describe_event
from folkmoot.testnet.simulation.transcript import Transcript
from folkmoot.testnet.simulation.workshop import Workshop

REPLAY_SECONDS = 60.0
"""How late a message may come once more."""

LIMIT = 3600.0
"""Virtual seconds that a run may take: faults end early, and time-outs have grown by then."""


STANDING = 300.0
"""Seconds after the last fault that a federation has which more rolled back of than it can do without."""


class Violation(AssertionError):
    """A run broke a rule that holds in every schedule; the message names the seed."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A frame on its way: from whom, how large, and whether it was told to nobody in particular."""

    frame: Frame
    sender: Node
    size: int
    gossip: bool


class Simulation(Timeline):
    """A seeded run of some nodes over some rounds. `run` raises `Violation`."""

    def __init__(
        self,
        seed: int,
        members: int = 4,
        rounds: int = 3,
        faults: Faults | None = None,
        max_ahead: int = 50,
        trace: Callable[[str], None] | None = None,
        secure: bool = False,
        group_size: int = 0,
        robust: RobustRule = "none",
        fragments: int = 1,
    ) -> None:
        """`fragments`: in how many parts the model travels; no setting draws that."""
        super().__init__()
        terms = secure, group_size, robust
        self.setting = Setting(seed, members, rounds, *terms, max_ahead, faults or Faults())
        self.faults = self.setting.faults
        self._lies = self.faults.liars
        self._keys = RealKeys() if self.setting.real_keys else FakeKeys()
        self.charter = simulated_charter(
            members, rounds, max_ahead, secure, self._keys, group_size, robust, fragments
        )
        """The founding one."""
        self.charters = Charters(self.charter, self._keys, self.faults.doubted)
        self.federation = self.charters.at(1).federation
        self.random = random.Random(seed)
        self.delivered = self.bytes_sent = 0
        self._is_later = False
        self.stands = False
        """Whether it ended without all rounds, because too many rolled back."""
        self._trace = trace
        people = range(members + self.faults.joins)
        self._faces = [
            [Node(person, face) for face in range(2 if person in self.faults.two_faced else 1)]
            for person in people
        ]
        self.nodes = [node for faces in self._faces for node in faces]
        for node in self.nodes:
            node.is_forgetful = node.person in self.faults.liars
        self.honest = [node for node in self.nodes if node.person not in self.faults.lost]
        """The nodes that follow the rules, and live."""
        self.governing = Governing(self)
        self.ledger = SimulatedLedger(self, self._keys)
        self.links = Links(self.nodes, self.faults, self.random)
        self._crossing = Crossing(self.faults, self.random)
        self.transcript = Transcript(self.charters, self.faults.doubted, self.setting.may_fork)
        self._workshop = MaskedWorkshop(self) if secure else Workshop(self)
        self._liars = Liars(self)
        self.lives = Lives(self)
        self.assembly = Assembly(self, self._keys, self.lives, self.random)
        self.keeping_up = KeepingUp(self.faults, self.charters)
        self.histories = Histories(self)
        self.disks = Disks(self, self.random)
        self._invariants = Invariants(self.charters, self.faults.doubted, self.setting.may_fork)
        for node in self.nodes:
            node.ledger = self.ledger.account(node)
            node.charters[self.charter.digest] = self.charter
            if node.person < members:
                node.work_under(self.charters.at(1))

    @classmethod
    def of(cls, setting: Setting, trace: Callable[[str], None] | None = None) -> "Simulation":
        """The run of a setting."""
        one = setting
        terms = one.secure, one.group_size, one.robust
        return cls(one.seed, one.members, one.rounds, one.faults, one.max_ahead, trace, *terms)

    def signer(self, node: Node) -> Signer:
        """A member's own."""
        assert node.era is not None
        return self._keys.signer(node.federation, node.era.key(node))

    # --- running --------------------------------------------------------------------------------------------

    def run(self, limit: float = LIMIT) -> None:
        """Until every honest node has finished, and the ledger holds, every round.

        Raises `Violation` if a rule is broken, or if that takes longer than `limit` (virtual seconds).
        """
        try:
            with remembered_shares(), without_collector():
                self._run(limit)
                Afterwards(self).check()
        except Broken as error:
            raise Violation(f"{error}\nreplay: {self.setting.command}") from error

    def _run(self, limit: float) -> None:
        Mishaps(self, self.random).arrange()
        while not (self._is_later and self._all_done()):
            action = self.go_on()
            if self.histories.may_stand and self.now > self.faults.until + STANDING:
                self.stands = True
                return
            if action is None or self.now > limit:
                raise Broken(f"not finished after {min(self.now, limit):.0f} s: {self._where()}")
            action()

    @property
    def workshop(self) -> Workshop:
        """Where payloads and sums are."""
        return self._workshop

    @property
    def archived(self) -> set[Round]:
        """The rounds that somebody honest has a record of."""
        return {round_ for node in self.honest for round_ in node.records}

    def note_progress(self) -> None:
        """Something was finished somewhere: it may have been the last."""
        self._is_later = True

    def _all_done(self) -> bool:
        self._is_later = False
        last = self.charters.newest
        for node in self.honest:
            if last.has(node) and (node.machine is None or node.era is not last or not node.machine.finished):
                return False
        rounds = last.federation.charter.schedule.rounds
        if self.setting.may_fork and not self.histories.are_one:
            return False  # somebody has yet to see that it holds something else than the record
        return self.ledger.recorded >= rounds and len(self.archived) >= rounds

    def _where(self) -> str:
        nodes = "; ".join(
            f"{node.name} round {node.machine.current.round}.{node.machine.current.attempt} {node.machine.phase}"
            if node.machine
            else f"{node.name} down"
            for node in self.nodes
        )
        return f"{nodes}; ledger {self.ledger.recorded}"

    def note(self, node: Node, what: str | None) -> None:
        """A line in the trace."""
        if self._trace is not None and what is not None:
            self._trace(f"{self.now:9.3f}  {node.name}  {what}")

    # --- nodes ----------------------------------------------------------------------------------------------

    def tell(self, node: Node, event: Event, delay: float) -> None:
        """Let the node know later, unless it is gone by then; all but its connections takes a slow node longer."""
        slowness = 1.0 if isinstance(event, PeerUp | PeerDown | PeerSilent) else node.slowness
        self.while_alive(node, delay * slowness, lambda: self.handle(node, event))

    def handle(self, node: Node, event: Event) -> None:
        """Let the node know now."""
        if node.machine is None:
            return
        if node.frozen:
            node.waiting.append(event)
            return
        if isinstance(event, FrameReceived) and node.person in self._lies:
            for effect in self._liars.hear(node, event.frame):
                self._carry_out(node, effect)
            if self._liars.is_deaf_to(node, event.frame):
                return
        if self._trace is not None:
            self.note(node, describe_event(event))
        effects = node.machine.handle(event, node.clock(self.now))
        kept = len(effects)
        if node.doomed and any(isinstance(effect, Persist) for effect in effects):
            kept = self._break_off(effects)
        for effect in effects[:kept]:
            self._invariants.check(node, effect)
            self.transcript.check(node, effect)
            self._say(node, effect)
        if kept < len(effects):
            self.lives.crash(node)
        elif node.machine is not None and node.machine.settled > node.settled:  # as `Engine` does
            node.settled = node.machine.settled
            self.note_progress()

    def _break_off(self, effects: list[Effect]) -> int:
        """How many effects a node still carries out before it crashes: mostly up to, or just past, a Persist."""
        edges = [at for at, effect in enumerate(effects) if isinstance(effect, Persist)]
        at = self.random.choice(edges)
        return self.random.choice((at, at + 1, self.random.randrange(len(effects))))

    # --- links ----------------------------------------------------------------------------------------------

    def neighbours(self, node: Node, members: Iterable[MemberId] | None = None) -> Iterator[Node]:
        """The nodes whom this one hears, of all members or of these, in this order."""
        for other in self._of(node, members):
            if other.machine is not None and self.links.hears(node, other):
                yield other

    def listeners(self, node: Node, members: Iterable[MemberId] | None = None) -> Iterator[Node]:
        """The nodes that hear this one, likewise."""
        for other in self._of(node, members):
            if other.machine is not None and self.links.hears(other, node):
                yield other

    def _of(self, node: Node, members: Iterable[MemberId] | None) -> Iterable[Node]:
        if members is None:
            return self.nodes
        assert node.era is not None
        people = node.era.people
        return (other for member in members for other in self._faces[people[member]])

    # --- charters -------------------------------------------------------------------------------------------

    def restart(self, node: Node, first: Round, delay: float) -> None:
        """End the node's machine, and begin with one for the charter in force from that round on."""
        self.lives.change(node, first, delay)

    def mined(self) -> None:
        """There is another block."""
        self.disks.back_up()

    def stop(self, node: Node) -> None:
        """A node's chain lost what was final: it ends until somebody accepts that."""
        self.disks.stop(node)

    def leave(self, node: Node) -> None:
        """End a node that is no member any more."""
        self.lives.leave(node)

    # --- effects --------------------------------------------------------------------------------------------

    def _say(self, node: Node, effect: Effect) -> None:
        if self._trace is not None:
            self.note(node, describe_effect(effect))
        if node.person not in self._lies:
            self._carry_out(node, effect)
            return
        for said in self._liars.speak(node, effect):
            self._carry_out(node, said)

    def _carry_out(self, node: Node, effect: Effect) -> None:
        match effect:
            case Persist(round=round_, entries=entries):
                for entry in entries:
                    node.write(round_, entry)
            case Send(members=members, frame=frame):
                self._send(node, frame, members)
            case Gossip(frame=frame):
                self._send(node, frame, None)
            case StartTimer(timer=timer, delay=delay):
                delay /= node.clock_rate
                self.while_alive(node, delay, lambda: self.handle(node, TimerFired(timer)))
            case Promote(round=round_, model=model):
                node.models[round_] = model.root
                if node in self.honest:
                    self.keeping_up.check(self.honest, node, round_, self.now)
                self.note_progress()
            case ArchiveRound(record=record):
                node.records[record.certificate.survivors.round] = record
                self.note_progress()
            case Record():
                self.ledger.record(node, effect)
            case ReadRecord():
                self.histories.check_reading(node)
                self.ledger.read(node, effect)
            case RollBack():
                self.histories.roll_back(node, effect)
            case RecordEvidence():
                node.evidence.append(effect)
            case Accuse():
                node.accused.append(effect)
            case TermEnded(round=round_):
                self.governing.term_ended(node, round_ + 1)
            case _:
                self._workshop.carry_out(node, effect)

    def _send(self, node: Node, frame: Frame, members: tuple[MemberId, ...] | None) -> None:
        """To these, or by gossip to all. It is read once: frames cannot be changed, so all may be shown the same."""
        data = encode(frame)
        letter = Letter(decode_frame(data), node, len(data), members is None)
        for other in self.listeners(node, members):
            self._deliver(other, letter)

    def _deliver(self, receiver: Node, letter: Letter) -> None:
        if self.happens(self.faults.loss) or self._betrays_the_other_face(receiver, letter.frame):
            return
        if self.faults.crossing and self._crossing.holds_back(receiver, letter.frame, self.now):
            return
        if self.charters.are_amended:
            self._invariants.check_hearing(receiver, letter.sender, letter.frame)
        event = FrameReceived(None if letter.gossip else receiver.id_of(letter.sender), letter.frame)
        line = letter.sender.person, receiver.person
        for _ in range(2 if self.happens(self.faults.duplicate) else 1):
            self.delivered += 1
            self.bytes_sent += letter.size
            self.tell(receiver, event, self.links.transit(*line, letter.size, self.now))
        if self.happens(self.faults.replay):
            self.tell(receiver, event, self.random.uniform(0.0, REPLAY_SECONDS))

    def _betrays_the_other_face(self, receiver: Node, frame: Frame) -> bool:
        """A face that heard what the other one said would say the same, and the liar would lie no more."""
        signed = frame.proposal if isinstance(frame, Propose) else frame
        lies = receiver.person in self.faults.two_faced
        return lies and isinstance(signed, Signed) and signed.member == receiver.member

    def happens(self, probability: float) -> bool:
        """Whether a fault of that probability strikes now."""
        return probability > 0 and self.now < self.faults.until and self.random.random() < probability
