"""One measurement of `folkmoot bench round`: real daemons on the embedded chain average random vectors.

Everything is as in a testnet but the trainer, which writes random numbers (`bench_trainer`). One round before those
that count takes what only happens once: connecting, the first transaction.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from nacl.signing import SigningKey

from folkmoot.ledger.build import expected_code_hash
from folkmoot.ledger.evm import deploy
from folkmoot.ledger.identity import founding_of
from folkmoot.node.archive import BlobWriter, Models
from folkmoot.node.charter_files import write_charter, write_member
from folkmoot.node.config import (
    Home,
    LedgerConfig,
    NetworkConfig,
    NodeConfig,
    StorageConfig,
    TrainerConfig,
    render_config,
)
from folkmoot.node.keys import GAS, IDENTITY, PublicKeys, create_keys, unlock
from folkmoot.node.passphrase import FILE_VARIABLE, create_passphrase_file
from folkmoot.node.status_file import NodeStatus, read_status
from folkmoot.node.store import Journal
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.charter import Charter, sign_charter
from folkmoot.protocol.charter_rules import check_charter
from folkmoot.protocol.codec import codec_named
from folkmoot.protocol.sealing import payload_size
from folkmoot.protocol.secure.layout import ShardLayout
from folkmoot.testnet import bench_links, bench_tcp
from folkmoot.testnet.bench_links import Lines
from folkmoot.testnet.bench_trainer import EXAMPLES
from folkmoot.testnet.bench_usage import RoundEnd, Usage, read_round_ends
from folkmoot.testnet.chains import await_url, read_chain_id, start_embedded
from folkmoot.testnet.home import MAX_ATTESTERS, Mode, Ring, TestnetHome
from folkmoot.testnet.processes import Child, TestnetError, stop_children

WARM_UP = 1
"""Rounds before those that count."""

STALL_SECONDS = 300.0
"""Without a finished round for so long (and more for large models), nothing will come of it any more."""

SLOWEST_BYTES = 10e6
"""Bytes a second that even a badly loaded machine moves in all; sets the charter's shortest attempt."""

_TENSOR = 1_000_000
_POLL_SECONDS = 0.1
_PIECE = 1 << 18

Say = Callable[[str], None]


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure; `codec` counts in open mode, `ring` (bits) in secure mode; `lines` are the nodes'."""

    nodes: int
    parameters: int
    rounds: int
    codec: str
    mode: Mode = "open"
    ring: Ring = 16
    lines: Lines = Lines()

    @property
    def names(self) -> list[str]:
        """What the nodes are called."""
        return [f"node-{index + 1:02d}" for index in range(self.nodes)]

    @property
    def slowest(self) -> float:
        """Bytes a second that all nodes together move at least."""
        return min(SLOWEST_BYTES, self.nodes * (self.lines.rate or SLOWEST_BYTES))

    @property
    def exchanged(self) -> int:
        """Bytes that every node sends each other in a round: its payload, or a masked shard and a sum."""
        if self.mode == "open":
            return payload_size(self.nodes, codec_named(self.codec).encoded_size(self.parameters))
        layout = ShardLayout(self.parameters, self.ring, self.nodes, self.nodes)
        return layout.shard_bytes(0) + layout.sum_bytes(0)


class RoundFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One round: from the moment when the last node had the model before to when the last one has this one.

    `cpu_s`: user and system seconds of daemons, trainers and chain together. `participants`: updates in the model.
    """

    seconds: float
    cpu_s: float
    participants: int


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The measurement; MB are 10^6 bytes. Sent and received are per node and round, encryption included.

    `payload_mb` is what every node sends each other (in secure mode a masked shard and a sum). `peak_rss_mb` is the
    highest resident set (VmHWM: libraries included) of any daemon. `trio_tcp_seconds`: see `bench_tcp`.
    """

    nodes: int
    params: int
    codec: str
    mode: Mode
    ring: Ring
    lines: Lines
    payload_mb: float
    rounds: list[RoundFigures]
    median_seconds: float
    sent_mb_per_node: float
    received_mb_per_node: float
    peak_rss_mb: float
    trio_tcp_seconds: float


