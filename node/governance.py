"""Follows the ledger's amendments: which charters there are, from which rounds on, and when this node is to change.

The machine is told of an amendment before it hears that the record went beyond the block that holds it. So no node
works on a round under the wrong charter: an amendment comes into force more than `max_ahead` rounds after that block,
and nobody is further ahead of the finalised record than that.
"""

from collections.abc import Sequence

import trio
from structlog.stdlib import BoundLogger

from folkmoot.ledger.errors import LedgerUnavailable
from folkmoot.ledger.port import AmendmentRecord, Ledger, LedgerHead
from folkmoot.ledger.signing import KeyVerifier
from folkmoot.node.archive import Archive
from folkmoot.node.charters import keep_amendments, load_timeline
from folkmoot.node.engine import Engine
from folkmoot.node.lost_charters import LostCharters, ref_of
from folkmoot.node.network.directory import Directory
from folkmoot.node.network.port import Network
from folkmoot.node.opening import Node
from folkmoot.node.outbox import Outbox
from folkmoot.node.store import Journal
from folkmoot.node.submitting import drop_order, read_orders
from folkmoot.node.transactions import LedgerCalls
from folkmoot.node.watch import Watch
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.events import TermsKnown
from folkmoot.protocol.governance import Amendment, Role
from folkmoot.protocol.terms import Rule, Term, Terms
from folkmoot.protocol.timeline import Span, Timeline
from folkmoot.protocol.types import Round

ORDER_SECONDS = 0.5
"""How often to look for amendments that are to be submitted."""
RETRY_SECONDS = 2.0
"""Pause between two tries to read amendments, or to get a charter that is not here."""


