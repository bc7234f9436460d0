"""Everything that members tell each other: signed bodies, and the frames that carry them.

A *body* is what one member claims; `Signed` is a body with its member and signature. Bodies that may have to be shown
on the chain are signed by the audit key over EIP-712, the others by the identity key (`signing.py`). Frames that are
not `Signed` hold only signed things and prove themselves, whoever delivers them. The wire form is msgpack arrays,
canonical: what does not encode back to the same bytes is refused.
"""

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.types import Digest, MemberId, Round

MAX_FRAME = 256 * 1024
"""Bytes of the largest frame; what is longer is refused before it is parsed."""

Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Bytes64 = Annotated[bytes, Meta(min_length=64, max_length=64)]
Uint32 = Annotated[int, Meta(ge=0, lt=2**32)]
Uint63 = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Few = Meta(max_length=256)
Metric = tuple[Annotated[str, Meta(max_length=16)], float]


class _Wire(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all wire structs: immutable, positional, nothing unknown."""


# --- bodies ---------------------------------------------------------------------------------------------------------


class Ready(_Wire, frozen=True, tag="ready"):
    """My update for `round` on `base` is trained. Gossiped.

    `exponents` holds one int8 per tensor: the smallest E with every |value| <= 2^E, within the charter's bounds.
    `manifest`, `privacy_log` and `report` are salted commitments, opened to auditors only. Open mode adds the weight
    and the metrics of the base model in clear (`metrics.py`); secure mode neither, but the X25519 key from which this
    epoch's masks derive.
    """

    round: Uint63
    base: Bytes32
    exponents: Annotated[bytes, Meta(max_length=65_536)]
    manifest: Bytes32
    privacy_log: Bytes32
    report: Bytes32
    num_examples: Uint63
    metrics: Annotated[tuple[Metric, ...], Meta(max_length=8)] = ()
    mask_key: Annotated[bytes, Meta(max_length=32)] = b""


class Declined(_Wire, frozen=True, tag="declined"):
    """I take no part in `round` on `base`, so do not wait for my READY. Gossiped; `reason` is for people.

    It binds nobody: who says READY after all is as ready as any other.
    """

    round: Uint63
    base: Bytes32
    reason: Annotated[str, Meta(max_length=64)]


class Roster(_Wire, frozen=True, tag="roster"):
    """Who takes part in this attempt, and the common scale of every tensor. From the attempt's proposer.

    The READYs ride along, so a voter needs nothing else to check the scales.
    """

    round: Uint63
    attempt: Uint32
    base: Bytes32
    readies: Annotated[tuple["Signed", ...], Few]
    exponents: Annotated[bytes, Meta(max_length=65_536)]

    def __post_init__(self) -> None:
        # Rosters within rosters could be nested until some later encoder runs out of stack.
        if not all(isinstance(signed.body, Ready) for signed in self.readies):
            raise ValueError("a roster holds READYs only")


class Commitment(_Wire, frozen=True, tag="commitment"):
    """What I send for this roster: payload root and size, and a hash that binds me to the content key.

    In secure mode the payload is one masked shard for each place in `shards` (their blob roots; `root` is the RFC 6962
    root over them, `size` all their bytes, `key` zero), `shares` are the Feldman commitments to my self-mask's
    polynomial, and `seeds` bind me to the pair seed that I have with each roster member of my group (zero in my place).
    """

    federation: Bytes32
    round: Uint63
    roster: Bytes32
    member: Uint32
    root: Bytes32
    size: Uint63
    key: Bytes32
    shards: Annotated[tuple[Bytes32, ...], Few] = ()
    shares: Annotated[tuple[Bytes32, ...], Few] = ()
    seeds: Annotated[tuple[Bytes32, ...], Few] = ()


class Share(_Wire, frozen=True, tag="share"):
    """Your share of my self-mask's secret for this roster (an Ed25519 scalar). To its recipient alone."""

    round: Uint63
    roster: Bytes32
    recipient: Uint32
    value: Bytes32

    def __repr__(self) -> str:
        return (
            f"Share(round={self.round}, roster={self.roster.hex()[:16]}, recipient={self.recipient}, value=…)"
        )


class Receipt(_Wire, frozen=True, tag="receipt"):
    """The payloads (by commitment digest) that I hold and could open. To the proposer.

    In secure mode: whose masked shards that are mine to sum, and whose share for me, I hold.
    """

    round: Uint63
    attempt: Uint32
    roster: Bytes32
    held: Annotated[tuple[Bytes32, ...], Few]


class Proposal(_Wire, frozen=True, tag="proposal"):
    """Let this survivor set be the round's. `omitted` is the digest of the `Omission`s that go with it."""

    federation: Bytes32
    round: Uint63
    attempt: Uint32
    survivors: Bytes32
    omitted: Bytes32


class Vote(_Wire, frozen=True, tag="vote"):
    """I could finish with this survivor set. One per round and attempt."""

    federation: Bytes32
    round: Uint63
    attempt: Uint32
    survivors: Bytes32


class Lock(_Wire, frozen=True, tag="lock"):
    """I hold the certificate and these sums, and will stand by them until shown a higher certificate."""

    federation: Bytes32
    round: Uint63
    attempt: Uint32
    survivors: Bytes32
    sums: Bytes32


class Sum(_Wire, frozen=True, tag="sum"):
    """Secure mode: the sum of the survivors' masked shards number `shard`, as a blob (`secure/layout.py`)."""

    federation: Bytes32
    round: Uint63
    survivors: Bytes32
    shard: Uint32
    root: Bytes32
    size: Uint63


class Fingerprint(_Wire, frozen=True, tag="fingerprint"):
    """Secure mode: I hold these masked sums. `values` are the fingerprints of my own masked shards under the challenge
    that follows from the sums: two of 8 bytes for each shard, big endian; nothing from who is no survivor.

    One per round and attempt; a quorum of them on one `sums` allows a lock.
    """

    federation: Bytes32
    round: Uint63
    attempt: Uint32
    survivors: Bytes32
    sums: Bytes32
    values: Annotated[bytes, Meta(max_length=4096)]


class Statement(_Wire, frozen=True, tag="statement"):
    """The round's record, for the ledger. Every field is a function of the survivor set and the sums."""

    federation: Bytes32
    round: Uint63
    previous: Bytes32
    config: Bytes32
    base: Bytes32
    survivors: Bytes32
    model: Bytes32
    archive: Bytes32


class Enter(_Wire, frozen=True, tag="enter"):
    """I have given up the attempts before this one. f+1 of these pull the others along."""

    round: Uint63
    attempt: Uint32


Body: TypeAlias = (
    Ready
    | Roster
    | Commitment
    | Share
    | Receipt
    | Proposal
    | Vote
    | Sum
    | Fingerprint
    | Lock
    | Statement
    | Enter
    | Declined
)

AuditBody: TypeAlias = Commitment | Proposal | Vote | Sum | Fingerprint | Lock | Statement
"""Bodies signed by the audit key over EIP-712."""


class Signed(_Wire, frozen=True, tag="signed"):
    """A body, who says it, and the signature (64 bytes; Ed25519 or EIP-2098 compact secp256k1)."""

    member: Uint32
    body: Body
    signature: Bytes64


# --- what certificates are made of ----------------------------------------------------------------------------------


class Survivor(_Wire, frozen=True):
    """A member whose vector is in the sum, by the digest of its commitment."""

    member: Uint32
    commitment: Bytes32


class SurvivorSet(_Wire, frozen=True):
    """V of PROTOCOL section 2: all that a round's result depends on, besides the payloads. Survivors by member."""

    round: Uint63
    base: Bytes32
    previous: Bytes32
    config: Bytes32
    roster: Bytes32
    survivors: Annotated[tuple[Survivor, ...], Few]

    @property
    def members(self) -> tuple[MemberId, ...]:
        """Who survives, ascending."""
        return tuple(survivor.member for survivor in self.survivors)

    @property
    def digest(self) -> Digest:
        """What votes and locks name."""
        return digest("folkmoot/v1/survivors", encode(self))


class Omission(_Wire, frozen=True):
    """A roster member that is left out, and a member that lacks its payload."""

    member: Uint32
    lacking: Uint32


# --- frames ---------------------------------------------------------------------------------------------------------


class Certificate(_Wire, frozen=True, tag="certificate"):
    """Q votes of one attempt on one survivor set."""

    survivors: SurvivorSet
    votes: Annotated[tuple[Signed, ...], Few]


class Opening(_Wire, frozen=True, tag="opening"):
    """Q locks of one attempt on one survivor set and one sums digest: the round is decided."""

    survivors: SurvivorSet
    locks: Annotated[tuple[Signed, ...], Few]


class Propose(_Wire, frozen=True, tag="propose"):
    """A signed proposal with what it names, and, for an earlier attempt's set, the certificate that it rests on."""

    proposal: Signed
    survivors: SurvivorSet
    omitted: Annotated[tuple[Omission, ...], Few]
    certificate: Certificate | None


class Seeds(_Wire, frozen=True, tag="seeds"):
    """Secure mode: the pair seeds that a survivor had with the roster members that are not in the certified set.

    Each proves itself: the survivor's commitment binds it.
    """

    round: Uint63
    survivors: Bytes32
    member: Uint32
    seeds: Annotated[tuple[tuple[Uint32, Bytes16], ...], Few]

    def __repr__(self) -> str:
        return f"Seeds(round={self.round}, member={self.member}, of={[member for member, _ in self.seeds]})"


class Shares(_Wire, frozen=True, tag="shares"):
    """Secure mode: a member's shares of the survivors' self-masks, against the opening. Each proves itself."""

    round: Uint63
    survivors: Bytes32
    member: Uint32
    shares: Annotated[tuple[tuple[Uint32, Bytes32], ...], Few]

    def __repr__(self) -> str:
        return f"Shares(round={self.round}, member={self.member}, of={[member for member, _ in self.shares]})"


class Unmasking(_Wire, frozen=True):
    """Secure mode: what takes the masks off a set's sums. Enough for anybody to compute the model again.

    One `Sum` for each shard; a quorum's fingerprints (and all survivors' if they gave theirs); the seeds of every
    survivor if anybody was left out; shares of enough members.
    """

    sums: Annotated[tuple[Signed, ...], Few]
    fingerprints: Annotated[tuple[Signed, ...], Few]
    seeds: Annotated[tuple[Seeds, ...], Few]
    shares: Annotated[tuple[Shares, ...], Few] = ()


class Final(_Wire, frozen=True, tag="final"):
    """A finished round: the statement under a quorum of attestations, and the model that it names."""

    attestations: Annotated[tuple[Signed, ...], Few]
    model: BlobRef


class Hello(_Wire, frozen=True, tag="hello"):
    """First frame on a new connection, and now and then: where I stand. Answered with what I lack.

    `round` and `attempt` are those in work, `final` is the highest round whose attestations I hold.
    """

    round: Uint63
    attempt: Uint32
    final: Uint63


class Recall(_Wire, frozen=True, tag="recall"):
    """What do you hold that I signed? Asked after a restart, before anything is signed again."""


class Recalled(_Wire, frozen=True, tag="recalled"):
    """The answer: the asker's latest signed messages that I know, and the highest round that I have seen final."""

    round: Uint63
    signed: Annotated[tuple[Signed, ...], Few]


class Evidence(_Wire, frozen=True, tag="evidence"):
    """Two signed bodies of one member that cannot both be honest."""

    first: Signed
    second: Signed


class KeyWanted(_Wire, frozen=True, tag="key-wanted"):
    """The sealed content key of this payload (by commitment digest) does not open for me; you can open it."""

    commitment: Bytes32


class KeyShared(_Wire, frozen=True, tag="key-shared"):
    """The answer, to roster members, and once a quorum has settled on the roster to any member.

    The commitment binds its sender to this key, so it can be checked.
    """

    commitment: Bytes32
    key: Bytes32


Frame: TypeAlias = (
    Signed
    | Certificate
    | Opening
    | Propose
    | Seeds
    | Shares
    | Final
    | Hello
    | Recall
    | Recalled
    | Evidence
    | KeyWanted
    | KeyShared
)

_encoder = msgspec.msgpack.Encoder()
_frames: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


def encode(value: msgspec.Struct) -> bytes:
    """The canonical wire form."""
    return _encoder.encode(value)


def decode_frame(data: bytes) -> Frame:
    """Strictly parse one frame; raises `RemoteProtocolError` on anything that `encode` would not have written."""
    if len(data) > MAX_FRAME:
        raise RemoteProtocolError(f"frame of {len(data)} bytes, the limit is {MAX_FRAME}")
    try:
        frame = _frames.decode(data)
        canonical = encode(frame) == data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"undecodable frame: {error}") from error
    if not canonical:
        raise RemoteProtocolError("frame is not in canonical form")
    return frame


def round_of(frame: Frame) -> Round:
    """The round that a frame is about; 0 if it is about none."""
    match frame:
        case Signed(body=body):
            return body.round
        case Certificate(survivors=survivors) | Opening(survivors=survivors) | Propose(survivors=survivors):
            return survivors.round
        case Final(attestations=(first, *_)):
            return first.body.round
        case Hello(round=round_) | Recalled(round=round_) | Seeds(round=round_) | Shares(round=round_):
            return round_
        case _:
            return 0


def body_digest(body: Body) -> Digest:
    """Names a body (a commitment in a survivor set, a roster in a commitment) by its content."""
    return digest(f"folkmoot/v1/{type(body).__struct_config__.tag}", encode(body))


def roster_digest(proposer: int, roster: Roster) -> Digest:
    """Names a roster; covers round, attempt and proposer, so no two attempts share one."""
    return digest("folkmoot/v1/roster", proposer.to_bytes(4, "big"), encode(roster))
