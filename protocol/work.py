"""What the engine has done for the round in work: training and encoding. And what to ask it for."""

from typing import TypeAlias

from folkmoot.protocol.attempts import Attempts
from folkmoot.protocol.context import Context
from folkmoot.protocol.effects import Encode, Fit
from folkmoot.protocol.events import Encoded, FitFailed, Trained, TransferProgress
from folkmoot.protocol.exchange import Exchange
from folkmoot.protocol.messages import Commitment
from folkmoot.protocol.round_state import RoundState
from folkmoot.protocol.types import Digest, MemberId

REFIT_DELAY = 10.0
"""Seconds after a failed training until it is tried again, if the round is still open."""

Done: TypeAlias = Trained | FitFailed | Encoded | TransferProgress
"""Events about my own update, and signs of life of a transfer."""


class Work:
    """Takes the engine's answers in. Signs nothing but receipts: whether this node may, `steps` knows."""

    def __init__(self, context: Context, state: RoundState, attempts: Attempts) -> None:
        self._context = context
        self._state = state
        self._attempts = attempts
        self._remaking: set[Digest] = set()

    def take(self, event: Done) -> None:
        """An answer that belongs to this round."""
        state = self._state
        match event:
            case Trained(base=base):
                if base == state.base.root:
                    state.trained, state.fit_failed = event, False
            case FitFailed(base=base, declines=declines):
                if base == state.base.root:
                    state.fit_failed, state.declines = True, declines
                    if not declines:
                        self._context.start_timer("refit", state.round, 0, REFIT_DELAY)
            case Encoded(roster=roster):
                self._remaking.discard(roster)
                state.encoded[roster] = event
            case TransferProgress():
                state.progress_at = self._context.now

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
            self.encode(exchange)

    def encode(self, exchange: Exchange) -> None:
        """Ask for my payload (secure mode: and for the secrets that go with it, which the journal does not hold).

        Never masked under a READY that I do not know: a journal that was put back would have me mask another update
        with the masks of the first.
        """
        shown = [ready for ready in exchange.roster.readies if ready.member == self._context.me]
        if not self._state.is_secure or shown == [self._state.ready]:
            self._context.emit(Encode(self._state.round, exchange.digest, exchange.members, exchange.roster))

    def remake(self, exchange: Exchange) -> None:
        """My payload, or a part of it, is gone from my disk: encode it again, to the same bytes."""
        if self._context.me in exchange.commitments and exchange.digest not in self._remaking:
            self._remaking.add(exchange.digest)
            self.encode(exchange)

    def on_wanted(self, root: Digest) -> None:
        """A peer asks for a blob that is not here: if I committed to it, it has to be."""
        for exchange in self._state.exchanges.values():
            mine = exchange.commitments.get(self._context.me)
            body = mine.body if mine else None
            if isinstance(body, Commitment) and root in (body.root, *body.shards):
                self.remake(exchange)

    def hold(self, exchange: Exchange, member: MemberId) -> None:
        """A payload (or my part of it) is here: tell the proposer, or, if I am it, see whether a quorum is."""
        state = self._state
        state.progress_at = self._context.now
        exchange.held.add(member)
        if exchange.attempt != state.attempt or self._context.me not in exchange.members:
            return
        if not state.i_propose:
            if self._is_worth_a_receipt(exchange):
                self._context.send(state.proposer, self._context.sign(exchange.receipt()))
        elif len(exchange.held) == state.quorum < len(exchange.members):
            self._attempts.wait_for_payloads(set(exchange.members) - exchange.held - self._context.down)

    def _is_worth_a_receipt(self, exchange: Exchange) -> bool:
        """Not before a quorum's payloads are here, then each time half as many are missing.

        A receipt for every payload would be n^2 digests from each of n members. Announcements repeat the newest one.
        """
        missing = len(exchange.members) - len(exchange.held)
        return len(exchange.held) >= self._state.quorum and missing & (missing - 1) == 0

    def on_served(self, root: Digest, member: MemberId) -> None:
        """A peer has a payload from me."""
        for exchange in self._state.exchanges.values():
            exchange.add_forwarded(root, member)
