"""The daemon: one member's node, from its home to a clean stop.

Lifetimes, outermost first; each is ended before the one around it:

    trainer process          started first, because it takes longest
      outbox                 follows the ledger; drained last
        network              libp2p
          engine             the round machine and its work
          watch              status.json
"""

import os
import random
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import trio

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.development import DEVELOPMENT_CHAINS
from folkmoot.ledger.evm import EvmLedger
from folkmoot.ledger.signing import KeySigner
from folkmoot.node.archive import Archive, Models
from folkmoot.node.backlog import unrecorded
from folkmoot.node.charters import enter_term
from folkmoot.node.config import bootstrap_entries
from folkmoot.node.disk import LEAST_ROOM, DiskFull, await_room, raise_if_full, run_unless_full
from folkmoot.node.engine import Engine
from folkmoot.node.governance import Governance, identities
from folkmoot.node.heap import give_back
from folkmoot.node.learning import Learning, data_manifest, promised_chain
from folkmoot.node.ledger_start import await_known_ledger, read_recorded
from folkmoot.node.limits import Uploads
from folkmoot.node.logs import Once, logger
from folkmoot.node.masked_sums import MaskedSums
from folkmoot.node.masking import Masking
from folkmoot.node.member_state import MemberStates
from folkmoot.node.network.directory import Directory
from folkmoot.node.network.libp2p_transport import Libp2pSettings, open_libp2p
from folkmoot.node.network.port import Network
from folkmoot.node.opening import Node, training_task
from folkmoot.node.outbox import Outbox
from folkmoot.node.payloads import Payloads
from folkmoot.node.privacy_log import PrivacyLog
from folkmoot.node.retention import Retention
from folkmoot.node.rooms import Rooms
from folkmoot.node.store import KILL_AFTER_ENTRY, KILL_AT_WRITE, Journal, kill_after_entry, kill_at_write
from folkmoot.node.trainer import TrainerProcess
from folkmoot.node.watch import Watch
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.errors import FolkmootError
from folkmoot.protocol.events import FrameReceived, HeadAdvanced
from folkmoot.protocol.messages import Signed
from folkmoot.protocol.privacy import Owner
from folkmoot.protocol.round import RoundMachine
from folkmoot.protocol.timeline import Timeline
from folkmoot.protocol.types import Digest, MemberId, Round

GIVE_BACK_SECONDS = 30.0
"""How often memory that nothing uses goes back to the system."""
DRAIN_SECONDS = 2.0
"""How long a stopping node goes on submitting what is its turn to submit."""


async def run(node: Node) -> None:
    """Run until SIGINT or SIGTERM. Raises `FolkmootError` where the node cannot start or go on."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            stop = _Stop()
            nursery.start_soon(stop.listen, signals)
            await _run_until(node, stop)
            nursery.cancel_scope.cancel()


class _Stop:
    """The wish to stop. It cuts the start short; later it is waited for, so that things end in their order."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.starting = trio.CancelScope()

    async def listen(self, signals: AsyncIterator[int]) -> None:
        """Take the first signal for it; a later one ends the process at once, as signals do."""
        async for number in signals:
            logger().info("stopping", signal=signal.Signals(number).name)
            for one in (signal.SIGINT, signal.SIGTERM):
                signal.signal(one, signal.SIG_DFL)
            self.starting.cancel()
            self.asked.set()


async def _run_until(node: Node, stop: _Stop) -> None:
    on_write = kill_at_write(int(os.environ[KILL_AT_WRITE])) if KILL_AT_WRITE in os.environ else None
    on_append = kill_after_entry(os.environ[KILL_AFTER_ENTRY]) if KILL_AFTER_ENTRY in os.environ else None
    with Journal.open(node.home.store, on_write=on_write, on_append=on_append) as journal:
        journal.bind(node.federation.id, node.timeline.founding.digest)
        if node.charter.ledger.chain_id in DEVELOPMENT_CHAINS:
            logger().warning(
                "a chain for development: its record proves nothing", chain_id=node.charter.ledger.chain_id
            )
        watch = Watch(node.home, node.charter, node.me)
        with watch.telling():
            async with _trainer(node) as trainer:
                with stop.starting:
                    manifest = await _data_manifest(node)
                if not stop.asked.is_set():
                    await _live(node, journal, trainer, watch, manifest, stop)


