"""Secure mode's long work in a simulation: real masks on small vectors, real sums, and owners that lie."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Protocol

import numpy as np

from folkmoot.protocol.aggregate import Method, aggregate
from folkmoot.protocol.blob import BlobRef, ref_of
from folkmoot.protocol.charter import Charter
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
from folkmoot.protocol.messages import Commitment, Lock, Ready, Roster, Signed, SurvivorSet, body_digest
from folkmoot.protocol.outer import Outer, in_memory, take_step
from folkmoot.protocol.payload_sums import Payload
from folkmoot.protocol.record import RoundRecord
from folkmoot.protocol.ring import Float32s
from folkmoot.protocol.robust import Robust
from folkmoot.protocol.secure.circles import Circles
from folkmoot.protocol.secure.dealing import NO_KEY, shard_layout, shards_root
from folkmoot.protocol.secure.encoding import RingDecoder, RingEncoder, member_weight
from folkmoot.protocol.secure.fingerprint import Challenge, challenge_seed
from folkmoot.protocol.secure.masks import (
    Crowd,
    Mask,
    pair_mask,
    pair_seed,
    seed_commitment,
    self_mask,
    self_polynomial,
    self_seed,
)
from folkmoot.protocol.secure.sharing import commit, share
from folkmoot.protocol.secure.stream import Opening, masked_shards, open_sum, sum_crowds
from folkmoot.protocol.secure.verify import (
    MaskedRound,
    crowds_of,
    is_quorum,
    missing_seeds,
    missing_shares,
    verify_commitments,
    verify_fingerprint,
    verify_releases,
    verify_sums,
)
from folkmoot.protocol.types import Digest, MemberId
from folkmoot.testnet.simulation.invariants import Broken
from folkmoot.testnet.simulation.node import Node, epoch_secret, name_of, simulated_update
from folkmoot.testnet.simulation.transcript import Transcript
from folkmoot.testnet.simulation.workshop import Surroundings, Workshop


class MaskedSurroundings(Surroundings, Protocol):
    """And what this work needs besides."""

    transcript: Transcript


class MaskedWorkshop(Workshop):
    """Blobs are bytes here; who holds which, survives crashes like a disk."""

    def __init__(self, around: MaskedSurroundings) -> None:
        super().__init__(around)
        self._around: MaskedSurroundings = around
        self._bytes[ref_of(b"").root] = b""
        # What every node computes alike is computed once: fingerprints of sums, and open sums by their masks
        self._totals: dict[Digest, tuple[tuple[Value, ...], ...]] = {}
        self._opened: dict[tuple[Digest, tuple[Crowd, ...]], bytes] = {}
        self.sent: Counter[int] = Counter()
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
        circles = Circles.of_roster(node.federation, effect.roster, effect.terms)
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
        context, secret = circles.context(node.member), epoch_secret(node)
        seed = pair_seed(context, secret, node.member, ready.member, ready.body.mask_key)
        odd = node.person in self._around.faults.odd_seeds
        return name_of(seed)[:16] if odd else seed

    def _maybe_bad(
        self, node: Node, circle: tuple[MemberId, ...], dealt: tuple[bytes, ...]
    ) -> tuple[bytes, ...]:
        if node.person not in self._around.faults.bad_shares:
            return dealt
        own = circle.index(node.member)
        return tuple(one if place == own else name_of(one)[:31] + b"\0" for place, one in enumerate(dealt))

    def _mask(self, node: Node, effect: Encode, masks: list[Mask]) -> list[bytes]:
        update = simulated_update(node, effect.terms.base, node.charter.update_values)
        weight = member_weight(10 + node.person, node.charter.averaging.weight_cap)
        layout, sizes = shard_layout(node.charter), node.charter.update_sizes
        encoder = RingEncoder(layout, sizes, effect.terms.exponents, weight)
        plain = name_of(update.tobytes(), effect.terms.exponents, bytes([weight]))
        for mask in masks:
            self._around.transcript.note_mask(node, mask.seed, plain)
        shards = [b""] * layout.shards
        for shard, piece in masked_shards(layout, encoder, [update], masks):
            shards[shard] += piece
        root = shards_root([ref_of(shard).root for shard in shards])
        self._plain[root] = (update, weight, effect.terms)
        return shards

    # --- transfers ------------------------------------------------------------------------------------------

    def _holder(self, node: Node, root: Digest, sources: tuple[MemberId, ...]) -> Node | None:
        holders = chain([node], self._around.neighbours(node, sources))
        return next((one for one in holders if root in one.blobs and self._serves(one, node)), None)

    def _fetch_part(self, node: Node, effect: FetchPart) -> None:
        body = effect.commitment.body
        assert isinstance(body, Commitment)
        names = (body.round, body.roster, body_digest(body), effect.shard)
        root = body.shards[effect.shard]
        size = shard_layout(node.charter).shard_bytes(effect.shard)
        if (delay := self._bring(node, BlobRef(root, size), effect.sources)) is not None:
            self._around.tell(node, PartArrived(*names), delay)
        else:
            self._around.tell(node, PartFailed(*names, "nobody delivered it"), 1.0)

    def _fetch_sum(self, node: Node, effect: FetchSum) -> None:
        names = (effect.round, effect.survivors, effect.shard, effect.sum)
        if (delay := self._bring(node, effect.sum, effect.sources)) is not None:
            self._around.tell(node, SumArrived(*names), delay)
        else:
            self._around.tell(node, SumFailed(*names, "nobody delivered it"), 1.0)

    def _bring(self, node: Node, ref: BlobRef, sources: tuple[MemberId, ...]) -> float | None:
        """How long a blob takes to get here; None if it does not."""
        if self._bytes.get(ref.root) == b"":
            return 0.001
        holder = self._holder(node, ref.root, sources)
        if holder is None or (holder is not node and self._around.happens(self._around.faults.loss)):
            return None
        node.blobs.add(ref.root)
        if holder is not node:
            self.sent[holder.person] += ref.size
        return self._travel(holder, node, ref.size)

    # --- sums -----------------------------------------------------------------------------------------------

    def _opener(self, root: Digest):  # type: ignore[no-untyped-def]
        return lambda: [self._bytes[root]]

    def _sum_parts(self, node: Node, effect: SumParts) -> None:
        crowds = [
            [self._opener(one.body.shards[effect.shard]) for one in crowd if isinstance(one.body, Commitment)]
            for crowd in effect.crowds
        ]
        total = b"".join(
            bytes(piece) for piece in sum_crowds(shard_layout(node.charter), effect.shard, crowds)
        )
        if node.person in self._around.faults.wrong_sums and total:
            total = bytes([total[0] ^ 1]) + total[1:]
        ref = self._keep(node, total)
        answer = PartsSummed(effect.survivors.round, effect.survivors.digest, effect.shard, ref)
        self._around.tell(node, answer, 0.02)

    def _challenge(self, node: Node, survivors: Digest, sums: tuple[BlobRef, ...]) -> Challenge:
        return Challenge(shard_layout(node.charter), challenge_seed(survivors, [ref.root for ref in sums]))

    def _check(self, node: Node, effect: Check) -> None:
        survivors = effect.survivors
        challenge = self._challenge(node, survivors.digest, effect.sums)
        totals = self._totals_of(challenge, effect)
        mine: tuple[Value, ...] = ()
        if effect.mine is not None and isinstance(effect.mine.body, Commitment):
            roots = effect.mine.body.shards
            mine = tuple(challenge.of_shard(shard, self._opener(root)) for shard, root in enumerate(roots))
        if node.person in self._around.faults.wrong_prints and mine:
            mine = ((mine[0][0] ^ 1, mine[0][1]), *mine[1:])
        answer = Checked(survivors.round, survivors.digest, effect.sums_digest, totals, mine)
        self._around.tell(node, answer, 0.02)

    def _totals_of(self, challenge: Challenge, effect: Check) -> tuple[tuple[Value, ...], ...]:
        if effect.sums_digest not in self._totals:
            values = (
                challenge.of_shards_and_sums(shard, [], self._opener(ref.root), effect.crowds)[1]
                for shard, ref in enumerate(effect.sums)
            )
            self._totals[effect.sums_digest] = tuple(values)
        return self._totals[effect.sums_digest]

    def _measure(self, node: Node, effect: Measure) -> None:
        survivors = effect.survivors
        challenge = self._challenge(node, survivors.digest, effect.sums)
        values = tuple(
            (one.member, shard, challenge.of_shard(shard, self._opener(one.body.shards[shard])))
            for one, shard in effect.wanted
            if isinstance(one.body, Commitment)
        )
        answer = Measured(survivors.round, survivors.digest, effect.sums_digest, values)
        self._around.tell(node, answer, 0.02)

    # --- opening --------------------------------------------------------------------------------------------

    def _unmask(self, node: Node, effect: Unmask) -> None:
        survivors = effect.survivors
        key = (effect.sums_digest, effect.crowds)
        if key not in self._opened:
            self._opened[key] = self._open(node.charter, effect.roster, survivors, effect.sums, effect.crowds)
            self._compare(node, effect, self._opened[key])
        model = self._keep(node, self._opened[key])
        answer = Aggregated(survivors.round, survivors.digest, effect.sums_digest, model)
        self._around.tell(node, answer, 0.02)

    def _open(
        self,
        charter: Charter,
        roster: Roster,
        survivors: SurvivorSet,
        sums: Sequence[BlobRef],
        crowds: Sequence[Crowd],
    ) -> bytes:
        layout, outer = shard_layout(charter), Outer.of(charter, survivors.round)
        base = np.frombuffer(self._bytes[survivors.base], dtype="<f4")
        opening = Opening(
            layout,
            RingDecoder(layout, charter.update_sizes, roster.exponents),
            [self._opener(ref.root) for ref in sums],
            crowds,
        )
        opened = open_sum(opening, outer, in_memory(outer, base), Robust.of(charter))
        return opened.model.tobytes()

    def _compare(self, node: Node, effect: Unmask, model: bytes) -> None:
        """Exact: what came out is the step with the plain integer sums of what went in, bit for bit."""
        charter, survivors = node.charter, effect.survivors
        roots = dict(zip(survivors.members, self._around.transcript.roots_of(survivors), strict=True))
        if not charter.sums_by_group:
            mean = self._plain_mean(charter, effect.roster, list(roots.values()))
        else:
            groups = node.federation.groups(survivors.round)
            parts = [[roots[one] for one in group.members if one in roots] for group in groups]
            means = [self._plain_mean(charter, effect.roster, part) for part in parts if part]
            mean = _robust_mean(charter, effect.roster, means)
        outer = Outer.of(charter, survivors.round)
        base = np.frombuffer(self._bytes[effect.base.root], dtype="<f4")
        found, _ = take_step(outer, [mean], len(roots), in_memory(outer, base))
        if found.tobytes() != model:
            raise Broken(f"{node.name} opened another sum than that of the survivors' updates")

    def _plain_mean(self, charter: Charter, roster: Roster, roots: Sequence[Digest]) -> Float32s:
        layout, sizes, length = shard_layout(charter), charter.update_sizes, charter.update_values
        total, weights = np.zeros(length, dtype=layout.dtype), 0
        for root in roots:
            update, weight, _ = self._plain[root]
            values = np.zeros(length, dtype=layout.dtype)
            RingEncoder(layout, sizes, roster.exponents, weight).encode(update, 0, values)
            total += values
            weights += weight
        mean = np.empty(length, dtype=np.float32)
        RingDecoder(layout, sizes, roster.exponents).mean(total, weights, 0, mean)
        return mean

    def replay(self, record: RoundRecord) -> Digest:
        """The model that an archived round leads to, from what was archived and no secret."""
        unmasking, roster, lock = record.unmasking, record.roster.body, record.opening.locks[0].body
        assert unmasking is not None and isinstance(roster, Roster) and isinstance(lock, Lock)
        bodies = (signed.body for signed in record.commitments)
        commitments = {body.member: body for body in bodies if isinstance(body, Commitment)}
        survivors = record.certificate.survivors
        era = self._around.charters.at(survivors.round)
        round_ = MaskedRound(era.federation, roster, survivors, commitments, lock)
        verify_commitments(round_)
        sums = verify_sums(round_, unmasking.sums, era.verifier)
        for signed in unmasking.fingerprints:
            verify_fingerprint(round_, signed, era.verifier)
        releases = verify_releases(round_, unmasking.seeds, unmasking.shares)
        complete = is_quorum(round_, unmasking.fingerprints)
        if missing_seeds(round_, releases) or missing_shares(round_, releases) or not complete:
            raise Broken(f"the record of round {survivors.round} lacks what takes the masks off")
        opened = self._open(era.federation.charter, roster, survivors, sums, crowds_of(round_, releases))
        return ref_of(opened).root


def _robust_mean(charter: Charter, roster: Roster, means: Sequence[Float32s]) -> Float32s:
    """The charter's rule on groups' means, each taken as open mode takes an update."""
    payloads = [Payload(group, 1, partial(list, [mean.tobytes()])) for group, mean in enumerate(means)]
    method = Method("f32", charter.update_sizes, Outer(charter.update_values), Robust.of(charter))
    return aggregate(method, roster.exponents, payloads, np.zeros(charter.update_values, np.float32)).model
