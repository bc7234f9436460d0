"""The charter: what all members signed before anything ran.

Read from `charter.toml`, hashed over its canonical encoding (so that comments and spacing do not matter) and signed by
every member's identity key in a detached file. Network addresses and the contract's address are not in it.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from folkmoot.protocol.canonical import encode_terms
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.schema import Schema
from folkmoot.protocol.types import Digest, MemberId, Round

MAX_SUMMED = 32
"""Members whose updates have an exact sum: 33 bits a value, 16 a weight, 53 in all (`ring.check_headroom`)."""

MAX_MEMBERS = 256
"""Members of a federation."""

MAX_ATTESTERS = 31
"""Members whose signatures the contract counts."""

MAX_GROUP = 16
"""Members of the largest group, all of whom share masks with one another."""

MAX_CHECKPOINT = 32
"""Rounds that the contract records at once."""

MIN_GROUP = 3
"""Members of the smallest: of two each would know the other's update."""

MAX_ON_8_BITS = 16
"""Members whose sums leave room for values on the 8-bit ring: 3 bits each."""

STATES: Mapping[str, int] = {"fedavg": 0, "fedavgm": 1, "nesterov": 1, "fedadam": 2, "fedyogi": 2}
"""Vectors as long as the model that an outer rule keeps from round to round."""

COARSE_CODECS = frozenset({"int2", "top3", "top1"})
"""They lose so much that nothing is learnt without error feedback."""

BLOCK = 64
"""Values that begin and end together in shards and fragments."""

FRAGMENT_PIECE = 4096
"""Values of a fragment that share a scale exponent, or more of them in a large one."""

MAX_PIECES = 512
"""Pieces of a fragment with scale exponents of their own: each costs a byte in every READY."""

READY_SIZE = 680
"""Bytes that a signed READY takes at most, besides one per tensor."""

Name = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9][a-z0-9-]{0,31}$",
        description="up to 32 small letters, digits and dashes, with no dash first",
    ),
]
MaybeHex32 = Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?$")]
Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Address = Annotated[str, Meta(pattern=r"^0x[0-9a-f]{40}$")]
Rate = Annotated[
    str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?(e-?[0-9]+)?$", description='a decimal not below 0, such as "0.05"')
]
SourceName = Annotated[
    str, Meta(pattern=r"^([A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*)?$")
]
ModelKind = Literal["mlp", "logistic", "cnn", "custom"]
Part = Literal["shared", "personal", "frozen"]
CodecName = Literal["f32", "bf16", "int8", "int4", "int2", "top3", "top1"]
RobustRule = Literal["none", "trimmed-mean", "nnm", "multi-krum", "geometric-median", "centered-clipping"]
Positive = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]


class _Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the charter's tables: immutable, nothing unknown."""


class Member(_Terms, frozen=True, kw_only=True):
    """One organisation: how it is called and the public halves of its keys (all lower-case hex)."""

    name: Name
    peer_id: str
    identity_key: Hex32
    sealing_key: Hex32
    audit_key: Address
    attester: bool = True


class Auditor(_Terms, frozen=True, kw_only=True):
    """An outside auditor to whom every open-mode payload is sealed as well."""

    name: Name
    sealing_key: Hex32


class Tensor(_Terms, frozen=True, kw_only=True, omit_defaults=True):
    """A float tensor of the model, in `state_dict` order; a scalar has shape ().

    A `statistic` is none that training steps change, such as a running variance: members' plain mean replaces it. A
    `shared` tensor travels and is averaged; a `personal` one is trained by each member for itself and stays there; a
    `frozen` one stays as it began (`parts.py`).
    """

    name: str
    shape: tuple[Positive, ...]
    statistic: bool = False
    part: Part = "shared"

    @property
    def size(self) -> int:
        """Number of values."""
        size = 1
        for extent in self.shape:
            size *= extent
        return size


