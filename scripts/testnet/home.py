"""The directory of a testnet: `testnet.json` says that it is one, what runs there and which processes those are.

Layout: `testnet.json`, `report.json`, `nodes/<name>/` (each a node's home), `chain/` (the chain started here), `logs/`.
A directory without our `testnet.json` is never written into unless it is empty, and never deleted.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import msgspec

from folkmoot.node.config import Home
from folkmoot.protocol.charter_tables import CodecName
from folkmoot.protocol.schema import Task
from folkmoot.testnet.processes import ProcessRef, TestnetError
from folkmoot.testnet.strays import find_strays

NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy")
MAX_NODES = 64
MAX_ATTESTERS = 31
"""What the contract takes; in a larger testnet the first ones attest."""

OWN_ROWS, HELD_OUT_ROWS = "rows.parquet", "held_out.parquet"
"""Files in a node's data folder: the user's rows that were dealt to it, and those that all measure on."""

Example: TypeAlias = Literal["digits", "breast-cancer"]
Codec: TypeAlias = CodecName
CODECS: tuple[Codec, ...] = get_args(CodecName)
Mode: TypeAlias = Literal["open", "secure"]
Ring: TypeAlias = Literal[8, 16, 32]
Links: TypeAlias = Literal["direct", "shaped"]


class OwnData(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The user's own rows instead of an example's. `split_by` is "iid" or the column whose values are dealt."""

    file: str
    target: str
    split_by: str = "iid"
    task: Task | None = None
    leave_out: tuple[str, ...] = ()


class OwnModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The user's own model: module:function, and the file that holds it."""

    source: str
    file: str


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the user asked for. `chain` is "embedded", "anvil" or the URL of a JSON-RPC end point.

    Where `data` is given, `example` is not used; where `model` is, or a `kind` of model, not the example's or the
    proposed one. `codec` counts in open mode, `ring` (bits of a value) in secure mode.
    `split` deals an example's rows: evenly ("iid"), or by class shares ("dirichlet:0.1"). `terms` are other terms
    of the charter, as `charter new --set` takes them.
    `ditto` is each node's `trainer.ditto`. `attack` is "name:count" of `attacks.py`: the last nodes' trainers lie.
    Amendments come into force more than `max_ahead` rounds after they are recorded.
    """

    nodes: int
    rounds: int
    example: Example
    data: OwnData | None = None
    model: OwnModel | None = None
    kind: Literal["", "cnn"] = ""
    chain: str = "embedded"
    seed: int = 0
    codec: Codec = "f32"
    mode: Mode = "open"
    ring: Ring = 16
    links: Links = "direct"
    max_ahead: int = 50
    split: str = "iid"
    terms: tuple[str, ...] = ()
    ditto: float = 0.0
    attack: str = ""

    @property
    def attack_name(self) -> str:
        """What the attackers do; empty without."""
        return self.attack.partition(":")[0]

    @property
    def attackers(self) -> list[str]:
        """The nodes whose trainers lie."""
        count = int(self.attack.partition(":")[2] or 0)
        return self.names[len(self.names) - count :]

    @property
    def names(self) -> list[str]:
        """The nodes' names: people first, then numbers."""
        return [
            NAMES[index] if index < len(NAMES) else f"node-{index + 1:02d}" for index in range(self.nodes)
        ]


class Testnet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`testnet.json`. `contract` is empty until the founding is done; `federation` is its id in hex.

    `joined` and `left`: nodes that came and went since.
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    format: Literal["folkmoot/v1/testnet"] = "folkmoot/v1/testnet"
    plan: Plan
    federation: str = ""
    mode: str = ""
    contract: str = ""
    rpc: str = ""
    joined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    processes: tuple[ProcessRef, ...] = ()

    @property
    def names(self) -> list[str]:
        """All nodes that there ever were."""
        return [*self.plan.names, *self.joined]

    @property
    def members(self) -> list[str]:
        """Those that belong to the federation, or are about to."""
        return [name for name in self.names if name not in self.left]

    @property
    def is_founded(self) -> bool:
        """Whether everything that a restart needs is there."""
        return bool(self.contract)

    @property
    def running(self) -> list[ProcessRef]:
        """The processes that live."""
        return [process for process in self.processes if process.is_running]

    def process(self, name: str) -> ProcessRef | None:
        """The process called `name` (a node, "chain", "trainers", "relay", "supervisor"), if it lives."""
        return next((process for process in self.running if process.name == name), None)


