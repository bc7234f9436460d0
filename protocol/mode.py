"""Open or secure: what differs between the two in a round, and the open half.

Both share READY, rosters, attempts, proposals, votes and locks. They differ in what a member sends and holds, and in
what lies between the certificate and the new model.
"""

from collections import Counter
from typing import Protocol, TypeAlias

from folkmoot.protocol.context import Context
from folkmoot.protocol.effects import Aggregate, Fetch
from folkmoot.protocol.errors import Ignore
from folkmoot.protocol.events import (
    Aggregated,
    Checked,
    Encoded,
    FetchFailed,
    GatheringFailed,
    Measured,
    PartArrived,
    PartFailed,
    PartsSummed,
    PayloadArrived,
    SumArrived,
    SumFailed,
)
from folkmoot.protocol.exchange import Exchange
from folkmoot.protocol.journal import Entry
from folkmoot.protocol.messages import Commitment, Frame, Lock, Seeds, Shares, Signed, SurvivorSet, Unmasking
from folkmoot.protocol.round_state import RoundState
from folkmoot.protocol.types import Attempt, Digest, MemberId
from folkmoot.protocol.work import Work

Delivered: TypeAlias = (
    PayloadArrived
    | FetchFailed
    | PartArrived
    | PartFailed
    | PartsSummed
    | SumArrived
    | SumFailed
    | Checked
    | Measured
    | GatheringFailed
    | Aggregated
)
"""Answers of the engine about transfers and sums."""

SecureFrame: TypeAlias = Seeds | Shares
"""Frames of secure mode that are not signed; Share, Sum and Fingerprint come as `Signed`."""


class Mode(Protocol):
    """What a round asks of its mode."""

    def commit(self, event: Encoded, exchange: Exchange) -> Commitment:
        """What I say of the payload that now lies in the archive."""
        ...

    def committed(self, event: Encoded, exchange: Exchange) -> None:
        """My commitment stands (perhaps since before a restart): the rest that goes with it."""
        ...

    def fetch_missing(self, exchange: Exchange) -> None:
        """Pull what is mine to hold."""
        ...

    def retry(self) -> None:
        """Now and then: what failed otherwise than by `fetch_missing` may be asked for again."""
        ...

    def take(self, event: Delivered) -> None:
        """A transfer or a sum is done, or failed."""
        ...

    def take_frame(self, frame: Signed | SecureFrame) -> None:
        """A frame that only secure mode knows; raises `Ignore` or `RemoteProtocolError`."""
        ...

    def restore(self, entry: Entry) -> None:
        """Take back an entry of the journal that only secure mode knows."""
        ...

    def advance(self) -> None:
        """After the votes: take every step towards the sums, and after an opening towards the model."""
        ...

    def can_finish(self, survivors: SurvivorSet) -> bool:
        """Whether a certified set is worth another attempt: what its sums take can be had."""
        ...

    def suspects(self) -> Counter[MemberId]:
        """How many sets each member kept from their end in this round's earlier attempts: then it is left out."""
        ...

    def sums_to_lock(self, attempt: Attempt, survivors: Digest) -> Digest | None:
        """The sums that I may lock, once everything that finishing takes is here and checked."""
        ...

    def entries_of_lock(self, survivors: Digest) -> tuple[Entry, ...]:
        """What the journal must hold before that lock."""
        ...

    def is_proven(self, lock: Lock) -> bool:
        """Whether I hold all that a decided round's record has to show."""
        ...

    def unmasking(self, survivors: Digest) -> Unmasking | None:
        """What took the masks off; None in open mode."""
        ...

    def frames_to_repeat(self) -> list[Frame]:
        """What anybody who lost messages needs from me."""
        ...

    def frames_for(self, member: MemberId) -> list[Frame]:
        """What that member alone may see."""
        ...


