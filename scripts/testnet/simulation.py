"""A federation in virtual time: the real `RoundMachine`s, everything around them simulated, one seed for it all.

A discrete-event loop delivers frames late, twice, out of order or not at all; nodes crash at any effect and come back
from their journals; a *two-faced* member runs two machines under one identity and shows each half of the federation
another one, so it contradicts itself in everything it signs. Payloads and models are names without bytes.
"""

import hashlib
import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.charter import Charter, LedgerTerms, Member, Model, Schedule, Tensor, federation_id
from folkmoot.protocol.effects import (
    Aggregate,
    Effect,
    Encode,
    Fetch,
    FetchSnapshot,
    Fit,
    Gossip,
    Persist,
    Promote,
    Record,
    RecordEvidence,
    Send,
    StartTimer,
)
from folkmoot.protocol.events import (
    Aggregated,
    Encoded,
    Event,
    FetchFailed,
    FrameReceived,
    HeadAdvanced,
    PayloadArrived,
    PeerDown,
    PeerUp,
    SnapshotFailed,
    SnapshotReady,
    Started,
    TimerFired,
    Trained,
)
from folkmoot.protocol.journal import Attested, Entry, decode_entry, encode_entry
from folkmoot.protocol.messages import Commitment, Frame, Lock, Statement, body_digest, decode_frame, encode
from folkmoot.protocol.round import RoundMachine
from folkmoot.protocol.signing import FakeSigner, FakeVerifier
from folkmoot.protocol.types import Digest, MemberId, Round
from folkmoot.protocol.validation import View, expected_payload_size

PARAMETERS = 8
HEARTBEAT = 5.0
"""Seconds until the others notice that a node is gone."""


class Violation(AssertionError):
    """A run broke a rule that holds in every schedule; the message names the seed."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What may go wrong before `until` (virtual seconds); after it every link is whole and every node comes back."""

    until: float = 60.0
    loss: float = 0.0
    duplicate: float = 0.0
    latency: tuple[float, float] = (0.005, 0.05)
    crashes: int = 0
    two_faced: tuple[MemberId, ...] = ()


@dataclass(slots=True)
class Node:
    """One machine and what survives its crashes. A two-faced member is two nodes with one `member`."""

    member: MemberId
    face: int
    machine: RoundMachine | None = None
    life: int = 0
    journal: list[tuple[Round, bytes]] = field(default_factory=list)
    blobs: set[Digest] = field(default_factory=set)
    models: dict[Round, Digest] = field(default_factory=dict)
    evidence: list[RecordEvidence] = field(default_factory=list)

    @property
    def name(self) -> str:
        """How traces call it."""
        return f"{self.member}{'ab'[self.face]}"


def simulated_charter(members: int, rounds: int) -> Charter:
    """A charter of `members` nameless organisations with impossible keys."""
    return Charter(
        name="simulation",
        model=Model(
            kind="logistic",
            layers=(PARAMETERS, 1),
            initial="00" * 32,
            tensors=(Tensor(name="w", shape=(8,)),),
        ),
        schedule=Schedule(rounds=rounds),
        ledger=LedgerTerms(chain_id=1, code_hash="00" * 32),
        members=tuple(
            Member(
                name=f"node-{index}",
                peer_id=f"peer-{index}",
                identity_key=f"{index:064x}",
                sealing_key=f"{index:064x}",
                audit_key=f"0x{index:040x}",
            )
            for index in range(members)
        ),
    )