@dataclass(frozen=True)
class TestnetHome:
    """Where everything lies. Nothing is created by naming it."""

    __test__ = False  # see Testnet

    path: Path

    @property
    def state(self) -> Path:
        """The file that makes it a testnet's."""
        return self.path / "testnet.json"

    @property
    def report(self) -> Path:
        """What the last `testnet run` found."""
        return self.path / "report.json"

    @property
    def report_folder(self) -> Path:
        """The same for people: a page with plots, and CSV."""
        return self.path / "report"

    @property
    def chaos_report(self) -> Path:
        """What the last `testnet chaos` found."""
        return self.path / "chaos.json"

    @property
    def chain(self) -> Path:
        """The own directory of a chain that is started here."""
        return self.path / "chain"

    @property
    def chain_url(self) -> Path:
        """Where the URL of such a chain stands when it answers."""
        return self.chain / "url"

    @property
    def initial_vector(self) -> Path:
        """The starting weights, flat, before they are dealt to the nodes."""
        return self.path / "model0.f32"

    @property
    def own_data(self) -> Path:
        """The user's own rows, as they were dealt."""
        return self.path / "rows"

    @property
    def fork_socket(self) -> Path:
        """Where the process that forks trainers listens."""
        return self.path / "trainers.sock"

    @property
    def relay_socket(self) -> Path:
        """Where the process through which shaped links run takes orders; there while it does."""
        return self.path / "relay.sock"

    def relay_addresses(self, name: str) -> Path:
        """Under which addresses one node finds each of the others, where links are shaped."""
        return self.path / "relay" / name

    @property
    def lock(self) -> Path:
        """Held by whoever changes `testnet.json` of a testnet that runs."""
        return self.path / "testnet.lock"

    @property
    def logs(self) -> Path:
        """Output of chain, trainers, relay and baselines; each node has its own."""
        return self.path / "logs"

    def node(self, name: str) -> Home:
        """The home of one node."""
        return Home(self.path / "nodes" / name)

    def passphrase(self, name: str) -> Path:
        """The file that unlocks a node's keys (0600; a testnet's keys are worth nothing)."""
        return self.node(name).path / "passphrase"

    def archives(self, names: list[str]) -> list[Path]:
        """What an auditor would be given."""
        return [self.node(name).archive for name in names]


def read_testnet(home: TestnetHome) -> Testnet:
    """The testnet of `home`, with nodes that were started by hand; raises `TestnetError` if there is none, or its
    file is not ours.
    """
    testnet = _read_state(home)
    lacking = [name for name in testnet.names if testnet.process(name) is None]
    strays = find_strays((name, home.node(name)) for name in lacking)
    others = (one for one in testnet.processes if one.name not in {stray.name for stray in strays})
    return msgspec.structs.replace(testnet, processes=(*others, *strays))


def _read_state(home: TestnetHome) -> Testnet:
    try:
        return msgspec.json.decode(home.state.read_bytes(), type=Testnet)
    except FileNotFoundError as error:
        raise TestnetError(f"{home.path}: no testnet here: start one with 'folkmoot testnet up'") from error
    except OSError as error:
        raise TestnetError(f"{home.state}: cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise TestnetError(
            f"{home.state}: not a testnet's file ({error}); if another version wrote it, delete {home.path} by hand"
        ) from error


def write_testnet(home: TestnetHome, testnet: Testnet) -> None:
    """Replace `testnet.json`, whole; raises `TestnetError`."""
    temporary = home.state.with_suffix(".new")
    try:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(testnet), indent=1) + b"\n")
        temporary.replace(home.state)
    except OSError as error:
        raise TestnetError(f"{home.state}: cannot be written: {error.strerror}") from error


def open_home(home: TestnetHome, plan: Plan, *, fresh: bool) -> Testnet:
    """Claim `home` for a testnet of `plan`: a new one, or the one that was founded and stopped there.

    `fresh` deletes what was there first, if it was a testnet. Raises `TestnetError` where the directory is somebody
    else's, or its testnet is running, half founded or of another plan.
    """
    if home.state.exists() and fresh:
        _delete(home)
    if home.state.exists():
        return _reopen(home, plan)
    if home.path.exists() and (not home.path.is_dir() or any(home.path.iterdir())):
        raise TestnetError(f"{home.path}: not empty and not a testnet's: give another --home")
    try:
        home.logs.mkdir(parents=True)
    except OSError as error:
        raise TestnetError(f"{home.path}: cannot be made: {error.strerror}") from error
    testnet = Testnet(plan=plan)
    write_testnet(home, testnet)
    return testnet


def _reopen(home: TestnetHome, plan: Plan) -> Testnet:
    testnet = read_testnet(home)
    _refuse_running(home, testnet)
    if not testnet.is_founded:
        raise TestnetError(f"{home.path}: its founding was broken off: start anew with --fresh")
    if testnet.plan != plan:
        differences = ", ".join(
            f"{name} {getattr(testnet.plan, name)}, not {getattr(plan, name)}"
            for name in plan.__struct_fields__
            if getattr(testnet.plan, name) != getattr(plan, name)
        )
        raise TestnetError(
            f"{home.path}: holds another testnet ({differences}): give the same options to continue it, --fresh to "
            "delete it, or another --home"
        )
    return testnet


def _delete(home: TestnetHome) -> None:
    """Delete a testnet's directory, after making sure that it is one and rests."""
    _refuse_running(home, read_testnet(home))
    try:
        shutil.rmtree(os.path.realpath(home.path))
    except OSError as error:
        raise TestnetError(f"{home.path}: cannot be deleted: {error}") from error


def _refuse_running(home: TestnetHome, testnet: Testnet) -> None:
    if running := testnet.running:
        names = ", ".join(process.name for process in running)
        raise TestnetError(
            f"{home.path}: still running ({names}): 'folkmoot testnet down --home {home.path}' first"
        )