async def _live(
    node: Node, journal: Journal, trainer: TrainerProcess, watch: Watch, manifest: Digest, stop: _Stop
) -> None:
    """One term after the other, each as if the node had been started again, but for what it trains with."""
    recalled, listen = False, node.config.network.listen
    while not stop.asked.is_set():
        daemon = _Daemon(node, journal, trainer, _ledger(node), watch, manifest, recalled, listen)
        first = await run_unless_full(partial(daemon.run, stop))
        if isinstance(first, DiskFull):
            await _wait_for_room(first, node, watch, stop)
            # What was about to be written down is forgotten, even that peers have answered.
            node, recalled, listen = replace(node, timeline=daemon.timeline), False, daemon.listened
            continue
        if first is None:
            return
        name, timeline = node.config.name, daemon.timeline
        charter = timeline.charter_at(first)
        if charter.find_member(name) is None:
            logger().warning(
                "no longer a member of this federation", round=first, charter=charter.digest.hex()
            )
            watch.left()
            return
        node = await trio.to_thread.run_sync(node.in_term, timeline, first)
        await trio.to_thread.run_sync(enter_term, journal, first)
        logger().info("charter in force", round=first, charter=charter.digest.hex(), member=node.me)
        recalled, listen = daemon.has_recalled, daemon.listened
        watch.change(node.charter, node.me)
        await trainer.change_terms(charter)


async def _wait_for_room(full: DiskFull, node: Node, watch: Watch, stop: _Stop) -> None:
    logger().error("disk full", error=str(full), note="the node goes on once there is room")
    watch.disk_full()
    charter = node.charter  # room for an update, what is sent of it, and the next snapshot
    models = 4 * (2 * charter.update_values + charter.snapshot_values)
    await await_room(full, LEAST_ROOM + models, stop.asked)
    logger().info("going on: there is room again" if not stop.asked.is_set() else "stopped")


def _via(node: Node) -> Literal["auto"] | tuple[str, ...]:
    """The peer ids of the members through which this one is to be reached. Raises CharterError for an unknown name."""
    via, charter = node.config.network.via, node.charter
    return (
        "auto" if via == "auto" else tuple(charter.members[charter.member_named(one)].peer_id for one in via)
    )


def _trainer(node: Node) -> TrainerProcess:
    home, config = node.home, node.config
    task = training_task(home, config, node.charter, node.model_source)
    return TrainerProcess(task, home.logs / "trainer.log", config.trainer.command, log_config=config.log)


def _ledger(node: Node) -> EvmLedger:
    """The charter's ledger; nothing is asked of it yet."""
    config = node.config.ledger
    return EvmLedger(
        config.rpc,
        node.contract,
        node.keys.gas,
        chain_id=node.charter.ledger.chain_id,
        fee_cap=config.fee_cap,
        finality_depth=node.charter.ledger.finality_depth,
    )


async def _data_manifest(node: Node) -> Digest:
    """Hashing the data takes as long as reading it: before the node meets anybody who waits for it."""
    data = node.config.data
    files = (node.home.resolve(data.train), node.home.resolve(data.test))
    return await trio.to_thread.run_sync(data_manifest, *files, abandon_on_cancel=True)


