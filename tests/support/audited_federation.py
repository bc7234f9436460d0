"""A small federation's whole record with real keys, made with the protocol's own functions, for tests of the audit.

`AuditedFederation` plays all members at once: no network, no state machine. Rounds can be made wrong on purpose.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.build import expected_code_hash
from folkmoot.ledger.calls import Amend, Call, Finalize
from folkmoot.ledger.identity import founding_of
from folkmoot.ledger.memory import MemoryChain, MemoryLedger
from folkmoot.ledger.port import Ledger
from folkmoot.ledger.signing import KeySigner
from folkmoot.node.archive import Archive, Models
from folkmoot.node.charter_files import write_charter
from folkmoot.node.charters import keep_charter
from folkmoot.node.config import Home
from folkmoot.protocol import ring
from folkmoot.protocol.aggregate import Method, aggregate
from folkmoot.protocol.amending import compute_changes, make_amendment
from folkmoot.protocol.blob import BlobRef, ref_of
from folkmoot.protocol.certificates import (
    Federation,
    compute_exponents,
    compute_statement,
    roster_members,
)
from folkmoot.protocol.charter import Charter, federation_id, sign_charter
from folkmoot.protocol.charter_tables import (
    Auditor,
    Averaging,
    LedgerTerms,
    Member,
    Model,
    Privacy,
    Schedule,
    Secrecy,
    Tensor,
)
from folkmoot.protocol.codec import codec_named, encode_vector
from folkmoot.protocol.membership import remove_members
from folkmoot.protocol.messages import (
    Body,
    Certificate,
    Commitment,
    Lock,
    Opening,
    Ready,
    Roster,
    Signed,
    Statement,
    Survivor,
    SurvivorSet,
    Vote,
    body_digest,
    roster_digest,
)
from folkmoot.protocol.payload_sums import Payload
from folkmoot.protocol.privacy import Cost, Log, Owner, Spending, encode_line
from folkmoot.protocol.record import RoundRecord, encode_record
from folkmoot.protocol.ring import Float32s, Layout
from folkmoot.protocol.sealing import (
    PayloadContext,
    frames_offset,
    key_commitment,
    open_frames,
    payload_size,
    seal_payload,
)
from folkmoot.protocol.typed_data import Domain, signing_digest, struct_hash
from folkmoot.protocol.types import Digest, MemberId, Round

NAMES = ("alice", "bob", "carol", "dave")
CONTRACT = bytes(range(1, 21))
CHAIN_ID = 31_337
OPEN = Averaging()
DEFAULT_SECRECY = Secrecy()
SCHEDULE = Schedule(rounds=3)
NO_PRIVACY = Privacy()
TENSORS = (Tensor(name="weight", shape=(3, 2)), Tensor(name="bias", shape=(2,)))


class Keys:
    """One member's keys, the same in every run."""

    def __init__(self, name: str) -> None:
        self.identity = SigningKey(_seed(name, "identity"))
        self.sealing = PrivateKey(_seed(name, "sealing"))
        self.audit = AuditKey(_seed(name, "audit"))

    def member(self, name: str) -> Member:
        return Member(
            name=name,
            peer_id=f"peer-{name}",
            identity_key=bytes(self.identity.verify_key).hex(),
            sealing_key=bytes(self.sealing.public_key).hex(),
            audit_key=f"0x{self.audit.address.hex()}",
        )


CHEAP = Cost(sample_rate=0.05, noise=1.5, steps=20)


def text_of(log: Log) -> bytes:
    """The file that a log is."""
    lines = (log.owner, *(line.spending for line in log.lines))
    return b"".join(encode_line(line) + b"\n" for line in lines)


@dataclass
class MadeRound:
    """What a round left behind."""

    record: RoundRecord
    statement: Statement
    signatures: list[bytes]
    """On the statement, in the ledger's order."""
    blobs: list[bytes] = field(default_factory=list)

    @property
    def finalize(self) -> Finalize:
        """The call that records it."""
        return Finalize(self.statement, tuple(self.signatures))


