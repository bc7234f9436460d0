"""Secure mode: from READY to the new model without anybody seeing a single update. PROTOCOL sections 2 and 4.

1. Exchange. Every member masks its update (with each pair seed, and a self-mask of its own), cuts it into shards, and
   deals shares of the self-mask's secret. Owners pull their shards.
2. Certificate. A quorum's votes fix who survives: only then leave the pair seeds of those left out, and every owner
   sums its shard of the survivors.
3. Gather. Everybody pulls all sums and checks them by fingerprint; a quorum's fingerprints name them.
4. Lock, and on the opening: only then leave the shares of the survivors' self-masks, and everybody takes the masks off.

Never both kinds for one member of one roster: who has a member's pair seeds and its self-mask reads its update.
"""

from collections import Counter

from folkmoot.protocol.attempts import Attempts
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.context import Context
from folkmoot.protocol.effects import Accuse, Blame, FetchPart, Unmask
from folkmoot.protocol.errors import Ignore, Reject, RemoteProtocolError
from folkmoot.protocol.events import (
    Aggregated,
    Checked,
    Encoded,
    GatheringFailed,
    Measured,
    PartArrived,
    PartFailed,
    PartsSummed,
    SumArrived,
    SumFailed,
)
from folkmoot.protocol.exchange import Exchange
from folkmoot.protocol.journal import Entry, Gathered, Released, Said, ShareTaken
from folkmoot.protocol.messages import (
    Commitment,
    Evidence,
    Fingerprint,
    Frame,
    Lock,
    Roster,
    Seeds,
    Share,
    Shares,
    Signed,
    Sum,
    SurvivorSet,
    Unmasking,
)
from folkmoot.protocol.mode import Delivered, SecureFrame
from folkmoot.protocol.round_state import RoundState
from folkmoot.protocol.secure.ballot import FingerprintBallot
from folkmoot.protocol.secure.dealing import (
    is_good_share,
    open_crowds,
    verify_seeds,
    verify_shares,
)
from folkmoot.protocol.secure.exchange import MaskedExchange
from folkmoot.protocol.secure.gathering import Gathering
from folkmoot.protocol.secure.masks import Crowd
from folkmoot.protocol.secure.summing import Summing
from folkmoot.protocol.types import Attempt, Digest, MemberId
from folkmoot.protocol.waiting import Waiting
from folkmoot.protocol.work import Work


