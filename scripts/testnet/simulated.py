"""What a simulation is made of: the faults that it may have, its nodes, and stand-ins for training and sums."""

import hashlib
from dataclasses import dataclass, field, fields, replace

from folkmoot.protocol.charter import (
    MAX_ATTESTERS,
    Averaging,
    Charter,
    LedgerTerms,
    Member,
    Model,
    Schedule,
    Secrecy,
    Tensor,
)
from folkmoot.protocol.effects import Accuse, RecordEvidence
from folkmoot.protocol.events import Event, FrameReceived, Trained
from folkmoot.protocol.journal import Entry, decode_entry, encode_entry
from folkmoot.protocol.round import RoundMachine
from folkmoot.protocol.secure.layout import BLOCK
from folkmoot.protocol.secure.masks import public_key
from folkmoot.protocol.toml import ConfigError
from folkmoot.protocol.types import Digest, MemberId, Round

PARAMETERS = 130
"""Length of a simulated model: with the weight block four blocks, so that seven members have empty shards too."""

MANY = 16
"""From here on the model is long enough that everybody has something to sum."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What may go wrong before `until` (virtual seconds); after it every link is whole and every node comes back.

    `loss`, `duplicate`, `replay` (the same message again, up to a minute later) and `fit_failure` are probabilities,
    `latency` bounds of seconds. `crashes` happen between two
    events, `broken_off` inside the effects of one (biased to the edges of a Persist), `partitions` cut the honest in
    two for a while. `two_faced` members are two nodes each, of which every other member sees one. `dead` members stop
    for good at some moment. `ledger` is how long a record takes to be final.

    In secure mode besides, and for all time: `wrong_sums` members add one to a value of every sum that they make,
    `wrong_prints` sign fingerprints that are not those of their shards, `bad_shares` deal a share that does not fit,
    `withholding` ones give nobody their shards or sums, and `odd_seeds` mask with other pair seeds than their peers.
    """

    until: float = 60.0
    loss: float = 0.0
    duplicate: float = 0.0
    replay: float = 0.0
    latency: tuple[float, float] = (0.005, 0.05)
    fit_failure: float = 0.0
    crashes: int = 0
    broken_off: int = 0
    partitions: int = 0
    two_faced: tuple[MemberId, ...] = ()
    dead: tuple[MemberId, ...] = ()
    ledger: float = 0.2
    wrong_sums: tuple[MemberId, ...] = ()
    wrong_prints: tuple[MemberId, ...] = ()
    bad_shares: tuple[MemberId, ...] = ()
    withholding: tuple[MemberId, ...] = ()
    odd_seeds: tuple[MemberId, ...] = ()

    @property
    def liars(self) -> frozenset[MemberId]:
        """Members that break a rule, other than by being away."""
        several = (self.two_faced, self.wrong_sums, self.wrong_prints, self.bad_shares)
        return frozenset(member for one in (*several, self.withholding, self.odd_seeds) for member in one)


def format_faults(faults: Faults) -> str:
    """The fields that are not as usual, as `parse_faults` reads them: `loss=0.1,two_faced=0+2`."""
    changed = {
        field.name: getattr(faults, field.name)
        for field in fields(Faults)
        if getattr(faults, field.name) != field.default
    }
    return ",".join(
        f"{name}={'+'.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in changed.items()
    )


def parse_faults(text: str) -> Faults:
    """Read `format_faults` back; raises `ConfigError`."""
    usual, changed = Faults(), {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in {field.name for field in fields(Faults)}:
            raise ConfigError(f"no fault is called {name!r}; see folkmoot.testnet.simulated.Faults")
        several = isinstance(getattr(usual, name), tuple)
        numbers = tuple(float(one) if "." in one else int(one) for one in value.split("+") if one)
        changed[name] = numbers if several else numbers[0]
    return replace(usual, **changed)  # type: ignore[arg-type]


@dataclass(slots=True)
class Node:
    """One machine and what survives its crashes. A two-faced member is two nodes with one `member`."""

    member: MemberId
    face: int
    machine: RoundMachine | None = None
    life: int = 0
    doomed: bool = False
    journal: list[tuple[Round, bytes]] = field(default_factory=list)
    blobs: set[Digest] = field(default_factory=set)
    models: dict[Round, Digest] = field(default_factory=dict)
    evidence: list[RecordEvidence] = field(default_factory=list)
    accused: list[Accuse] = field(default_factory=list)

    @property
    def name(self) -> str:
        """How traces call it."""
        return f"{self.member}{'ab'[self.face]}"

    def write(self, round_: Round, entry: Entry) -> None:
        """Journal an entry, as bytes."""
        self.journal.append((round_, encode_entry(entry)))

    def read(self) -> list[Entry]:
        """The journal as a restarted node reads it."""
        return [decode_entry(body) for _, body in self.journal]


def simulated_charter(
    members: int, rounds: int, max_ahead: int = 50, secure: bool = False, group_size: int = 0
) -> Charter:
    """A charter of `members` nameless organisations with impossible keys."""
    parameters = PARAMETERS if members <= MANY else BLOCK * (members - 1)
    return Charter(
        name="simulation",
        model=Model(
            kind="logistic",
            layers=(parameters, 1),
            initial="00" * 32,
            tensors=(Tensor(name="w", shape=(parameters,)),),
        ),
        schedule=Schedule(rounds=rounds, max_ahead=max_ahead),
        averaging=Averaging(mode="secure" if secure else "open", weight_cap=20),
        secrecy=Secrecy(group_size=group_size),
        ledger=LedgerTerms(chain_id=1, code_hash="00" * 32),
        members=tuple(
            Member(
                name=f"node-{index}",
                peer_id=f"peer-{index}",
                identity_key=f"{index:064x}",
                sealing_key=f"{index:064x}",
                audit_key=f"0x{index:040x}",
                attester=index < MAX_ATTESTERS,
            )
            for index in range(members)
        ),
    )


def describe(event: Event) -> str:
    """One line of a trace."""
    if isinstance(event, FrameReceived):
        body = getattr(event.frame, "body", event.frame)
        where = [f"{key}={getattr(body, key)}" for key in ("round", "attempt") if hasattr(body, key)]
        signer = f" of {event.frame.member}" if hasattr(event.frame, "member") else ""
        return f"{type(body).__name__}{signer} from {event.sender} {' '.join(where)}"
    return str(event)[:120]


def name_of(*parts: bytes) -> Digest:
    """A stand-in for the digest of something that the simulation does not compute."""
    return hashlib.sha256(b"\0".join(parts)).digest()


def simulated_training(node: Node, round_: Round, base: Digest) -> Trained:
    """What training gives: the same for the same base, different for the two faces of a member."""
    salted = name_of(b"salted", bytes([node.member, node.face]), base)
    return Trained(
        round=round_,
        base=base,
        exponents=bytes([node.member % 3]),
        manifest=salted,
        privacy_log=salted,
        report=salted,
        num_examples=10 + node.member,
        metrics=(),
        mask_key=public_key(epoch_secret(node)),
    )


def epoch_secret(node: Node) -> bytes:
    """The X25519 secret of a node's masks: on its disk, so the same after a crash."""
    return name_of(b"epoch", bytes([node.member, node.face]))
