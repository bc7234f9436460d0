"""The long work of simulated nodes: training, payloads, transfers and sums. It takes virtual time.

Updates are real vectors, coded and summed by the rules; only sealing is left out.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Protocol

import numpy as np

from folkmoot.protocol.aggregate import Method, aggregate
from folkmoot.protocol.blob import BlobRef, ref_of
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import MAX_SUMMED
from folkmoot.protocol.codec import codec_named, encode_vector
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
from folkmoot.protocol.messages import Commitment, Ready, Roster, Signed, body_digest
from folkmoot.protocol.payload_sums import Payload
from folkmoot.protocol.record import RoundRecord
from folkmoot.protocol.ring import weight_of
from folkmoot.protocol.signing import FakeVerifier
from folkmoot.protocol.types import Digest, MemberId
from folkmoot.protocol.validation import View, expected_payload_size
from folkmoot.testnet.simulation.charters import Charters
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.links import Links
from folkmoot.testnet.simulation.node import (
    Node,
    honest_exponent,
    name_of,
    payload_secret,
    simulated_training,
    simulated_update,
)


class Surroundings(Protocol):
    """What the work needs of the simulation around it."""

    charters: Charters
    faults: Faults
    random: random.Random
    links: Links
    now: float

    def tell(self, node: Node, event: Event, delay: float) -> None:
        """Let the node know later, unless it is gone by then."""
        ...

    def neighbours(self, node: Node, members: Iterable[MemberId] | None = None) -> Iterator[Node]:
        """The nodes whom this one hears, of all members or of these, in this order."""
        ...

    def happens(self, probability: float) -> bool:
        """Whether a fault of that probability strikes now."""
        ...


class Workshop:
    """Answers the effects that a real engine gives to other tasks."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        founding = around.charters.founding
        self._bytes: dict[Digest, bytes] = {bytes(32): bytes(4 * founding.snapshot_values)}
        self._replayed: dict[Digest, Digest] = {}
        self._summed: dict[tuple[Digest, bytes, tuple[Digest, ...]], tuple[Digest, BlobRef]] = {}

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
            return
        if node.person in self._around.faults.spent:
            self._around.tell(
                node, FitFailed(effect.round, effect.base.root, "too dear", "its budget is spent"), delay
            )
            return
        huge = node.person in self._around.faults.huge_scales
        exponent = node.charter.averaging.exponent_max if huge else honest_exponent(node)
        self._around.tell(node, simulated_training(node, effect.round, effect.base.root, exponent), delay)

    # --- payloads -------------------------------------------------------------------------------------------

    def _encode(self, node: Node, effect: Encode) -> None:
        root = name_of(b"payload", payload_secret(node, effect.roster))
        vector = simulated_update(node, effect.terms.base, node.charter.update_values)
        data = b"".join(map(bytes, encode_vector(codec_named(node.charter.averaging.codec), vector)))
        garbage = node.person in self._around.faults.garbage
        self._bytes[root] = b"\xff" * len(data) if garbage else data
        node.blobs.add(root)
        federation = node.federation
        view = View(federation, FakeVerifier(), effect.round, bytes(32), federation.id, 0)
        payload = BlobRef(root, expected_payload_size(view, len(effect.recipients)))
        self._around.tell(node, Encoded(effect.round, effect.roster, payload, name_of(b"key", root)), 0.01)

    def _fetch(self, node: Node, effect: Fetch) -> None:
        body = effect.commitment.body
        assert isinstance(body, Commitment)
        names = (body.round, body.roster, body_digest(body))
        sources = chain([node], self._around.neighbours(node, effect.sources))
        holder = next((one for one in sources if self._shares(one, node, effect)), None)
        if holder is None or self._around.happens(self._around.faults.loss):
            self._around.tell(node, FetchFailed(*names, "nobody delivered it"), 1.0)
            return
        delay = self._travel(holder, node, body.size)
        if holder is not node:
            self._around.tell(holder, PayloadServed(body.root, holder.id_of(node)), delay)
        node.blobs.add(body.root)
        self._around.tell(node, PayloadArrived(*names), delay)

    def _travel(self, holder: Node, node: Node, size: int) -> float:
        """How long it takes to ask a holder and have the answer."""
        links, there, here = self._around.links, holder.person, node.person
        if holder is node:
            return 0.001
        return links.latency(here, there) + links.transit(there, here, size, self._around.now)

    def _shares(self, holder: Node, node: Node, effect: Fetch) -> bool:
        """Whether `holder` has the payload, and would give its content key to a member outside the roster."""
        body = effect.commitment.body
        assert isinstance(body, Commitment)
        if body.root not in holder.blobs or holder.machine is None or not self._serves(holder, node):
            return False
        entitled = node.member in effect.recipients or holder is node
        return entitled or holder.machine.is_decided(body.round, body.roster)

    def _serves(self, holder: Node, node: Node) -> bool:
        return holder is node or (not holder.frozen and holder.person not in self._around.faults.withholding)

    def _fetch_snapshot(self, node: Node, effect: FetchSnapshot) -> None:
        root = effect.model.root
        near = (other for other in self._around.neighbours(node) if self._serves(other, node))
        held = any(root in other.models.values() for other in near)
        answer = SnapshotReady(effect.model) if held else SnapshotFailed(effect.model, "nobody has it")
        self._around.tell(node, answer, self._around.random.uniform(0.05, 0.5))

    # --- sums -----------------------------------------------------------------------------------------------

    def _aggregate(self, node: Node, effect: Aggregate) -> None:
        survivors = effect.survivors
        sums, model = self._sum(node.charter, survivors.base, effect.roster, effect.commitments)
        self._around.tell(node, Aggregated(survivors.round, survivors.digest, sums, model), 0.02)

    def _sum(
        self, charter: Charter, base: Digest, roster: Roster, commitments: Sequence[Signed]
    ) -> tuple[Digest, BlobRef]:
        """Digest of the sums, and the new model. Every node gets the same, so it is computed once."""
        bodies = [one.body for one in commitments if isinstance(one.body, Commitment)]
        key = (base, roster.exponents, tuple(body.root for body in bodies))
        if key not in self._summed:
            self._summed[key] = self._compute_sum(charter, base, roster, bodies)
        return self._summed[key]

    def _compute_sum(
        self, charter: Charter, base: Digest, roster: Roster, bodies: Sequence[Commitment]
    ) -> tuple[Digest, BlobRef]:
        examples = {
            one.member: one.body.num_examples for one in roster.readies if isinstance(one.body, Ready)
        }
        cap = charter.averaging.weight_cap
        payloads = [
            Payload(
                body.member, weight_of(examples[body.member], cap), partial(list, [self._bytes[body.root]])
            )
            for body in bodies
        ]
        if len(payloads) > MAX_SUMMED:
            # More than open mode sums exactly, and than a charter allows: only to see how messages grow.
            sums = name_of(b"sums", *(body.root for body in bodies))
            return sums, self._keep_model(charter, name_of(b"model", base, sums))
        before = np.frombuffer(self._bytes[base], dtype="<f4")
        result = aggregate(Method.of(charter, roster.round), roster.exponents, payloads, before)
        if not result.changed:
            return result.sums_digest, BlobRef(base, 4 * charter.snapshot_values)
        return result.sums_digest, self._keep_model(charter, result.model.astype("<f4").tobytes())

    def _keep_model(self, charter: Charter, data: bytes) -> BlobRef:
        root = ref_of(data).root
        self._bytes[root] = data
        return BlobRef(root, 4 * charter.snapshot_values)

    def replay(self, record: RoundRecord) -> Digest:
        """The model that an archived round leads to, computed anew from payloads and record."""
        roster, survivors = record.roster.body, record.certificate.survivors
        assert isinstance(roster, Roster)
        if survivors.digest not in self._replayed:
            bodies = [one.body for one in record.commitments if isinstance(one.body, Commitment)]
            charter = self._around.charters.at(survivors.round).federation.charter
            model = self._compute_sum(charter, survivors.base, roster, bodies)[1]
            self._replayed[survivors.digest] = model.root
        return self._replayed[survivors.digest]
