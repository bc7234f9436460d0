"""HOME/status.json: what a running node says about itself, replaced whole so that readers never see half of
it.

Also the sampled memory figures that it shows.
"""

import os
import re
from pathlib import Path

import msgspec

from folkmoot.protocol.errors import FolkmootError

_RSS_LINE = re.compile(rb"^(?:RssAnon|RssShmem):\s*(\d+) kB$", re.MULTILINE)


class StatusError(FolkmootError):
    """The status file cannot be read or written; the message names it."""


class _Report(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of what stands in the status file."""


class LedgerStatus(_Report):
    """How far the public record is."""

    height: int = 0
    """Rounds recorded on the ledger."""
    finalized: int = 0
    """Rounds recorded in blocks that the chain calls final."""
    backlog: int = 0
    """Rounds finished here and not yet recorded: `pending`, `sent` and `deferred` together."""
    pending: int = 0
    """Of these, waiting for those before them, for their turn or for the ledger to answer."""
    sent: int = 0
    """Of these, handed to the chain, in no block yet."""
    deferred: int = 0
    """Of these, refused by the ledger, or its fees are above the cap: tried again."""
    state: str = "unknown"
    """ok · unreachable · …: the outbox's word."""
    reason: str = ""
    """The state in words: what is wrong, and what to do; empty if all is well."""


class RoundStatus(_Report):
    """One completed round. Digests in hex, `bytes` sent and received in it by this node."""

    round: int
    participants: list[str]
    """Names of the members whose updates are in the model, in charter order; empty if it came as a snapshot."""
    seconds: float
    model_digest: str
    statement: str
    metrics: dict[str, float] = {}
    """Of the round's model, on this node's held-out data (`protocol/metrics.py`)."""
    members_metrics: dict[str, float] = {}
    """Of the round's model, over the held-out data of all who took part in the round after it."""
    bytes: int = 0


class PrivacyStatus(_Report):
    """What of this member's privacy budget is gone, by its own accountant."""

    epsilon: float
    """The budget."""
    delta: float
    window: int
    """Rounds that share it, counted from round 1; 0: all."""
    spent: float = 0.0
    refused: str = ""
    """Why this member takes no part in the round; empty if it does."""


class Misbehaviour(_Report):
    """A member signed something that is wrong; `kind` and `reason` say what. The proof is in log and archive."""

    member: str
    kind: str
    reason: str
    round: int
    """The round in work when it came out."""


class MissingPeer(_Report):
    """A member that is not connected, since when (Unix seconds; of this run), and why."""

    member: str
    since: float
    tried: float = 0.0
    """When it was last tried to reach it; 0 if that was not this node's to do."""
    error: str = ""
    """What came of that."""


class ShutOutMember(_Report):
    """A member that this node leaves alone for a while, because it broke rules."""

    member: str
    until: float
    """Unix seconds."""
    reason: str
    """What it did last."""
    times: int
    """How often this happened lately; each time is twice as long as the one before."""


class PeerView(_Report):
    """How a member sees this node, asked at `at` (Unix seconds): see `network/port.py`, `View`."""

    member: str
    at: float
    seen_as: str
    reached: list[str]
    clock_offset: float


class NodeStatus(_Report):
    """The whole file. Sizes in bytes unless they end in `_mb` (10^6 bytes); times are Unix seconds."""

    name: str
    pid: int
    peer_id: str
    member: int
    """Index in the charter."""
    mode: str = "open"
    """`open` or `secure`: whether members see each other's updates."""
    round: int = 1
    """The round at work or next."""
    rounds: int = 0
    """Rounds completed."""
    phase: str = "starting"
    attempt: int = 0
    peers: list[str] = []
    """Names of the members that answer."""
    quorum: int = 0
    """Members, this one included, without whom no round is finished; 0 if that is not known yet."""
    missing: list[MissingPeer] = []
    """The other members."""
    announced: list[str] = []
    """Addresses that others are told to call."""
    views: list[PeerView] = []
    """How members see this node, of those that were asked and answered."""
    model_digest: str = ""
    metrics: dict[str, float] = {}
    """Of that model, on this node's held-out data; with its personal tensors, if the model has such."""
    ditto_metrics: dict[str, float] = {}
    """Of this member's own model near the federation's, if `trainer.ditto` is set."""
    alone_metrics: dict[str, float] = {}
    """Of the model that learns from this member's rows only, if `trainer.alone` is set."""
    withheld: str = ""
    """Why the round at work, or the last, is without this node's update; empty: it is not."""
    bytes_sent: int = 0
    bytes_received: int = 0
    rss_mb: float = 0.0
    peak_rss_mb: float = 0.0
    trainer_peak_rss_mb: float = 0.0
    ledger: LedgerStatus = msgspec.field(default_factory=LedgerStatus)
    privacy: PrivacyStatus | None = None
    """None where the charter has no budget."""
    declined: dict[str, str] = {}
    """Who takes no part in the round, and why."""
    coming: list[str] = []
    """Amendments of the charter that are not in force yet, in words."""
    history: list[RoundStatus] = []
    refused: dict[str, int] = {}
    """What peers sent that was refused: count by kind."""
    shut_out: list[ShutOutMember] = []
    misbehaviour: list[Misbehaviour] = []
    """Who was caught lying, here, in all runs of this home."""
    updated: float = 0.0


def write_status(path: Path, status: NodeStatus) -> None:
    """Replace the file at `path`; raises `StatusError`. Not fsynced: it is out of date within a second."""
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(status), indent=1) + b"\n")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StatusError(f"{path}: cannot be written: {error.strerror}") from error


def read_status(path: Path) -> NodeStatus | None:
    """The status at `path`, None if no node has written one; raises `StatusError` if it is unreadable."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=NodeStatus)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StatusError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise StatusError(
            f"{path}: not a node's status ({error}): was it written by another version?"
        ) from error


def is_running(status: NodeStatus) -> bool:
    """Whether a process with the status file's pid lives (a reused pid reads as alive)."""
    try:
        os.kill(status.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def rss_mb(pid: int) -> float:
    """RssAnon + RssShmem of process `pid` in MB (10^6 bytes): memory that is its own, not mapped files.

    0 where /proc does not tell (process gone, or not Linux).
    """
    try:
        text = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return 0.0
    return sum(int(kilobytes) for kilobytes in _RSS_LINE.findall(text)) * 1024 / 1e6


class PeakRss:
    """The highest `rss_mb` of a process that sampling has seen (over all its incarnations)."""

    def __init__(self) -> None:
        self.now = 0.0
        self.peak = 0.0

    def sample(self, pid: int | None) -> float:
        """Measure process `pid` (None: it is not running) and return its memory now, in MB."""
        self.now = 0.0 if pid is None else rss_mb(pid)
        self.peak = max(self.peak, self.now)
        return self.now
