"""A federation of `RoundMachine`s in virtual time: seeded schedules, lost and repeated messages, crashes, liars.

The machines are those of the daemon; only their effects are carried out by stand-ins. A run is a function of its seed
and faults, so that a failure can be replayed: its message ends with the command.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Collection

import click

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.charter import federation_id
from folkmoot.protocol.effects import (
    Accuse,
    Effect,
    Gossip,
    Persist,
    Promote,
    Record,
    RecordEvidence,
    Send,
    StartTimer,
)
from folkmoot.protocol.events import (
    Event,
    FrameReceived,
    HeadAdvanced,
    PeerDown,
    PeerUp,
    Started,
    TimerFired,
)
from folkmoot.protocol.messages import Frame, Propose, Signed, Statement, decode_frame, encode
from folkmoot.protocol.round import RoundMachine
from folkmoot.protocol.signing import FakeSigner, FakeVerifier
from folkmoot.protocol.types import Digest, MemberId
from folkmoot.testnet.invariants import Broken, Invariants
from folkmoot.testnet.links import Links
from folkmoot.testnet.masked_workshop import MaskedWorkshop
from folkmoot.testnet.simulated import (
    Faults,
    Node,
    describe,
    format_faults,
    parse_faults,
    simulated_charter,
)
from folkmoot.testnet.transcript import Transcript
from folkmoot.testnet.workshop import Workshop

HEARTBEAT = 5.0
"""Seconds until the others notice that a node is gone."""


REPLAY_SECONDS = 60.0
"""How late a message may come once more."""


class Violation(AssertionError):
    """A run broke a rule that holds in every schedule; the message names the seed."""


class Simulation:
    """A seeded run of `members` nodes over `rounds` rounds. `run` raises `Violation`."""

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
    ) -> None:
        self.seed = seed
        self.faults = faults or Faults()
        self.charter = simulated_charter(members, rounds, max_ahead, secure, group_size)
        self.federation = Federation(federation_id(self.charter.digest, 1, bytes(20)), self.charter)
        self.now = 0.0
        self.random = random.Random(seed)
        self.delivered = 0
        self.ledger: list[Statement] = []
        self._trace = trace
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.transcript = Transcript(self.federation, self.faults.liars)
        self._workshop = MaskedWorkshop(self) if secure else Workshop(self)
        self._invariants = Invariants(self.federation, self.faults.liars)
        self.nodes = [
            Node(member, face)
            for member in range(members)
            for face in range(2 if member in self.faults.two_faced else 1)
        ]
        self._links = Links(self.nodes, self.faults.two_faced, self.random)

    # --- running --------------------------------------------------------------------------------------------

    def run(self, limit: float = 3600.0) -> None:
        """Until every honest node has finished, and the ledger holds, every round.

        Raises `Violation` if a rule is broken, or if that takes longer than `limit` (virtual seconds).
        """
        try:
            self._schedule_faults()
            while self._queue and not self._all_done():
                self.now, _, action = heapq.heappop(self._queue)
                if self.now > limit:
                    raise Broken(f"not finished after {limit:.0f} s: {self._where()}")
                action()
            if not self._all_done():
                raise Broken(f"nothing left to do, not finished: {self._where()}")
            self._check_models()
        except Broken as error:
            raise Violation(f"{error}\nreplay: {self._command()}") from error

    def _command(self) -> str:
        parts = [
            f"python -m folkmoot.testnet.simulation --seed {self.seed} --members {len(self.charter.members)}",
            f"--rounds {self.charter.schedule.rounds} --max-ahead {self.charter.schedule.max_ahead}",
            f"--faults '{format_faults(self.faults)}'" + self._secrecy_options(),
        ]
        return " ".join(parts)

    def _secrecy_options(self) -> str:
        size = self.charter.secrecy.group_size
        return (" --secure" if self.charter.is_secure else "") + (f" --group-size {size}" if size else "")

    def _schedule_faults(self) -> None:
        faults = self.faults
        for node in self.nodes:
            self._at(self.random.uniform(0, 0.5), lambda node=node: self._boot(node))  # type: ignore[misc]
            if node.member in faults.dead:
                self._at(self.random.uniform(0.5, faults.until / 4), lambda node=node: self._die(node))  # type: ignore[misc]
        for _ in range(faults.crashes):
            self._at(self.random.uniform(0, faults.until), self._crash_somebody)
        for _ in range(faults.broken_off):
            self._at(self.random.uniform(0, faults.until), self._doom_somebody)
        for _ in range(faults.partitions):
            self._at(self.random.uniform(0, faults.until), self._partition)
        self._at(faults.until, self._heal)

    @property
    def honest(self) -> list[Node]:
        """The nodes that follow the rules, and live."""
        out = (*self.faults.liars, *self.faults.dead)
        return [node for node in self.nodes if node.member not in out]

    def _all_done(self) -> bool:
        if len(self.ledger) < self.charter.schedule.rounds:
            return False
        return all(node.machine is not None and node.machine.finished for node in self.honest)

    def _where(self) -> str:
        return "; ".join(
            f"{node.name} round {node.machine.current.round}.{node.machine.current.attempt} {node.machine.phase}"
            if node.machine
            else f"{node.name} down"
            for node in self.nodes
        )

    def _note(self, node: Node, what: Callable[[], str]) -> None:
        if self._trace is not None:
            self._trace(f"{self.now:9.3f} {node.name} {what()}")

    def _at(self, delay: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + delay, next(self._order), action))

    # --- nodes ----------------------------------------------------------------------------------------------

    def _boot(self, node: Node) -> None:
        model0 = BlobRef(bytes(32), 4 * self.charter.model.parameters)
        signer, verifier = FakeSigner(node.member), FakeVerifier()
        node.machine = RoundMachine(self.federation, node.member, signer, verifier, model0)
        node.life += 1
        node.doomed = False
        if node.member in self.faults.two_faced:
            node.machine.skip_recall()
        node.machine.restore(node.read(), self.now)
        self._handle(node, Started())
        self._handle(node, HeadAdvanced(len(self.ledger)))
        for other in self.neighbours(node):
            self.tell(node, PeerUp(other.member), 0.01)
        for other in self._listeners(node):
            self.tell(other, PeerUp(node.member), 0.01)

    def _crash_somebody(self) -> None:
        if (node := self._victim()) is not None:
            self._crash(node)

    def _doom_somebody(self) -> None:
        if (node := self._victim()) is not None:
            node.doomed = True

    def _victim(self) -> Node | None:
        """Somebody who may go down: at most f members are down or lying at once."""
        alive = [node for node in self.honest if node.machine is not None and not node.doomed]
        spare = len(alive) - (len(self.charter.members) - max(1, self.charter.faults))
        return self.random.choice(alive) if spare > 0 else None

    def _crash(self, node: Node) -> None:
        self._die(node)
        self._at(self.random.uniform(0.1, 20.0), lambda: self._boot(node))

    def _die(self, node: Node) -> None:
        for other in self._listeners(node):
            self._notice_death(node, other, self.random.choice((0.1, HEARTBEAT)))
        node.machine = None
        self._note(node, lambda: "CRASH")

    def _notice_death(self, dead: Node, other: Node, delay: float) -> None:
        life = dead.life

        def happen() -> None:
            if dead.life == life:
                self._handle(other, PeerDown(dead.member))

        self._at(delay, happen)

    def tell(self, node: Node, event: Event, delay: float) -> None:
        """Let the node know later, unless it is gone by then."""
        life = node.life

        def happen() -> None:
            if node.life == life:
                self._handle(node, event)

        self._at(delay, happen)

    def _handle(self, node: Node, event: Event) -> None:
        if node.machine is None:
            return
        self._note(node, lambda: f"<- {describe(event)}")
        effects = node.machine.handle(event, self.now)
        kept = len(effects)
        if node.doomed and any(isinstance(effect, Persist) for effect in effects):
            kept = self._break_off(effects)
        for effect in effects[:kept]:
            self._invariants.check(node, effect)
            self.transcript.check(node, effect)
            self._carry_out(node, effect)
        if kept < len(effects):
            self._crash(node)

    def _break_off(self, effects: list[Effect]) -> int:
        """How many effects a node still carries out before it crashes: mostly up to, or just past, a Persist."""
        edges = [at for at, effect in enumerate(effects) if isinstance(effect, Persist)]
        at = self.random.choice(edges)
        return self.random.choice((at, at + 1, self.random.randrange(len(effects))))

    # --- links ----------------------------------------------------------------------------------------------

    def neighbours(self, node: Node) -> list[Node]:
        """The nodes whom this one hears."""
        return [other for other in self.nodes if other.machine is not None and self._links.hears(node, other)]

    def _listeners(self, node: Node) -> list[Node]:
        return [other for other in self.nodes if other.machine is not None and self._links.hears(other, node)]

    def _partition(self) -> None:
        members = range(len(self.charter.members))
        self._cut(self.random.sample(members, self.random.randrange(len(members))))
        self._at(self.random.uniform(1.0, 30.0), self._heal)

    def _heal(self) -> None:
        self._cut(())

    def _cut(self, side: Collection[MemberId]) -> None:
        for node, other, stands in self._links.cut(side):
            if not stands:
                self.tell(node, PeerDown(other.member), self.random.choice((0.1, HEARTBEAT)))
            elif other.machine is not None:
                self.tell(node, PeerUp(other.member), HEARTBEAT + 0.1)

    # --- effects --------------------------------------------------------------------------------------------

    def _carry_out(self, node: Node, effect: Effect) -> None:
        match effect:
            case Persist(round=round_, entries=entries):
                for entry in entries:
                    node.write(round_, entry)
            case Send(members=members, frame=frame):
                for other in self._listeners(node):
                    if other.member in members:
                        self._deliver(other, frame, node.member)
            case Gossip(frame=frame):
                for other in self._listeners(node):
                    self._deliver(other, frame, None)
            case StartTimer(timer=timer, delay=delay):
                self.tell(node, TimerFired(timer), delay)
            case Promote(round=round_, model=model):
                node.models[round_] = model.root
            case Record(statement=statement):
                self._record(statement)
            case RecordEvidence():
                node.evidence.append(effect)
            case Accuse():
                node.accused.append(effect)
            case _:
                self._workshop.carry_out(node, effect)

    def _deliver(self, receiver: Node, frame: Frame, neighbour: MemberId | None) -> None:
        if self.happens(self.faults.loss) or self._betrays_the_other_face(receiver, frame):
            return
        data = encode(frame)
        for _ in range(2 if self.happens(self.faults.duplicate) else 1):
            self.delivered += 1
            self.tell(receiver, FrameReceived(neighbour, decode_frame(data)), self.latency())
        if self.happens(self.faults.replay):
            late = self.random.uniform(0.0, REPLAY_SECONDS)
            self.tell(receiver, FrameReceived(neighbour, decode_frame(data)), late)

    def _betrays_the_other_face(self, receiver: Node, frame: Frame) -> bool:
        """A face that heard what the other one said would say the same, and the liar would lie no more."""
        signed = frame.proposal if isinstance(frame, Propose) else frame
        lies = receiver.member in self.faults.two_faced
        return lies and isinstance(signed, Signed) and signed.member == receiver.member

    def happens(self, probability: float) -> bool:
        """Whether a fault of that probability strikes now."""
        return probability > 0 and self.now < self.faults.until and self.random.random() < probability

    def latency(self) -> float:
        """How long the next message takes."""
        return self.random.uniform(*self.faults.latency)

    # --- the ledger -----------------------------------------------------------------------------------------

    def _record(self, statement: Statement) -> None:
        if statement.round <= len(self.ledger):
            if self.ledger[statement.round - 1] != statement:
                raise Broken(f"two statements attested for round {statement.round}")
        elif statement.round == len(self.ledger) + 1:
            self.ledger.append(statement)
            for node in self.nodes:
                self.tell(node, HeadAdvanced(statement.round), self.faults.ledger)
        else:
            self._at(1.0, lambda: self._record(statement))

    def _check_models(self) -> None:
        for round_ in range(1, self.charter.schedule.rounds + 1):
            digests: set[Digest] = {node.models[round_] for node in self.honest if round_ in node.models}
            if digests != {self.ledger[round_ - 1].model}:
                raise Broken(f"round {round_} ended with {len(digests)} models, or another than recorded")


@click.command()
@click.option("--seed", type=int, required=True, help="The run's random seed.")
@click.option("--members", type=click.IntRange(1, 64), default=4, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--max-ahead", type=click.IntRange(1), default=50, show_default=True)
@click.option(
    "--faults", default="", metavar="NAME=VALUE,...", help="Fields of Faults, as a failing test prints them."
)
@click.option("--secure/--open", default=False, show_default=True, help="Mask the updates, or show them.")
@click.option("--group-size", default=0, show_default=True, help="Secure mode: share masks within groups.")
@click.option("--trace/--no-trace", default=True, show_default=True, help="Print every event.")
def main(
    seed: int,
    members: int,
    rounds: int,
    max_ahead: int,
    faults: str,
    secure: bool,
    group_size: int,
    trace: bool,
) -> None:
    """Run one federation in virtual time, and say whether every rule held."""
    simulation = Simulation(
        seed,
        members,
        rounds,
        parse_faults(faults),
        max_ahead,
        trace=click.echo if trace else None,
        secure=secure,
        group_size=group_size,
    )
    try:
        simulation.run()
    except Violation as violation:
        raise click.ClickException(str(violation)) from violation
    click.echo(f"{rounds} rounds in {simulation.now:.1f} s, {simulation.delivered} messages")


if __name__ == "__main__":
    main()