class Model(_Terms, frozen=True, kw_only=True):
    """The architecture, the layout of its flat vector and the digest of the starting snapshot (`outer.start`).

    The snapshot is of the shared tensors alone; of the others' vectors (`parts.py`) there are the digests of what
    personal ones begin as, and of what frozen ones stay.

    `layers` are widths from inputs to outputs; of a custom model the two ends only, and between those of a cnn the
    channels of its convolutions. Its rows are images, flat: `image` is their height, width and channels, and a row goes
    through them in this order, the last fastest. `source` names the function that makes a custom model, as
    module:function; `source_digest` is the SHA-256 of the file that holds it.
    """

    kind: ModelKind
    layers: Annotated[tuple[Positive, ...], Meta(min_length=2)]
    image: Annotated[tuple[Positive, ...], Meta(max_length=3)] = ()
    source: SourceName = ""
    source_digest: MaybeHex32 = ""
    initial: Hex32
    personal_start: MaybeHex32 = ""
    frozen_values: MaybeHex32 = ""
    tensors: tuple[Tensor, ...]

    @property
    def features(self) -> int:
        """Width of the input."""
        return self.layers[0]

    @property
    def outputs(self) -> int:
        """Scores for each row of input."""
        return self.layers[-1]

    @property
    def parameters(self) -> int:
        """Length of the whole flat vector."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def shared(self) -> tuple[Tensor, ...]:
        """The tensors that travel."""
        return tuple(tensor for tensor in self.tensors if tensor.part == "shared")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Length of each shared tensor's piece of what travels."""
        return tuple(tensor.size for tensor in self.shared)

    @property
    def shared_values(self) -> int:
        """Length of the shared tensors' vector."""
        return sum(self.sizes)


class Training(_Terms, frozen=True, kw_only=True):
    """What a member does with the model between two averages; rates are decimal text.

    It goes `epochs` times over its rows or, where `steps` is not 0, takes that many batches. `momentum` is SGD's alone;
    weight decay is added to SGD's gradient, and AdamW (beta 0.9 and 0.999, epsilon 1e-8) takes it from the weights.

    A gradient longer than `clip` is scaled to it. `prox` pulls every step back to the round's model (FedProx's mu).
    `correction` is what a member does about rows unlike the others': FedDyn with its `alpha`, or SCAFFOLD. An update is
    scaled from the steps that were taken to `normalize_to` of them (FedNova). 0 is without, of each.
    """

    epochs: Positive = 1
    steps: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    batch: Positive = 16
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Rate = "0.1"
    momentum: Rate = "0.9"
    weight_decay: Rate = "0"
    clip: Rate = "0"
    prox: Rate = "0"
    correction: Literal["none", "feddyn", "scaffold"] = "none"
    alpha: Rate = "0.1"
    normalize_to: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0


