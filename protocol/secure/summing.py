"""Secure mode, between certificate and lock: sum my shards, gather all sums, and believe none of them unchecked.

Every owner sums its shard of the survivors. Everybody pulls all sums, takes their fingerprints under a challenge that
follows from the sums themselves, and compares with the fingerprints that the survivors sign of their own shards
(PROTOCOL section 4). Where they differ, somebody lied: the shard is summed anew here, from the survivors' shards as
they were committed to, and who signed otherwise is named.
"""

from typing import TypeAlias

from folkmoot.protocol.attempts import Attempts
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.context import Context
from folkmoot.protocol.effects import Accuse, Check, FetchSum, Measure, SumParts
from folkmoot.protocol.errors import Ignore, Reject
from folkmoot.protocol.events import Checked, Measured, PartsSummed, SumArrived, SumFailed, Value
from folkmoot.protocol.journal import Said
from folkmoot.protocol.messages import Fingerprint, Signed, Sum
from folkmoot.protocol.round_state import RoundState
from folkmoot.protocol.secure.ballot import FingerprintBallot
from folkmoot.protocol.secure.dealing import shard_layout
from folkmoot.protocol.secure.fingerprint import verify
from folkmoot.protocol.secure.gathering import Gathering, decode_values, encode_values
from folkmoot.protocol.secure.verify import check_fingerprint, check_sum
from folkmoot.protocol.types import Digest, MemberId
from folkmoot.protocol.validation import MAX_ATTEMPTS_AHEAD

Step: TypeAlias = PartsSummed | SumArrived | SumFailed | Checked | Measured


