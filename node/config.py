"""A node's home: where everything lies in it, and what its operator sets in `node.toml`.

What the members agreed on stands in the charter, not here: `node.toml` only says how this node reaches the
network, the ledger and its own data.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from folkmoot.node.toml import load
from folkmoot.protocol.toml import ConfigError, toml_value

Device: TypeAlias = Literal["cpu", "cuda", "auto"]
DITTO, ALONE = "ditto", "alone"
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
Multiaddr = Annotated[str, Meta(pattern=r"^/(ip4|ip6|dns|dns4|dns6)/")]
Url = Annotated[str, Meta(pattern=r"^https?://")]
Address = Annotated[str, Meta(pattern=r"^0x[0-9a-fA-F]{40}$")]

_MULTIADDR_STARTS = ("/ip4/", "/ip6/", "/dns/", "/dns4/", "/dns6/", "/p2p/")


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the tables of `node.toml`: immutable, nothing unknown."""


class NetworkConfig(_Table, frozen=True):
    """Where to listen (TCP; port 0 lets the system choose) and whom to call first.

    `announce` holds the addresses under which others reach this node, where they differ from `listen` (behind a
    router, or when listening on all interfaces). An entry of `bootstrap` is a multiaddr ending in /p2p/PEER, or a
    file that holds such addresses, one per line (another node's `address` file), which may appear later. With `relay`
    this node passes on what members send each other through it; `via` names the members through which this one is
    reached, "auto": any that relay. With `mdns` members on the same local network find each other. Without
    `tell_addresses` this node neither tells where others are nor believes what it is told: only `bootstrap` counts.
    """

    listen: Multiaddr = "/ip4/127.0.0.1/tcp/0"
    announce: tuple[Multiaddr, ...] = ()
    bootstrap: tuple[str, ...] = ()
    relay: bool = False
    via: Literal["auto"] | tuple[Name, ...] = ()
    mdns: bool = False
    tell_addresses: bool = True


class LedgerConfig(_Table, frozen=True):
    """JSON-RPC end points, used in turn and compared, and the address of the federation's contract.

    A transaction never offers more than `max_fee_gwei` for a gas; one that is in no block after `bump_seconds` is sent
    again with higher fees, as far as that allows.
    """

    rpc: Annotated[tuple[Url, ...], Meta(min_length=1)]
    contract: Address
    max_fee_gwei: Annotated[float, Meta(gt=0, le=1_000_000)] = 100.0
    bump_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 60.0

    @property
    def fee_cap(self) -> int:
        """The most wei for one gas."""
        return round(self.max_fee_gwei * 1e9)


class TrainerConfig(_Table, frozen=True):
    """How local training runs: its command (else the built-in trainer), CPU threads, seconds for a fit.

    `path` is the folder with the source of a custom model; it is searched before PYTHONPATH. `device` "auto" is a GPU
    where there is one; `mixed_precision` lets it compute matrix products in bfloat16. `max_steps` bounds the steps of a
    round for a slow member (0: no bound). `ditto` is the lambda by which a model of the member's own is held near the
    federation's (0: none is trained); with `alone` another one learns from the member's rows only, to compare.
    """

    command: Annotated[tuple[str, ...], Meta(min_length=1)] | None = None
    path: str = "models_src"
    device: Device = "cpu"
    mixed_precision: bool = False
    max_steps: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    ditto: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    alone: bool = False
    threads: Annotated[int, Meta(ge=1, le=1024)] = 1
    timeout: Annotated[float, Meta(gt=0, le=7 * 86_400)] = 3600.0

    @property
    def beside(self) -> tuple[str, ...]:
        """The models that this member trains for itself."""
        return (*[DITTO] * (self.ditto > 0), *[ALONE] * self.alone)


class LimitsConfig(_Table, frozen=True):
    """What this member's machine and line are to bear, in MB (10^6 bytes); 0: no limit.

    `max_memory` bounds the trainer's own memory, enforced by the system (the daemon takes about 150 MB besides);
    `max_upload` what the node sends in a round: if an update goes beyond it, it is left out.
    """

    max_memory: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    max_upload: Annotated[float, Meta(ge=0, le=1e9)] = 0.0


