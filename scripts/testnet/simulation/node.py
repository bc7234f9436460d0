"""One simulated node, the charter that it is under, and what its training gives."""

import hashlib
from dataclasses import dataclass, field

import numpy as np

from folkmoot.ledger.memory import MemoryLedger
from folkmoot.protocol.certificates import Federation
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import (
    MAX_ATTESTERS,
    Averaging,
    LedgerTerms,
    Model,
    RobustRule,
    Schedule,
    Secrecy,
    Tensor,
)
from folkmoot.protocol.effects import Accuse, Record, RecordEvidence
from folkmoot.protocol.events import Event, Trained
from folkmoot.protocol.fork import Fork
from folkmoot.protocol.governance import Amendment
from folkmoot.protocol.journal import Adopted, Entry, RolledBack, SatOut, decode_entry, encode_entry
from folkmoot.protocol.record import RoundRecord
from folkmoot.protocol.ring import Float32s
from folkmoot.protocol.round import RoundMachine
from folkmoot.protocol.secure.layout import BLOCK
from folkmoot.protocol.secure.masks import public_key
from folkmoot.protocol.types import Digest, MemberId, Round
from folkmoot.testnet.simulation.era import Era
from folkmoot.testnet.simulation.keys import FakeKeys, Keys, entry

PARAMETERS = 130
"""Length of a small federation's model: with the weight block four blocks, so that seven members have empty shards."""

MANY = 16
"""From more members on the model is long enough that everybody has one block to sum."""

LARGEST_EXPONENT = 2
"""Of the scales that honest members announce."""

ROUNDS_REREAD = 3
"""Recorded rounds whose journal is read again after a restart, as `node/engine.py` does."""


@dataclass(slots=True, eq=False)
class Node:
    """One machine and what survives its crashes. A two-faced member is two nodes with one `person`."""

    person: int
    """Who it is under whatever charter: of a founder its first member id."""
    face: int
    era: Era | None = None
    """The charter that it works under, from which round on; None before it has joined."""
    member: MemberId = -1
    """Its id under that charter."""
    machine: RoundMachine | None = None
    life: int = 0
    doomed: bool = False
    frozen: bool = False
    gone: bool = False
    """Whether it has left, or is dead: it does not come back by itself."""
    left: bool = False
    """Whether it is gone because it is no member any more."""
    has_recalled: bool = False
    is_forgetful: bool = False
    """Whether it signs without asking what it has signed before: it has lies to tell, or knows no better."""
    waiting: list[Event] = field(default_factory=list)
    slowness: float = 1.0
    clock_offset: float = 0.0
    clock_rate: float = 1.0
    # On its disk
    journal: list[tuple[Round, type[Entry], bytes]] = field(default_factory=list)
    blobs: set[Digest] = field(default_factory=set)
    models: dict[Round, Digest] = field(default_factory=dict)
    records: dict[Round, RoundRecord] = field(default_factory=dict)
    amendments: tuple[Amendment, ...] = ()
    charters: dict[Digest, Charter] = field(default_factory=dict)
    settled: Round = 0
    is_journal_new: bool = False
    """Whether the journal takes the place of a lost one, and does not say yet how long the node sits out."""
    lost_journals: int = 0
    forks: list[Fork] = field(default_factory=list)
    aside: list[RoundRecord] = field(default_factory=list)
    """Records of rounds that were given up."""
    evidence: list[RecordEvidence] = field(default_factory=list)
    accused: list[Accuse] = field(default_factory=list)
    # Towards the ledger
    ledger: MemoryLedger | None = None
    outbox: dict[Round, Record] = field(default_factory=dict)
    finalised: Round = 0
    looked: Round = 0
    """The round after the last final one, as its ledger showed it in this life; 0 before it has looked."""
    ended_at: Round = 0
    """The first round that its charter does not rule any more, once it has come to it."""

    @property
    def name(self) -> str:
        """How traces call it."""
        return f"{self.person}{'ab'[self.face]}"

    @property
    def hears(self) -> bool:
        """Whether what is told to it now has an effect now."""
        return self.machine is not None and not self.frozen

    def work_under(self, era: Era) -> None:
        """From now on this charter's members and keys are meant."""
        self.era, self.member = era, era.ids[self.person]

    @property
    def federation(self) -> Federation:
        """The frame of its messages."""
        assert self.era is not None
        return self.era.federation

    @property
    def charter(self) -> Charter:
        """That it works under."""
        return self.federation.charter

    def knows(self, other: "Node") -> bool:
        """Whether the other one is, with its keys, a member as this node sees it."""
        if self.era is other.era:
            return self.era is not None
        return self.era is not None and other.era is not None and other.era.key(other) in self.era.keys

    def id_of(self, other: "Node") -> MemberId:
        """What this node calls another one that it knows."""
        assert self.era is not None
        return self.era.ids[other.person]

    def clock(self, now: float) -> float:
        """What its clock shows."""
        return self.clock_offset + now * self.clock_rate

    def write(self, round_: Round, entry: Entry) -> None:
        """Journal an entry, as bytes."""
        self.journal.append((round_, type(entry), encode_entry(entry)))
        if isinstance(entry, SatOut):
            self.is_journal_new = False

    def read(self) -> list[Entry]:
        """The journal as a restarted node reads it: without rounds that were recorded long ago.

        Of rounds under an earlier charter only how they ended, as `node/engine.py` does.
        """
        assert self.era is not None
        first, begins = self.settled + 1 - ROUNDS_REREAD, self.era.first
        return [
            decode_entry(body)
            for round_, kind, body in self.journal
            if round_ >= first and (round_ >= begins or kind in (Adopted, SatOut, RolledBack))
        ]


