"""What can happen to a round, as data: the input of `RoundMachine.handle`."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.fork import RecordedRound
from folkmoot.protocol.messages import Frame
from folkmoot.protocol.metrics import Metrics
from folkmoot.protocol.terms import Terms
from folkmoot.protocol.types import Attempt, Digest, MemberId, Round

Value: TypeAlias = tuple[int, int]
"""The fingerprint of a masked shard, or of a sum of them: two numbers below 2^61 - 1 (`secure/fingerprint.py`)."""

TimerKind: TypeAlias = Literal["grace", "attempt", "exchange", "gather", "announce", "refit"]


@dataclass(frozen=True, slots=True)
class Timer:
    """Names a timer; one whose round or attempt has passed is ignored when it fires."""

    kind: TimerKind
    round: Round
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Started:
    """The engine runs; first event after construction or `restore`."""


@dataclass(frozen=True, slots=True)
class FrameReceived:
    """A decoded frame. `sender` is the authenticated neighbour that delivered it, None for gossip."""

    sender: MemberId | None
    frame: Frame


@dataclass(frozen=True, slots=True)
class PeerUp:
    """A direct connection to a member stands."""

    member: MemberId


@dataclass(frozen=True, slots=True)
class PeerDown:
    """The connection to a member closed, or its heartbeat was lost."""

    member: MemberId


@dataclass(frozen=True, slots=True)
class PeerSilent:
    """Heartbeats of a member are missing; its connection still stands."""

    member: MemberId


@dataclass(frozen=True, slots=True)
class PeerHeard:
    """A member that was silent says something again."""

    member: MemberId


@dataclass(frozen=True, slots=True)
class Trained:
    """Answer to `Fit`: the update lies in the store. The digests are salted commitments (see `messages.Ready`)."""

    round: Round
    base: Digest
    exponents: bytes
    manifest: Digest
    privacy_log: Digest
    report: Digest
    num_examples: int
    metrics: Metrics
    mask_key: bytes = b""


@dataclass(frozen=True, slots=True)
class FitFailed:
    """Answer to `Fit`: crash, hang, bad data or a non-finite update.

    `declines`: nothing will come of this round, so that others need not wait; why, in a few words for them.
    """

    round: Round
    base: Digest
    reason: str
    declines: str = ""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Answer to `Encode`: the sealed payload, or in secure mode every masked shard, lies in the archive.

    Secure mode: for the other fields see `messages.Commitment`; and what is told to nobody yet, my share for each
    roster member and my pair seed with each (zeros in my own place), both in roster order.
    """

    round: Round
    roster: Digest
    payload: BlobRef
    key: Digest
    shards: tuple[Digest, ...] = ()
    shares: tuple[bytes, ...] = ()
    seeds: tuple[Digest, ...] = ()
    dealt: tuple[bytes, ...] = field(default=(), repr=False)
    pair_seeds: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class PayloadArrived:
    """Answer to `Fetch`: the payload of this commitment is held, durable, and could be opened."""

    round: Round
    roster: Digest
    commitment: Digest


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """Answer to `Fetch`: no source delivered it, or it cannot be opened."""

    round: Round
    roster: Digest
    commitment: Digest
    reason: str


@dataclass(frozen=True, slots=True)
class PartArrived:
    """Answer to `FetchPart`: this shard of this commitment's masked vector is held, durably."""

    round: Round
    roster: Digest
    commitment: Digest
    shard: int


@dataclass(frozen=True, slots=True)
class PartFailed:
    """Answer to `FetchPart`: no source delivered it."""

    round: Round
    roster: Digest
    commitment: Digest
    shard: int
    reason: str


@dataclass(frozen=True, slots=True)
class PartsSummed:
    """Answer to `SumParts`: the survivors' masked shards number `shard` are summed, and the sum held, durably."""

    round: Round
    survivors: Digest
    shard: int
    sum: BlobRef


@dataclass(frozen=True, slots=True)
class SumArrived:
    """Answer to `FetchSum`: somebody's sum of a shard is held, durably."""

    round: Round
    survivors: Digest
    shard: int
    sum: BlobRef


@dataclass(frozen=True, slots=True)
class SumFailed:
    """Answer to `FetchSum`: no source delivered it, or it is no sum of masked shards."""

    round: Round
    survivors: Digest
    shard: int
    sum: BlobRef
    reason: str


@dataclass(frozen=True, slots=True)
class Checked:
    """Answer to `Check`: the fingerprints of the sums and of my own masked shards (or none), by shard.

    Those of the sums of a shard are as many as there are crowds.
    """

    round: Round
    survivors: Digest
    sums: Digest
    totals: tuple[tuple[Value, ...], ...]
    mine: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """Answer to `Measure`: fingerprints of others' masked shards, in the order asked."""

    round: Round
    survivors: Digest
    sums: Digest
    values: tuple[tuple[MemberId, int, Value], ...]


@dataclass(frozen=True, slots=True)
class GatheringFailed:
    """Instead of an answer to `SumParts`, `Check`, `Measure` or `Unmask`: a part or sum that was here is gone."""

    round: Round
    survivors: Digest


@dataclass(frozen=True, slots=True)
class PayloadServed:
    """A peer pulled this payload (by root) from us, to the end."""

    root: Digest
    member: MemberId


@dataclass(frozen=True, slots=True)
class BlobWanted:
    """A peer asks for a blob (by root) that is not here, or was damaged and is gone."""

    root: Digest


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """Some payload or snapshot is still arriving; holds the attempt's time-out back."""

    round: Round


@dataclass(frozen=True, slots=True)
class Aggregated:
    """Answer to `Aggregate` or `Unmask`: the new model is computed and staged."""

    round: Round
    survivors: Digest
    sums: Digest
    model: BlobRef


@dataclass(frozen=True, slots=True)
class SnapshotReady:
    """Answer to `FetchSnapshot`: the model is held and its digest checked."""

    model: BlobRef


@dataclass(frozen=True, slots=True)
class SnapshotFailed:
    """Answer to `FetchSnapshot`: no source delivered it."""

    model: BlobRef
    reason: str


@dataclass(frozen=True, slots=True)
class HeadAdvanced:
    """The ledger's finalised record has reached `height`, with that statement; an empty digest if it is not known."""

    height: Round
    statement: Digest = b""


@dataclass(frozen=True, slots=True)
class RecordRead:
    """Answer to `ReadRecord`: those rounds as the ledger has them, final ones only."""

    rounds: tuple[RecordedRound, ...]


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer asked for by `StartTimer` ran out."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class TermsKnown:
    """What is known of the federation's charters: amendments that the ledger has, final ones only."""

    terms: Terms


Event: TypeAlias = (
    Started
    | FrameReceived
    | PeerUp
    | PeerDown
    | PeerSilent
    | PeerHeard
    | Trained
    | FitFailed
    | Encoded
    | PayloadArrived
    | FetchFailed
    | PartArrived
    | PartFailed
    | PartsSummed
    | SumArrived
    | SumFailed
    | Checked
    | Measured
    | GatheringFailed
    | PayloadServed
    | BlobWanted
    | TransferProgress
    | Aggregated
    | SnapshotReady
    | SnapshotFailed
    | HeadAdvanced
    | RecordRead
    | TermsKnown
    | TimerFired
)