class Summing:
    """Takes these steps for one node, for each `Gathering`."""

    def __init__(
        self, context: Context, state: RoundState, attempts: Attempts, ballot: FingerprintBallot
    ) -> None:
        self._context = context
        self._state = state
        self._attempts = attempts
        self._ballot = ballot
        self._layout = shard_layout(context.charter)

    def advance(self, gathering: Gathering) -> None:
        """Take every step that is possible."""
        self._sum(gathering)
        self._gather(gathering)
        self._check(gathering)
        self._sign(gathering)
        self._settle(gathering)
        self._give_up_if_lost(gathering)

    # --- what dies with a member ----------------------------------------------------------------------------

    def can_finish(self, gathering: Gathering) -> bool:
        """Whether all sums are here, and whatever else finishing takes is, or can be had.

        A member that is up but silent is trusted with one attempt more.
        """
        if gathering.sums is None:
            return False
        patient = self._state.attempt - gathering.exchange.attempt <= 1
        return not any(member in self._context.down or not patient for member in self.suspects(gathering))

    def suspects(self, gathering: Gathering) -> set[MemberId]:
        """Survivors that keep the set from its end: who owes a fingerprint (since I gave mine, or it is away), a part
        that is wanted, or pair seeds.
        """
        exchange, me = gathering.exchange, self._context.me
        silent = self._without_fingerprint(gathering, gathering.sums_digest)
        if all(survivors != gathering.digest for survivors, _ in self._ballot.my_prints.values()):
            silent &= self._context.down
        withheld = {member for member, _ in exchange.wanted - exchange.parts if member in gathering.members}
        return (silent | withheld | gathering.seedless) - {me}

    def _without_fingerprint(self, gathering: Gathering, sums: Digest | None) -> set[MemberId]:
        """Survivors that have given none, and one of whose shards is not here to be measured."""
        known = self._values(gathering, sums) if sums is not None else {}
        shards = range(self._layout.shards)
        return {
            member
            for member in set(gathering.members) - set(known) - {self._context.me}
            if any((member, shard) not in gathering.exchange.parts for shard in shards)
        }

    def _give_up_if_lost(self, gathering: Gathering) -> None:
        """A survivor died that owns a shard: its own part of it was nowhere else, so this set has no end any more.

        Not if it gave its fingerprint and its sum before. At once the first time; who proposes the set again may know
        better, and is given the time to show it.
        """
        exchange, state = gathering.exchange, self._state
        if state.ballot.opening() is not None or state.attempt in state.ballot.my_locks:
            return
        if not self._context.down or (gathering.given_up and not self._attempts.is_over("gather")):
            return
        in_work = state.proposal is not None and state.proposal.survivors.digest == gathering.digest
        gone = self._without_fingerprint(gathering, gathering.sums_digest) & self._context.down
        owners = {exchange.owner(shard) for shard in range(self._layout.shards)}
        if in_work and gone & owners:
            gathering.given_up = True
            self._attempts.give_up()

    # --- sums -----------------------------------------------------------------------------------------------

    def _sum(self, gathering: Gathering) -> None:
        """Sum the shards that are mine to sum, and those of which others say different things."""
        lacking = [shard for shard in range(self._layout.shards) if shard not in gathering.held]
        mine = [shard for shard in lacking if self._is_mine(gathering, shard)]
        for shard in dict.fromkeys((*mine, *gathering.disputed)):
            self._recount(gathering, shard)

    def _recount(self, gathering: Gathering, shard: int) -> None:
        """Sum a shard of the survivors here, as soon as I hold it of all of them."""
        exchange = gathering.exchange
        exchange.wanted.update((member, shard) for member in gathering.members)
        if shard not in gathering.summing and exchange.has_parts(gathering.members, shard):
            gathering.summing.add(shard)
            crowds = tuple(
                tuple(exchange.commitments[member] for member in crowd) for crowd in gathering.crowds
            )
            self._context.emit(SumParts(gathering.survivors, crowds, shard))

    def _is_mine(self, gathering: Gathering, shard: int) -> bool:
        """Whether I am the shard's owner, or next in beacon order after owners that are gone, left out or liars.

        With every attempt that did not bring the set to its end one more member takes each shard on: that two sum the
        same does no harm, they get the same.
        """
        exchange, patience = gathering.exchange, self._state.attempt - gathering.exchange.attempt
        places = len(exchange.order)
        for step in range(places):
            member = exchange.order[(shard + step) % places]
            if member == self._context.me:
                return True
            gone = member in self._context.down or member in gathering.accused
            if gone or member not in gathering.members:
                continue
            if patience == 0:
                return False
            patience -= 1
        return False

    def _gather(self, gathering: Gathering) -> None:
        """Pull every sum that is claimed and not held."""
        if gathering.sums is not None:
            return
        for shard, claims in enumerate(gathering.claims):
            for root, signed in claims.items():
                if shard not in gathering.held and (shard, root) not in gathering.fetching:
                    self._fetch(gathering, signed)

    def _fetch(self, gathering: Gathering, signed: Signed) -> None:
        body = signed.body
        assert isinstance(body, Sum)
        gathering.fetching.add((body.shard, body.root))
        sources = dict.fromkeys((signed.member, *gathering.exchange.order, *sorted(self._context.up)))
        sources.pop(self._context.me, None)
        ref = BlobRef(body.root, body.size)
        self._context.emit(FetchSum(body.round, gathering.digest, body.shard, ref, tuple(sources)))

    def take(self, gathering: Gathering, event: Step) -> None:
        """The engine's answers."""
        match event:
            case PartsSummed(shard=shard, sum=ref):
                self._on_summed(gathering, shard, ref)
            case SumArrived(shard=shard, sum=ref):
                gathering.held.setdefault(shard, ref)
            case SumFailed(shard=shard, sum=ref):
                gathering.failed.add((shard, ref.root))
            case Checked(sums=sums, totals=totals, mine=mine):
                gathering.totals[sums], gathering.mine[sums] = totals, mine
            case Measured():
                self._on_measured(gathering, event)

    def retry(self, gathering: Gathering) -> None:
        """Ask again for sums that nobody delivered."""
        gathering.fetching -= gathering.failed
        gathering.failed.clear()

    def _on_summed(self, gathering: Gathering, shard: int, ref: BlobRef) -> None:
        """I know this sum now, whatever others claim; say so, and name who signed another."""
        gathering.summing.discard(shard)
        gathering.recounted.add(shard)
        gathering.held[shard] = ref
        for claim in gathering.claims[shard].values():
            self._hold_to(gathering, claim)
        if not any(signed.member == self._context.me for signed in gathering.claims[shard].values()):
            body = Sum(
                self._context.federation.id, self._state.round, gathering.digest, shard, ref.root, ref.size
            )
            signed = self._context.sign(body)
            self._context.persist(self._state.round, Said(signed))
            gathering.add_claim(signed)
            self._context.broadcast(signed)

    def _hold_to(self, gathering: Gathering, claim: Signed) -> None:
        """Compare a claimed sum with the one that I made myself."""
        assert isinstance(claim.body, Sum)
        shard = claim.body.shard
        if claim.body.root != gathering.held[shard].root:
            self._accuse(gathering, claim, "wrong sum", f"its sum of shard {shard} is not that of the shards")

    # --- fingerprints ---------------------------------------------------------------------------------------

    def take_signed(self, gathering: Gathering, signed: Signed) -> None:
        """Somebody's sum, or its fingerprint on all of them. Raises `Ignore` or `RemoteProtocolError`."""
        body = signed.body
        assert isinstance(body, Sum | Fingerprint)
        # [IGNORE] It is known
        if self._knows(gathering, signed):
            raise Ignore("already known")
        # [IGNORE] It is absurdly far ahead, and would only fill memory
        if isinstance(body, Fingerprint) and body.attempt > self._state.attempt + MAX_ATTEMPTS_AHEAD:
            raise Ignore("fingerprint too far ahead")
        # [REJECT] It is of this federation and round
        if (body.federation, body.round) != (self._context.federation.id, self._state.round):
            raise Reject(f"{type(body).__name__} of another federation or round")
        # [REJECT] It is well-formed
        if isinstance(body, Sum):
            check_sum(body, self._layout, len(gathering.crowds))
        else:
            check_fingerprint(body, self._layout, survives=signed.member in gathering.members)
        self._context.verifier.verify(signed)
        # [IGNORE] It contradicts what its member said before (the register spreads the evidence). Not so a sum: others
        # may have seen that one first, and hold it, while nobody can show me the one that I know of.
        if not self._context.note(signed) and not isinstance(body, Sum):
            raise Ignore("a second word, which is evidence only")
        if isinstance(body, Fingerprint):
            self._ballot.add_print(signed)
            return
        gathering.add_claim(signed)
        if body.shard in gathering.recounted:
            self._hold_to(gathering, signed)

    def _knows(self, gathering: Gathering, signed: Signed) -> bool:
        if isinstance(signed.body, Sum):
            claims = gathering.claims[signed.body.shard] if signed.body.shard < self._layout.shards else {}
            return claims.get(signed.body.root) == signed
        assert isinstance(signed.body, Fingerprint)
        return self._ballot.prints(gathering.digest, signed.body.sums).get(signed.member) == signed

    def _check(self, gathering: Gathering) -> None:
        """Take the fingerprints of the sums, and of my own shards."""
        sums, digest = gathering.sums, gathering.sums_digest
        if sums is None or digest is None or digest in gathering.checking:
            return
        gathering.checking.add(digest)
        exchange, me = gathering.exchange, self._context.me
        own = me in gathering.members and all(
            (me, shard) in exchange.parts for shard in range(exchange.shards)
        )
        mine = exchange.commitments[me] if own else None
        self._context.emit(Check(gathering.survivors, len(gathering.crowds), sums, digest, mine))

    def _sign(self, gathering: Gathering) -> None:
        """Rule 6: one fingerprint for each attempt, on sums that I hold and know nothing against."""
        context, state, sums = self._context, self._state, gathering.sums_digest
        if sums is None or sums not in gathering.totals:
            return
        if not self._ballot.may_print(state.attempt, gathering.digest, sums):
            return
        values = encode_values(gathering.mine[sums])
        body = Fingerprint(context.federation.id, state.round, state.attempt, gathering.digest, sums, values)
        signed = context.sign(body)
        context.persist(state.round, Said(signed))
        self._ballot.add_print(signed)
        context.broadcast(signed)
        self._attempts.start_timer("gather", context.pace.grace(state.elapsed))

    def _settle(self, gathering: Gathering) -> None:
        """Compare: every sum's fingerprint is the sum of its shards' fingerprints."""
        sums = gathering.sums_digest
        if sums is None or sums not in gathering.totals or gathering.verified == sums:
            return
        values = self._values(gathering, sums)
        self._measure_the_silent(gathering, sums, set(values))
        if set(values) != set(gathering.members):
            return
        wrong = [
            shard
            for shard, totals in enumerate(gathering.totals[sums])
            if not all(
                verify((values[member][shard] for member in crowd), total)
                for crowd, total in zip(gathering.crowds, totals, strict=True)
            )
        ]
        for shard in wrong:
            self._look_into(gathering, sums, shard)
        if not wrong:
            gathering.verified = sums

    def _values(self, gathering: Gathering, sums: Digest) -> dict[MemberId, tuple[Value, ...]]:
        """Every survivor's fingerprints: measured here, else as signed; without those who gave none."""
        known = {
            member: decode_values(signed.body.values)
            for member, signed in self._ballot.prints(gathering.digest, sums).items()
            if isinstance(signed.body, Fingerprint) and signed.body.values and member in gathering.members
        }
        for member in gathering.members:
            if measured := gathering.measured.get((sums, member)):
                merged = {**dict(enumerate(known.get(member, ()))), **measured}
                if len(merged) == self._layout.shards:
                    known[member] = tuple(merged[shard] for shard in range(self._layout.shards))
        return known

    def _measure_the_silent(self, gathering: Gathering, sums: Digest, known: set[MemberId]) -> None:
        """A survivor that died need not give its fingerprint: its shards, as committed to, are with the owners."""
        waiting = not self._attempts.is_over("gather")
        for member in set(gathering.members) - known:
            if member in self._context.down or not waiting:
                self._measure(gathering, sums, [(member, shard) for shard in range(self._layout.shards)])

    def _look_into(self, gathering: Gathering, sums: Digest, shard: int) -> None:
        """A sum does not fit: first sum the shard here; if the sum was right, a fingerprint was wrong."""
        if shard not in gathering.recounted:
            self._recount(gathering, shard)
            return
        self._measure(gathering, sums, [(member, shard) for member in gathering.members])

    def _on_measured(self, gathering: Gathering, event: Measured) -> None:
        """From now on these values count; who signed others is named."""
        prints = self._ballot.prints(gathering.digest, event.sums)
        for member, shard, value in event.values:
            gathering.measured[event.sums, member][shard] = value
            signed = prints.get(member)
            if signed is None or not isinstance(signed.body, Fingerprint) or not signed.body.values:
                continue
            if decode_values(signed.body.values)[shard] != value:
                reason = f"its fingerprint of its shard {shard} is not that of the shard it committed to"
                self._accuse(gathering, signed, "wrong fingerprint", reason)

    def _measure(self, gathering: Gathering, sums: Digest, parts: list[tuple[MemberId, int]]) -> None:
        exchange, refs = gathering.exchange, gathering.sums
        asked = {(sums, *part) for part in parts}
        if refs is None or asked <= gathering.measuring:
            return
        exchange.wanted.update(parts)
        if set(parts) <= exchange.parts:
            gathering.measuring |= asked
            wanted = tuple((exchange.commitments[member], shard) for member, shard in parts)
            self._context.emit(Measure(gathering.survivors, refs, sums, wanted))

    def _accuse(self, gathering: Gathering, signed: Signed, kind: str, reason: str) -> None:
        """Name a liar; if my fingerprint of this attempt is on its sum, only the next one can bring the right sums."""
        if signed.member in gathering.accused or signed.member == self._context.me:
            return
        gathering.accused.add(signed.member)
        self._context.emit(Accuse(signed.member, kind, reason, signed))
        if isinstance(signed.body, Sum) and self._state.attempt in self._ballot.my_prints:
            self._attempts.give_up()
