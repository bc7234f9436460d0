"""A living federation whose charter changes: houses whose nodes follow the ledger's amendments, term by term.

As `living_federation`, with the daemon's own `Governance`. In-memory connections are between houses, so member ids must
stay what they were: members leave, and come back, at the end of the charter.
"""

from pathlib import Path
from typing import cast

import trio
from living_federation import House, LivingFederation, Tap
from msgspec.structs import replace

from folkmoot.ledger.calls import Amend
from folkmoot.ledger.memory import MemoryLedger
from folkmoot.ledger.signing import KeySigner
from folkmoot.node.backlog import unrecorded
from folkmoot.node.charter_files import write_charter
from folkmoot.node.charters import enter_term, keep_charter, known_amendments, load_timeline, working_term
from folkmoot.node.config import Home, LedgerConfig, NodeConfig, render_config
from folkmoot.node.engine import Engine
from folkmoot.node.governance import Governance
from folkmoot.node.keys import NodeKeys
from folkmoot.node.ledger_start import read_recorded
from folkmoot.node.logs import logger
from folkmoot.node.network.directory import Directory
from folkmoot.node.network.port import Network
from folkmoot.node.opening import Node
from folkmoot.node.outbox import Outbox
from folkmoot.node.store import Journal
from folkmoot.node.watch import Watch
from folkmoot.protocol.amending import compute_changes, make_amendment
from folkmoot.protocol.blob import ref_of
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.charter import Charter, sign_charter
from folkmoot.protocol.events import HeadAdvanced
from folkmoot.protocol.round import RoundMachine
from folkmoot.protocol.timeline import Timeline
from folkmoot.protocol.typed_data import signing_digest, struct_hash
from folkmoot.protocol.types import MemberId, Round


class _Told:
    """What governance tells a node's watch."""

    def __init__(self) -> None:
        self.coming: list[str] = []


class ChangingHouse(House):
    """One member's home with its charters as files; its lives go on from term to term."""

    def __init__(self, federation: "ChangingFederation", me: MemberId, path: Path) -> None:
        super().__init__(federation, me, path)
        made = federation.made
        self.home = Home(path)
        signatures = {
            name: sign_charter(made.founding, keys.identity)
            for name, keys in zip(made.names, made.keys, strict=True)
        }
        write_charter(self.home, made.founding, signatures)
        ledger = LedgerConfig(rpc=("http://127.0.0.1:9",), contract=f"0x{made.contract.hex()}")
        self.config = NodeConfig(name=made.names[me], ledger=ledger)
        self.home.config.write_text(render_config(self.config))
        self.left = 0
        self.terms: list[Round] = []

    async def _run(self, journal: Journal) -> None:
        timeline, recalled = load_timeline(self.home, known_amendments(journal)), False
        first = working_term(journal)
        while True:
            node = self._node(timeline, first)
            self.terms.append(first)
            directory = Directory(node.timeline.federation, node.keys.identity, {})
            governance = Governance(
                node, journal, self.ledger, self.archive, directory, cast(Watch, _Told()), logger()
            )
            first = await self._live_in_term(node, journal, governance, recalled)
            timeline = governance.timeline
            if timeline.charter_at(first).find_member(node.config.name) is None:
                self.left += 1
                return
            enter_term(journal, first)
            assert self.engine is not None
            recalled = self.engine.machine.has_recalled

    async def _live_in_term(
        self, node: Node, journal: Journal, governance: Governance, recalled: bool
    ) -> Round:
        outbox = Outbox(
            self.ledger,
            journal,
            node.timeline.founding,
            governance.on_head,
            logger(),
            charter_at=lambda round_: governance.timeline.charter_at(round_),
        )
        following: list[Round] = []
        async with self.federation.hub.open(self.me, self._locate, self._served) as network:
            tap = cast(Network, Tap(network, self._say))
            machine = self._machine_of(node, governance, recalled)
            with self._under(node.federation):
                self.engine = engine = Engine(machine, self._rooms(tap, journal, outbox))
            recorded = read_recorded(journal)
            await engine.put(HeadAdvanced(recorded))
            for record in unrecorded(self.archive, recorded, node.first, node.timeline, node.config.name):
                outbox.add(record)
            self.up = True
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(outbox.run)
                    nursery.start_soon(engine.run)
                    nursery.start_soon(governance.run, engine, tap, outbox)
                    async with trio.open_nursery() as waiting:
                        waiting.start_soon(self._leave, governance, following, waiting.cancel_scope)
                        following.append(await governance.next_term(engine))
                        waiting.cancel_scope.cancel()
                    nursery.cancel_scope.cancel()
            finally:
                self.up = False
        return following[0]

    async def _leave(self, governance: Governance, following: list[Round], waiting: trio.CancelScope) -> None:
        following.append(await governance.left())
        waiting.cancel()

    def _node(self, timeline: Timeline, first: Round) -> Node:
        keys = self.federation.made.keys[self.me]
        owned = NodeKeys(identity=keys.identity, sealing=keys.sealing, audit=keys.audit.secret, gas=bytes(32))
        me = timeline.charter_at(first).member_named(self.config.name)
        assert me == self.me
        return Node(self.home, self.config, timeline, first, me, owned, ref_of(self.federation.initial), "")

    def _machine_of(self, node: Node, governance: Governance, recalled: bool) -> RoundMachine:
        made, terms = self.federation.made, governance.terms()
        keys, rule = made.keys[self.me], terms.at(node.first).rule
        assert rule is not None
        signer = KeySigner(made.federation.id, made.domain, keys.identity, keys.audit)
        machine = RoundMachine(
            rule.federation, self.me, signer, rule.verifier, node.initial, first=node.first, terms=terms
        )
        if recalled:
            machine.skip_recall()
        return machine

    def _under(self, federation: Federation) -> "_Swapped":
        return _Swapped(self.federation, federation)


