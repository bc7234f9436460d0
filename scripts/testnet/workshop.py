"""The long work of simulated nodes: training, payloads, transfers and sums, which take time and nothing else."""

import random
from typing import Protocol

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.effects import Aggregate, Effect, Encode, Fetch, FetchSnapshot, Fit
from folkmoot.protocol.events import (
    Aggregated,
    Encoded,
    Event,
    FetchFailed,
    FitFailed,
    PayloadArrived,
    PayloadServed,
    SnapshotFailed,
    SnapshotReady,
)
from folkmoot.protocol.messages import Commitment, body_digest
from folkmoot.protocol.signing import FakeVerifier
from folkmoot.protocol.validation import View, expected_payload_size
from folkmoot.testnet.simulated import Faults, Node, name_of, simulated_training


class Surroundings(Protocol):
    """What the work needs of the simulation around it."""

    federation: Federation
    faults: Faults
    random: random.Random

    def tell(self, node: Node, event: Event, delay: float) -> None:
        """Let the node know later, unless it is gone by then."""
        ...

    def neighbours(self, node: Node) -> list[Node]:
        """The nodes whom this one hears."""
        ...

    def happens(self, probability: float) -> bool:
        """Whether a fault of that probability strikes now."""
        ...

    def latency(self) -> float:
        """How long the next message takes."""
        ...


class Workshop:
    """Answers the effects that a real engine gives to other tasks."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    def carry_out(self, node: Node, effect: Effect) -> None:
        """Do it, in virtual time; effects that call for no work are none of its business."""
        match effect:
            case Fit():
                self._fit(node, effect)
            case Encode():
                self._encode(node, effect)
            case Fetch():
                self._fetch(node, effect)
            case FetchSnapshot():
                self._fetch_snapshot(node, effect)
            case Aggregate():
                self._aggregate(node, effect)
            case _:
                pass

    def _fit(self, node: Node, effect: Fit) -> None:
        delay = self._around.random.uniform(0.1, 1.0)
        if self._around.happens(self._around.faults.fit_failure):
            self._around.tell(node, FitFailed(effect.round, effect.base.root, "out of memory"), delay)
        else:
            self._around.tell(node, simulated_training(node, effect.round, effect.base.root), delay)

    def _encode(self, node: Node, effect: Encode) -> None:
        root = name_of(b"payload", effect.roster, bytes([node.member, node.face]))
        node.blobs.add(root)
        federation = self._around.federation
        view = View(federation, FakeVerifier(), effect.round, bytes(32), federation.id, 0)
        payload = BlobRef(root, expected_payload_size(view, len(effect.recipients)))
        self._around.tell(node, Encoded(effect.round, effect.roster, payload, name_of(b"key", root)), 0.01)

    def _fetch(self, node: Node, effect: Fetch) -> None:
        body = effect.commitment.body
        assert isinstance(body, Commitment)
        names = (body.round, body.roster, body_digest(body))
        near = {other.member: other for other in (node, *self._around.neighbours(node))}
        sources = [near[member] for member in effect.sources if member in near]
        holder = next((one for one in sources if self._shares(one, node, effect)), None)
        if holder is None or self._around.happens(self._around.faults.loss):
            self._around.tell(node, FetchFailed(*names, "nobody delivered it"), 1.0)
            return
        delay = self._around.latency() * 2
        if holder is not node:
            self._around.tell(holder, PayloadServed(body.root, node.member), delay)
        node.blobs.add(body.root)
        self._around.tell(node, PayloadArrived(*names), delay)

    def _shares(self, holder: Node, node: Node, effect: Fetch) -> bool:
        """Whether `holder` has the payload, and would give its content key to a member outside the roster."""
        body = effect.commitment.body
        assert isinstance(body, Commitment)
        if body.root not in holder.blobs or holder.machine is None:
            return False
        entitled = node.member in effect.recipients or holder is node
        return entitled or holder.machine.is_decided(body.round, body.roster)

    def _fetch_snapshot(self, node: Node, effect: FetchSnapshot) -> None:
        root = effect.model.root
        held = any(root in other.models.values() for other in self._around.neighbours(node))
        answer = SnapshotReady(effect.model) if held else SnapshotFailed(effect.model, "nobody has it")
        self._around.tell(node, answer, self._around.random.uniform(0.05, 0.5))

    def _aggregate(self, node: Node, effect: Aggregate) -> None:
        """Sums that depend on the payloads, and a model that depends on base and sums."""
        roots = [one.body.root for one in effect.commitments if isinstance(one.body, Commitment)]
        survivors, sums = effect.survivors, name_of(b"sums", *roots)
        model = BlobRef(
            name_of(b"model", survivors.base, sums), 4 * self._around.federation.charter.model.parameters
        )
        self._around.tell(node, Aggregated(survivors.round, survivors.digest, sums, model), 0.02)