def measure(what: Measure, folder: Path | None, say: Say) -> Figures:
    """Found a federation in `folder` (None: a temporary one), run it, stop it. Raises `FolkmootError`."""
    with _folder(folder) as path:
        home = TestnetHome(path)
        say(f"founding {what.nodes} nodes with {what.parameters:,} parameters in {path}")
        with _running() as children:
            homes = _found(home, what, children)
            if what.lines.are_shaped:
                children.insert(0, bench_links.start(home, what.names, what.lines))
            daemons = [_start(home, name) for name in homes]
            children[:0] = daemons
            usage = Usage([child.ref.pid for child in (*daemons, children[-1])], len(daemons))
            ends = _watch(what, list(homes.values()), daemons, usage, say)
            peak = usage.peak_rss_mb()
            stop_children(daemons)
            statuses = [_status(node) for node in homes.values()]
            say("measuring plain TCP")
            tcp = bench_tcp.measure(what.nodes, what.exchanged, _route(home, what))
    counted = [
        RoundFigures(
            seconds=after.time - before.time,
            cpu_s=usage.cpu_seconds(before.time, after.time),
            participants=after.participants,
        )
        for before, after in zip(ends[WARM_UP - 1 :], ends[WARM_UP:], strict=False)
    ]
    moved = 1e6 * what.nodes * (what.rounds + WARM_UP)
    return Figures(
        nodes=what.nodes,
        params=what.parameters,
        codec=what.codec,
        mode=what.mode,
        ring=what.ring,
        lines=what.lines,
        payload_mb=what.exchanged / 1e6,
        rounds=counted,
        median_seconds=float(np.median([figures.seconds for figures in counted])),
        sent_mb_per_node=sum(status.bytes_sent for status in statuses) / moved,
        received_mb_per_node=sum(status.bytes_received for status in statuses) / moved,
        peak_rss_mb=peak,
        trio_tcp_seconds=tcp,
    )


def _route(home: TestnetHome, what: Measure) -> bench_tcp.Route:
    """Plain TCP takes the way that the nodes' bytes took."""
    return partial(bench_links.reroute, home, what.names) if what.lines.are_shaped else bench_links.direct


@contextmanager
def _folder(folder: Path | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="folkmoot-bench-") as name:
            yield Path(name)
        return
    if folder.exists() and any(folder.iterdir()):
        raise TestnetError(f"{folder}: not empty: give a folder that is, or none")
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


@contextmanager
def _running() -> Iterator[list[Child]]:
    """The processes put into this list are stopped at the end, the last one (the chain) after all others."""
    children: list[Child] = []
    try:
        yield children
    finally:
        stop_children(children[:-1])
        stop_children(children[-1:])


# --- founding ---------------------------------------------------------------------------------------------------


def _found(home: TestnetHome, what: Measure, children: list[Child]) -> dict[str, Home]:
    """Homes that are ready to run, by name; the chain is put among `children`."""
    names = what.names
    homes = {name: home.node(name) for name in names}
    publics = []
    for name, node in homes.items():
        node.path.mkdir(parents=True)
        passphrase = create_passphrase_file(home.passphrase(name))
        publics.append(create_keys(node.keys, passphrase, cheap=True))
    chain = start_embedded(home, [keys.gas_key for keys in publics])
    children.append(chain)
    (initial,) = {_write_zeros(node, what.parameters) for node in homes.values()}
    rpc = await_url(home, chain)
    charter = _charter(what, names, publics, initial, read_chain_id(rpc))
    signatures = {name: sign_charter(charter, _identity(node)) for name, node in homes.items()}
    passphrase = home.passphrase(names[0]).read_text(encoding="utf-8").strip()
    (gas_key,) = unlock([homes[names[0]].keys / GAS], passphrase)
    contract = deploy([rpc], gas_key, founding_of(charter)).contract
    for index, (name, node) in enumerate(homes.items()):
        write_member(node, charter.members[index])
        write_charter(node, charter, signatures)
        node.config.write_text(_config(what, home, name, rpc, contract, index), encoding="utf-8")
        Journal.create(node.store)
    return homes


def _write_zeros(node: Home, parameters: int) -> BlobRef:
    with Models(node.models).writer() as blob:
        _write_pieces(blob, parameters)
    assert blob.ref is not None
    return blob.ref


