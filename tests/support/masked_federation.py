"""A small federation's whole record in secure mode, with real keys and real masks, for tests of the audit.

`MaskedFederation` plays all members at once. Whatever somebody may have done wrong is put in by a `Tamper`: all that
follows is computed, signed and named as if it had been right.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from audited_federation import NAMES, SCHEDULE, AuditedFederation, MadeRound

from folkmoot.node.config import Home
from folkmoot.node.keys import IDENTITY, write_secret_file
from folkmoot.node.store import Journal
from folkmoot.protocol.blob import BlobRef, ref_of
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import Averaging, Schedule, Secrecy, Tensor
from folkmoot.protocol.events import Value
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.messages import (
    Commitment,
    Fingerprint,
    Ready,
    Roster,
    Seeds,
    Shares,
    Signed,
    Sum,
    Survivor,
    SurvivorSet,
    Unmasking,
    body_digest,
    roster_digest,
)
from folkmoot.protocol.outer import Outer, in_memory
from folkmoot.protocol.ring import Float32s
from folkmoot.protocol.robust import Robust
from folkmoot.protocol.secure.circles import Circles
from folkmoot.protocol.secure.dealing import NO_KEY, open_crowds, shard_layout, shards_root
from folkmoot.protocol.secure.encoding import RingDecoder, RingEncoder, member_weight
from folkmoot.protocol.secure.fingerprint import Challenge, challenge_seed
from folkmoot.protocol.secure.gathering import encode_values, sums_digest
from folkmoot.protocol.secure.masks import (
    pair_mask,
    pair_seed,
    public_key,
    seed_commitment,
    self_mask,
    self_polynomial,
    self_seed,
)
from folkmoot.protocol.secure.sharing import commit, share
from folkmoot.protocol.secure.stream import Opening, masked_shards, open_sum, sum_crowds
from folkmoot.protocol.typed_data import struct_hash
from folkmoot.protocol.types import Digest, MemberId

TENSORS = (Tensor(name="weight", shape=(70, 3)), Tensor(name="bias", shape=(3,)))
"""213 values: with the weight block five blocks of 64, so that each of the four shards has some."""

SECURE = Averaging(mode="secure", weight_cap=200)


@dataclass(frozen=True)
class Tamper:
    """What is changed on its way: each function is given what an honest member made and returns what stands instead."""

    dealt: Callable[[MemberId, "Dealt"], "Dealt"] = lambda member, dealt: dealt
    commitment: Callable[[Commitment], Commitment] = lambda body: body
    total: Callable[[int, bytes], bytes] = lambda shard, data: data
    print: Callable[[MemberId, tuple[Value, ...]], tuple[Value, ...]] = lambda member, values: values
    sums: Callable[[Digest], Digest] = lambda sums: sums
    model: Callable[[Float32s], Float32s] = lambda model: model


@dataclass
class Dealt:
    """What one member made for one roster."""

    commitment: Commitment
    shards: list[bytes]
    polynomial: tuple[bytes, ...]
    seeds: Mapping[MemberId, bytes]


@dataclass
class MaskedRoundMade(MadeRound):
    """And the masked shards, which members keep for a while, and what the masks derive from."""

    dealt: dict[MemberId, Dealt] = field(default_factory=dict)
    circles: Circles | None = None

    @property
    def unmasking(self) -> Unmasking:
        assert self.record.unmasking is not None
        return self.record.unmasking


class MaskedFederation(AuditedFederation):
    """Four members in secure mode (f = 1, Q = 3, k_min = 3, two shares open a self-mask), or others, and in groups."""

    def __init__(
        self,
        ring: Literal[8, 16, 32] = 16,
        names: tuple[str, ...] = NAMES,
        schedule: Schedule = SCHEDULE,
        group_size: int = 0,
        averaging: Averaging = SECURE,
    ) -> None:
        secrecy = Secrecy(ring=ring, group_size=group_size)
        super().__init__(
            tensors=TENSORS, averaging=averaging, secrecy=secrecy, names=names, schedule=schedule
        )
        self.layout = shard_layout(self.charter)
        self.masked_rounds: list[MaskedRoundMade] = []

    def change_charter(self, after: Charter) -> None:
        super().change_charter(after)
        self.layout = shard_layout(after)

    def epoch_secret(self, member: MemberId, epoch: int = 0) -> bytes:
        """The X25519 secret of a member's mask key."""
        return digest("folkmoot/v1/test-epoch", bytes([member, epoch]))

    def add_masked_round(
        self, survivors: tuple[MemberId, ...] = (0, 1, 2, 3), tamper: Tamper | None = None
    ) -> MaskedRoundMade:
        """One more round; all members are in its roster."""
        wrong, base = tamper or Tamper(), self.base
        number, updates = len(self.rounds) + 1, self._train()
        roster = self._roster(number, base, updates)
        assert isinstance(roster.body, Roster)
        name = roster_digest(roster.member, roster.body)
        circles = Circles.of_roster(self.federation, name, roster.body)
        dealt = {
            member: wrong.dealt(member, self._deal(circles, roster.body, member, update))
            for member, update in enumerate(updates)
        }
        for one in dealt.values():
            one.commitment = wrong.commitment(one.commitment)
        commitments = tuple(self.say(member, dealt[member].commitment) for member in survivors)
        named = tuple(Survivor(one.member, body_digest(one.body)) for one in commitments)
        root = ref_of(base.astype("<f4").tobytes()).root
        chosen = SurvivorSet(number, root, self.head, self.charter.digest, name, named)
        totals = [
            wrong.total(shard, self._sum(shard, dealt, circles.crowds(chosen)))
            for shard in range(self.layout.shards)
        ]
        unmasking = self._unmask(chosen, circles, dealt, totals, wrong)
        model = wrong.model(self._open(circles, roster.body, unmasking, totals, chosen))
        sums = wrong.sums(self._sums_digest(chosen, totals))
        record, statement = self._agree(chosen, sums, model, None, roster, commitments)
        record = msgspec.structs.replace(record, unmasking=unmasking)
        made = MaskedRoundMade(
            record, statement, self._in_ledger_order(record), totals, dealt=dealt, circles=circles
        )
        self.rounds.append(made)
        self.masked_rounds.append(made)
        self.base, self.head = model, struct_hash(statement)
        self.models.append(model)
        return made

    def write_home(self, path: Path, member: MemberId = 0, *, with_keys: bool = True) -> Home:
        """As in open mode, and what this member holds of masked shards: its own, and of others those that it sums."""
        home = super().write_home(path, member, with_keys=with_keys)
        for made in self.masked_rounds:
            for owner, dealt in made.dealt.items():
                for shard, data in enumerate(dealt.shards):
                    if owner == member or shard == member:
                        keep_shard(home.archive, 0, data)
        return home

    def write_node(self, path: Path, member: MemberId) -> Home:
        """A home that its member can answer permits from: with node.toml, identity key and journal."""
        home = self.write_home(path, member, with_keys=False)
        contract = f"0x{self.contract.hex()}"
        home.config.write_text(
            f'name = "{self.names[member]}"\n[ledger]\nrpc = ["http://127.0.0.1:9"]\ncontract = "{contract}"\n'
        )
        home.keys.mkdir()
        write_secret_file(home.keys / IDENTITY, bytes(self.keys[member].identity).hex())
        Journal.create(home.store)
        with Journal.open(home.store) as journal:
            journal.add_epoch(0, self.epoch_secret(member))
        return home

    # --- a round's parts ----------------------------------------------------------------------------------------------

    def _ready(self, number: int, base: Digest, member: MemberId, update: Float32s) -> Ready:
        ready = super()._ready(number, base, member, update)
        key = public_key(self.epoch_secret(member))
        return msgspec.structs.replace(ready, num_examples=0, metrics=(), mask_key=key)

    def _deal(self, circles: Circles, roster: Roster, member: MemberId, update: Float32s) -> Dealt:
        secret, context = self.epoch_secret(member), circles.context(member)
        polynomial = self_polynomial(context, secret, member, circles.group(member).threshold)
        circle = circles.circle(member)
        others = [signed for signed in roster.readies if signed.member in circle and signed.member != member]
        peers = {signed.member: signed.body for signed in others}
        seeds = {
            peer: pair_seed(context, secret, member, peer, body.mask_key)
            for peer, body in peers.items()
            if isinstance(body, Ready)
        }
        masks = [self_mask(self_seed(context, member, polynomial[0]))]
        masks += [pair_mask(seed, member, peer) for peer, seed in seeds.items()]
        weight = member_weight(100 + member, self.charter.averaging.weight_cap)
        encoder = RingEncoder(self.layout, self.charter.update_sizes, roster.exponents, weight)
        shards = [b""] * self.layout.shards
        for shard, piece in masked_shards(self.layout, encoder, [update], masks):
            shards[shard] += piece
        roots = tuple(ref_of(data).root for data in shards)
        bound = tuple(
            seed_commitment(context, min(member, peer), max(member, peer), seeds[peer])
            if peer != member
            else NO_KEY
            for peer in circle
        )
        commitment = Commitment(
            federation=self.federation.id,
            round=context.round,
            roster=context.roster,
            member=member,
            root=shards_root(roots),
            size=sum(map(len, shards)),
            key=NO_KEY,
            shards=roots,
            shares=commit(polynomial),
            seeds=bound,
        )
        return Dealt(commitment, shards, polynomial, seeds)

    def _sum(
        self, shard: int, dealt: Mapping[MemberId, Dealt], crowds: tuple[tuple[MemberId, ...], ...]
    ) -> bytes:
        sources = [[partial(list, [dealt[member].shards[shard]]) for member in crowd] for crowd in crowds]
        return b"".join(bytes(piece) for piece in sum_crowds(self.layout, shard, sources))

    def _sums_digest(self, chosen: SurvivorSet, totals: list[bytes]) -> Digest:
        return sums_digest(chosen.digest, tuple(ref_of(data).root for data in totals))

    def _unmask(
        self,
        chosen: SurvivorSet,
        circles: Circles,
        dealt: Mapping[MemberId, Dealt],
        totals: list[bytes],
        wrong: Tamper,
    ) -> Unmasking:
        number, name, members = chosen.round, chosen.digest, chosen.members
        gone = {member: circles.left_out(member, chosen) for member in members}
        seeds = [
            Seeds(number, name, member, tuple((peer, dealt[member].seeds[peer]) for peer in gone[member]))
            for member in members
            if gone[member]
        ]
        shares = [
            Shares(
                number,
                name,
                holder,
                tuple(
                    (member, share(dealt[member].polynomial, holder + 1))
                    for member in circles.circle(holder)
                    if member in members
                ),
            )
            for holder in members
        ]
        return Unmasking(
            sums=tuple(
                self.say(shard, Sum(self.federation.id, number, name, shard, ref.root, ref.size))
                for shard, ref in enumerate(map(ref_of, totals))
            ),
            fingerprints=self._prints(chosen, dealt, totals, wrong),
            seeds=tuple(seeds),
            shares=tuple(shares),
        )

    def _prints(
        self, chosen: SurvivorSet, dealt: Mapping[MemberId, Dealt], totals: list[bytes], wrong: Tamper
    ) -> tuple[Signed, ...]:
        roots = [ref_of(data).root for data in totals]
        challenge = Challenge(self.layout, challenge_seed(chosen.digest, roots))
        sums, prints = self._sums_digest(chosen, totals), []
        for member in (survivor.member for survivor in chosen.survivors):
            values = tuple(
                challenge.of_shard(shard, partial(list, [data]))
                for shard, data in enumerate(dealt[member].shards)
            )
            encoded = encode_values(wrong.print(member, values))
            body = Fingerprint(self.federation.id, chosen.round, 0, chosen.digest, sums, encoded)
            prints.append(self.say(member, body))
        return tuple(prints)

    def _open(
        self,
        circles: Circles,
        roster: Roster,
        unmasking: Unmasking,
        totals: list[bytes],
        chosen: SurvivorSet,
    ) -> Float32s:
        shares = {
            member: {
                one.member + 1: given[member]
                for one in unmasking.shares
                if member in (given := dict(one.shares))
            }
            for member in chosen.members
        }
        opening = Opening(
            self.layout,
            RingDecoder(self.layout, self.charter.update_sizes, roster.exponents),
            [partial(list, [data]) for data in totals],
            open_crowds(circles, chosen, shares, unmasking.seeds),
        )
        outer = Outer.of(self.charter, chosen.round)
        opened = open_sum(opening, outer, in_memory(outer, self.base), Robust.of(self.charter))
        return np.asarray(opened.model)


def keep_shard(archive: Path, epoch: int, data: bytes) -> BlobRef:
    """Put a masked shard where a node keeps it."""
    ref = ref_of(data)
    folder = archive / "masked" / str(epoch)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ref.root.hex()).write_bytes(data)
    return ref
