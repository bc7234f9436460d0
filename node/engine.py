"""The engine: hosts the `RoundMachine` and carries out what it asks for.

One task consumes one bounded channel of events and owns the machine, so nothing needs a lock. Effects run in the
order in which they come, and `Persist` is a barrier: the journal is on disk before anything after it happens. What
takes long (training, transfers, sums) runs beside, in tasks of the engine's nursery, and comes back as an event.
"""

import random
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, assert_never

import trio
from structlog.stdlib import BoundLogger

from folkmoot.node.archive import Archive, ArchiveError, Models
from folkmoot.node.learning import DISCLOSURE, Learning
from folkmoot.node.logs import Once
from folkmoot.node.network import port
from folkmoot.node.outbox import Outbox
from folkmoot.node.payloads import Payloads
from folkmoot.node.store import Journal
from folkmoot.node.train.wire import TrainerError
from folkmoot.node.transfers import Transfers
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.effects import (
    Aggregate,
    ArchiveRound,
    Blame,
    CancelFit,
    Effect,
    Encode,
    Fetch,
    FetchSnapshot,
    Finished,
    Fit,
    Gossip,
    Persist,
    Promote,
    Record,
    RecordEvidence,
    Send,
    StartTimer,
)
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.events import (
    Event,
    FetchFailed,
    FitFailed,
    FrameReceived,
    HeadAdvanced,
    PayloadArrived,
    PayloadServed,
    PeerDown,
    PeerUp,
    SnapshotFailed,
    SnapshotReady,
    Started,
    Timer,
    TimerFired,
    TransferProgress,
)
from folkmoot.protocol.journal import Entry, decode_entry, encode_entry, entry_kind
from folkmoot.protocol.messages import (
    Commitment,
    Frame,
    KeyShared,
    KeyWanted,
    Signed,
    body_digest,
    decode_frame,
    encode,
)
from folkmoot.protocol.metrics import Metrics, select_metrics
from folkmoot.protocol.record import decode_record, encode_record
from folkmoot.protocol.round import RoundMachine
from folkmoot.protocol.types import Digest, MemberId, Round

EVENTS = 512
"""Events that may wait for the machine; then those who bring more wait."""

PROGRESS_SECONDS = 1.0
"""Least time between two words to the machine that payloads are arriving."""


RETRY_SECONDS = 2.0
"""Pause between two tries to get a base model that is gone from the disk."""

RECORDED = "recorded"
"""Journal meta: the round up to which this node is done and the ledger's record is final."""

ROUNDS_REREAD = 3
"""Recorded rounds whose journal is read again after a restart."""


class Watcher(Protocol):
    """Is told what the node's status and report are made of."""

    def promoted(self, effect: Promote) -> None:
        """A round is done."""

    def measured(self, model: Digest, metrics: Metrics) -> None:
        """A model was measured on this member's held-out data; `metrics` is empty if it has none."""

    def finished(self) -> None:
        """The charter's last round is done, and its model measured."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the engine works with."""

    charter: Charter
    network: port.Network
    journal: Journal
    archive: Archive
    models: Models
    payloads: Payloads
    learning: Learning
    outbox: Outbox
    watcher: Watcher
    once: Once
    log: BoundLogger
    rng: random.Random
    keep_models: int