class SecureMode:
    """One node's masks in one round: what it deals, releases and takes off."""

    def __init__(self, context: Context, state: RoundState, attempts: Attempts, work: Work) -> None:
        assert isinstance(state.ballot, FingerprintBallot)
        self._context = context
        self._state = state
        self._work = work
        self._ballot = state.ballot
        self._gatherings: dict[Digest, Gathering] = {}
        self._released: dict[Digest, Digest] = {}
        self._shares_released: set[Digest] = set()
        self._early = Waiting()
        self._known: set[Digest] = set()
        self._summing = Summing(context, state, attempts, self._ballot)

    # --- my payload -----------------------------------------------------------------------------------------

    def commit(self, event: Encoded, exchange: Exchange) -> Commitment:
        """The roots of my masked shards, and what binds me to masks and shares."""
        return Commitment(
            federation=self._context.federation.id,
            round=self._state.round,
            roster=event.roster,
            member=self._context.me,
            root=event.payload.root,
            size=event.payload.size,
            key=event.key,
            shards=event.shards,
            shares=event.shares,
            seeds=event.seeds,
        )

    def committed(self, event: Encoded, exchange: Exchange) -> None:
        """Deal the shares. If, after a restart, the update gives other bytes, stay silent for this roster."""
        assert isinstance(exchange, MaskedExchange)
        me = self._context.me
        if self.commit(event, exchange) != exchange.commitment_of(me):
            return
        exchange.secrets = event
        exchange.parts.update((me, shard) for shard in range(exchange.shards))
        for member in exchange.circle:
            if member != me:
                self._context.send(member, self._share_for(exchange, member))
        if me not in exchange.shares:
            self._take_share(self._share_for(exchange, me))
        self._hold_if_complete(exchange, me)

    def _share_for(self, exchange: MaskedExchange, member: MemberId) -> Signed:
        assert exchange.secrets is not None
        value = exchange.secrets.dealt[exchange.place(member)]
        return self._context.sign(Share(self._state.round, exchange.digest, member, value))

    # --- what is mine to hold -------------------------------------------------------------------------------

    def fetch_missing(self, exchange: Exchange) -> None:
        """Pull my shards (and those that I want beside) from their senders, or whoever has them."""
        assert isinstance(exchange, MaskedExchange)
        for member, shard in exchange.missing_parts():
            exchange.asked.add((member, shard))
            others = (exchange.owner(shard), *exchange.order)
            sources = dict.fromkeys((member, *others))
            sources.pop(self._context.me, None)
            self._context.emit(FetchPart(exchange.commitments[member], shard, tuple(sources)))

    def retry(self) -> None:
        """What nobody delivered is asked for again."""
        for exchange in self._state.exchanges.values():
            assert isinstance(exchange, MaskedExchange)
            exchange.retry()
        for gathering in self._gatherings.values():
            if gathering.failed_here:
                gathering.begin_anew()
            self._summing.retry(gathering)

    def take(self, event: Delivered) -> None:
        """Something came, or was computed."""
        match event:
            case PartArrived(roster=roster, commitment=commitment, shard=shard):
                self._on_part(roster, commitment, shard, arrived=True)
            case PartFailed(roster=roster, commitment=commitment, shard=shard):
                self._on_part(roster, commitment, shard, arrived=False)
            case PartsSummed() | SumArrived() | SumFailed() | Checked() | Measured():
                if (gathering := self._gatherings.get(event.survivors)) is not None:
                    self._state.progress_at = self._context.now
                    self._summing.take(gathering, event)
            case GatheringFailed(survivors=survivors):
                if survivors in self._gatherings:
                    self._gatherings[survivors].failed_here = True
                    self._work.remake(self._gatherings[survivors].exchange)
            case Aggregated(survivors=survivors, sums=sums, model=model):
                self._state.results[survivors] = (sums, model)
            case _:
                pass

    def _on_part(self, roster: Digest, commitment: Digest, shard: int, arrived: bool) -> None:
        exchange = self._state.exchanges.get(roster)
        member = exchange.member_of(commitment) if exchange else None
        if not isinstance(exchange, MaskedExchange) or member is None:
            return
        if not arrived:  # tried again with the next announcement, or when a peer comes up
            exchange.failed.add((member, shard))
            return
        self._state.progress_at = self._context.now
        exchange.parts.add((member, shard))
        self._hold_if_complete(exchange, member)

    def _hold_if_complete(self, exchange: MaskedExchange, member: MemberId) -> None:
        if member not in exchange.held and exchange.is_complete(member):
            self._work.hold(exchange, member)

    # --- frames ---------------------------------------------------------------------------------------------

    def take_frame(self, frame: Signed | SecureFrame) -> None:
        """A share for me, or, of a set that is known here, a sum, a fingerprint, seeds or released shares."""
        match frame:
            case Signed(body=Share()):
                self._take_share(frame)
            case Signed(body=Sum() | Fingerprint() as body):
                gathering = self._gathering_for(body.survivors, frame)
                self._summing.take_signed(gathering, frame)
            case Seeds(survivors=survivors):
                self._take_seeds(self._gathering_for(survivors, frame), frame)
            case Shares(survivors=survivors):
                self._take_shares(self._gathering_for(survivors, frame), frame)
            case _:
                raise Ignore("nothing that secure mode waits for")

    def _gathering_for(self, survivors: Digest, frame: Signed | SecureFrame) -> Gathering:
        """Raises `Ignore` if the set, its roster or a commitment is not known yet; the frame is kept until then."""
        gathering = self._gathering(survivors)
        if gathering is None:
            self._early.keep(frame.member, frame)
            raise Ignore("of a survivor set that is not known here")
        return gathering

    def _gathering(self, digest: Digest) -> Gathering | None:
        survivors = self._ballot.get_set(digest)
        exchange = self._state.exchanges.get(survivors.roster) if survivors else None
        if survivors is None or not isinstance(exchange, MaskedExchange):
            return None
        if not exchange.knows(survivors):
            return None
        if digest not in self._gatherings:
            self._gatherings[digest] = Gathering(survivors, exchange)
        return self._gatherings[digest]

    def _take_share(self, signed: Signed) -> None:
        body = signed.body
        assert isinstance(body, Share)
        # [REJECT] It is for me
        if body.recipient != self._context.me:
            raise Reject(f"share for member {body.recipient}")
        exchange = self._state.exchanges.get(body.roster)
        # [IGNORE] I know what its dealer committed to (else it is kept until I do), and lack it
        if not isinstance(exchange, MaskedExchange) or signed.member not in exchange.commitments:
            self._early.keep(signed.member, signed)
            raise Ignore("share of a commitment that is not known here")
        if signed.member in exchange.shares:
            raise Ignore("share already known")
        self._context.verifier.verify(signed)
        # [REJECT] It lies on the polynomial that was committed to
        if not is_good_share(exchange.commitment_of(signed.member), body.recipient, body.value):
            evidence = Evidence(exchange.commitments[signed.member], signed)
            self._context.accuse(signed.member, evidence)
            self._context.emit(
                Accuse(signed.member, "bad share", "its share does not fit its commitment", signed)
            )
            raise Reject("share that does not fit its dealer's commitment")
        self._context.persist(self._state.round, ShareTaken(signed))
        exchange.shares[signed.member] = signed
        self._hold_if_complete(exchange, signed.member)

    def _take_seeds(self, gathering: Gathering, seeds: Seeds) -> None:
        # [IGNORE] They are known
        if seeds.member in gathering.seeds:
            raise Ignore("seeds already known")
        # [REJECT] They come from a survivor, and somebody was left out
        if not gathering.left_out.get(seeds.member):
            raise Reject("seeds of a member that does not survive, or though nobody was left out")
        exchange = gathering.exchange
        commitment = exchange.commitment_of(seeds.member)
        verify_seeds(seeds, exchange.circles, commitment, gathering.survivors)
        gathering.seeds[seeds.member] = seeds

    def _take_shares(self, gathering: Gathering, shares: Shares) -> None:
        # [REJECT] They come from a roster member
        if shares.member not in gathering.exchange.members:
            raise Reject("shares of a member that is not in the roster")
        # [IGNORE] They are known. One by one: a dealer knows its share of everybody's, and could send it in their names
        news = gathering.new_shares(shares)
        if not news.shares:
            raise Ignore("shares already known")
        dealers = {one: gathering.exchange.commitment_of(one) for one in gathering.members}
        verify_shares(news, gathering.exchange.circles, dealers)
        gathering.add_shares(news)

    # --- steps ----------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Take in what was early, gather what is certified, and open what is decided."""
        self._take_early()
        opening = self._ballot.opening()
        decided = opening.survivors.digest if opening else None
        certified = [digest for _, digest in self._ballot.certificates()]
        for digest in dict.fromkeys((*certified, *filter(None, [decided]))):
            gathering = self._gathering(digest)
            if gathering is None:
                continue
            self._release_seeds(gathering)
            self._summing.advance(gathering)
            self.fetch_missing(gathering.exchange)
            if opening is not None and digest == decided:
                lock = opening.locks[0].body
                assert isinstance(lock, Lock)
                self._release_shares(gathering)
                self._unmask(gathering, lock.sums)

    def _take_early(self) -> None:
        """Frames that waited for a roster, a commitment or a set: once there is a new one."""
        if not self._early:
            return
        known = set(self._ballot.known_sets())
        for exchange in self._state.exchanges.values():
            known.update(exchange.commitment_digest(member) for member in exchange.commitments)
        if known == self._known:
            return
        self._known = known
        for _, frame in self._early.take():
            assert isinstance(frame, Signed | Seeds | Shares)
            try:
                self.take_frame(frame)
            except Ignore:
                continue  # perhaps kept again
            except RemoteProtocolError as error:  # who brought it is not known any more
                self._context.emit(Blame(None, type(frame).__name__.lower(), str(error)))

    def _may_release(self, gathering: Gathering) -> bool:
        """One set for each roster, ever, and a crowd to hide in; checked here whatever the ballot says."""
        is_crowd = self._state.groups.can_survive(gathering.members)
        return is_crowd and self._released.get(gathering.exchange.digest) in (None, gathering.digest)

    def _release(self, gathering: Gathering, frame: Seeds | Shares) -> None:
        self._released[gathering.exchange.digest] = gathering.digest
        self._context.persist(self._state.round, Released(gathering.exchange.digest, frame))
        self._context.broadcast(frame)

    def _release_seeds(self, gathering: Gathering) -> None:
        """Against the certificate: my pair seeds with those left out, if I survive."""
        me, secrets = self._context.me, gathering.exchange.secrets
        due = me in gathering.seedless
        if not due or secrets is None or not self._may_release(gathering):
            return
        place = gathering.exchange.place
        seeds = tuple((member, secrets.pair_seeds[place(member)]) for member in gathering.left_out[me])
        frame = Seeds(self._state.round, gathering.digest, me, seeds)
        self._release(gathering, frame)
        gathering.seeds[me] = frame

    def _release_shares(self, gathering: Gathering) -> None:
        """Against the opening: my shares of the survivors' self-masks."""
        me, exchange = self._context.me, gathering.exchange
        if gathering.digest in self._shares_released or not self._may_release(gathering):
            return
        shares = tuple(
            (member, share)
            for member in gathering.members
            if (share := exchange.share_of(member)) is not None
        )
        if me in exchange.members and shares:
            frame = Shares(self._state.round, gathering.digest, me, shares)
            self._release(gathering, frame)
            self._shares_released.add(gathering.digest)
            gathering.add_shares(frame)

    def _unmask(self, gathering: Gathering, sums: Digest) -> None:
        """With enough shares of everybody: take the masks off."""
        if gathering.unmasking or gathering.sums_digest != sums or not gathering.has_seeds:
            return
        crowds = self._crowds(gathering)
        refs = gathering.sums
        if crowds is None or refs is None:
            return
        gathering.unmasking = True
        base: BlobRef = self._state.base
        roster: Roster = gathering.exchange.roster
        self._context.emit(Unmask(base, gathering.survivors, roster, refs, sums, crowds))

    def _crowds(self, gathering: Gathering) -> tuple[Crowd, ...] | None:
        circles = gathering.exchange.circles
        shares = {member: gathering.shares_of(member) for member in gathering.members}
        if any(len(of) < circles.group(member).threshold for member, of in shares.items()):
            return None
        return open_crowds(circles, gathering.survivors, shares, gathering.seeds.values())

    def can_finish(self, survivors: SurvivorSet) -> bool:
        """I hold all sums and seeds, and no fingerprint is lost with its member."""
        gathering = self._gathering(survivors.digest)
        return gathering is not None and gathering.has_seeds and self._summing.can_finish(gathering)

    def suspects(self) -> Counter[MemberId]:
        """Who kept certified sets from their end until an attempt's time was over here.

        What was given up before, over a death or a lie, left the others no time to be heard.
        """
        latest = max(self._state.timed_out, default=-1)
        failed = [one for one in self._gatherings.values() if one.exchange.attempt <= latest]
        return Counter(member for gathering in failed for member in self._summing.suspects(gathering))

    # --- lock and record ------------------------------------------------------------------------------------

    def sums_to_lock(self, attempt: Attempt, survivors: Digest) -> Digest | None:
        """The sums that I checked, if a quorum gave its fingerprints on them in that attempt."""
        gathering = self._gatherings.get(survivors)
        if gathering is None or gathering.verified is None or not gathering.has_seeds:
            return None
        sums = gathering.verified
        if sums != gathering.sums_digest or not self._ballot.is_printed(attempt, survivors, sums):
            return None
        return sums

    def entries_of_lock(self, survivors: Digest) -> tuple[Entry, ...]:
        """The sums, with their owners' signatures, fingerprints and seeds."""
        unmasking = self.unmasking(survivors)
        return () if unmasking is None else (Gathered(self._state.round, survivors, unmasking),)

    def unmasking(self, survivors: Digest) -> Unmasking | None:
        """What takes the masks off, as far as it is known."""
        gathering = self._gatherings.get(survivors)
        sums = gathering.sums_digest if gathering else None
        if gathering is None or sums is None:
            return None
        prints = self._prints(survivors, sums)
        return Unmasking(
            sums=gathering.signed_sums,
            fingerprints=tuple(prints[member] for member in sorted(prints)),
            seeds=tuple(gathering.seeds[member] for member in sorted(gathering.seeds)),
            shares=tuple(gathering.shares[member] for member in sorted(gathering.shares)),
        )

    def _prints(self, survivors: Digest, sums: Digest) -> dict[MemberId, Signed]:
        """Everybody's fingerprints: once it is decided, first those of that attempt, on which its locks rest."""
        opening = self._ballot.opening()
        lock = opening.locks[0].body if opening else None
        return self._ballot.prints(survivors, sums, lock.attempt if isinstance(lock, Lock) else None)

    def is_proven(self, lock: Lock) -> bool:
        """Whether I can show the fingerprints on which a decision rests: else my record would lack them."""
        return self._ballot.is_printed(lock.attempt, lock.survivors, lock.sums)

    # --- restart and repetition -----------------------------------------------------------------------------

    def restore(self, entry: Entry) -> None:
        """Shares that came, sums and fingerprints that I signed, and what I released."""
        match entry:
            case ShareTaken(share=Signed(body=Share(roster=roster)) as share):
                exchange = self._state.exchanges.get(roster)
                if isinstance(exchange, MaskedExchange):
                    exchange.shares[share.member] = share
            case Said(signed=Signed(body=Fingerprint()) as signed):
                self._ballot.add_print(signed)
            case Said(signed=Signed(body=Sum(survivors=survivors)) as signed):
                if (gathering := self._gathering(survivors)) is not None:
                    gathering.add_claim(signed)
            case Gathered(survivors=survivors, unmasking=unmasking):
                self._restore_gathered(survivors, unmasking)
            case Released(roster=roster, frame=frame):
                self._released[roster] = frame.survivors
                if isinstance(frame, Shares):
                    self._shares_released.add(frame.survivors)
                self._restore_released(frame)
            case _:
                pass

    def _restore_gathered(self, survivors: Digest, unmasking: Unmasking) -> None:
        if (gathering := self._gathering(survivors)) is None:
            return
        for signed in unmasking.sums:
            gathering.add_claim(signed)
        for signed in unmasking.fingerprints:
            self._ballot.add_print(signed)
        gathering.seeds.update({seeds.member: seeds for seeds in unmasking.seeds})

    def _restore_released(self, frame: Seeds | Shares) -> None:
        if (gathering := self._gathering(frame.survivors)) is None:
            return
        if isinstance(frame, Seeds):
            gathering.seeds[frame.member] = frame
        else:
            gathering.add_shares(frame)

    def frames_to_repeat(self) -> list[Frame]:
        """Of every set: the sums that are claimed, all fingerprints on mine, and what was released."""
        frames: list[Frame] = []
        for gathering in self._gatherings.values():
            sums = gathering.sums_digest
            prints = self._prints(gathering.digest, sums) if sums else {}
            frames.extend(signed for claims in gathering.claims for signed in claims.values())
            frames.extend(prints.values())
            frames.extend(gathering.seeds.values())
            frames.extend(gathering.shares.values())
        return frames

    def frames_for(self, member: MemberId) -> list[Frame]:
        """Its shares of my self-masks."""
        exchanges = (one for one in self._state.exchanges.values() if isinstance(one, MaskedExchange))
        return [
            self._share_for(exchange, member)
            for exchange in exchanges
            if exchange.secrets is not None and member in exchange.circle
        ]
