"""The engine: hosts the `RoundMachine` and carries out what it asks for.

One task consumes one bounded channel of events and owns the machine, so nothing needs a lock. Effects run in the
order in which they come, and `Persist` is a barrier: the journal is on disk before anything after it happens. What
takes long (training, transfers, sums) runs beside, in tasks of the engine's nursery, and comes back as an event
(`workshop`, `masked_work`).
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import assert_never

import trio

from folkmoot.node.learning import DISCLOSURE
from folkmoot.node.masked_work import MaskedWork
from folkmoot.node.network import port
from folkmoot.node.rooms import Rooms
from folkmoot.node.store import PERMITTED, StoreDamaged
from folkmoot.node.transfers import Transfers
from folkmoot.node.workshop import Workshop
from folkmoot.protocol.effects import (
    Accuse,
    Aggregate,
    ArchiveRound,
    Attest,
    Blame,
    CancelFit,
    Check,
    Effect,
    Encode,
    Fetch,
    FetchPart,
    FetchSnapshot,
    FetchSum,
    Finished,
    Fit,
    Gossip,
    Measure,
    Persist,
    Promote,
    ReadRecord,
    Record,
    RecordEvidence,
    RollBack,
    Send,
    StartTimer,
    SumParts,
    TermEnded,
    Unmask,
)
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.events import (
    BlobWanted,
    Event,
    FrameReceived,
    HeadAdvanced,
    PayloadServed,
    PeerDown,
    PeerHeard,
    PeerSilent,
    PeerUp,
    RecordRead,
    Started,
    Timer,
    TimerFired,
    TransferProgress,
)
from folkmoot.protocol.fork import encode_fork
from folkmoot.protocol.journal import (
    Adopted,
    Attested,
    Entry,
    RolledBack,
    SatOut,
    decode_entry,
    encode_entry,
    entry_kind,
    entry_tag,
)
from folkmoot.protocol.messages import (
    Frame,
    Hello,
    KeyShared,
    KeyWanted,
    Recall,
    Signed,
    decode_frame,
    encode,
)
from folkmoot.protocol.record import decode_record, encode_record
from folkmoot.protocol.round import RoundMachine
from folkmoot.protocol.typed_data import struct_hash
from folkmoot.protocol.types import Digest, MemberId, Round

EVENTS = 512
"""Events that may wait for the machine; then those who bring more wait."""

PROGRESS_SECONDS = 1.0
"""Least time between two words to the machine that payloads are arriving."""

RECORDED = "recorded"
"""Journal meta: the round up to which this node is done and the ledger's record is final."""

_OF_ANY_TERM = (entry_tag(Adopted), entry_tag(SatOut), entry_tag(RolledBack))

READ_SECONDS = 1.0
"""Pause before the ledger's rounds are read that contradict this node's."""

ROUNDS_REREAD = 3
"""Recorded rounds whose journal is read again after a restart."""