class AuditedFederation:
    """Four members who agree on everything, unless a test says otherwise."""

    def __init__(
        self,
        contract: bytes = CONTRACT,
        chain_id: int = CHAIN_ID,
        charter_chain_id: int | None = None,
        auditors: tuple[Auditor, ...] = (),
        tensors: tuple[Tensor, ...] = TENSORS,
        averaging: Averaging = OPEN,
        secrecy: Secrecy = DEFAULT_SECRECY,
        names: tuple[str, ...] = NAMES,
        schedule: Schedule = SCHEDULE,
        privacy: Privacy = NO_PRIVACY,
    ) -> None:
        self.names = names
        self.keys = [Keys(name) for name in names]
        self.random = np.random.default_rng(7)
        self.base = self.random.normal(size=sum(tensor.size for tensor in tensors)).astype(np.float32)
        self.models = [self.base]
        self.charter = Charter(
            name="audited",
            model=Model(
                kind="logistic", layers=(3, 2), initial=_model_ref(self.base).root.hex(), tensors=tensors
            ),
            schedule=schedule,
            averaging=averaging,
            secrecy=secrecy,
            privacy=privacy,
            ledger=LedgerTerms(chain_id=charter_chain_id or chain_id, code_hash=expected_code_hash().hex()),
            members=tuple(keys.member(name) for keys, name in zip(self.keys, names, strict=True)),
            auditors=auditors,
        )
        self.founding = self.charter
        self._codec = codec_named(self.charter.averaging.codec)
        self.rounds: list[MadeRound] = []
        self.logs: dict[str, Log] = {}
        """By member, what it spent of its privacy budget."""
        self.cost_of: Callable[[str, Round], Cost] = lambda name, round_: CHEAP
        self.settle(contract, chain_id)

    def settle(self, contract: bytes, chain_id: int) -> None:
        """Found the federation with this contract; before the first round."""
        self.contract = contract
        self.domain = Domain(chain_id, contract)
        self.federation = Federation(federation_id(self.charter.digest, chain_id, contract), self.charter)
        self.head = self.federation.id
        self.identity = founding_of(self.charter).identity(chain_id, contract, expected_code_hash())

    def change_charter(self, after: Charter) -> None:
        """From the next round on `after` is in force; its members are among those of before."""
        kept = [self.charter.member_named(member.name) for member in after.members]
        self.charter = after
        self.names = tuple(member.name for member in after.members)
        self.keys = [self.keys[place] for place in kept]
        self.federation = Federation(self.federation.id, after)

    def say(self, member: MemberId, body: Body) -> Signed:
        """`body`, signed by a member."""
        keys = self.keys[member]
        signer = KeySigner(self.federation.id, self.domain, keys.identity, keys.audit)
        return Signed(member, body, signer.sign(body))

    def add_round(
        self,
        *,
        survivors: tuple[MemberId, ...] = (0, 1, 2, 3),
        base: Float32s | None = None,
        sums: bytes | None = None,
        archive: bytes | None = None,
        model: Float32s | None = None,
        spoilt: tuple[MemberId, ...] = (),
    ) -> MadeRound:
        """One more round. `base`, `sums`, `archive` and `model` replace what honest members would name.

        The members in `spoilt` commit to payloads whose frames do not open.
        """
        base = self.base if base is None else base
        number, updates = len(self.rounds) + 1, self._train()
        roster = self._roster(number, base, updates)
        assert isinstance(roster.body, Roster)
        name = roster_digest(roster.member, roster.body)
        sealed = {
            member: self._seal(number, name, member, updates[member], member in spoilt)
            for member in survivors
        }
        commitments = tuple(self.say(member, sealed[member][0]) for member in survivors)
        chosen = SurvivorSet(
            round=number,
            base=_model_ref(base).root,
            previous=self.head,
            config=self.charter.digest,
            roster=name,
            survivors=tuple(Survivor(one.member, body_digest(one.body)) for one in commitments),
        )
        payloads = [self._payload(number, name, roster.body, member, sealed[member]) for member in survivors]
        result = aggregate(Method.of(self.charter, number), roster.body.exponents, payloads, base)
        sums = result.sums_digest if sums is None else sums
        model = result.model if model is None else model
        record, statement = self._agree(chosen, sums, model, archive, roster, commitments)
        made = MadeRound(
            record, statement, self._in_ledger_order(record), [blob for _, blob, _ in sealed.values()]
        )
        self.rounds.append(made)
        self.base, self.head = model, struct_hash(statement)
        self.models.append(model)
        return made

    @staticmethod
    def content_key(number: int, member: MemberId) -> bytes:
        """The key of a member's payload in a round."""
        return _seed(NAMES[member], f"content {number}")

    def ledger(self, finality: int = 0) -> MemoryLedger:
        """A ledger that holds all rounds so far."""
        ledger = MemoryLedger(MemoryChain(self.identity, finality=finality), bytes(20))
        self.record_on(ledger)
        return ledger

    def record_on(self, ledger: Ledger) -> None:
        """Put all rounds on a ledger that has none."""
        for made in self.rounds:
            record(ledger, made.finalize)

    def write_home(self, path: Path, member: MemberId = 0, *, with_keys: bool = True) -> Home:
        """A node's home with everything in it that an audit can use."""
        home = Home(path)
        signatures = {
            member.name: sign_charter(self.founding, Keys(member.name).identity)
            for member in self.founding.members
        }
        write_charter(home, self.founding, signatures)
        if self.charter != self.founding:
            keep_charter(home, self.charter)
        Models(home.models).add_bytes(self.models[0].tobytes())
        archive = Archive(home.archive)
        for number, made in enumerate(self.rounds, start=1):
            archive.add_record(number, encode_record(made.record))
            for blob in made.blobs:
                archive.add_bytes(blob)
        if (log := self.logs.get(self.names[member])) is not None:
            home.privacy_log.write_bytes(text_of(log))
        if with_keys:
            home.keys.mkdir()
            (home.keys / "sealing.key").write_text(bytes(self.keys[member].sealing).hex() + "\n")
        return home

    # --- a round's parts ----------------------------------------------------------------------------------------------

    def _train(self) -> list[Float32s]:
        return [self.random.normal(scale=0.1, size=len(self.base)).astype(np.float32) for _ in self.names]

    def _roster(self, number: int, base: Float32s, updates: list[Float32s]) -> Signed:
        root = _model_ref(base).root
        readies = [self._ready(number, root, member, update) for member, update in enumerate(updates)]
        scales = compute_exponents(readies, self.charter.faults)
        signed = tuple(self.say(member, body) for member, body in enumerate(readies))
        proposer = self.federation.proposer(number, root, 0)
        return self.say(proposer, Roster(number, 0, root, signed, scales))

    def _ready(self, number: int, base: Digest, member: MemberId, update: Float32s) -> Ready:
        layout, terms = Layout(self.charter.update_sizes), self.charter.averaging
        exponents = ring.compute_exponents(update, layout, terms.exponent_min, terms.exponent_max)
        return Ready(
            round=number,
            base=base,
            exponents=exponents.tobytes(),
            manifest=bytes(32),
            privacy_log=self._charge(number, base, member) if self.charter.is_private else bytes(32),
            report=bytes(32),
            num_examples=100 + member,
            metrics=(("accuracy", 0.5), ("examples", 20.0)),
        )

    def _charge(self, number: Round, base: Digest, member: MemberId) -> Digest:
        """Write a line into the member's privacy log; what READY says of it."""
        name = self.names[member]
        spending = Spending(
            round=number,
            base=base.hex(),
            cost=self.cost_of(name, number),
            clip=self.charter.privacy.clip,
            epsilon=1.0,
            salt=_seed(name, f"salt {number}").hex(),
        )
        empty = Log.begin(Owner(federation=self.federation.id.hex(), member=name))
        self.logs[name] = self.logs.get(name, empty).add(spending)
        return self.logs[name].lines[-1].commitment

    def _seal(
        self, number: int, roster: bytes, member: MemberId, update: Float32s, spoilt: bool
    ) -> tuple[Commitment, bytes, bytes]:
        """The commitment, the payload and its key."""
        context = PayloadContext(self.federation.id, number, roster, member)
        key = self.content_key(number, member)
        recipients = [
            bytes.fromhex(one.sealing_key) for one in (*self.charter.members, *self.charter.auditors)
        ]
        size = self._codec.encoded_size(len(update))
        pieces = seal_payload(context, key, recipients, encode_vector(self._codec, update), size)
        blob = b"".join(bytes(piece) for piece in pieces)
        if spoilt:
            blob = blob[:-1] + bytes([blob[-1] ^ 1])
        assert len(blob) == payload_size(len(recipients), size)
        ref = ref_of(blob)
        body = Commitment(
            self.federation.id, number, roster, member, ref.root, ref.size, key_commitment(context, key)
        )
        return body, blob, key

    def _payload(
        self,
        number: int,
        name: bytes,
        roster: Roster,
        member: MemberId,
        sealed: tuple[Commitment, bytes, bytes],
    ) -> Payload:
        _, blob, key = sealed
        context = PayloadContext(self.federation.id, number, name, member)
        frames = blob[frames_offset(len(roster_members(roster)) + len(self.charter.auditors)) :]
        weight = ring.weight_of(100 + member, self.charter.averaging.weight_cap)
        size = self._codec.encoded_size(self.charter.update_values)
        return Payload(member, weight, lambda: open_frames(context, key, [frames], size))

    def _agree(
        self,
        chosen: SurvivorSet,
        sums: bytes,
        model: Float32s,
        archive: bytes | None,
        roster: Signed,
        commitments: tuple[Signed, ...],
    ) -> tuple[RoundRecord, Statement]:
        federation = self.federation.id
        in_groups = len(self.charter.group_sizes) > 1  # of which each needs a quorum
        voters = range(len(self.names) if in_groups else self.charter.quorum)
        vote = Vote(federation, chosen.round, 0, chosen.digest)
        lock = Lock(federation, chosen.round, 0, chosen.digest, sums)
        statement = compute_statement(self.federation, chosen, _model_ref(model).root)
        if archive is not None:
            fields = {name: getattr(statement, name) for name in Statement.__struct_fields__}
            statement = Statement(**{**fields, "archive": archive})
        record = RoundRecord(
            roster=roster,
            commitments=commitments,
            certificate=Certificate(chosen, tuple(self.say(member, vote) for member in voters)),
            opening=Opening(chosen, tuple(self.say(member, lock) for member in voters)),
            attestations=tuple(self.say(member, statement) for member in voters),
            model=_model_ref(model),
        )
        return record, statement

    def _in_ledger_order(self, record: RoundRecord) -> list[bytes]:
        ascending = sorted(record.attestations, key=lambda signed: self.keys[signed.member].audit.address)
        return [signed.signature for signed in ascending]