def simulated_charter(
    members: int,
    rounds: int,
    max_ahead: int = 50,
    secure: bool = False,
    keys: Keys | None = None,
    group_size: int = 0,
    robust: RobustRule = "none",
    fragments: int = 1,
) -> Charter:
    """A charter of `members` nameless organisations."""
    keys = keys or FakeKeys()
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
        averaging=Averaging(
            mode="secure" if secure else "open", weight_cap=20, robust=robust, fragments=fragments
        ),
        secrecy=Secrecy(group_size=group_size),
        ledger=LedgerTerms(chain_id=1, code_hash="00" * 32),
        members=tuple(entry(one, attester=one < MAX_ATTESTERS, keys=keys) for one in range(members)),
    )


def name_of(*parts: bytes) -> Digest:
    """A stand-in for the digest of something that the simulation does not compute."""
    return hashlib.sha256(b"\0".join(parts)).digest()


def _who(node: Node) -> bytes:
    return b"%d %d" % (node.person, node.face)


def simulated_training(node: Node, round_: Round, base: Digest, exponent: int) -> Trained:
    """What training gives: the same for the same base, different for the two faces of a member."""
    salted = name_of(b"salted", _who(node), base)
    return Trained(
        round=round_,
        base=base,
        exponents=bytes([exponent]),
        manifest=salted,
        privacy_log=salted,
        report=salted,
        num_examples=10 + node.person % 20,
        metrics=(),
        mask_key=public_key(epoch_secret(node)),
    )


def simulated_update(node: Node, base: Digest, length: int) -> Float32s:
    """The update itself, of so many values: a function of base and node, within the exponent of an honest one."""
    seed = name_of(b"update", _who(node), base)
    values = np.random.default_rng(int.from_bytes(seed[:8], "big")).uniform(-1, 1, length)
    return (values * 2.0 ** honest_exponent(node)).astype(np.float32)


def honest_exponent(node: Node) -> int:
    """The scale of this node's updates."""
    return node.person % (LARGEST_EXPONENT + 1)


def epoch_secret(node: Node) -> bytes:
    """The X25519 secret of a node's masks: in its journal, so the same after a crash, and lost with the journal."""
    return name_of(b"epoch", _who(node), b"%d" % node.lost_journals)


def payload_secret(node: Node, roster: Digest) -> bytes:
    """What makes this node's payloads for a roster its own."""
    return name_of(b"payload", roster, _who(node))