class Governance:
    """For one term of a node; `run` it beside the engine."""

    def __init__(
        self,
        node: Node,
        journal: Journal,
        ledger: Ledger,
        archive: Archive,
        directory: Directory,
        watch: Watch,
        log: BoundLogger,
    ) -> None:
        self._node = node
        self._journal = journal
        self._ledger = ledger
        self._archive = archive
        self._directory = directory
        self._watch = watch
        self._log = log
        self._lost = LostCharters(node.home, node.config, archive, log, node.charter.members[node.me].peer_id)
        self._call = LedgerCalls()
        self._head: LedgerHead | None = None
        self._final_block = 0
        self._loading = trio.Lock()
        self._moved = trio.Event()
        self._learnt = trio.Event()
        self.timeline = node.timeline
        """All charters that are known to be, or to come, in force."""
        self._looked = trio.Event()
        self._left_at: Round | None = None
        self._left = trio.Event()

    def terms(self) -> Terms:
        """The same for the machine."""
        return Terms([Term(span.first, self._rule(span)) for span in self.timeline.spans])

    def _rule(self, span: Span) -> Rule | None:
        if span.charter is None:
            return None
        federation = Federation(self.timeline.federation, span.charter)
        verifier = KeyVerifier(federation, self._node.domain)
        return Rule(federation, verifier, span.charter.find_member(self._node.config.name))

    async def on_head(self, head: LedgerHead) -> None:
        """The outbox's word on where the record is."""
        self._head = head
        self._final_block = max(self._final_block, head.final.number)
        self._moved.set()

    async def run(self, engine: Engine, network: Network, outbox: Outbox) -> None:
        """Tell the engine of amendments and of the record, get charters that are not here, until cancelled.

        And hand in what commands beside this node want submitted.
        """
        await trio.to_thread.run_sync(self._offer)
        self._tell()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, engine)
            nursery.start_soon(self._complete, engine, network)
            nursery.start_soon(self._submit, outbox)

    async def next_term(self, engine: Engine) -> Round:
        """Once the engine's term has ended: the first round of the one that follows for this node.

        That is the one that it came to, when its charter is here; if it is no member in it, the next one in which it is
        one again; if there is none, the one that it came to all the same.
        """
        await engine.term_ended.wait()
        first = await self._following(engine.following)
        span = self.timeline.span_at(first)
        if span.charter is not None and not self._is_member(span):
            await self._left.wait()  # who leaves serves, and submits, until its last round is final
        return first

    async def left(self) -> Round:
        """Once the record has come to rounds in which this node is no member, or has another identity: as `next_term`.

        Nobody may have told it how the round before them ended: others no longer speak with it as it is.
        """
        await self._left.wait()
        assert self._left_at is not None
        return await self._following(self._left_at)

    async def _following(self, round_: Round) -> Round:
        """The first round of the next term from `round_` on with this node as a member, when its charter is here."""
        while True:
            span = self.timeline.span_at(round_)
            if span.charter is not None and not self._is_member(span):
                await self._looked.wait()  # it may have been taken back while it did not run
                later = (one for one in self.timeline.spans if one.first > span.first)
                span = next((one for one in later if self._is_member(one)), span)
            if span.charter is not None:
                return span.first
            self._log.error("no charter to go on with", round=span.first, problem=span.problem or "not here")
            await self._learnt.wait()

    def _is_stranger(self, charter: Charter) -> bool:
        """Whether members under that charter do not know this node by the identity that it has now."""
        index = charter.find_member(self._node.config.name)
        return (
            index is None
            or charter.members[index].peer_id != self._node.charter.members[self._node.me].peer_id
        )

    def _is_member(self, span: Span) -> bool:
        """Of a charter that is not here only the ledger's roles can tell."""
        if span.charter is not None:
            return span.charter.find_member(self._node.config.name) is not None
        address = bytes.fromhex(self._node.charter.members[self._node.me].audit_key[2:])
        role = self.timeline.role_of(address, span)
        return role is None or role >= Role.MEMBER

    # --- what the ledger says ---------------------------------------------------------------------------------------

    async def _follow(self, engine: Engine) -> None:
        while True:
            await self._moved.wait()
            self._moved, head = trio.Event(), self._head
            assert head is not None
            try:
                await self._take(head, engine)
            except LedgerUnavailable as error:
                self._log.warning("amendments not read", error=str(error))
                await trio.sleep(RETRY_SECONDS)
                self._moved.set()

    async def _take(self, head: LedgerHead, engine: Engine) -> None:
        if head.amendments > len(self.timeline.amendments):
            records = await self._call(self._ledger.amendments)
            if len(records) < head.amendments:
                raise LedgerUnavailable(
                    f"the ledger has {head.amendments} amendments, but shows {len(records)}"
                )
            await self._learn(records, engine)
        await engine.head_advanced(head.finalized_height, head.finalized_digest)
        span = self.timeline.span_at(head.finalized_height + 1)
        if span.first > self._node.first and span.charter is not None and self._is_stranger(span.charter):
            self._left_at = span.first
            self._left.set()
        self._looked.set()

    async def _learn(self, records: Sequence[AmendmentRecord], engine: Engine) -> None:
        """Final amendments only: any other may yet be undone."""
        final = tuple(record.amendment for record in records if record.block <= self._final_block)
        if len(final) > len(self.timeline.amendments):
            await trio.to_thread.run_sync(keep_amendments, self._journal, final)
            await self._reload(final, engine)

    async def _reload(self, amendments: Sequence[Amendment], engine: Engine) -> None:
        """Take in more amendments, or charters that were missing; nothing that is known is forgotten."""
        async with self._loading:
            known = max(amendments, self.timeline.amendments, key=len)
            self.timeline = await trio.to_thread.run_sync(load_timeline, self._node.home, known)
            await trio.to_thread.run_sync(self._offer)
            self._tell()
            await engine.put(TermsKnown(self.terms()))
            self._learnt.set()
            self._learnt = trio.Event()

    def _tell(self) -> None:
        coming = self.timeline.coming(self._node.first)
        if coming != self._watch.coming:
            self._log.info("amendments", coming=coming)
        self._watch.coming = coming
        self._directory.admit(identities(self.timeline, self._node.first))

    async def _submit(self, outbox: Outbox) -> None:
        """The outbox gives up what the ledger refuses: then the order is dropped, and the command says so."""
        handed: set[int] = set()
        while True:
            for order in await trio.to_thread.run_sync(read_orders, self._node.home):
                number = order.amendment.number
                if number not in handed:
                    handed.add(number)
                    outbox.amend(order)
                elif not outbox.is_amending:
                    handed.discard(number)
                    await trio.to_thread.run_sync(drop_order, self._node.home, order)
            await trio.sleep(ORDER_SECONDS)

    # --- charters ---------------------------------------------------------------------------------------------------

    def _offer(self) -> None:
        """Amended charters lie in the archive too: peers fetch them there, and so do auditors."""
        for span in self.timeline.spans:
            if span.charter is not None and span.amendment is not None:
                self._archive.add_bytes(span.charter.encoded, ref_of(span.amendment))

    async def _complete(self, engine: Engine, network: Network) -> None:
        """Charters that are not here: one may be put into the home by hand, or a peer has it."""
        while True:
            for amendment in self.timeline.missing:
                if await self._lost.find(amendment, network, self.timeline.newest_here):
                    await self._reload(self.timeline.amendments, engine)
            await trio.sleep(RETRY_SECONDS)


def identities(timeline: Timeline, round_: Round) -> dict[bytes, str]:
    """Peer ids by identity key of the members from a round on, those of coming charters too."""
    last = timeline.span_at(round_)
    charters = (span.charter for span in timeline.spans if span.first >= last.first)
    members = (member for charter in charters if charter is not None for member in charter.members)
    return {bytes.fromhex(member.identity_key): member.peer_id for member in members}
