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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.development import check_secret_keys
from folkmoot.ledger.evm import EvmLedger
from folkmoot.ledger.port import LedgerHead
from folkmoot.ledger.signing import KeySigner, KeyVerifier
from folkmoot.node.archive import Archive, Models
from folkmoot.node.charter_files import load_charter
from folkmoot.node.config import Home, NodeConfig, load_config
from folkmoot.node.data.child import prepare_data
from folkmoot.node.engine import Engine
from folkmoot.node.keys import NodeKeys, load_keys, public_keys
from folkmoot.node.learning import Learning, check_data, data_manifest
from folkmoot.node.ledger_start import await_known_ledger, read_recorded
from folkmoot.node.logs import Once, logger
from folkmoot.node.masked_sums import MaskedSums
from folkmoot.node.masking import Masking
from folkmoot.node.model_file import read_starting_weights
from folkmoot.node.network.libp2p_transport import Libp2pSettings, open_libp2p
from folkmoot.node.network.port import Network
from folkmoot.node.outbox import Outbox
from folkmoot.node.passphrase import read_passphrase
from folkmoot.node.payloads import Payloads
from folkmoot.node.rooms import Rooms
from folkmoot.node.store import KILL_AFTER_ENTRY, KILL_AT_WRITE, Journal, kill_after_entry, kill_at_write
from folkmoot.node.train.source import locate_source
from folkmoot.node.trainer import Task, TrainerProcess
from folkmoot.node.watch import Watch
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.charter import Charter, federation_id
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.events import HeadAdvanced
from folkmoot.protocol.ring import check_float_environment
from folkmoot.protocol.round import RoundMachine
from folkmoot.protocol.typed_data import Domain
from folkmoot.protocol.types import Digest, MemberId

DRAIN_SECONDS = 2.0
"""How long a stopping node goes on submitting what is its turn to submit."""


@dataclass(frozen=True)
class Node:
    """A home, read and checked: all that a daemon needs before it meets anybody."""

    home: Home
    config: NodeConfig
    charter: Charter
    me: MemberId
    keys: NodeKeys
    initial: BlobRef
    model_source: str = ""

    @property
    def contract(self) -> bytes:
        """The contract's address, 20 bytes."""
        return bytes.fromhex(self.config.ledger.contract[2:])

    @property
    def federation(self) -> Federation:
        """The frame of every check."""
        chain = self.charter.ledger.chain_id
        return Federation(federation_id(self.charter.digest, chain, self.contract), self.charter)


def open_home(path: Home) -> Node:
    """Read and check a home without any network traffic; raises `FolkmootError` with what to do."""
    config = load_config(path)
    charter = load_charter(path)
    me = charter.member_named(config.name)
    _check_keys(path, charter, me)
    source = locate_source(charter.model, path.resolve(config.trainer.path))
    if charter.data is not None and config.data.query is not None:
        prepare_data(path)
    if config.trainer.command is None:  # another trainer knows itself what it can read
        check_data(path.resolve(config.data.train), path.resolve(config.data.test), charter)
    keys = load_keys(path.keys, read_passphrase(os.environ))
    check_float_environment()
    return Node(path, config, charter, me, keys, _initial_model(path, charter), source)


def _check_keys(home: Home, charter: Charter, me: MemberId) -> None:
    """The keys on disk must be those that the charter names, and nobody else's."""
    public, member = public_keys(home.keys), charter.members[me]
    for what in ("peer_id", "identity_key", "sealing_key", "audit_key"):
        if getattr(public, what) != getattr(member, what):
            raise CharterError(
                f"{home.keys}: the {what} is not the one that the charter names for {member.name}; "
                "use the keys that were made for this federation"
            )
    check_secret_keys(charter, public.gas_key)


def _initial_model(home: Home, charter: Charter) -> BlobRef:
    """The starting weights, flat, in the models; made from model0.safetensors if need be."""
    ref = BlobRef(bytes.fromhex(charter.model.initial), 4 * charter.model.parameters)
    models = Models(home.models)
    if models.has(ref):
        return ref
    return models.add_bytes(read_starting_weights(home.initial_model, charter.model).data.cast("B"))


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
        journal.bind(node.federation.id, node.charter.digest)
        watch = Watch(node.home, node.charter, node.me)
        with watch.telling():
            async with _trainer(node) as trainer:
                with stop.starting:
                    manifest = await _data_manifest(node)
                if not stop.asked.is_set():
                    await _Daemon(node, journal, trainer, _ledger(node), watch, manifest).run(stop)


def _trainer(node: Node) -> TrainerProcess:
    home, config = node.home, node.config
    task = Task(
        member=config.name,
        model=node.charter.model,
        training=node.charter.training,
        train=str(home.resolve(config.data.train)),
        test=str(home.resolve(config.data.test)),
        threads=config.trainer.threads,
        data=node.charter.data,
        source=node.model_source,
        device=config.trainer.device,
    )
    return TrainerProcess(task, home.logs / "trainer.log", config.trainer.command)


