"""What one node knows and has said in the round in work. The rules that change it are in the files around:

`attempts` (time-outs), `intake` (what others say), `work` (what the engine has done), `steps` (what to say next).
"""

from folkmoot.protocol.ballot import Ballot
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.context import Context
from folkmoot.protocol.events import Encoded, Trained
from folkmoot.protocol.exchange import Exchange
from folkmoot.protocol.messages import Certificate, Propose, Signed, SurvivorSet
from folkmoot.protocol.secure.ballot import FingerprintBallot
from folkmoot.protocol.secure.exchange import MaskedExchange
from folkmoot.protocol.types import Attempt, Digest, MemberId, Round
from folkmoot.protocol.validation import View


class RoundState:
    """Shared by the parts of one `CurrentRound`; holds no rules."""

    def __init__(self, context: Context, round_: Round, base: BlobRef, previous: Digest) -> None:
        self.context = context
        self.groups = context.federation.groups(round_)
        self.quorum = self.groups.quorum
        self.round = round_
        self.base = base
        self.previous = previous
        self.began = context.now
        self.attempt: Attempt = 0
        self.is_secure = context.charter.is_secure
        self.ballot = (FingerprintBallot if self.is_secure else Ballot)(context.me, self.groups)
        # READY
        self.trained: Trained | None = None
        self.fit_failed = False
        self.declines = ""
        self.ready: Signed | None = None
        self.readies: dict[MemberId, Signed] = {}
        self.declined: dict[MemberId, Signed] = {}
        # Rosters and their payloads
        self.exchanges: dict[Digest, Exchange] = {}
        self.encoded: dict[Digest, Encoded] = {}
        self._exchange_of: dict[Attempt, Exchange] = {}
        # Survivor sets: proposed, being summed, summed (sums digest and model)
        self.proposals: dict[Attempt, Propose] = {}
        self.aggregating: set[Digest] = set()
        self.results: dict[Digest, tuple[Digest, BlobRef]] = {}
        # Times
        self.quorum_ready_at: float | None = None
        self.attempt_began: float | None = None
        self.progress_at = context.now
        self.timed_out: set[Attempt] = set()
        self._order = context.federation.proposers(round_, base.root)

    @property
    def view(self) -> View:
        """What validation needs to know."""
        context = self.context
        return View(
            context.federation, context.verifier, self.round, self.base.root, self.previous, self.attempt
        )

    def proposer_of(self, attempt: Attempt) -> MemberId:
        """Who names the roster and proposes in that attempt."""
        return self._order[attempt % len(self._order)]

    @property
    def proposer(self) -> MemberId:
        """Who proposes in this attempt."""
        return self.proposer_of(self.attempt)

    @property
    def i_propose(self) -> bool:
        """Whether it is my turn."""
        return self.proposer == self.context.me

    @property
    def absent(self) -> set[MemberId]:
        """Whose READY nobody need wait for: they are away, or said that they take no part."""
        return self.context.down | (self.declined.keys() - self.readies.keys())

    @property
    def exchange(self) -> Exchange | None:
        """The exchange of this attempt's own roster."""
        return self._exchange_of.get(self.attempt)

    @property
    def proposal(self) -> Propose | None:
        """This attempt's proposal."""
        return self.proposals.get(self.attempt)

    def add_exchange(self, signed: Signed) -> Exchange:
        """A roster was accepted; it shows the READYs of its members."""
        exchange = self._make_exchange(signed)
        self.exchanges[exchange.digest] = exchange
        self._exchange_of.setdefault(exchange.attempt, exchange)
        for ready in exchange.roster.readies:
            self.readies.setdefault(ready.member, ready)
        return exchange

    def _make_exchange(self, signed: Signed) -> Exchange:
        me = self.context.me
        if self.is_secure:
            return MaskedExchange(me, signed, self._order, self.context.federation)
        return Exchange(me, signed)

    def add_proposal(self, attempt: Attempt, frame: Propose) -> None:
        """A proposal was accepted, or made."""
        self.proposals[attempt] = frame
        self.ballot.add_set(frame.survivors)

    def count_certificate(self, certificate: Certificate) -> None:
        """Count the votes of a verified certificate, and note who voted otherwise elsewhere."""
        self.ballot.add_set(certificate.survivors)
        for vote in certificate.votes:
            self.context.note(vote)
            self.ballot.add_vote(vote)

    def holds(self, survivors: SurvivorSet) -> bool:
        """Whether I hold every payload of the set."""
        exchange = self.exchanges.get(survivors.roster)
        return exchange is not None and exchange.holds(survivors)

    def highest_certificate(self) -> Certificate | None:
        """Of the highest attempt."""
        return next(iter(self.certificates()), None)

    def certificates(self) -> list[Certificate]:
        """All that are known here with their sets, those of the highest attempt first."""
        shown = [self.ballot.certificate(*key) for key in self.ballot.certificates()]
        return [one for one in shown if one is not None]

    def is_vouched(self, roster: Digest) -> bool:
        """Whether a quorum voted for, or opened, a survivor set of this roster."""
        return any(survivors.roster == roster for survivors in self._agreed_sets())

    def is_certified_payload(self, roster: Digest, commitment: Digest) -> bool:
        """Whether such a set names this commitment."""
        return any(
            survivor.commitment == commitment
            for survivors in self._agreed_sets()
            if survivors.roster == roster
            for survivor in survivors.survivors
        )

    def _agreed_sets(self) -> list[SurvivorSet]:
        opening = self.ballot.opening()
        return [one.survivors for one in (*self.certificates(), opening) if one is not None]

    @property
    def elapsed(self) -> float:
        """Seconds that this attempt's exchange and ballot took so far; 0 before they began."""
        now = self.context.now
        return now - (now if self.attempt_began is None else self.attempt_began)