def removal(federation: AuditedFederation, name: str, effective: int) -> tuple[Amend, Charter]:
    """The federation's first amendment: a member leaves. Signed by all attesters."""
    after = remove_members(federation.charter, [name])
    return signed_amendment(federation, after, effective), after


def signed_amendment(federation: AuditedFederation, after: Charter, effective: int) -> Amend:
    """The federation's first amendment, signed by all attesters."""
    before, id_ = federation.charter, federation.federation.id
    body = make_amendment(id_, 1, id_, effective, after, compute_changes(before, after))
    keys = sorted((keys.audit for keys in federation.keys), key=lambda key: key.address)
    signatures = tuple(key.sign(signing_digest(federation.domain, body)) for key in keys)
    return Amend(body, signatures)


def record(ledger: Ledger, call: Call) -> None:
    """Send a call and wait until it is in a block, successfully."""
    prepared = ledger.prepare(call)
    ledger.send(prepared)
    deadline = time.monotonic() + 60
    while (receipt := ledger.receipt(prepared.hash)) is None:
        assert time.monotonic() < deadline, "no block took the transaction within 60 s"
        time.sleep(0.01)
    assert receipt.succeeded


def _model_ref(vector: Float32s) -> BlobRef:
    return ref_of(vector.astype("<f4").tobytes())


def _seed(name: str, what: str) -> bytes:
    return sha256(f"{name} {what}".encode()).digest()
