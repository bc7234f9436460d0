"""A federation of real engines in one process, in virtual time: journals, archives and models on disk, the network
and the ledger in memory, training faked.

`House` is what of a member survives a crash; `House.live` is one life of its node. Whatever a node hands to its network
is written down, so that a test can ask whether any member ever signed two different things.
"""

import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar, cast
from unittest import mock

import msgspec
import trio
import trio.testing
from audited_federation import NAMES, TENSORS, AuditedFederation

from folkmoot.ledger.memory import MemoryChain, MemoryLedger
from folkmoot.ledger.port import LedgerHead
from folkmoot.ledger.signing import KeySigner, KeyVerifier
from folkmoot.node.archive import Archive, Models
from folkmoot.node.config import StorageConfig
from folkmoot.node.engine import Engine
from folkmoot.node.learning import DISCLOSURE, Learning, promised_chain
from folkmoot.node.limits import Uploads
from folkmoot.node.logs import Once, logger
from folkmoot.node.masked_sums import MaskedSums
from folkmoot.node.masking import Masking
from folkmoot.node.member_state import MemberStates
from folkmoot.node.network.memory import Faults, MemoryHub
from folkmoot.node.network.port import Network
from folkmoot.node.outbox import Outbox
from folkmoot.node.payloads import Payloads
from folkmoot.node.privacy_log import PrivacyLog
from folkmoot.node.retention import Retention
from folkmoot.node.rooms import Rooms
from folkmoot.node.store import PERMITTED, Journal, JournalEntry
from folkmoot.node.trainer import FakeTrainer, Trainer
from folkmoot.protocol.blob import ref_of
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import Schedule, Tensor
from folkmoot.protocol.effects import Promote
from folkmoot.protocol.equivocation import compute_slot
from folkmoot.protocol.events import FrameReceived
from folkmoot.protocol.journal import decode_entry
from folkmoot.protocol.messages import Body, Ready, Signed, decode_frame
from folkmoot.protocol.metrics import Metrics
from folkmoot.protocol.privacy import Owner
from folkmoot.protocol.record import decode_record
from folkmoot.protocol.round import RoundMachine
from folkmoot.protocol.types import Digest, MemberId, Round

VIRTUAL_SECONDS = 900.0
"""How long a federation may take, in the virtual time that costs nothing."""

T = TypeVar("T")


class Crash(Exception):
    """The process is gone at this very point."""


