"""Before anything is signed after a start: ask Q-1 peers what they hold that I signed.

PROTOCOL section 2, rule 10: a journal that was rolled back (a restored disk, a copied machine) would make an honest
member sign two different things. If peers show a signature that the journal lacks, or if it is a new one in place of a
lost one, the node sits out.

How long depends on how far the others are, and what they say of that is not signed. So a claim counts only if it is
shown, to within `max_ahead` rounds (nobody honest is further ahead of what is final): by an attested statement, by a
signature of my own, or by f+1 members who claim no less, of whom one is honest. Who claims more is taken for silent
until then. The ledger's word does not count: one RPC that lies would do as much as a liar.
"""

from folkmoot.protocol.certificates import verify_final
from folkmoot.protocol.context import Context
from folkmoot.protocol.equivocation import compute_slot
from folkmoot.protocol.errors import Ignore, Reject
from folkmoot.protocol.journal import Began, Entry, own_signed
from folkmoot.protocol.messages import MAX_FRAME, Body, Final, Frame, Recalled, Signed, encode, round_of
from folkmoot.protocol.types import MemberId, Round
from folkmoot.protocol.waiting import Waiting

SIT_OUT = 2
"""Rounds beyond the highest decided one that a node sits out when its journal lacks a signature of its own: of the
members that decided the round before its last, one at least answers, and that one may still be a round behind."""

SHOWN = 64
"""Signatures shown in one answer, the latest ones."""


class RecallGate:
    """Holds frames back until enough peers have answered."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._said: set[bytes] = set()
        self._journal_from: Round = 0  # what was signed before it may have been pruned
        self._claims: dict[MemberId, Round] = {}
        self._shown: Round = 0
        self._kept = Waiting()
        self.is_journal_new = False
        """Whether an earlier journal was lost: then nothing that is shown is needed to sit out."""
        self.unknown: Signed | None = None
        """Something that I signed, and that the journal lacks."""

    # --- what the journal knows -----------------------------------------------------------------------------

    def remember(self, entry: Entry) -> None:
        """The journal holds this."""
        if isinstance(entry, Began):
            self._journal_from = min(self._journal_from or entry.round, entry.round)
        signed = own_signed(entry)
        if signed is not None and signed.member == self._context.me:
            self._said.add(_body_key(signed.body))

    # --- what peers know ------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether enough peers have answered, and have shown that they are as far as they say."""
        return len(self._credible) >= self._needed

    @property
    def _needed(self) -> int:
        """Q-1; of three members both others where a journal was lost, for one of them may know nothing of me."""
        charter = self._context.charter
        others, quorum = len(charter.members) - 1, charter.quorum
        return min(others, max(quorum - 1, others - quorum + 2)) if self.is_journal_new else quorum - 1

    @property
    def highest(self) -> Round:
        """The highest decided round, as far as it was shown or may be believed."""
        return max([self._shown, *self._credible])

    @property
    def _credible(self) -> list[Round]:
        claims, charter = sorted(self._claims.values(), reverse=True), self._context.charter
        certain = claims[charter.faults :][:1]  # somebody honest says so, or more
        bound = max([self._shown, *certain]) + charter.schedule.max_ahead
        return [round_ for round_ in claims if round_ <= bound]

    def show(self, round_: Round) -> None:
        """It is certain that this round was decided."""
        self._shown = max(self._shown, round_)

    def on_final(self, final: Final) -> None:
        """A peer shows a decided round; raises `RemoteProtocolError` if it does not hold."""
        round_ = round_of(final)
        rule = self._context.terms.at(round_).rule
        if round_ > self._shown and rule is not None:
            verify_final(final, rule.federation, rule.verifier)
            self.show(round_)

    def on_recalled(self, sender: MemberId, frame: Recalled) -> None:
        """A peer's answer; raises `Reject` if it shows signatures that are not mine."""
        for signed in frame.signed:
            rule = self._context.terms.at(signed.body.round).rule
            # [IGNORE] I cannot know yet who signed in that round (a peer may be in a later term)
            if rule is None:
                raise Ignore("recalled a signature of a round whose charter is not here")
            # [REJECT] It shows what I signed, and I did sign it
            if signed.member != rule.me:
                raise Reject("recalled somebody else's signature")
            rule.verifier.verify(signed)
            self.show(signed.body.round - 1)  # I had it behind me
            if self._is_unknown(signed.body):
                self.unknown = signed
        self._claims[sender] = frame.round

    def _is_unknown(self, body: Body) -> bool:
        # Receipts and the like are not journalled: a member may say them again in other words.
        must_be_journalled = compute_slot(body) is not None and body.round >= self._journal_from
        return must_be_journalled and _body_key(body) not in self._said

    # --- frames meanwhile -----------------------------------------------------------------------------------

    def keep(self, sender: MemberId | None, frame: Frame) -> None:
        """Hold a frame back."""
        self._kept.keep(sender, frame)

    def release(self) -> list[tuple[MemberId | None, Frame]]:
        """The frames that were held back."""
        return self._kept.take()


def answer(context: Context, asker: MemberId, decided: Round) -> Recalled:
    """What I hold that `asker` signed, the latest first to be in if not all of it fits into a frame."""
    shown: list[Signed] = []
    room = MAX_FRAME - 1024  # for what the frame itself adds
    for signed in reversed(context.register.said_by(asker)[-SHOWN:]):
        room -= len(encode(signed))
        if room < 0:
            break
        shown.append(signed)
    return Recalled(decided, tuple(reversed(shown)))


def _body_key(body: Body) -> bytes:
    return type(body).__name__.encode() + encode(body)
