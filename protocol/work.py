"""What the engine has done for the round in work: training, encoding, transfers, sums. And what to ask it for."""

from typing import TypeAlias

from folkmoot.protocol.attempts import Attempts
from folkmoot.protocol.context import Context
from folkmoot.protocol.effects import Encode, Fetch, Fit
from folkmoot.protocol.events import (
    Aggregated,
    Encoded,
    FetchFailed,
    FitFailed,
    PayloadArrived,
    Trained,
    TransferProgress,
)
from folkmoot.protocol.exchange import Exchange
from folkmoot.protocol.round_state import RoundState
from folkmoot.protocol.types import Digest, MemberId

REFIT_DELAY = 10.0
"""Seconds after a failed training until it is tried again, if the round is still open."""

Answer: TypeAlias = (
    Trained | FitFailed | Encoded | PayloadArrived | FetchFailed | TransferProgress | Aggregated
)
"""Events that answer an effect of one round."""


class Work:
    """Takes the engine's answers in. Signs nothing but receipts: whether this node may, `steps` knows."""

    def __init__(self, context: Context, state: RoundState, attempts: Attempts) -> None:
        self._context = context
        self._state = state
        self._attempts = attempts

    def take(self, event: Answer) -> None:
        """An answer that belongs to this round."""
        state = self._state
        match event:
            case Trained(base=base):
                if base == state.base.root:
                    state.trained, state.fit_failed = event, False
            case FitFailed(base=base):
                if base == state.base.root:
                    state.fit_failed = True
                    self._context.start_timer("refit", state.round, 0, REFIT_DELAY)
            case Encoded(roster=roster):
                state.encoded[roster] = event
            case PayloadArrived(roster=roster, commitment=commitment):
                self._on_fetched(roster, commitment, arrived=True)
            case FetchFailed(roster=roster, commitment=commitment):
                self._on_fetched(roster, commitment, arrived=False)
            case TransferProgress():
                state.progress_at = self._context.now
            case Aggregated(survivors=survivors, sums=sums, model=model):
                state.results[survivors] = (sums, model)

    # --- training -------------------------------------------------------------------------------------------

    def fit(self) -> None:
        """Ask for the round's update."""
        if self._state.ready is None and self._state.trained is None:
            self._context.emit(Fit(self._state.round, self._state.base))

    # --- payloads -------------------------------------------------------------------------------------------

    def encode_if_due(self, exchange: Exchange) -> None:
        """Ask for my payload, unless I am not in the roster or have committed to it already."""
        me = self._context.me
        if me in exchange.members and me not in exchange.commitments:
            self._context.emit(Encode(self._state.round, exchange.digest, exchange.members))

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

    def fetch_all_missing(self) -> None:
        """The same for every roster of the round: a failed fetch is tried again."""
        for exchange in self._state.exchanges.values():
            self.fetch_missing(exchange)

    def _on_fetched(self, roster: Digest, commitment: Digest, arrived: bool) -> None:
        # What failed is tried again with the next announcement, or when a peer comes up.
        exchange = self._state.exchanges.get(roster)
        member = exchange.member_of(commitment) if exchange else None
        if exchange is not None and member is not None:
            exchange.fetching.discard(member)
            if arrived:
                self.hold(exchange, member)

    def hold(self, exchange: Exchange, member: MemberId) -> None:
        """A payload is here and could be opened: tell the proposer, or, if I am it, see whether a quorum is."""
        state = self._state
        state.progress_at = self._context.now
        exchange.held.add(member)
        if exchange.attempt != state.attempt or self._context.me not in exchange.members:
            return
        if not state.i_propose:
            self._context.send(state.proposer, self._context.sign(exchange.receipt()))
        elif len(exchange.held) == state.quorum < len(exchange.members):
            grace = self._context.pace.grace(state.elapsed)
            self._attempts.start_timer("exchange", grace)

    def on_served(self, root: Digest, member: MemberId) -> None:
        """A peer has a payload from me."""
        for exchange in self._state.exchanges.values():
            exchange.add_forwarded(root, member)