class Tap:
    """A node's network that writes down every frame that the node says."""

    def __init__(self, network: Network, say: Callable[[bytes], None]) -> None:
        self._network = network
        self._say = say

    async def send(self, member: MemberId, data: bytes) -> None:
        self._say(data)
        await self._network.send(member, data)

    async def publish(self, data: bytes) -> None:
        self._say(data)
        await self._network.publish(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


class Watched:
    """What a house's nodes told their watcher, in all their lives."""

    def __init__(self) -> None:
        self.rounds: dict[Round, Promote] = {}
        self.models: dict[Digest, Metrics] = {}
        self.reasons: list[str] = []
        self.accusations: list[tuple[str, str]] = []
        self.rolled: list[Round] = []
        self.is_finished = False
        self.epsilon = 0.0
        self.refusals: list[str] = []

    def promoted(self, effect: Promote) -> None:
        self.rounds[effect.round] = effect

    def rolled_back(self, round_: Round) -> None:
        self.rolled.append(round_)
        self.rounds = {number: one for number, one in self.rounds.items() if number < round_}

    def withheld(self, reason: str) -> None:
        self.reasons.append(reason)

    def measured(self, model: Digest, metrics: Metrics, beside: Mapping[str, Mapping[str, float]]) -> None:
        self.models[model] = metrics

    def accused(self, name: str, kind: str, reason: str) -> None:
        self.accusations.append((name, kind))

    def spent(self, epsilon: float, refused: str = "") -> None:
        self.epsilon = epsilon
        self.refusals.append(refused)

    def finished(self) -> None:
        self.is_finished = True


class House:
    """One member's home, and what its nodes did in all their lives."""

    def __init__(self, federation: "LivingFederation", me: MemberId, path: Path) -> None:
        self.federation = federation
        self.me = me
        self.path = path
        self.store = path / "store.sqlite"
        self.archive = Archive(path / "archive")
        self.models = Models(path / "models")
        self.trainer: Trainer = FakeTrainer(federation.charter.model.parameters, NAMES[me], delay=1.0)
        self.ledger = MemoryLedger(federation.chain, bytes([me + 1]) * 20)
        self.payloads: Callable[..., Payloads] = Payloads
        self.sums: Callable[..., MaskedSums] = MaskedSums
        self.said: list[bytes] = []
        self.on_say: Callable[[bytes], None] = lambda data: None
        self.watched = Watched()
        self.once = Once(logger())
        self.engine: Engine | None = None
        self.up = False
        self.forgets = False
        self.max_upload = 0
        """Whether its machines do not mind what was signed before: only a liar's do not."""
        self.recorded: Round = 0
        self.crashes = 0
        Journal.create(self.store)
        self.models.add_bytes(federation.initial)

    @property
    def latest(self) -> Round:
        """The latest round that was finished here, or learnt from others."""
        return max(self.watched.rounds, default=0)

    # --- one life ---------------------------------------------------------------------------------------------------

    async def live(
        self,
        on_write: Callable[[int], None] | None = None,
        on_append: Callable[[JournalEntry], None] | None = None,
    ) -> None:
        """Run a node on this home until cancelled; raises `Crash` out of its nursery if one of the hooks does."""
        dead = False

        def write(number: int) -> None:
            nonlocal dead
            if dead:
                raise Crash  # a dead process writes nothing more
            if on_write is not None:
                try:
                    on_write(number)
                except Crash:
                    dead = True
                    raise

        def append(entry: JournalEntry) -> None:
            nonlocal dead
            if on_append is not None:
                try:
                    on_append(entry)
                except Crash:
                    dead = True
                    raise

        with Journal.open(self.store, on_write=write, on_append=append) as journal:
            journal.bind(self.federation.id, self.federation.charter.digest)
            await self._run(journal)

    async def live_until(self, condition: Callable[[], bool]) -> None:
        """Live, and die (between two events) once `condition` holds."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.live)
            while not condition():  # noqa: ASYNC110 - in virtual time
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()

    async def _run(self, journal: Journal) -> None:
        outbox = Outbox(
            self.ledger,
            journal,
            self.federation.charter,
            self._on_head,
            logger(),
            on_attested=self._on_attested,
        )
        async with self.federation.hub.open(self.me, self._locate, self._served) as network:
            tap = cast(Network, Tap(network, self._say))
            self.engine = Engine(self._machine(), self._rooms(tap, journal, outbox))
            self.up = True
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(outbox.run)
                    nursery.start_soon(self.engine.run)
            finally:
                self.up = False

    async def _on_head(self, head: LedgerHead) -> None:
        self.recorded = head.finalized_height
        if self.engine is not None:
            await self.engine.head_advanced(head.finalized_height, head.finalized_digest)

    async def _on_attested(self, attestation: Signed) -> None:
        if self.engine is not None:
            await self.engine.put(FrameReceived(None, attestation))

    def _say(self, data: bytes) -> None:
        self.on_say(data)
        self.said.append(data)

    def _locate(self, root: Digest) -> Path | None:
        path = self.archive.path(root) or self.models.path(root)
        if path is None and self.engine is not None:
            self.engine.wanted(root)
        return path

    def _served(self, root: Digest, member: MemberId) -> None:
        if self.engine is not None:
            self.engine.served(root, member)

    def _machine(self) -> RoundMachine:
        made = self.federation.made
        keys = made.keys[self.me]
        signer = KeySigner(made.federation.id, made.domain, keys.identity, keys.audit)
        verifier = KeyVerifier(made.federation, made.domain)
        machine = RoundMachine(made.federation, self.me, signer, verifier, ref_of(self.federation.initial))
        if self.forgets:
            machine.forget_what_was_signed()
        return machine

    def _rooms(self, network: Network, journal: Journal, outbox: Outbox) -> Rooms:
        made = self.federation.made
        updates = self.path / "updates"
        states = MemberStates.of(made.charter, updates)
        masking = Masking(made.federation, self.me, journal, self.archive, states.residuals)
        learning = Learning(
            charter=made.charter,
            trainer=self.trainer,
            journal=journal,
            updates=updates,
            manifest=bytes(32),
            timeout=60.0,
            mask_key=masking.mask_key if made.charter.is_secure else None,
            kept=states.kept,
            uploads=Uploads(self.max_upload, lambda: network.stats.bytes_sent),
            privacy_log=self._privacy_log(journal) if made.charter.is_private else None,
        )
        sealing = bytes(made.keys[self.me].sealing)
        return Rooms(
            charter=made.charter,
            network=network,
            journal=journal,
            archive=self.archive,
            models=self.models,
            payloads=self.payloads(
                made.federation, self.me, sealing, journal, self.archive, self.models, states.residuals
            ),
            masking=masking,
            sums=self.sums(made.charter, self.archive, self.models),
            learning=learning,
            states=states,
            outbox=outbox,
            watcher=self.watched,
            once=self.once,
            log=logger(),
            rng=random.Random(self.me),
            retention=Retention(made.charter, journal, self.archive, self.models, StorageConfig()),
        )

    def _privacy_log(self, journal: Journal) -> PrivacyLog:
        owner = Owner(federation=self.federation.id.hex(), member=NAMES[self.me])
        return PrivacyLog.open(self.path / "privacy.jsonl", owner, promised_chain(journal))

    # --- what is left behind ----------------------------------------------------------------------------------------

    def signed(self) -> Iterator[Signed]:
        """Every signed body that this node told anybody, journalled or archived, others' included."""
        frames = [decode_frame(data) for data in dict.fromkeys(self.said)]
        with Journal.open(self.store, read_only=True) as journal:
            rows = list(journal.entries())
        entries = [decode_entry(body) for _, _, kind, body in rows if kind not in (DISCLOSURE, PERMITTED)]
        records = [decode_record(self.archive.record(number) or b"") for number in self.archive.rounds()]
        for thing in (*frames, *entries, *records):
            yield from signed_within(thing)


class LivingFederation:
    """Four houses, the wires between them and their ledger. Make it inside `trio.run`, see `in_virtual_time`."""

    house_type: type[House] = House

    def __init__(
        self,
        path: Path,
        *,
        rounds: int = 2,
        seed: int = 0,
        faults: Faults | None = None,
        initial: bytes | None = None,
        tensors: tuple[Tensor, ...] = TENSORS,
        **terms: object,
    ) -> None:
        """`initial`: the starting weights, flat; `terms`: fields of the charter."""
        self.made = AuditedFederation(tensors=tensors)
        terms = {"schedule": Schedule(rounds=rounds), **terms}
        self.made.charter = msgspec.structs.replace(self.made.charter, **terms)
        self.made.founding = self.made.charter
        self.made.settle(self.made.contract, self.made.domain.chain_id)
        self.initial = initial or self.made.base.astype("<f4").tobytes()
        self.chain = MemoryChain(self.made.identity)
        self.hub = MemoryHub(len(NAMES), seed, faults)
        self.houses = [self.house_type(self, me, path / name) for me, name in enumerate(NAMES)]

    @property
    def id(self) -> Digest:
        return self.made.federation.id

    @property
    def charter(self) -> Charter:
        return self.made.charter

    async def run(
        self,
        lives: Mapping[MemberId, Callable[[House], Awaitable[None]]] | None = None,
        until: Callable[[Self], bool] | None = None,
    ) -> None:
        """Let every house live, as `lives` says or simply, until all rounds are done and recorded (or `until`)."""
        enough = until or LivingFederation.is_complete
        with trio.fail_after(VIRTUAL_SECONDS):
            async with trio.open_nursery() as nursery:
                for house in self.houses:
                    nursery.start_soon((lives or {}).get(house.me, House.live), house)
                while not enough(self):  # noqa: ASYNC110 - in virtual time
                    await trio.sleep(0.5)
                nursery.cancel_scope.cancel()

    def is_complete(self) -> bool:
        """Whether every node has finished the last round, and the ledger has them all."""
        rounds = self.charter.schedule.rounds
        return self.chain.head().height == rounds and all(
            house.up and house.engine is not None and house.engine.machine.finished for house in self.houses
        )

    # --- what must hold ---------------------------------------------------------------------------------------------

    def check(self, members: Collection[MemberId] = range(len(NAMES))) -> None:
        """One model for each round, the recorded one; nobody signed two different things; nobody was accused."""
        recorded = {record.statement.round: record.statement.model for record in self.chain.records()}
        for member in members:
            found = {
                round_: effect.model.root for round_, effect in self.houses[member].watched.rounds.items()
            }
            assert found.items() <= recorded.items(), f"{NAMES[member]} holds another model than recorded"
            assert max(found) == self.charter.schedule.rounds

        assert unequal_bodies(signed for house in self.houses for signed in house.signed()) == {}
        assert all(house.watched.accusations == [] for house in self.houses)


def unequal_bodies(everything: Iterable[Signed]) -> dict[object, set[Body]]:
    """By member and slot, the bodies where there is more than one: none if nobody signed two different things."""
    said: defaultdict[object, set[Body]] = defaultdict(set)
    for signed in everything:
        if (slot := _slot(signed.body)) is not None:
            said[signed.member, slot].add(signed.body)
    return {key: bodies for key, bodies in said.items() if len(bodies) > 1}


def _slot(body: Body) -> object:
    # A READY is no evidence, but it too must be the same after a restart (its salts are random).
    return ("Ready", body.round, body.base) if isinstance(body, Ready) else compute_slot(body)


def signed_within(thing: object) -> Iterator[Signed]:
    """All signed bodies inside a frame, a journal entry or a record, to any depth."""
    if isinstance(thing, Signed):
        yield thing
    if isinstance(thing, msgspec.Struct):
        thing = msgspec.structs.astuple(thing)
    if isinstance(thing, tuple):
        for part in thing:
            yield from signed_within(part)


async def in_place(function: Callable[..., T], *arguments: Any, **_: Any) -> T:
    """Stands in for `trio.to_thread.run_sync`: the autojump clock would let hours pass while a thread works."""
    await trio.lowlevel.checkpoint()
    return function(*arguments)


@contextmanager
def without_threads() -> Iterator[None]:
    """Blocking work happens in place, in no virtual time."""
    with mock.patch.object(trio.to_thread, "run_sync", in_place):
        yield


def in_virtual_time(play: Callable[[], Awaitable[T]]) -> T:
    """Run `play` on an autojump clock, without threads."""
    with without_threads():
        return trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))


def crash_at(call: int) -> Callable[[int], None]:
    """An `on_write` hook that dies at its `call`-th call, as `store.kill_at_write` does to a process."""

    def hook(number: int) -> None:
        if number == call:
            raise Crash

    return hook


def crash_after(word: str) -> Callable[[JournalEntry], None]:
    """An `on_append` hook that dies once an entry of that kind is on disk."""

    def hook(entry: JournalEntry) -> None:
        if entry[1] == word:
            raise Crash

    return hook


async def survive(house: House, calls: Iterable[int], pause: float = 1.0) -> None:
    """Live as often as there are `calls`, each time dying at that write, and then once more."""
    for call in calls:
        try:
            await house.live(crash_at(call))
        except* Crash:
            house.crashes += 1
            await trio.sleep(pause)
    await house.live()
