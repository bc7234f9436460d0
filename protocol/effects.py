"""What a round asks of the world, as data: the output of `RoundMachine.handle`.

Effects are carried out in order, and `Persist` is a barrier: if it fails, nothing after it runs.
"""

from dataclasses import dataclass
from typing import TypeAlias

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.events import Timer
from folkmoot.protocol.fork import Fork
from folkmoot.protocol.journal import Entry
from folkmoot.protocol.messages import Evidence, Frame, Roster, Signed, Statement, SurvivorSet
from folkmoot.protocol.metrics import Metrics
from folkmoot.protocol.record import RoundRecord
from folkmoot.protocol.secure.masks import Crowd
from folkmoot.protocol.types import Digest, MemberId, Round


@dataclass(frozen=True, slots=True)
class Persist:
    """Write to the journal, durably, in one transaction, before going on."""

    round: Round
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Send:
    """Put a frame on the control streams of these members (the connected ones)."""

    members: tuple[MemberId, ...]
    frame: Frame


@dataclass(frozen=True, slots=True)
class Gossip:
    """Announce a frame to those with whom no direct connection stands."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Answer with `TimerFired(timer)` after `delay` seconds (the engine adds jitter to announcements)."""

    timer: Timer
    delay: float


@dataclass(frozen=True, slots=True)
class Fit:
    """Train on `base`; answer with `Trained` or `FitFailed`."""

    round: Round
    base: BlobRef


@dataclass(frozen=True, slots=True)
class CancelFit:
    """The round went on without this node's training."""

    round: Round


@dataclass(frozen=True, slots=True)
class Encode:
    """Encode this round's update, and seal it for the roster (or mask it); answer with `Encoded`.

    Asked again after a restart, it gives the same bytes and secrets again.
    """

    round: Round
    roster: Digest
    recipients: tuple[MemberId, ...]
    terms: Roster


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get the payload of a commitment from any of `sources`, open it; answer with `PayloadArrived` or `FetchFailed`."""

    commitment: Signed
    recipients: tuple[MemberId, ...]
    sources: tuple[MemberId, ...]


@dataclass(frozen=True, slots=True)
class FetchSnapshot:
    """Get a model by digest; answer with `SnapshotReady` or `SnapshotFailed`."""

    model: BlobRef
    sources: tuple[MemberId, ...]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Sum the survivors' payloads and compute the new model on `base`; answer with `Aggregated`."""

    base: BlobRef
    survivors: SurvivorSet
    roster: Roster
    commitments: tuple[Signed, ...]


@dataclass(frozen=True, slots=True)
class FetchPart:
    """Secure mode: get one masked shard; answer with `PartArrived` or `PartFailed`."""

    commitment: Signed
    shard: int
    sources: tuple[MemberId, ...]


@dataclass(frozen=True, slots=True)
class SumParts:
    """Secure mode: add up the masked shards number `shard` of each crowd; answer with `PartsSummed`.

    `crowds`: the commitments of the survivors that are summed together.
    """

    survivors: SurvivorSet
    crowds: tuple[tuple[Signed, ...], ...]
    shard: int


@dataclass(frozen=True, slots=True)
class FetchSum:
    """Secure mode: get somebody's sum of a shard; answer with `SumArrived` or `SumFailed`."""

    round: Round
    survivors: Digest
    shard: int
    sum: BlobRef
    sources: tuple[MemberId, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """Secure mode: take the fingerprints of all sums (by shard), and of my own shards; answer with `Checked`.

    Each blob holds the sums of so many `crowds`. `mine` is my commitment if I am a survivor; `sums_digest` names the
    sums in the answer.
    """

    survivors: SurvivorSet
    crowds: int
    sums: tuple[BlobRef, ...]
    sums_digest: Digest
    mine: Signed | None


@dataclass(frozen=True, slots=True)
class Measure:
    """Secure mode: take the fingerprints of others' shards under the same challenge; answer with `Measured`."""

    survivors: SurvivorSet
    sums: tuple[BlobRef, ...]
    sums_digest: Digest
    wanted: tuple[tuple[Signed, int], ...]


@dataclass(frozen=True, slots=True)
class Unmask:
    """Secure mode: take the masks off the sums and compute the new model on `base`; answer with `Aggregated`."""

    base: BlobRef
    survivors: SurvivorSet
    roster: Roster
    sums: tuple[BlobRef, ...]
    sums_digest: Digest
    crowds: tuple[Crowd, ...]


@dataclass(frozen=True, slots=True)
class Promote:
    """This model is the round's result: make it, and all state staged with it, current.

    `base_metrics`: what the roster's members measured on the model before it, over all their held-out rows;
    `survivors`: whose updates are in it, None if only the result is known here.
    """

    round: Round
    model: BlobRef
    participants: tuple[MemberId, ...]
    statement: Statement
    included: bool
    base_metrics: Metrics = ()
    survivors: SurvivorSet | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """Hand a statement under its quorum to the outbox; `turn` counts the attesters who submit before me."""

    statement: Statement
    digest: Digest
    attestations: tuple[Signed, ...]
    turn: int


@dataclass(frozen=True, slots=True)
class Attest:
    """Tell the outbox of my own attestation: if no quorum's come together, the ledger has to gather them."""

    attestation: Signed


@dataclass(frozen=True, slots=True)
class ArchiveRound:
    """Keep a finished round's record."""

    record: RoundRecord


@dataclass(frozen=True, slots=True)
class RecordEvidence:
    """A member contradicted itself: keep the proof and say so."""

    member: MemberId
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Accuse:
    """A member's signed word turned out to be wrong here (others find out for themselves): keep it and say so."""

    member: MemberId
    kind: str
    reason: str
    signed: Signed


@dataclass(frozen=True, slots=True)
class Blame:
    """A frame broke a rule: count it, log it once per kind and peer. `member` delivered (or demonstrably signed) it;
    None for gossip, which anybody may have begun in anybody's name."""

    member: MemberId | None
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """The final record contradicts this node: show the rounds from `first` to `last`; answer with `RecordRead`."""

    first: Round
    last: Round


@dataclass(frozen=True, slots=True)
class RollBack:
    """Give up what was built from the fork's round on: keep the proof, hand in none of these statements any more."""

    fork: Fork
    statements: frozenset[Digest]


@dataclass(frozen=True, slots=True)
class Finished:
    """The charter's last round is done; the node goes on serving."""

    round: Round


@dataclass(frozen=True, slots=True)
class TermEnded:
    """The last round under this charter is done and attested, maybe by others: the next charter takes over."""

    round: Round


Effect: TypeAlias = (
    Persist
    | Send
    | Gossip
    | StartTimer
    | Fit
    | CancelFit
    | Encode
    | Fetch
    | FetchSnapshot
    | Aggregate
    | FetchPart
    | SumParts
    | FetchSum
    | Check
    | Measure
    | Unmask
    | Promote
    | Record
    | Attest
    | ArchiveRound
    | RecordEvidence
    | Accuse
    | Blame
    | ReadRecord
    | RollBack
    | Finished
    | TermEnded
)
