"""Secure mode's long work in a simulation: real masks on small vectors, real sums, and owners that lie."""

from collections import Counter
from typing import Protocol

import numpy as np

from folkmoot.protocol.blob import BlobRef, ref_of
from folkmoot.protocol.effects import Check, Effect, Encode, FetchPart, FetchSum, Measure, SumParts, Unmask
from folkmoot.protocol.events import (
    Aggregated,
    Checked,
    Encoded,
    Measured,
    PartArrived,
    PartFailed,
    PartsSummed,
    SumArrived,
    SumFailed,
    Value,
)
from folkmoot.protocol.messages import Commitment, Ready, Roster, Signed, body_digest
from folkmoot.protocol.ring import Float32s, apply_fedavg
from folkmoot.protocol.secure.circles import Circles
from folkmoot.protocol.secure.dealing import NO_KEY, shard_layout, shards_root
from folkmoot.protocol.secure.encoding import RingDecoder, RingEncoder, member_weight
from folkmoot.protocol.secure.fingerprint import Challenge, challenge_seed
from folkmoot.protocol.secure.masks import (
    Mask,
    pair_mask,
    pair_seed,
    seed_commitment,
    self_mask,
    self_polynomial,
    self_seed,
)
from folkmoot.protocol.secure.sharing import commit, share
from folkmoot.protocol.secure.stream import masked_shards, open_sum, sum_shard
from folkmoot.protocol.types import Digest, MemberId
from folkmoot.testnet.invariants import Broken
from folkmoot.testnet.simulated import Node, epoch_secret, name_of
from folkmoot.testnet.transcript import Transcript
from folkmoot.testnet.workshop import Surroundings, Workshop


class MaskedSurroundings(Surroundings, Protocol):
    """And what this work needs besides."""

    transcript: Transcript