class Simulation:
    """A seeded run of `members` nodes over `rounds` rounds. `run` raises `Violation`."""

    def __init__(self, seed: int, members: int = 4, rounds: int = 3, faults: Faults | None = None) -> None:
        self.seed = seed
        self.faults = faults or Faults()
        self.charter = simulated_charter(members, rounds)
        self.federation = Federation(federation_id(self.charter.digest, 1, bytes(20)), self.charter)
        self.now = 0.0
        self.random = random.Random(seed)
        self.delivered = 0
        self.trace: list[str] = []
        self.ledger: list[Statement] = []
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._opened: dict[Round, set[tuple[Digest, Digest]]] = {}
        self.nodes = [
            Node(member, face)
            for member in range(members)
            for face in range(2 if member in self.faults.two_faced else 1)
        ]

    # --- running ----------------------------------------------------------------------------------------------

    def run(self, limit: float = 3600.0) -> None:
        """Until every honest node has finished, and the ledger holds, every round; raises `Violation` if that takes longer than `limit`."""
        for node in self.nodes:
            self._at(self.random.uniform(0, 0.5), lambda node=node: self._boot(node))  # type: ignore[misc]
        for _ in range(self.faults.crashes):
            self._at(self.random.uniform(0, self.faults.until), self._crash_somebody)
        while self._queue and not self._all_done():
            self.now, _, action = heapq.heappop(self._queue)
            if self.now > limit:
                raise self._violation(f"not finished after {limit:.0f} s: {self._where()}")
            action()
        if not self._all_done():
            raise self._violation(f"nothing left to do, not finished: {self._where()}")
        self._check_models()

    @property
    def honest(self) -> list[Node]:
        """The nodes that follow the rules."""
        return [node for node in self.nodes if node.member not in self.faults.two_faced]

    def _all_done(self) -> bool:
        finished = all(node.machine is not None and node.machine.finished for node in self.honest)
        return finished and len(self.ledger) == self.charter.schedule.rounds

    def _where(self) -> str:
        return "; ".join(
            f"{node.name} round {node.machine.current.round}.{node.machine.current.attempt} {node.machine.phase}"
            if node.machine
            else f"{node.name} down"
            for node in self.nodes
        )

    def _violation(self, what: str) -> Violation:
        return Violation(f"seed {self.seed}, {len(self.charter.members)} members, {self.faults}: {what}")

    def _at(self, delay: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + delay, next(self._order), action))

    # --- nodes --------------------------------------------------------------------------------------------------

    def _boot(self, node: Node) -> None:
        node.machine = RoundMachine(
            self.federation,
            node.member,
            FakeSigner(node.member),
            FakeVerifier(),
            BlobRef(bytes(32), 4 * PARAMETERS),
        )
        node.life += 1
        if node.member in self.faults.two_faced:
            node.machine.skip_recall()
        node.machine.restore([decode_entry(body) for _, body in node.journal], self.now)
        self._handle(node, Started())
        self._handle(node, HeadAdvanced(len(self.ledger)))
        for other in self.nodes:
            if other.machine is not None and self._talk(node, other):
                self._tell(node, PeerUp(other.member), 0.01)
                self._tell(other, PeerUp(node.member), 0.01)

    def _talk(self, one: Node, other: Node) -> bool:
        """A face is seen by the members of its parity only; faces of one member never meet."""
        if one.member == other.member:
            return False
        return all(
            seer.member % 2 == seen.face
            for seer, seen in ((one, other), (other, one))
            if seen.member in self.faults.two_faced and seer.member not in self.faults.two_faced
        )

    def _crash_somebody(self) -> None:
        alive = [node for node in self.honest if node.machine is not None]
        if len(alive) > len(self.charter.members) - self.charter.faults:
            self._crash(self.random.choice(alive))

    def _crash(self, node: Node) -> None:
        node.machine = None
        self.trace.append(f"{self.now:9.3f} {node.name} CRASH")
        for other in self.nodes:
            if self._talk(node, other):
                self._notice_death(node, other, self.random.choice((0.1, HEARTBEAT)))
        self._at(self.random.uniform(0.1, 20.0), lambda: self._boot(node))

    def _notice_death(self, dead: Node, other: Node, delay: float) -> None:
        life = dead.life

        def happen() -> None:
            if dead.life == life:
                self._handle(other, PeerDown(dead.member))

        self._at(delay, happen)

    def _tell(self, node: Node, event: Event, delay: float) -> None:
        life = node.life

        def happen() -> None:
            if node.life == life:
                self._handle(node, event)

        self._at(delay, happen)

    def _handle(self, node: Node, event: Event) -> None:
        if node.machine is None:
            return
        self.trace.append(f"{self.now:9.3f} {node.name} <- {describe(event)}")
        for effect in node.machine.handle(event, self.now):
            self._carry_out(node, effect)

    # --- effects ------------------------------------------------------------------------------------------------

    def _carry_out(self, node: Node, effect: Effect) -> None:
        match effect:
            case Persist(round=round_, entries=entries):
                node.journal.extend((round_, encode_entry(entry)) for entry in entries)
                for entry in entries:
                    self._check_entry(node, entry)
            case Send(members=members, frame=frame):
                for other in self.nodes:
                    if other.member in members and self._talk(node, other):
                        self._deliver(node, other, frame, node.member)
            case Gossip(frame=frame):
                for other in self.nodes:
                    if self._talk(node, other):
                        self._deliver(node, other, frame, None)
            case StartTimer(timer=timer, delay=delay):
                self._tell(node, TimerFired(timer), delay)
            case Fit(round=round_, base=base):
                self._tell(node, _trained(node, round_, base.root), self.random.uniform(0.1, 1.0))
            case Encode(round=round_, roster=roster, recipients=recipients):
                root = _name(b"payload", roster, bytes([node.member, node.face]))
                node.blobs.add(root)
                size = expected_payload_size(self._view(), len(recipients))
                self._tell(node, Encoded(round_, roster, BlobRef(root, size), _name(b"key", root)), 0.01)
            case Fetch():
                self._fetch(node, effect)
            case FetchSnapshot(model=model):
                held = any(
                    model.root in self._held_models(other) for other in self.nodes if self._talk(node, other)
                )
                answer = SnapshotReady(model) if held else SnapshotFailed(model, "nobody has it")
                self._tell(node, answer, self.random.uniform(0.05, 0.5))
            case Aggregate(survivors=survivors, commitments=commitments):
                roots = [one.body.root for one in commitments if isinstance(one.body, Commitment)]
                sums = _name(b"sums", *roots)
                model = BlobRef(_name(b"model", survivors.base, sums), 4 * PARAMETERS)
                self._tell(node, Aggregated(survivors.round, survivors.digest, sums, model), 0.02)
            case Promote(round=round_, model=model):
                node.models[round_] = model.root
            case Record(statement=statement):
                self._record(statement)
            case RecordEvidence():
                node.evidence.append(effect)
            case _:
                pass

    def _view(self) -> View:
        return View(self.federation, FakeVerifier(), 1, bytes(32), self.federation.id, 0)

    def _deliver(self, sender: Node, receiver: Node, frame: Frame, neighbour: MemberId | None) -> None:
        bad = self.now < self.faults.until
        if bad and self.random.random() < self.faults.loss:
            return
        copies = 2 if bad and self.random.random() < self.faults.duplicate else 1
        data = encode(frame)
        for _ in range(copies):
            self.delivered += 1
            self._tell(receiver, FrameReceived(neighbour, decode_frame(data)), self._latency())

    def _latency(self) -> float:
        low, high = self.faults.latency
        return self.random.uniform(low, high)

    def _fetch(self, node: Node, effect: Fetch) -> None:
        body = effect.commitment.body
        assert isinstance(body, Commitment)
        holders = [
            other
            for other in self.nodes
            if other.machine is not None
            and other.member in effect.sources
            and body.root in other.blobs
            and (other is node or self._talk(node, other))
        ]
        digest = body_digest(body)
        if holders:
            node.blobs.add(body.root)
            self._tell(node, PayloadArrived(body.round, body.roster, digest), self._latency() * 2)
        else:
            self._tell(node, FetchFailed(body.round, body.roster, digest, "nobody has it"), 1.0)

    def _held_models(self, node: Node) -> set[Digest]:
        return set(node.models.values()) if node.machine is not None else set()

    def _record(self, statement: Statement) -> None:
        if statement.round <= len(self.ledger):
            if self.ledger[statement.round - 1] != statement:
                raise self._violation(f"two statements attested for round {statement.round}")
            return
        if statement.round != len(self.ledger) + 1:
            self._at(1.0, lambda: self._record(statement))
            return
        self.ledger.append(statement)
        for node in self.nodes:
            self._tell(node, HeadAdvanced(statement.round), 0.2)

    # --- what must hold -----------------------------------------------------------------------------------------

    def _check_entry(self, node: Node, entry: Entry) -> None:
        if isinstance(entry, Attested) and node in self.honest:
            lock = entry.opening.locks[0].body
            assert isinstance(lock, Lock)
            opened = self._opened.setdefault(lock.round, set())
            opened.add((lock.survivors, lock.sums))
            if len(opened) > 1:
                raise self._violation(f"round {lock.round} was opened twice")

    def _check_models(self) -> None:
        for round_ in range(1, self.charter.schedule.rounds + 1):
            digests = {node.models[round_] for node in self.honest if round_ in node.models}
            if len(digests) != 1:
                raise self._violation(f"round {round_} ended with {len(digests)} models")


def describe(event: Event) -> str:
    """One line of a trace."""
    if isinstance(event, FrameReceived):
        body = getattr(event.frame, "body", event.frame)
        where = [f"{key}={getattr(body, key)}" for key in ("round", "attempt") if hasattr(body, key)]
        return f"{type(body).__name__} from {event.sender} {' '.join(where)}"
    return str(event)[:120]


def _name(*parts: bytes) -> Digest:
    return hashlib.sha256(b"\0".join(parts)).digest()


def _trained(node: Node, round_: Round, base: Digest) -> Trained:
    salted = _name(b"salted", bytes([node.member, node.face]), base)
    return Trained(
        round=round_,
        base=base,
        exponents=bytes([node.member % 3]),
        manifest=salted,
        privacy_log=salted,
        report=salted,
        num_examples=10 + node.member,
        accuracy=None,
    )