class _Swapped:
    """While a node's rooms are made, the federation is as the node's charter has it."""

    def __init__(self, living: LivingFederation, federation: Federation) -> None:
        self._made = living.made
        self._there = (federation, federation.charter)
        self._before = (self._made.federation, self._made.charter)

    def __enter__(self) -> None:
        self._made.federation, self._made.charter = self._there

    def __exit__(self, *_: object) -> None:
        self._made.federation, self._made.charter = self._before


class ChangingFederation(LivingFederation):
    """Amendments are recorded by `amend`; every house gets their charters from alice, who has them as files."""

    house_type = ChangingHouse

    def amend(self, after: Charter, effective: Round) -> None:
        """Sign with everybody's audit key, as if all had agreed, and record it at once."""
        ledger = MemoryLedger(self.chain, b"\xee" * 20)
        recorded = ledger.amendments()
        before = self._newest
        previous = struct_hash(recorded[-1].amendment) if recorded else self.id
        changes = compute_changes(before, after)
        amendment = make_amendment(self.id, len(recorded) + 1, previous, effective, after, changes)
        digest = signing_digest(self.made.domain, amendment)
        attesters = {before.members[index].name for index in before.attesters}
        keys = sorted(
            (
                keys.audit
                for name, keys in zip(self.made.names, self.made.keys, strict=True)
                if name in attesters
            ),
            key=lambda key: key.address,
        )
        keep_charter(cast(ChangingHouse, self.houses[0]).home, after)
        ledger.send(ledger.prepare(Amend(amendment, tuple(key.sign(digest) for key in keys))))
        self._newest = after

    @property
    def _newest(self) -> Charter:
        return getattr(self, "_amended", self.charter)

    @_newest.setter
    def _newest(self, charter: Charter) -> None:
        self._amended = charter

    def without(self, name: str) -> Charter:
        """The newest charter, less one member."""
        newest = self._newest
        return replace(newest, members=tuple(one for one in newest.members if one.name != name))

    def with_again(self, name: str) -> Charter:
        """The newest charter, with a founder that had left."""
        founding = self.made.founding
        entry = founding.members[founding.member_named(name)]
        return replace(self._newest, members=(*self._newest.members, entry))