class DataConfig(_Table, frozen=True):
    """This member's own rows; relative paths, also those in a query, start at the node's home.

    Where the charter has a data schema, `query` is the SELECT that reads the rows (FROM 'customers.parquet'), and its
    result is written to the files `train` and `test`. Held out for `test` are the rows of `test_query`, or else the
    share `holdout` of the query's own.
    """

    query: str | None = None
    test_query: str | None = None
    holdout: Annotated[float, Meta(ge=0, lt=1)] = 0.2
    train: str = "data/train.safetensors"
    test: str = "data/test.safetensors"


class StorageConfig(_Table, frozen=True):
    """How many models of recorded rounds stay on disk; older ones can be computed again from the archive.

    Of how many rounds payloads and records stay in the archive, 0 for all. Rounds that are not final, or that may still
    be disputed, are kept in any case.
    """

    keep_models: Annotated[int, Meta(ge=2, le=1_000_000)] = 10
    keep_archive: Annotated[int, Meta(ge=0)] = 0


class LogConfig(_Table, frozen=True):
    """From which severity on lines are logged.

    A log file of `max_mb` (10^6 bytes) is set aside; `keep` older ones stay.
    """

    level: Literal["debug", "info", "warning", "error"] = "info"
    max_mb: Annotated[float, Meta(ge=0.01, le=100_000)] = 10.0
    keep: Annotated[int, Meta(ge=1, le=1000)] = 5

    @property
    def max_bytes(self) -> int:
        """The size at which a log file is set aside."""
        return round(self.max_mb * 1e6)


class NodeConfig(_Table, frozen=True):
    """All of `node.toml`. `name` is this member's name in the charter."""

    name: Name
    ledger: LedgerConfig
    network: NetworkConfig = NetworkConfig()
    trainer: TrainerConfig = TrainerConfig()
    limits: LimitsConfig = LimitsConfig()
    data: DataConfig = DataConfig()
    storage: StorageConfig = StorageConfig()
    log: LogConfig = LogConfig()


@dataclass(frozen=True)
class Home:
    """The layout of a node's home directory (DESIGN section 6). Nothing is created by naming it."""

    path: Path

    def resolve(self, path: str) -> Path:
        """`path` as written in `node.toml`: relative ones start at the home."""
        return self.path / path

    @property
    def config(self) -> Path:
        """What the operator sets."""
        return self.path / "node.toml"

    @property
    def member(self) -> Path:
        """The public halves of the keys: what the other members put into the charter."""
        return self.path / "member.toml"

    @property
    def charter(self) -> Path:
        """The agreement, as TOML."""
        return self.path / "charter.toml"

    @property
    def charter_signatures(self) -> Path:
        """Directory of the members' detached signatures on the charter, one `<name>.sig` each."""
        return self.path / "charter.sig"

    @property
    def charters(self) -> Path:
        """Amended charters, by digest."""
        return self.path / "charters"

    @property
    def outgoing(self) -> Path:
        """Signed amendments that are to be submitted, by whoever owns the gas key at the moment."""
        return self.path / "outgoing"

    @property
    def keys(self) -> Path:
        """Secret keys; only the owner may read it."""
        return self.path / "keys"

    @property
    def store(self) -> Path:
        """The journal (SQLite)."""
        return self.path / "store.sqlite"

    @property
    def privacy_log(self) -> Path:
        """What of the privacy budget is spent."""
        return self.path / "privacy.jsonl"

    @property
    def archive(self) -> Path:
        """Content-addressed blobs and round records; may be handed to an auditor as it is."""
        return self.path / "archive"

    @property
    def models(self) -> Path:
        """Flat model vectors by digest, and `model0.safetensors`."""
        return self.path / "models"

    @property
    def updates(self) -> Path:
        """This member's own updates, and what it keeps for itself (`member_state.py`)."""
        return self.path / "updates"

    @property
    def initial_model(self) -> Path:
        """The starting weights that the charter names by digest."""
        return self.models / "model0.safetensors"

    @property
    def data_summary(self) -> Path:
        """What the member's rows came to when they were last prepared (JSON)."""
        return self.path / "data" / "summary.json"

    @property
    def logs(self) -> Path:
        """Directory of `node.log` (JSON lines) and its older parts."""
        return self.path / "logs"

    @property
    def status(self) -> Path:
        """What `folkmoot status` reads; replaced whole by the running node."""
        return self.path / "status.json"

    @property
    def address(self) -> Path:
        """The multiaddrs on which the running node listens, one per line."""
        return self.path / "address"

    @property
    def known_addresses(self) -> Path:
        """Where all members say they can be reached, signed (`network/directory.py`)."""
        return self.path / "known-addresses"