def _write_pieces(blob: BlobWriter, parameters: int) -> None:
    zeros = np.zeros(_PIECE, dtype="<f4")
    for at in range(0, parameters, _PIECE):
        blob.write(zeros[: parameters - at].data)


def _charter(
    what: Measure, names: Sequence[str], publics: Sequence[PublicKeys], initial: BlobRef, chain_id: int
) -> Charter:
    members = [
        {
            "name": name,
            "peer_id": keys.peer_id,
            "identity_key": keys.identity_key,
            "sealing_key": keys.sealing_key,
            "audit_key": keys.audit_key,
            "attester": index < MAX_ATTESTERS,
        }
        for index, (name, keys) in enumerate(zip(names, publics, strict=True))
    ]
    sizes = [min(_TENSOR, what.parameters - at) for at in range(0, what.parameters, _TENSOR)]
    tensors = [{"name": f"tensor-{index:04d}", "shape": [size]} for index, size in enumerate(sizes)]
    moved = what.exchanged * what.nodes * (what.nodes - 1)
    attempt = min(600.0, max(8.0, moved / what.slowest))
    tables = {
        "name": "bench",
        "model": {"kind": "mlp", "layers": [1, 1], "initial": initial.root.hex(), "tensors": tensors},
        "averaging": {"mode": what.mode, "codec": what.codec, "weight_cap": EXAMPLES},
        "secrecy": {"ring": what.ring},
        "schedule": {"rounds": what.rounds + WARM_UP, "attempt_min": attempt},
        "ledger": {"chain_id": chain_id, "code_hash": expected_code_hash().hex()},
        "members": members,
    }
    charter = msgspec.convert(tables, Charter)
    check_charter(charter)
    return charter


def _config(what: Measure, home: TestnetHome, name: str, rpc: str, contract: bytes, seed: int) -> str:
    config = NodeConfig(
        name=name,
        network=NetworkConfig(
            bootstrap=bench_links.bootstrap(home, name, what.names, what.lines),
            tell_addresses=not what.lines.are_shaped,
        ),
        ledger=LedgerConfig(rpc=(rpc,), contract=f"0x{contract.hex()}"),
        trainer=TrainerConfig(command=(sys.executable, "-m", "folkmoot.testnet.bench_trainer", str(seed))),
        storage=StorageConfig(keep_models=2),
    )
    return render_config(config)


def _identity(node: Home) -> SigningKey:
    return SigningKey(bytes.fromhex((node.keys / IDENTITY).read_text(encoding="ascii")))


# --- running ----------------------------------------------------------------------------------------------------


def _start(home: TestnetHome, name: str) -> Child:
    node = home.node(name)
    command = [sys.executable, "-m", "folkmoot.node.cli", "run", "--home", str(node.path)]
    environment = {FILE_VARIABLE: str(home.passphrase(name))}
    return Child.start(name, command, node.logs / "output.log", environment=environment)


def _watch(
    what: Measure, homes: Sequence[Home], daemons: Sequence[Child], usage: Usage, say: Say
) -> list[RoundEnd]:
    """When each round ended at the last node; raises `TestnetError` if a process ends or nothing moves."""
    limit = STALL_SECONDS + what.parameters * what.nodes * what.nodes * 4 / what.slowest
    moved, ends = time.monotonic(), list[RoundEnd]()
    while len(ends) < what.rounds + WARM_UP:
        for child in daemons:
            if child.poll() is not None:
                raise TestnetError(child.why_it_ended())
        usage.sample()
        known = read_round_ends([node.logs for node in homes])
        for end in known[len(ends) :]:
            counts = f"round {len(known) - WARM_UP}/{what.rounds}" if len(known) > WARM_UP else "warm-up"
            say(f"{counts}: {end.participants} of {what.nodes} updates")
            moved = time.monotonic()
        ends = known
        if time.monotonic() - moved > limit:
            raise TestnetError(
                f"no round was finished in {limit:.0f} s: see the logs in {homes[0].path.parent}"
            )
        time.sleep(_POLL_SECONDS)
    usage.sample()
    return ends


def _status(node: Home) -> NodeStatus:
    status = read_status(node.status)
    if status is None:
        raise TestnetError(f"{node.status}: the node wrote no status")
    return status