def _ledger(node: Node) -> EvmLedger:
    """The charter's ledger; nothing is asked of it yet."""
    config = node.config.ledger
    return EvmLedger(
        config.rpc,
        node.contract,
        node.keys.gas,
        chain_id=node.charter.ledger.chain_id,
        fee_cap=config.fee_cap,
    )


async def _data_manifest(node: Node) -> Digest:
    """Hashing the data takes as long as reading it: before the node meets anybody who waits for it."""
    data = node.config.data
    files = (node.home.resolve(data.train), node.home.resolve(data.test))
    return await trio.to_thread.run_sync(data_manifest, *files, abandon_on_cancel=True)


class _Daemon:
    """The rooms of a running node, put together."""

    def __init__(
        self,
        node: Node,
        journal: Journal,
        trainer: TrainerProcess,
        ledger: EvmLedger,
        watch: Watch,
        manifest: Digest,
    ) -> None:
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
        bump_seconds = node.config.ledger.bump_seconds
        self._outbox = Outbox(ledger, journal, node.charter, self._on_head, self._log, bump_seconds)
        self._engine: Engine | None = None

    async def run(self, stop: _Stop) -> None:
        """Run everything; a signal ends it from the inside out."""
        for store in (self._archive, self._models):
            await trio.to_thread.run_sync(store.clean)
        async with trio.open_nursery() as nursery:
            following = await nursery.start(self._follow_ledger)
            if await await_known_ledger(self._outbox, self._journal, self._watch, stop.asked, self._log):
                async with self._connected() as network:
                    await self._work(network, stop)
            following.cancel()
            with trio.move_on_after(DRAIN_SECONDS):
                await self._outbox.drain()
        self._once.log_totals()
        self._log.info("stopped", rounds=self._engine.machine.completed if self._engine else 0)

    async def _follow_ledger(self, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await self._outbox.run()

    async def _on_head(self, head: LedgerHead) -> None:
        if self._engine is not None:
            await self._engine.head_advanced(head.finalized_height)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Network]:
        """The network, with our addresses where others look for them."""
        node = self._node
        settings = Libp2pSettings(
            me=node.me,
            identity=bytes(node.keys.identity),
            peer_ids={index: member.peer_id for index, member in enumerate(node.charter.members)},
            listen=node.config.network.listen,
            announce=node.config.network.announce,
            bootstrap=tuple(self._bootstrap()),
        )
        async with open_libp2p(settings, self._locate, self._served, self._rng) as network:
            partial = node.home.address.with_suffix(".part")
            partial.write_text("\n".join(network.addresses) + "\n", encoding="ascii")
            partial.replace(node.home.address)
            self._log.info("listening", addresses=network.addresses)
            try:
                yield network
            finally:
                node.home.address.unlink(missing_ok=True)

    def _bootstrap(self) -> list[str]:
        home = self._node.home
        entries = self._node.config.network.bootstrap
        return [entry if entry.startswith(("/ip", "/dns")) else str(home.resolve(entry)) for entry in entries]

    def _locate(self, root: Digest) -> Path | None:
        path = self._archive.path(root) or self._models.path(root)
        if path is None and self._engine is not None:
            self._engine.wanted(root)
        return path

    def _served(self, root: Digest, member: MemberId) -> None:
        if self._engine is not None:
            self._engine.served(root, member)

    async def _work(self, network: Network, stop: _Stop) -> None:
        engine = Engine(self._machine(), self._rooms(network))
        await engine.put(HeadAdvanced(await read_recorded(self._outbox, self._journal)))
        self._engine = engine
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._trainer.check_start)
            nursery.start_soon(engine.run)
            nursery.start_soon(
                self._watch.run, engine.machine, network, self._outbox, self._trainer, self._once
            )
            await stop.asked.wait()
            nursery.cancel_scope.cancel()

    def _machine(self) -> RoundMachine:
        node, federation = self._node, self._node.federation
        domain = Domain(node.charter.ledger.chain_id, node.contract)
        signer = KeySigner(federation.id, domain, node.keys.identity, AuditKey(node.keys.audit))
        return RoundMachine(federation, node.me, signer, KeyVerifier(federation, domain), node.initial)

    def _rooms(self, network: Network) -> Rooms:
        node = self._node
        sealing, updates = bytes(node.keys.sealing), node.home.path / "updates"
        masking = Masking(node.federation, node.me, self._journal, self._archive, updates)
        learning = Learning(
            charter=node.charter,
            trainer=self._trainer,
            journal=self._journal,
            updates=updates,
            manifest=self._manifest,
            timeout=node.config.trainer.timeout,
            mask_key=masking.mask_key if node.charter.is_secure else None,
        )
        return Rooms(
            charter=node.charter,
            network=network,
            journal=self._journal,
            archive=self._archive,
            models=self._models,
            payloads=Payloads(node.federation, node.me, sealing, self._journal, self._archive, self._models),
            masking=masking,
            sums=MaskedSums(node.charter, self._archive, self._models),
            learning=learning,
            outbox=self._outbox,
            watcher=self._watch,
            once=self._once,
            log=self._log,
            rng=self._rng,
            keep_models=node.config.storage.keep_models,
        )
