"""The tables of the charter: what each says, its bounds and defaults. What they mean together: `charter.py`."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

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


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the charter's tables: immutable, nothing unknown."""


class Member(Table, frozen=True, kw_only=True):
    """One organisation: how it is called and the public halves of its keys (all lower-case hex)."""

    name: Name
    peer_id: str
    identity_key: Hex32
    sealing_key: Hex32
    audit_key: Address
    attester: bool = True


class Auditor(Table, frozen=True, kw_only=True):
    """An outside auditor to whom every open-mode payload is sealed as well."""

    name: Name
    sealing_key: Hex32


class Tensor(Table, frozen=True, kw_only=True, omit_defaults=True):
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


class Model(Table, frozen=True, kw_only=True):
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


class Training(Table, frozen=True, kw_only=True):
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


class Averaging(Table, frozen=True, kw_only=True):
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


class Secrecy(Table, frozen=True, kw_only=True):
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


class Privacy(Table, frozen=True, kw_only=True):
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


class Schedule(Table, frozen=True, kw_only=True):
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


class LedgerTerms(Table, frozen=True, kw_only=True):
    """Which chain and which contract code (Keccak-256 of the run-time code) keep the record, every `cadence` rounds.

    On a chain that has no `finalized` tag a block counts as final once `finality_depth` others are on top of it.
    """

    chain_id: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    code_hash: Hex32
    cadence: Annotated[int, Meta(ge=1, le=MAX_CHECKPOINT)] = 1
    finality_depth: Annotated[int, Meta(ge=1, le=100_000)] = FINALITY_DEPTH