class OpenMode:
    """Every member pulls every payload, and sums before it locks."""

    def __init__(self, context: Context, state: RoundState, work: Work) -> None:
        self._context = context
        self._state = state
        self._work = work

    def commit(self, event: Encoded, exchange: Exchange) -> Commitment:
        """Payload, size and content key."""
        return Commitment(
            federation=self._context.federation.id,
            round=self._state.round,
            roster=event.roster,
            member=self._context.me,
            root=event.payload.root,
            size=event.payload.size,
            key=event.key,
        )

    def committed(self, event: Encoded, exchange: Exchange) -> None:
        """I hold my own payload."""
        if self._context.me not in exchange.held:
            self._work.hold(exchange, self._context.me)

    def fetch_missing(self, exchange: Exchange) -> None:
        """Pull every payload that is committed to and not held: from its sender first, then from anyone.

        A roster is its members' affair until a quorum has voted on it. Then who stands outside must be able to finish
        the round too: its attestation may be the one that lacks (PROTOCOL section 3: keys come from any roster member).
        """
        if self._context.me not in exchange.members and not self._state.is_vouched(exchange.digest):
            return
        for member in sorted(set(exchange.commitments) - exchange.held - exchange.fetching):
            exchange.fetching.add(member)
            sources = (member, *(other for other in exchange.members if other != member))
            self._context.emit(Fetch(exchange.commitments[member], exchange.members, sources))

    def retry(self) -> None:
        """Nothing else can fail."""

    def take(self, event: Delivered) -> None:
        """A payload came or did not, or the sum is there."""
        match event:
            case PayloadArrived(roster=roster, commitment=commitment):
                self._on_fetched(roster, commitment, arrived=True)
            case FetchFailed(roster=roster, commitment=commitment):
                self._on_fetched(roster, commitment, arrived=False)
            case Aggregated(survivors=survivors, sums=sums, model=model):
                self._state.results[survivors] = (sums, model)
            case _:
                pass

    def _on_fetched(self, roster: Digest, commitment: Digest, arrived: bool) -> None:
        # What failed is tried again with the next announcement, or when a peer comes up.
        exchange = self._state.exchanges.get(roster)
        member = exchange.member_of(commitment) if exchange else None
        if exchange is not None and member is not None:
            exchange.fetching.discard(member)
            if arrived:
                self._work.hold(exchange, member)

    def take_frame(self, frame: Signed | SecureFrame) -> None:
        """There are none."""
        raise Ignore("a frame of secure mode")

    def restore(self, entry: Entry) -> None:
        """There is none."""

    def advance(self) -> None:
        """Sum what I voted for (while others' votes travel), and what is certified."""
        state = self._state
        certified = [digest for _, digest in state.ballot.certificates()]
        for digest in (*state.ballot.my_votes.values(), *certified):
            survivors = state.ballot.get_set(digest)
            if survivors is None or digest in state.aggregating or digest in state.results:
                continue
            if state.holds(survivors):
                state.aggregating.add(digest)
                exchange = state.exchanges[survivors.roster]
                commitments = exchange.commitments_of(survivors)
                self._context.emit(Aggregate(state.base, survivors, exchange.roster, commitments))

    def can_finish(self, survivors: SurvivorSet) -> bool:
        """I hold every payload."""
        return self._state.holds(survivors)

    def suspects(self) -> Counter[MemberId]:
        """Whoever holds a payload can finish with it."""
        return Counter()

    def sums_to_lock(self, attempt: Attempt, survivors: Digest) -> Digest | None:
        """The sums are what I computed myself."""
        result = self._state.results.get(survivors)
        return result[0] if result else None

    def entries_of_lock(self, survivors: Digest) -> tuple[Entry, ...]:
        """Nothing besides the lock itself."""
        return ()

    def is_proven(self, lock: Lock) -> bool:
        """Payloads and locks are all there is."""
        return True

    def unmasking(self, survivors: Digest) -> Unmasking | None:
        """There are no masks."""
        return None

    def frames_to_repeat(self) -> list[Frame]:
        """Nothing besides what both modes repeat."""
        return []

    def frames_for(self, member: MemberId) -> list[Frame]:
        """Everybody may see everything."""
        return []