class Engine:
    """Runs one member's machine until cancelled."""

    def __init__(self, machine: RoundMachine, rooms: Rooms) -> None:
        self.machine = machine
        self._rooms = rooms
        self._send, self._receive = trio.open_memory_channel[Event](EVENTS)
        self._recorded: Round | None = None
        self._settled: Round = 0
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
        self.term_ended = trio.Event()
        """Set once all rounds under this charter are done and attested, here or by others."""
        self.following: Round = 0
        """The round after them, once that is so."""
        self._workshop = Workshop(machine, rooms, self._transfers, self.put)
        self._masked_work = MaskedWork(rooms, self._transfers, self.put, self._workshop.bring_base)

    async def put(self, event: Event) -> None:
        """Hand an event in; waits while the channel is full."""
        await self._send.send(event)

    def served(self, root: Digest, member: MemberId) -> None:
        """The network's hook: a peer has pulled a blob to its end."""
        try:
            self._send.send_nowait(PayloadServed(root, member))
        except trio.WouldBlock:
            self._rooms.once.note("event dropped", "self", what="payload served")

    def wanted(self, root: Digest) -> None:
        """The network's hook: a peer asks for a blob that is not here."""
        with suppress(trio.WouldBlock):
            self._send.send_nowait(BlobWanted(root))

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
        if await trio.to_thread.run_sync(lambda: self._rooms.journal.is_replacement):
            self.machine.replace_journal()
        self.machine.restore(entries, trio.current_time())
        attested = [entry.opening.survivors.round for entry in entries if isinstance(entry, Attested)]
        attestations = await trio.to_thread.run_sync(self._read_attestations, attested)
        async with trio.open_nursery() as nursery:
            await self._handle(Started(), nursery)
            for signed in attestations:
                await self._handle(FrameReceived(None, signed), nursery)
            nursery.start_soon(self._listen)
            async for event in self._receive:
                await self._handle(event, nursery)

    def _read_journal(self) -> list[Entry]:
        """The entries of the rounds that were not on the ledger yet, and of a few before for peers that are behind.

        Of rounds under an earlier charter only how they ended: member ids meant something else in them. Models that
        earlier lives left behind, and that need not be kept, go first.
        """
        journal, first = self._rooms.journal, self.machine.first
        rows = journal.entries(first_round=self._first_reread())
        try:
            self._rooms.retention.begin(self._read_recorded())
            return [
                decode_entry(body)
                for _, round_, kind, body in rows
                if kind in _OF_ANY_TERM or (round_ >= first and kind not in (DISCLOSURE, PERMITTED))
            ]
        except LocalProtocolError as error:
            raise StoreDamaged(journal.path, str(error)) from error

    def _first_reread(self) -> Round:
        return max(1, self._read_recorded() + 1 - ROUNDS_REREAD)

    def _read_recorded(self) -> Round:
        return int(self._rooms.journal.meta(RECORDED) or 0)

    def _read_attestations(self, rounds: Iterable[Round]) -> list[Signed]:
        """The quorums under the statements of those rounds, as archived.

        The journal has my own attestation only. Peers forget the others' after some rounds: without these, rounds that
        wait for the ledger while everybody restarts could never be recorded.
        """
        records = [self._rooms.archive.record(round_) for round_ in rounds]
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
        if self.machine.settled > self._settled:
            self._settled = self.machine.settled
            await trio.to_thread.run_sync(self._settle, self._settled)

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
                case port.PeerSilent(member=member):
                    await self.put(PeerSilent(member))
                case port.PeerHeard(member=member):
                    await self.put(PeerHeard(member))

    async def _receive_bytes(self, member: MemberId, data: bytes, via: str) -> None:
        try:
            frame = decode_frame(data)
        except RemoteProtocolError as error:
            self._rooms.once.note(f"bad frame ({via})", self._rooms.name(member), error=str(error))
            self._rooms.network.blame(member, f"bad frame ({via}): {error}")
            return
        if isinstance(frame, Hello | Recall) and not self._rooms.network.may_ask(member):
            return
        if isinstance(frame, KeyWanted | KeyShared):
            await self._transfers.on_key_frame(member, frame)
        else:
            await self.put(FrameReceived(member if via == "control" else None, frame))

    # --- what the machine asks for ------------------------------------------------------------------------------

    async def _carry_out(self, effect: Effect, nursery: trio.Nursery) -> None:
        rooms = self._rooms
        match effect:
            case Persist(round=round_, entries=entries):
                await trio.to_thread.run_sync(self._write_down, round_, entries)
            case Send(members=members, frame=frame):
                await self._send_to(members, frame)
            case Gossip(frame=frame):
                await rooms.network.publish(encode(frame))
            case StartTimer(timer=timer, delay=delay):
                jitter = rooms.rng.uniform(0.9, 1.1) if timer.kind == "announce" else 1.0
                nursery.start_soon(self._wake, timer, delay * jitter)
            case Fit() | CancelFit() | Encode() | Fetch() | FetchSnapshot() | Aggregate() | Finished():
                self._workshop.take_on(effect, nursery)
            case FetchPart() | SumParts() | FetchSum() | Check() | Measure() | Unmask():
                nursery.start_soon(self._masked_work.do, effect)
            case Promote():
                await self._promote(effect)
            case Record():
                rooms.outbox.add(effect)
            case Attest(attestation=attestation):
                rooms.outbox.add_lone(attestation)
            case ArchiveRound(record=record):
                round_ = record.certificate.survivors.round
                await trio.to_thread.run_sync(rooms.archive.add_record, round_, encode_record(record))
            case RecordEvidence(member=member, evidence=evidence):
                reason = "it signed two things that contradict each other"
                await self._accuse(member, "equivocation", reason, encode(evidence))
            case Accuse(member=member, kind=kind, reason=reason, signed=signed):
                await self._accuse(member, kind, reason, encode(signed))
            case TermEnded(round=round_):
                rooms.log.info("last round under this charter", round=round_)
                self.following = round_ + 1
                self.term_ended.set()
            case ReadRecord(first=first, last=last):
                nursery.start_soon(self._read_record, first, last)
            case RollBack():
                await self._roll_back(effect)
            case Blame(member=member, kind=kind, reason=reason):
                rooms.once.note(f"refused {kind}", self._rooms.name(member), reason=reason)
                if member is not None:
                    rooms.network.blame(member, f"{kind}: {reason}")
            case _:
                assert_never(effect)

    def _write_down(self, round_: Round, entries: Sequence[Entry]) -> None:
        journal = self._rooms.journal
        journal.append([(round_, entry_kind(entry), encode_entry(entry)) for entry in entries])
        if any(isinstance(entry, SatOut) for entry in entries) and journal.is_replacement:
            journal.end_replacement()

    async def _send_to(self, members: Iterable[MemberId], frame: Frame) -> None:
        data = encode(frame)
        for member in members:
            await self._rooms.network.send(member, data)

    async def _wake(self, timer: Timer, delay: float) -> None:
        await trio.sleep(delay)
        await self.put(TimerFired(timer))

    async def head_advanced(self, height: Round, statement: Digest) -> None:
        """The outbox's word on how far the finalised record is, and with which statement (empty: it does not know)."""
        if height != self._recorded:
            self._recorded = height
            await self.put(HeadAdvanced(height, statement))

    def _settle(self, settled: Round) -> None:
        """What lies far behind need not be kept, or read again.

        Only what the record has as this node has it: where it has something else, both histories are still needed.
        """
        self._rooms.journal.set_meta(RECORDED, str(settled).encode())
        self._rooms.retention.settle(settled)
        self._rooms.states.settle(settled)

    async def _read_record(self, first: Round, last: Round) -> None:
        if self.machine.contradicted:
            await trio.sleep(READ_SECONDS)  # an RPC that contradicts itself may think better of it
        await self.put(RecordRead(await self._rooms.outbox.final_record(first, last)))

    async def _roll_back(self, effect: RollBack) -> None:
        rooms, fork = self._rooms, effect.fork
        theirs = struct_hash(fork.recorded.statement)
        rooms.log.error("rolled back", round=fork.round, mine=fork.held.hex(), recorded=theirs.hex())
        rooms.outbox.give_up(effect.statements)
        rooms.watcher.rolled_back(fork.round)
        await trio.to_thread.run_sync(rooms.archive.add_fork, fork.round, fork.held, encode_fork(fork))
        await trio.to_thread.run_sync(self._set_aside, fork.round, effect.statements)

    def _set_aside(self, first: Round, statements: frozenset[Digest]) -> None:
        """The records of what was given up are proofs by now, and no history."""
        archive = self._rooms.archive
        for round_ in [one for one in archive.rounds() if one >= first]:
            record = decode_record(archive.record(round_) or b"")
            digest = struct_hash(record.attestations[0].body)
            if digest in statements:
                archive.set_aside(round_, digest)
        self._rooms.states.roll_back(first)

    async def _accuse(self, member: MemberId, kind: str, reason: str, proof: bytes) -> None:
        """Say who did what, wherever this node's people look, and keep the proof."""
        rooms, name = self._rooms, self._rooms.name(member)
        rooms.log.error("misbehaviour", member=name, kind=kind, reason=reason, proof=proof.hex())
        rooms.once.note(kind, name)
        rooms.watcher.accused(name, kind, reason)
        await trio.to_thread.run_sync(rooms.archive.add_bytes, proof)

    async def _promote(self, effect: Promote) -> None:
        names = [self._rooms.name(member) for member in effect.participants]
        self._rooms.log.info(
            "round done", round=effect.round, model=effect.model.root.hex(), participants=names
        )
        self._rooms.retention.promoted(effect.round, effect.model.root)
        self._rooms.watcher.promoted(effect)
        await trio.to_thread.run_sync(self._close, effect)

    def _close(self, effect: Promote) -> None:
        self._rooms.learning.forget_before(effect.round + 1)
        self._rooms.states.close(effect.round, effect.survivors, included=effect.included)