class Engine:
    """Runs one member's machine until cancelled."""

    def __init__(self, machine: RoundMachine, rooms: Rooms) -> None:
        self.machine = machine
        self._rooms = rooms
        self._send, self._receive = trio.open_memory_channel[Event](EVENTS)
        self._models_of: dict[Round, Digest] = {}
        self._recorded: Round | None = None
        self._transfers = Transfers(
            rooms.network,
            rooms.payloads,
            rooms.archive,
            rooms.models,
            rooms.once,
            self._progress,
            machine.is_decided,
        )
        self._progress_told = -PROGRESS_SECONDS
        self._fit_scope = trio.CancelScope()

    async def put(self, event: Event) -> None:
        """Hand an event in; waits while the channel is full."""
        await self._send.send(event)

    def served(self, root: Digest, member: MemberId) -> None:
        """The network's hook: a peer has pulled a blob to its end."""
        try:
            self._send.send_nowait(PayloadServed(root, member))
        except trio.WouldBlock:
            self._rooms.once.note("event dropped", "self", what="payload served")

    def _progress(self, round_: Round) -> None:
        """A chunk has arrived: a slow link is no reason for a new attempt. Told now and then, and not at all costs."""
        now = trio.current_time()
        if now - self._progress_told >= PROGRESS_SECONDS:
            self._progress_told = now
            with suppress(trio.WouldBlock):
                self._send.send_nowait(TransferProgress(round_))

    async def run(self) -> None:
        """Restore from the journal and go on, until cancelled."""
        entries = await trio.to_thread.run_sync(self._read_journal)
        self.machine.restore(entries, trio.current_time())
        attestations = await trio.to_thread.run_sync(self._read_attestations)
        async with trio.open_nursery() as nursery:
            await self._handle(Started(), nursery)
            for signed in attestations:
                await self._handle(FrameReceived(None, signed), nursery)
            nursery.start_soon(self._listen)
            async for event in self._receive:
                await self._handle(event, nursery)

    def _read_journal(self) -> list[Entry]:
        """The entries of the rounds that were not on the ledger yet, and of a few before for peers that are behind."""
        rows = self._rooms.journal.entries(first_round=self._first_reread())
        return [decode_entry(body) for _, _, kind, body in rows if kind != DISCLOSURE]

    def _first_reread(self) -> Round:
        recorded = int(self._rooms.journal.meta(RECORDED) or 0)
        return max(1, recorded + 1 - ROUNDS_REREAD)

    def _read_attestations(self) -> list[Signed]:
        """The quorums under the statements of those rounds, as archived.

        The journal has my own attestation only. Peers forget the others' after some rounds: without these, rounds that
        wait for the ledger while everybody restarts could never be recorded.
        """
        archive, first = self._rooms.archive, self._first_reread()
        records = [archive.record(round_) for round_ in archive.rounds() if round_ >= first]
        attestations: list[Signed] = []
        for record in filter(None, records):
            try:
                attestations += decode_record(record).attestations
            except RemoteProtocolError as error:
                self._rooms.log.error("archived record damaged", error=str(error))
        return attestations

    async def _handle(self, event: Event, nursery: trio.Nursery) -> None:
        for effect in self.machine.handle(event, trio.current_time()):
            await self._carry_out(effect, nursery)

    # --- what the network brings --------------------------------------------------------------------------------

    async def _listen(self) -> None:
        async for event in self._rooms.network.events:
            match event:
                case port.Inbound(member=member, data=data, via=via):
                    await self._receive_bytes(member, data, via)
                case port.PeerUp(member=member):
                    await self.put(PeerUp(member))
                case port.PeerDown(member=member):
                    await self.put(PeerDown(member))

    async def _receive_bytes(self, member: MemberId, data: bytes, via: str) -> None:
        try:
            frame = decode_frame(data)
        except RemoteProtocolError as error:
            self._rooms.once.note(f"bad frame ({via})", self._name(member), error=str(error))
            return
        if isinstance(frame, KeyWanted | KeyShared):
            await self._transfers.on_key_frame(member, frame)
        else:
            await self.put(FrameReceived(member if via == "control" else None, frame))

    def _name(self, member: MemberId | None) -> str:
        return "unknown" if member is None else self._rooms.charter.members[member].name

    # --- what the machine asks for ------------------------------------------------------------------------------

    async def _carry_out(self, effect: Effect, nursery: trio.Nursery) -> None:
        rooms = self._rooms
        match effect:
            case Persist(round=round_, entries=entries):
                rows = [(round_, entry_kind(entry), encode_entry(entry)) for entry in entries]
                await trio.to_thread.run_sync(rooms.journal.append, rows)
            case Send(members=members, frame=frame):
                await self._send_to(members, frame)
            case Gossip(frame=frame):
                await rooms.network.publish(encode(frame))
            case StartTimer(timer=timer, delay=delay):
                jitter = rooms.rng.uniform(0.9, 1.1) if timer.kind == "announce" else 1.0
                nursery.start_soon(self._wake, timer, delay * jitter)
            case Fit():
                self._fit_scope.cancel()
                self._fit_scope = trio.CancelScope()
                nursery.start_soon(self._fit, effect, self._fit_scope)
            case CancelFit():
                self._fit_scope.cancel()
            case Encode():
                nursery.start_soon(self._encode, effect)
            case Fetch():
                nursery.start_soon(self._fetch, effect)
            case FetchSnapshot():
                nursery.start_soon(self._fetch_snapshot, effect)
            case Aggregate():
                nursery.start_soon(self._aggregate, effect)
            case Promote():
                await self._promote(effect)
            case Record():
                rooms.outbox.add(effect)
            case ArchiveRound(record=record):
                round_ = record.certificate.survivors.round
                await trio.to_thread.run_sync(rooms.archive.add_record, round_, encode_record(record))
            case RecordEvidence(member=member, evidence=evidence):
                rooms.log.error("misbehaviour", member=self._name(member), evidence=encode(evidence).hex())
                rooms.once.note("equivocation", self._name(member))
                await trio.to_thread.run_sync(rooms.archive.add_bytes, encode(evidence))
            case Blame(member=member, kind=kind, reason=reason):
                rooms.once.note(f"refused {kind}", self._name(member), reason=reason)
            case Finished():
                nursery.start_soon(self._measure_last)
            case _:
                assert_never(effect)

    async def _send_to(self, members: Iterable[MemberId], frame: Frame) -> None:
        data = encode(frame)
        for member in members:
            await self._rooms.network.send(member, data)

    async def _wake(self, timer: Timer, delay: float) -> None:
        await trio.sleep(delay)
        await self.put(TimerFired(timer))

    async def head_advanced(self, height: Round) -> None:
        """The outbox's word on how far the finalised record is; what lies far behind it need not be kept."""
        if height == self._recorded:
            return
        self._recorded = height
        behind = [round_ for round_ in self._models_of if round_ <= height - self._rooms.keep_models]
        old = {self._models_of.pop(round_) for round_ in behind} - set(self._models_of.values())
        # Never beyond my own journal: a node that is behind still has to read the round that it is in.
        settled = min(height, self.machine.completed)
        await trio.to_thread.run_sync(self._forget, settled, old)
        await self.put(HeadAdvanced(height))

    def _forget(self, settled: Round, models: set[Digest]) -> None:
        self._rooms.journal.set_meta(RECORDED, str(settled).encode())
        for root in models:
            self._rooms.models.remove(root)

    # --- long work, beside --------------------------------------------------------------------------------------

    async def _fit(self, effect: Fit, scope: trio.CancelScope) -> None:
        with scope:
            await self._bring_base(effect.base, effect.round)
            try:
                trained = await self._rooms.learning.fit(
                    effect.round, effect.base, self._rooms.models.place(effect.base.root)
                )
            except TrainerError as error:
                self._rooms.log.error(
                    "training failed", round=effect.round, kind=error.kind, error=error.detail
                )
                await self.put(FitFailed(effect.round, effect.base.root, str(error)))
                return
            self._rooms.watcher.measured(effect.base.root, trained.metrics)
            await self.put(trained)

    async def _encode(self, effect: Encode) -> None:
        rooms = self._rooms
        update = rooms.learning.update_path(effect.round)
        try:
            encoded = await trio.to_thread.run_sync(
                rooms.payloads.encode, effect.round, effect.roster, effect.recipients, update
            )
        except TrainerError as error:
            # After a crash the update may be gone: sit this roster out; it was never committed to.
            rooms.log.error("cannot encode my update", round=effect.round, error=error.detail)
            return
        await self.put(encoded)

    async def _fetch(self, effect: Fetch) -> None:
        commitment = effect.commitment.body
        assert isinstance(commitment, Commitment)
        name = body_digest(commitment)
        reason = await self._transfers.fetch_payload(commitment, name, effect.recipients, effect.sources)
        if reason is not None:
            member = self._name(commitment.member)
            self._rooms.once.note("payload missing", member, round=commitment.round, reason=reason)
        names = (commitment.round, commitment.roster, name)
        await self.put(PayloadArrived(*names) if reason is None else FetchFailed(*names, reason))

    async def _fetch_snapshot(self, effect: FetchSnapshot) -> None:
        round_ = self.machine.current.round
        reason = await self._transfers.fetch_model(effect.model, effect.sources, round_)
        await self.put(
            SnapshotReady(effect.model) if reason is None else SnapshotFailed(effect.model, reason)
        )

    async def _aggregate(self, effect: Aggregate) -> None:
        rooms, round_ = self._rooms, effect.survivors.round
        await self._bring_base(effect.base, round_)
        try:
            done, ill_formed = await trio.to_thread.run_sync(
                rooms.payloads.aggregate, effect.base, effect.survivors, effect.roster, effect.commitments
            )
        except ArchiveError as error:
            rooms.log.error("cannot sum", round=round_, error=str(error))
            if await trio.to_thread.run_sync(self._drop_damaged, effect.base):
                await self._aggregate(effect)
            # Else a payload is damaged: the round goes on without me, and a later snapshot brings the model.
            return
        for member in ill_formed:
            rooms.once.note("ill-formed payload", self._name(member), round=effect.survivors.round)
        await self.put(done)

    def _drop_damaged(self, model: BlobRef) -> bool:
        """Remove a model whose file is not what its name says; whether it was."""
        try:
            self._rooms.models.leaves(model)
        except ArchiveError:
            self._rooms.models.remove(model.root)
            return True
        return False

    async def _bring_base(self, base: BlobRef, round_: Round) -> None:
        """A base model that is gone from the disk is fetched by its digest, again and again while the round lasts."""
        rooms, everyone = self._rooms, tuple(range(len(self._rooms.charter.members)))
        while not rooms.models.has(base) and self.machine.current.round == round_:
            reason = await self._transfers.fetch_model(base, everyone, round_)
            if reason is not None:
                rooms.once.note("base model missing", "self", round=round_, reason=reason)
                await trio.sleep(RETRY_SECONDS)

    async def _promote(self, effect: Promote) -> None:
        names = [self._name(member) for member in effect.participants]
        self._rooms.log.info(
            "round done", round=effect.round, model=effect.model.root.hex(), participants=names
        )
        self._models_of[effect.round] = effect.model.root
        self._rooms.watcher.promoted(effect)
        await trio.to_thread.run_sync(self._rooms.learning.forget_before, effect.round + 1)

    async def _measure_last(self) -> None:
        """The last model is trained on by nobody, so nobody measures it on the way."""
        rooms, base = self._rooms, self.machine.current.base
        try:
            metrics = await rooms.learning.trainer.evaluate(rooms.models.place(base.root))
            rooms.watcher.measured(base.root, select_metrics(metrics))
        except TrainerError as error:
            rooms.log.error("cannot measure the last model", error=error.detail)
        rooms.watcher.finished()