class MaskedWorkshop(Workshop):
    """Blobs are bytes here; who holds which, survives crashes like a disk."""

    def __init__(self, around: MaskedSurroundings) -> None:
        super().__init__(around)
        self._around: MaskedSurroundings = around
        self._charter = around.federation.charter
        self._layout = shard_layout(self._charter)
        self._bytes: dict[Digest, bytes] = {
            bytes(32): bytes(4 * self._charter.model.parameters),
            ref_of(b"").root: b"",
        }
        # What every node computes alike is computed once: fingerprints of sums, and open sums by their masks
        self._totals: dict[Digest, tuple[Value, ...]] = {}
        self._models: dict[tuple[Digest, tuple[Mask, ...]], bytes] = {}
        self.sent: Counter[MemberId] = Counter()
        """Bytes of shards and sums that each member delivered."""
        self._plain: dict[Digest, tuple[Float32s, int, Roster]] = {}

    def carry_out(self, node: Node, effect: Effect) -> None:
        """Secure mode's effects; the others as in open mode."""
        match effect:
            case FetchPart():
                self._fetch_part(node, effect)
            case SumParts():
                self._sum_parts(node, effect)
            case FetchSum():
                self._fetch_sum(node, effect)
            case Check():
                self._check(node, effect)
            case Measure():
                self._measure(node, effect)
            case Unmask():
                self._unmask(node, effect)
            case _:
                super().carry_out(node, effect)

    def _keep(self, node: Node, data: bytes) -> BlobRef:
        ref = ref_of(data)
        self._bytes[ref.root] = data
        node.blobs.add(ref.root)
        return ref

    # --- masking --------------------------------------------------------------------------------------------

    def _encode(self, node: Node, effect: Encode) -> None:
        secret = epoch_secret(node)
        circles = Circles.of_roster(self._around.federation, effect.roster, effect.terms)
        context, circle = circles.context(node.member), circles.circle(node.member)
        polynomial = self_polynomial(context, secret, node.member, circles.group(node.member).threshold)
        readies = [ready for ready in effect.terms.readies if ready.member in circle]
        seeds = [self._pair_seed(node, circles, ready) for ready in readies]
        masks = [self_mask(self_seed(context, node.member, polynomial[0]))]
        for member, seed in zip(circle, seeds, strict=True):
            if member != node.member:
                masks.append(pair_mask(seed, node.member, member))
        shards = self._mask(node, effect, masks)
        roots = tuple(self._keep(node, shard).root for shard in shards)
        dealt = tuple(share(polynomial, member + 1) for member in circle)
        commitments = tuple(
            NO_KEY
            if member == node.member
            else seed_commitment(context, min(member, node.member), max(member, node.member), seed)
            for member, seed in zip(circle, seeds, strict=True)
        )
        encoded = Encoded(
            round=effect.round,
            roster=effect.roster,
            payload=BlobRef(shards_root(roots), sum(map(len, shards))),
            key=NO_KEY,
            shards=roots,
            shares=commit(polynomial),
            seeds=commitments,
            dealt=self._maybe_bad(node, circle, dealt),
            pair_seeds=tuple(seeds),
        )
        self._around.tell(node, encoded, 0.01)

    def _pair_seed(self, node: Node, circles: Circles, ready: Signed) -> bytes:
        assert isinstance(ready.body, Ready)
        if ready.member == node.member:
            return bytes(16)
        seed = pair_seed(
            circles.context(node.member), epoch_secret(node), node.member, ready.member, ready.body.mask_key
        )
        odd = node.member in self._around.faults.odd_seeds
        return name_of(seed)[:16] if odd else seed

    def _maybe_bad(
        self, node: Node, circle: tuple[MemberId, ...], dealt: tuple[bytes, ...]
    ) -> tuple[bytes, ...]:
        if node.member not in self._around.faults.bad_shares:
            return dealt
        own = circle.index(node.member)
        return tuple(one if place == own else name_of(one)[:31] + b"\0" for place, one in enumerate(dealt))

    def _mask(self, node: Node, effect: Encode, masks: list[Mask]) -> list[bytes]:
        update = simulated_update(node, effect, self._charter.model.parameters)
        weight = member_weight(10 + node.member, self._charter.averaging.weight_cap)
        sizes = self._charter.model.sizes
        encoder = RingEncoder(self._layout, sizes, effect.terms.exponents, weight)
        plain = name_of(update.tobytes(), effect.terms.exponents, bytes([weight]))
        for mask in masks:
            self._around.transcript.note_mask(node, mask.seed, plain)
        shards = [b""] * self._layout.shards
        for shard, piece in masked_shards(self._layout, encoder, [update], masks):
            shards[shard] += piece
        root = shards_root([ref_of(shard).root for shard in shards])
        self._plain[root] = (update, weight, effect.terms)
        return shards

    # --- transfers ------------------------------------------------------------------------------------------

    def _holder(self, node: Node, root: Digest, sources: tuple[MemberId, ...]) -> Node | None:
        near = {other.member: other for other in self._around.neighbours(node)}
        holders = [node, *(near[member] for member in sources if member in near)]
        withholding = self._around.faults.withholding
        return next(
            (one for one in holders if root in one.blobs and (one is node or one.member not in withholding)),
            None,
        )

    def _fetch_part(self, node: Node, effect: FetchPart) -> None:
        body = effect.commitment.body
        assert isinstance(body, Commitment)
        names = (body.round, body.roster, body_digest(body), effect.shard)
        root = body.shards[effect.shard]
        if self._brings(node, root, effect.sources):
            self._around.tell(node, PartArrived(*names), self._around.latency() * 2)
        else:
            self._around.tell(node, PartFailed(*names, "nobody delivered it"), 1.0)

    def _fetch_sum(self, node: Node, effect: FetchSum) -> None:
        names = (effect.round, effect.survivors, effect.shard, effect.sum)
        if self._brings(node, effect.sum.root, effect.sources):
            self._around.tell(node, SumArrived(*names), self._around.latency() * 2)
        else:
            self._around.tell(node, SumFailed(*names, "nobody delivered it"), 1.0)

    def _brings(self, node: Node, root: Digest, sources: tuple[MemberId, ...]) -> bool:
        if self._bytes.get(root) == b"":
            return True
        holder = self._holder(node, root, sources)
        if holder is None or (holder is not node and self._around.happens(self._around.faults.loss)):
            return False
        node.blobs.add(root)
        if holder is not node:
            self.sent[holder.member] += len(self._bytes[root])
        return True

    # --- sums -----------------------------------------------------------------------------------------------

    def _opener(self, root: Digest):  # type: ignore[no-untyped-def]
        return lambda: [self._bytes[root]]

    def _sum_parts(self, node: Node, effect: SumParts) -> None:
        sources = [
            self._opener(one.body.shards[effect.shard])
            for one in effect.commitments
            if isinstance(one.body, Commitment)
        ]
        total = b"".join(bytes(piece) for piece in sum_shard(self._layout, effect.shard, sources))
        if node.member in self._around.faults.wrong_sums and total:
            total = bytes([total[0] ^ 1]) + total[1:]
        ref = self._keep(node, total)
        answer = PartsSummed(effect.survivors.round, effect.survivors.digest, effect.shard, ref)
        self._around.tell(node, answer, 0.02)

    def _challenge(self, survivors: Digest, sums: tuple[BlobRef, ...]) -> Challenge:
        return Challenge(self._layout, challenge_seed(survivors, [ref.root for ref in sums]))

    def _check(self, node: Node, effect: Check) -> None:
        survivors = effect.survivors
        challenge = self._challenge(survivors.digest, effect.sums)
        totals = self._totals_of(challenge, effect)
        mine: tuple[Value, ...] = ()
        if effect.mine is not None and isinstance(effect.mine.body, Commitment):
            roots = effect.mine.body.shards
            mine = tuple(challenge.of_shard(shard, self._opener(root)) for shard, root in enumerate(roots))
        if node.member in self._around.faults.wrong_prints and mine:
            mine = ((mine[0][0] ^ 1, mine[0][1]), *mine[1:])
        answer = Checked(survivors.round, survivors.digest, effect.sums_digest, totals, mine)
        self._around.tell(node, answer, 0.02)

    def _totals_of(self, challenge: Challenge, effect: Check) -> tuple[Value, ...]:
        if effect.sums_digest not in self._totals:
            values = (
                challenge.of_sum(shard, self._opener(ref.root)) for shard, ref in enumerate(effect.sums)
            )
            self._totals[effect.sums_digest] = tuple(values)
        return self._totals[effect.sums_digest]

    def _measure(self, node: Node, effect: Measure) -> None:
        survivors = effect.survivors
        challenge = self._challenge(survivors.digest, effect.sums)
        values = tuple(
            (one.member, shard, challenge.of_shard(shard, self._opener(one.body.shards[shard])))
            for one, shard in effect.wanted
            if isinstance(one.body, Commitment)
        )
        answer = Measured(survivors.round, survivors.digest, effect.sums_digest, values)
        self._around.tell(node, answer, 0.02)

    # --- opening --------------------------------------------------------------------------------------------

    def _unmask(self, node: Node, effect: Unmask) -> None:
        key = (effect.sums_digest, effect.masks)
        if key not in self._models:
            self._models[key] = self._open_sum(effect)
            self._compare(node, effect, self._models[key])
        model = self._keep(node, self._models[key])
        survivors = effect.survivors
        answer = Aggregated(survivors.round, survivors.digest, effect.sums_digest, model)
        self._around.tell(node, answer, 0.02)

    def _open_sum(self, effect: Unmask) -> bytes:
        opened = open_sum(
            self._layout,
            [self._opener(ref.root) for ref in effect.sums],
            effect.masks,
            self._opener(effect.base.root),
            RingDecoder(self._layout, self._charter.model.sizes, effect.roster.exponents),
            len(effect.survivors.survivors),
            lambda chunks: b"".join(chunk.tobytes() for chunk in chunks),
            self._bytes[effect.base.root],
        )
        return opened.model

    def _compare(self, node: Node, effect: Unmask, model: bytes) -> None:
        """Exact: what came out is the plain integer sum of what went in, bit for bit."""
        sizes, exponents = self._charter.model.sizes, effect.roster.exponents
        length = self._charter.model.parameters
        total = np.zeros(length, dtype=self._layout.dtype)
        weights = 0
        for root in self._around.transcript.roots_of(effect.survivors):
            update, weight, _ = self._plain[root]
            values = np.zeros(length, dtype=self._layout.dtype)
            RingEncoder(self._layout, sizes, exponents, weight).encode(update, 0, values)
            total += values
            weights += weight
        mean = np.empty(length, dtype=np.float32)
        RingDecoder(self._layout, sizes, exponents).mean(total, weights, 0, mean)
        expected = np.empty_like(mean)
        apply_fedavg(np.frombuffer(self._bytes[effect.base.root], dtype="<f4"), mean, expected)
        if expected.tobytes() != model:
            raise Broken(f"{node.name} opened another sum than that of the survivors' updates")


def simulated_update(node: Node, effect: Encode, length: int) -> Float32s:
    """What this node's training gave: a function of base and node, within its exponent."""
    seed = name_of(b"update", bytes([node.member, node.face]), effect.terms.base)
    values = np.random.default_rng(int.from_bytes(seed[:8], "big")).uniform(-1, 1, length)
    return (values * 2.0 ** (node.member % 3)).astype(np.float32)