class _Daemon:
    """The rooms of a running node, put together, for one term of its charters."""

    def __init__(
        self,
        node: Node,
        journal: Journal,
        trainer: TrainerProcess,
        ledger: EvmLedger,
        watch: Watch,
        manifest: Digest,
        recalled: bool,
        listen: str,
    ) -> None:
        """`recalled`: whether peers have confirmed, in this life, that the journal holds all that this node signed."""
        self._node = node
        self._journal = journal
        self._trainer = trainer
        self._log = logger()
        self._once = Once(self._log)
        self._rng = random.Random()
        self._archive = Archive(node.home.archive)
        self._models = Models(node.home.models)
        self._watch = watch
        self._manifest = manifest
        self._recalled = recalled
        self._listen = listen
        self._directory = Directory(
            node.timeline.federation,
            node.keys.identity,
            identities(node.timeline, node.first),
            node.home.known_addresses,
        )
        self._governance = Governance(node, journal, ledger, self._archive, self._directory, watch, self._log)
        self._outbox = Outbox(
            ledger,
            journal,
            node.timeline.founding,
            self._governance.on_head,
            self._log,
            node.config.ledger.bump_seconds,
            charter_at=self._charter_at,
            on_attested=self._on_attested,
        )
        self._uploads = Uploads(round(node.config.limits.max_upload * 1e6), lambda: self._bytes_sent)
        self._engine: Engine | None = None
        self._network: Network | None = None
        self.listened = listen
        """Where the network listens, or did."""

    @property
    def timeline(self) -> Timeline:
        """The charters that are known by now."""
        return self._governance.timeline

    @property
    def has_recalled(self) -> bool:
        """Whether peers have confirmed that the journal holds all that this node signed."""
        return self._engine is not None and self._engine.machine.has_recalled

    def _charter_at(self, round_: Round) -> Charter:
        return self.timeline.charter_at(round_)

    async def _on_attested(self, attestation: Signed) -> None:
        """Found on the ledger; to the machine it is as good as one that came over the wire."""
        if self._engine is not None:
            await self._engine.put(FrameReceived(None, attestation))

    async def run(self, stop: _Stop) -> Round | None:
        """Run everything; a signal ends it from the inside out, and so does the end of the term.

        Then it is the first round of the term that follows.
        """
        first: Round | None = None
        for store in (self._archive, self._models):
            await trio.to_thread.run_sync(store.clean)
        async with trio.open_nursery() as nursery:
            following = await nursery.start(self._follow_ledger)
            if await await_known_ledger(self._outbox, self._journal, self._watch, stop.asked, self._log):
                async with self._connected() as network:
                    first = await self._work(network, stop)
            following.cancel()
            with trio.move_on_after(DRAIN_SECONDS):
                await self._outbox.drain()
        self._once.log_totals()
        self._log.info("stopped", rounds=self._engine.machine.completed if self._engine else 0)
        return first

    async def _follow_ledger(self, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await self._outbox.run()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Network]:
        """The network, with our addresses where others look for them."""
        node = self._node
        settings = Libp2pSettings(
            me=node.me,
            identity=bytes(node.keys.identity),
            peer_ids={index: member.peer_id for index, member in enumerate(node.charter.members)},
            listen=self._listen,
            announce=node.config.network.announce,
            bootstrap=tuple(bootstrap_entries(node.config.network, node.home)),
            directory=self._directory if node.config.network.tell_addresses else None,
            relay=node.config.network.relay,
            via=_via(node),
            mdns=node.config.network.mdns,
        )
        async with open_libp2p(settings, self._locate, self._served, self._rng) as network:
            _write_addresses(node.home.address, network.addresses)
            self._log.info("listening", addresses=network.addresses)
            if not node.config.network.announce:  # a port that the system chose is kept
                self.listened = network.addresses[0].split("/p2p/")[0]
            try:
                yield network
            finally:
                node.home.address.unlink(missing_ok=True)

    @property
    def _bytes_sent(self) -> int:
        return self._network.stats.bytes_sent if self._network is not None else 0

    def _locate(self, root: Digest) -> Path | None:
        path = self._archive.path(root)
        if path is None and not self._uploads.are_spent:  # models are to be had from others too
            path = self._models.path(root)
        if path is None and self._engine is not None:
            self._engine.wanted(root)
        return path

    def _served(self, root: Digest, member: MemberId) -> None:
        if self._engine is not None:
            self._engine.served(root, member)

    async def _work(self, network: Network, stop: _Stop) -> Round | None:
        self._network = network
        engine = Engine(self._machine(), self._rooms(network))
        recorded = await trio.to_thread.run_sync(read_recorded, self._journal)
        await engine.put(HeadAdvanced(recorded))
        await self._hand_in_again(recorded)
        self._engine = engine
        next_term: list[Round] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._trainer.check_start)
            nursery.start_soon(engine.run)
            nursery.start_soon(_keep_small)
            nursery.start_soon(self._governance.run, engine, network, self._outbox)
            nursery.start_soon(
                self._watch.run, engine.machine, network, self._outbox, self._trainer, self._once
            )
            nursery.start_soon(self._await_term, engine, next_term, nursery.cancel_scope)
            await stop.asked.wait()
            nursery.cancel_scope.cancel()
        return next_term[0] if next_term and not stop.asked.is_set() else None

    async def _await_term(self, engine: Engine, next_term: list[Round], work: trio.CancelScope) -> None:
        """End the work when its term has ended, or goes on without this node."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._await_leaving, next_term, nursery.cancel_scope)
            next_term.append(await self._governance.next_term(engine))
            nursery.cancel_scope.cancel()
        work.cancel()

    async def _await_leaving(self, next_term: list[Round], waiting: trio.CancelScope) -> None:
        next_term.append(await self._governance.left())
        waiting.cancel()

    async def _hand_in_again(self, recorded: Round) -> None:
        """Rounds that the ledger lacks and of which the machine knows nothing.

        They were under earlier charters, or the journal has forgotten them and a deep reorganisation undid them.
        """
        first = max(self._node.first, await trio.to_thread.run_sync(lambda: self._journal.pruned_before))
        records = await trio.to_thread.run_sync(
            unrecorded, self._archive, recorded, first, self.timeline, self._node.config.name
        )
        for record in records:
            self._outbox.add(record)

    def _machine(self) -> RoundMachine:
        node, terms = self._node, self._governance.terms()
        rule = terms.at(node.first).rule
        assert rule is not None  # the home was opened with this charter
        signer = KeySigner(rule.federation.id, node.domain, node.keys.identity, AuditKey(node.keys.audit))
        machine = RoundMachine(
            rule.federation, node.me, signer, rule.verifier, node.initial, first=node.first, terms=terms
        )
        if self._recalled:
            machine.skip_recall()
        return machine

    def _privacy_log(self) -> PrivacyLog | None:
        node = self._node
        if not node.charter.is_private:
            return None
        owner = Owner(federation=node.federation.id.hex(), member=node.config.name)
        return PrivacyLog.open(node.home.privacy_log, owner, promised_chain(self._journal))

    def _rooms(self, network: Network) -> Rooms:
        node = self._node
        sealing, updates = bytes(node.keys.sealing), node.home.updates
        states = MemberStates.of(node.charter, updates, node.config.trainer.beside)
        masking = Masking(node.federation, node.me, self._journal, self._archive, states.residuals)
        learning = Learning(
            charter=node.charter,
            trainer=self._trainer,
            journal=self._journal,
            updates=updates,
            manifest=self._manifest,
            timeout=node.config.trainer.timeout,
            mask_key=masking.mask_key if node.charter.is_secure else None,
            kept=states.kept,
            uploads=self._uploads,
            residuals=states.residuals if node.charter.has_feedback else None,
            privacy_log=self._privacy_log(),
        )
        self._watch.spent(learning.spent(node.first))
        return Rooms(
            charter=node.charter,
            network=network,
            journal=self._journal,
            archive=self._archive,
            models=self._models,
            payloads=Payloads(
                node.federation,
                node.me,
                sealing,
                self._journal,
                self._archive,
                self._models,
                states.residuals,
            ),
            masking=masking,
            sums=MaskedSums(node.charter, self._archive, self._models),
            learning=learning,
            states=states,
            outbox=self._outbox,
            watcher=self._watch,
            once=self._once,
            log=self._log,
            rng=self._rng,
            retention=Retention(
                node.charter, self._journal, self._archive, self._models, node.config.storage
            ),
        )


async def _keep_small() -> None:
    while True:
        await trio.sleep(GIVE_BACK_SECONDS)
        await trio.to_thread.run_sync(give_back)


def _write_addresses(path: Path, addresses: Sequence[str]) -> None:
    """Where others look for them; raises `FolkmootError`."""
    unfinished = path.with_suffix(".part")
    try:
        unfinished.write_text("\n".join(addresses) + "\n", encoding="ascii")
        unfinished.replace(path)
    except OSError as error:
        raise_if_full(error, path)
        raise FolkmootError(f"{path}: cannot be written: {error.strerror}") from error