_NO_LEDGER = "'ledger' is missing: add it"


def load_config(home: Home) -> NodeConfig:
    """`node.toml` of `home`, checked; raises `ConfigError` naming file, key and remedy."""
    try:
        return load(home.config, NodeConfig)
    except ConfigError as error:
        if str(error).endswith(_NO_LEDGER):
            raise ConfigError(
                f"{home.config}: has no [ledger] yet: one member runs 'folkmoot ledger deploy', the others 'folkmoot "
                "ledger use', once all have signed the charter"
            ) from error
        raise


def bootstrap_entries(config: NetworkConfig, home: Home) -> list[str]:
    """The entries of `bootstrap` for whoever dials: multiaddrs, and the full paths of files that hold them."""
    return [
        entry if entry.startswith(_MULTIADDR_STARTS) else str(home.resolve(entry))
        for entry in config.bootstrap
    ]


def bootstrap_files(config: NetworkConfig, home: Home) -> list[Path]:
    """The entries of `bootstrap` that are files of addresses."""
    return [home.resolve(entry) for entry in config.bootstrap if not entry.startswith(_MULTIADDR_STARTS)]


def bootstrap_addresses(config: NetworkConfig, home: Home) -> list[str]:
    """The multiaddrs to call first, address files read now; a file that is not there yet gives none.

    Raises `ConfigError` for an entry, or a line of a file, that is not a multiaddr naming its peer.
    """
    addresses = []
    for entry in config.bootstrap:
        if entry.startswith(_MULTIADDR_STARTS):
            addresses.append(_peer_address(entry, "network.bootstrap"))
        else:
            path = home.resolve(entry)
            addresses += [_peer_address(line, str(path)) for line in _lines(path)]
    return addresses


def render_config(config: NodeConfig) -> str:
    """`config` as the text of a `node.toml` with a word of explanation at each table."""
    lines = [
        "# This node: who it is, how it reaches the others and the ledger, where its data lies.",
        f"name = {toml_value(config.name)}",
        "",
        "[network]",
        '# announce: how others reach this node, if not by `listen`, e.g. "/dns4/fl.example.org/tcp/4001"',
        "# bootstrap: multiaddrs ending in /p2p/PEER, or files that hold them; one member is enough",
        '# relay: let others reach each other through this node; via: reach this one through others, "auto" or names',
        *_assignments(config.network),
        "",
        "[ledger]",
        "# rpc: JSON-RPC end points, better two or more, of different operators: used in turn and compared",
        "# max_fee_gwei: the most that your gas key pays for one gas; above it recording waits",
        *_assignments(config.ledger),
        "",
        "[trainer]",
        "# path: folder with a custom model's source; device: cpu, cuda or auto; timeout: seconds for one fit",
        *_assignments(config.trainer),
        "",
        "[limits]",
        "# MB (10^6 bytes), 0: no limit. max_memory: of the trainer; max_upload: of what this node sends in a round",
        *_assignments(config.limits),
        "",
        "[data]",
        "# query: the SELECT that reads your rows; relative paths start at this file's directory",
        *_assignments(config.data),
        "",
        "[storage]",
        "# keep_models: how many rounds' models stay on disk once they are recorded; keep_archive: of how many rounds",
        "# the payloads and records, which auditors need, stay (0: of all)",
        *_assignments(config.storage),
        "",
        "[log]",
        "# max_mb: size at which a log file is set aside; keep: how many older ones stay",
        *_assignments(config.log),
    ]
    return "\n".join(lines) + "\n"


def _assignments(table: msgspec.Struct) -> list[str]:
    """One `key = value` per field that is set; TOML has no null."""
    values = msgspec.structs.asdict(table)
    return [f"{key} = {toml_value(value)}" for key, value in values.items() if value is not None]


def _peer_address(address: str, source: str) -> str:
    if not address.startswith(_MULTIADDR_STARTS) or "/p2p/" not in address:
        raise ConfigError(f"{source}: {address!r} is not an address like /ip4/192.0.2.7/tcp/4001/p2p/PEER_ID")
    return address


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a list of addresses: {error}") from error