class Averaging(_Terms, frozen=True, kw_only=True):
    """How updates become one: mode, wire codec, outer rule, weights and the bounds of the scale exponents.

    With `error_feedback` what a codec loses is added to the member's next update; int2, top3 and top1 always have it.
    `rule` is what is done with the mean of the updates (`outer.py`): `rate` scales its step, `momentum` is the part of
    the rounds before, `second_momentum` and `epsilon` are the adaptive rules'. `robust` takes the place of the weighted
    mean (`robust.py`) and holds against `faults` bad updates (0: f).

    With `fragments` above 1 a round's update is one such part of the model, in turn; of the rest each member holds back
    what it has learnt until its turn comes.
    """

    mode: Literal["open", "secure"] = "open"
    codec: CodecName = "int4"
    error_feedback: bool = False
    fragments: Annotated[int, Meta(ge=1, le=1024)] = 1
    rule: Literal["fedavg", "fedavgm", "nesterov", "fedadam", "fedyogi"] = "fedavg"
    rate: Rate = "1"
    momentum: Rate = "0.9"
    second_momentum: Rate = "0.99"
    epsilon: Rate = "0.001"
    robust: RobustRule = "none"
    faults: Annotated[int, Meta(ge=0, le=MAX_SUMMED // 2)] = 0
    weight_cap: Positive = 65_535
    exponent_min: Annotated[int, Meta(ge=-126, le=127)] = 0
    exponent_max: Annotated[int, Meta(ge=-126, le=127)] = 16


class Secrecy(_Terms, frozen=True, kw_only=True):
    """What secure mode needs besides: PROTOCOL section 4.

    `ring` bits a value; members share masks within groups of about `group_size` (0: 16, the largest); of each group
    `k_min` survivors at least (0: max(3, f + 2)); `threshold` shares that open a self-mask (0: Q - f of the group);
    mask keys and groups live for `epoch` rounds, and keys are kept for `dispute_epochs` more.
    """

    ring: Literal[8, 16, 32] = 16
    group_size: Annotated[int, Meta(ge=0, le=MAX_GROUP)] = 0
    k_min: Annotated[int, Meta(ge=0, le=256)] = 0
    threshold: Annotated[int, Meta(ge=0, le=256)] = 0
    epoch: Positive = 50
    dispute_epochs: Positive = 2


class Privacy(_Terms, frozen=True, kw_only=True):
    """How little of any single row updates may give away: differential privacy. Numbers are decimal text.

    With `mechanism` "records" every member trains by DP-SGD: of each row's gradient what is longer than `clip` is cut,
    and Gaussian noise of deviation `noise` times `clip` is added to their sum. With "secure" a round is one such step,
    and its noise is in the masked sum, a share of it from every member (`secure/masked_noise.py`). What is seen of a
    row costs at most `epsilon` at `delta` in every `window` rounds, counted from round 1 (0: in all rounds). With
    `noise` 0 each member takes as much as lets the planned rounds just fit.
    """

    mechanism: Literal["none", "records", "secure"] = "none"
    epsilon: Rate = "3"
    delta: Rate = "0.00001"
    clip: Rate = "1"
    noise: Rate = "0"
    window: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0


class Schedule(_Terms, frozen=True, kw_only=True):
    """How many rounds, and the bounds (seconds) between which deadlines adapt to the rounds before."""

    rounds: Positive
    grace_min: Seconds = 2.0
    grace_max: Seconds = 60.0
    attempt_min: Seconds = 8.0
    attempt_max: Seconds = 600.0
    submit_after: Seconds = 5.0
    max_ahead: Positive = 50


FINALITY_DEPTH = 64
"""Blocks on top of one that counts as final, unless a charter says otherwise (two epochs of Ethereum)."""


class LedgerTerms(_Terms, frozen=True, kw_only=True):
    """Which chain and which contract code (Keccak-256 of the run-time code) keep the record, every `cadence` rounds.

    On a chain that has no `finalized` tag a block counts as final once `finality_depth` others are on top of it.
    """

    chain_id: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    code_hash: Hex32
    cadence: Annotated[int, Meta(ge=1, le=MAX_CHECKPOINT)] = 1
    finality_depth: Annotated[int, Meta(ge=1, le=100_000)] = FINALITY_DEPTH


class Charter(_Terms, frozen=True, kw_only=True):
    """The signed agreement of a federation. Members are indexed by their place here (`MemberId`).

    Without `data` every member brings encoded rows; with it, rows of these columns. A default, of any table, is never
    changed and only added: charters that were signed do not say it (`canonical.py`).
    """

    format: Literal["folkmoot/v1/charter"] = "folkmoot/v1/charter"
    name: Name
    model: Model
    data: Schema | None = None
    schedule: Schedule
    ledger: LedgerTerms
    training: Training = Training()
    averaging: Averaging = Averaging()
    secrecy: Secrecy = Secrecy()
    privacy: Privacy = Privacy()
    members: tuple[Member, ...]
    auditors: tuple[Auditor, ...] = ()

    @property
    def encoded(self) -> bytes:
        """The canonical bytes, as members fetch an amended charter from each other."""
        return encode_terms(self)

    @property
    def digest(self) -> Digest:
        """What founders sign, attesters amend, and the contract stores: `config` of the rounds under this charter."""
        return digest(self.format, self.encoded)

    @property
    def faults(self) -> int:
        """f, the members that may be lost or lying at once: floor((m-1)/3). PROTOCOL section 1."""
        return max_faults(len(self.members))

    @property
    def quorum(self) -> int:
        """Q = floor((m+f)/2)+1: any two quorums share an honest member. Never taken over a roster."""
        return quorum(len(self.members))

    @property
    def is_secure(self) -> bool:
        """Whether updates are masked, so that nobody sees a single one."""
        return self.averaging.mode == "secure"

    @property
    def is_private(self) -> bool:
        """Whether noise hides what an update tells of single rows."""
        return self.privacy.mechanism != "none"

    def claimed_examples(self, rows: int) -> int:
        """From what an update's weight is computed. Where rows are to stay hidden it does not depend on them."""
        return self.averaging.weight_cap if self.is_private else rows

    @property
    def has_feedback(self) -> bool:
        """Whether what writing an update down lost of it is added to the member's next one."""
        if self.is_secure:
            return self.secrecy.ring == 8
        return self.averaging.error_feedback or self.averaging.codec in COARSE_CODECS

    @property
    def has_controls(self) -> bool:
        """Whether control variates (SCAFFOLD) travel behind an update's values, and the mean of all is kept."""
        return self.training.correction == "scaffold"

    @property
    def update_sizes(self) -> tuple[int, ...]:
        """Length of each piece of what a member sends that has a scale exponent of its own: a tensor or, where the
        model travels in fragments, an even part of one. The same in every round.
        """
        if self.averaging.fragments == 1:
            return self.model.sizes * (2 if self.has_controls else 1)
        values = self.fragment_values
        piece = max(FRAGMENT_PIECE, -(-values // MAX_PIECES // BLOCK) * BLOCK)
        return tuple(min(piece, values - at) for at in range(0, values, piece))

    @property
    def fragment_values(self) -> int:
        """Length of a fragment of the shared values; zeros fill the last one up to it. A multiple of 64."""
        blocks = -(-self.model.shared_values // BLOCK)
        return BLOCK * -(-blocks // self.averaging.fragments)

    def fragment(self, round_: Round) -> tuple[int, int] | None:
        """(start, stop) of the shared values that travel in a round, in turn; None if all do."""
        count = self.averaging.fragments
        if count == 1:
            return None
        start = (round_ - 1) % count * self.fragment_values
        return start, min(start + self.fragment_values, self.model.shared_values)

    @property
    def update_values(self) -> int:
        """Length of what a member sends."""
        return sum(self.update_sizes)

    @property
    def snapshot_values(self) -> int:
        """Length of what a model's digest is over: shared values, then the outer rule's state (`outer.py`)."""
        return self.model.shared_values * (1 + STATES[self.averaging.rule] + self.has_controls)

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """Members of each group that shares masks, as even as can be; in open mode everybody is in one."""
        members = len(self.members)
        if not self.is_secure:
            return (members,)
        count = max(members // (self.secrecy.group_size or MAX_GROUP), -(-members // MAX_GROUP))
        return tuple(members * (at + 1) // count - members * at // count for at in range(count))

    @property
    def sums_by_group(self) -> bool:
        """Whether secure mode opens not one sum but one for each group, so that a robust rule can compare them."""
        return self.is_secure and self.averaging.robust != "none"

    @property
    def most_summed(self) -> int:
        """Members of the largest sum."""
        return max(self.group_sizes) if self.sums_by_group else len(self.members)

    def epoch_of(self, round_: Round) -> int:
        """The epoch, from 0, whose mask keys `round_` uses."""
        return (round_ - 1) // self.secrecy.epoch

    @property
    def attesters(self) -> tuple[MemberId, ...]:
        """Members whose signatures count on the ledger."""
        return tuple(index for index, member in enumerate(self.members) if member.attester)

    @property
    def attester_quorum(self) -> int:
        """k, the attestations that the contract asks for."""
        return quorum(len(self.attesters))

    def find_member(self, name: str) -> MemberId | None:
        """The index of the member called `name`, None if there is none."""
        return next((index for index, member in enumerate(self.members) if member.name == name), None)

    def member_named(self, name: str) -> MemberId:
        """The index of the member called `name`; raises `CharterError`."""
        index = self.find_member(name)
        if index is not None:
            return index
        known = ", ".join(member.name for member in self.members)
        raise CharterError(f"the charter of {self.name!r} has no member {name!r}; its members are {known}")


def max_faults(members: int) -> int:
    """f for `members` members (or attesters)."""
    return (members - 1) // 3


def quorum(members: int) -> int:
    """Q for `members` members (or k for as many attesters)."""
    return (members + max_faults(members)) // 2 + 1


def crowd(members: int, k_min: int = 0) -> int:
    """Updates of a group of so many that must at least be hidden in a sum, so that f colluders still see a crowd.

    `k_min`: what the charter says, 0 for the default max(3, f + 2). PROTOCOL section 4.
    """
    return k_min or max(3, max_faults(members) + 2)


def shares_to_open(members: int, threshold: int = 0) -> int:
    """t, the shares that open a self-mask in a group of so many: f colluders have too few, Q voters without f enough.

    `threshold`: what the charter says, 0 for the default Q - f. PROTOCOL section 4.
    """
    return threshold or quorum(members) - max_faults(members)


def default_mode(members: int) -> Literal["open", "secure"]:
    """What a draft for so many members proposes: secure mode where it takes them."""
    return "secure" if members >= MIN_GROUP else "open"


def _signed_text(charter: Charter) -> bytes:
    return b"folkmoot/v1/charter-signature\n" + charter.digest


def sign_charter(charter: Charter, key: SigningKey) -> bytes:
    """A member's 64-byte Ed25519 signature on the charter."""
    return key.sign(_signed_text(charter)).signature


def verify_charter(charter: Charter, signatures: Mapping[str, bytes]) -> None:
    """Raise `CharterError` unless every member (by name) signed exactly this charter."""
    for member in charter.members:
        signature = signatures.get(member.name)
        if signature is None:
            raise CharterError(f"charter {charter.name!r}: {member.name} has not signed it")
        try:
            VerifyKey(bytes.fromhex(member.identity_key)).verify(_signed_text(charter), signature)
        except (BadSignatureError, ValueError) as error:
            raise CharterError(
                f"charter {charter.name!r}: the signature of {member.name} does not fit; "
                "was the charter changed after signing?"
            ) from error


def federation_id(charter_digest: Digest, chain_id: int, contract: bytes) -> Digest:
    """H(founding charter, chain id, contract address): constant for ever. PROTOCOL section 1."""
    return digest("folkmoot/v1/federation", charter_digest, chain_id.to_bytes(32, "big"), contract)
