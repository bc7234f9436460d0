"""Checks 12 to 18: what one archived round shows. The numbers are those of `checks.py`.

What differs in secure mode stands in `secure_checks.py`.

A check returns if all is well, raises `RemoteProtocolError` if a rule is broken and `Lacking` if something is missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from folkmoot.ledger.audit.sources import Damaged, Lacking, Source, ref_of_file
from folkmoot.protocol import merkle
from folkmoot.protocol.blob import BlobRef
from folkmoot.protocol.certificates import (
    Federation,
    compute_statement,
    roster_members,
    verify_certificate,
    verify_final,
    verify_opening,
    verify_roster,
    verify_survivors,
)
from folkmoot.protocol.codec import codec_named
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import (
    Commitment,
    Final,
    Roster,
    Signed,
    Statement,
    Sum,
    SurvivorSet,
    body_digest,
    encode,
    roster_digest,
)
from folkmoot.protocol.record import RoundRecord
from folkmoot.protocol.sealing import payload_size
from folkmoot.protocol.signing import Verifier
from folkmoot.protocol.types import Digest, MemberId, Round


@dataclass(frozen=True)
class Frame:
    """What every check of a round is held against."""

    federation: Federation
    verifier: Verifier
    sources: Sequence[Source]
    recorded: Mapping[Round, Statement]
    """The statements on the ledger."""

    fingerprints: dict[Digest, list[Signed]] = field(default_factory=dict)
    """Secure mode: those in all records of the round, unchecked, by the digest of the sums that they are on."""

    measured: dict[Path, BlobRef] = field(default_factory=dict)
    """What files turned out to hold: the same payload is named by the records of several archives."""

    def ref_of_file(self, path: Path) -> BlobRef:
        """What the blob in a file is called by its contents; each file is read once."""
        if path not in self.measured:
            self.measured[path] = ref_of_file(path)
        return self.measured[path]

    def place(self, path: Path) -> str:
        """Which file of which archive that is; not where the archive was unpacked for this audit."""
        return next((found for source in self.sources if (found := source.place(path))), str(path))

    def name(self, member: MemberId) -> str:
        """What a member is called."""
        members = self.federation.charter.members
        return members[member].name if member < len(members) else f"member {member}"


@dataclass(frozen=True)
class Case:
    """One record of one round, from one archive."""

    round: Round
    where: str
    record: RoundRecord

    @property
    def survivors(self) -> SurvivorSet:
        """The set that the opening shows."""
        return self.record.opening.survivors

    @property
    def roster(self) -> Roster:
        """The roster itself; raises `RemoteProtocolError` if something else stands in its place."""
        body = self.record.roster.body
        if not isinstance(body, Roster):
            raise RemoteProtocolError(f"the record has a {type(body).__name__} for its roster")
        return body


def check_roster(case: Case, frame: Frame) -> None:
    """(12) The proposer named who takes part, from their signed READYs; the survivors are among them."""
    roster = verify_roster(case.record.roster, frame.federation, frame.verifier)
    if roster.round != case.round:
        raise RemoteProtocolError(f"the roster is of round {roster.round}")
    verify_survivors(case.survivors, case.record.roster, frame.federation)


def check_certificate(case: Case, frame: Frame) -> None:
    """(13) A quorum voted, in one attempt, for the survivors."""
    verify_certificate(case.record.certificate, frame.federation, frame.verifier)
    if case.record.certificate.survivors != case.survivors:
        raise RemoteProtocolError("the certificate is for other survivors than the opening")


def check_opening(case: Case, frame: Frame) -> None:
    """(14) A quorum locked, in one attempt, the survivors and the digest of their sums."""
    lock = verify_opening(case.record.opening, frame.federation, frame.verifier)
    if lock.round != case.round:
        raise RemoteProtocolError(f"the opening is of round {lock.round}")


def check_statement(case: Case, frame: Frame) -> None:
    """(15) What the ledger holds is what the round's survivors and model give, and what attesters signed."""
    recorded = _recorded(case, frame)
    computed = compute_statement(frame.federation, case.survivors, case.record.model.root)
    for name in Statement.__struct_fields__:
        # The archive root has a check of its own (17), which proves it leaf by leaf.
        if name != "archive" and getattr(computed, name) != getattr(recorded, name):
            raise RemoteProtocolError(f"the ledger's statement has another {name} than the record gives")
    attested = verify_final(
        Final(case.record.attestations, case.record.model), frame.federation, frame.verifier
    )
    if attested != recorded:
        raise RemoteProtocolError("the attestations are on another statement than the ledger's")


def check_commitments(case: Case, frame: Frame) -> None:
    """(16) Every survivor signed the commitment that the survivor set names, to a payload of the right size."""
    verify_named_commitments(case, frame)
    size = _payload_size(case.roster, frame.federation)
    for commitment in commitments_of(case):
        if commitment.size != size or (commitment.shards or commitment.shares or commitment.seeds):
            name = frame.name(commitment.member)
            raise RemoteProtocolError(f"the commitment of {name} is not to a payload of {size} bytes")


def verify_named_commitments(case: Case, frame: Frame) -> None:
    """What both modes ask of commitments: the survivors', one each, as named, for this round and roster, and signed."""
    members = list(case.survivors.members)
    if [signed.member for signed in case.record.commitments] != members:
        raise RemoteProtocolError("the commitments are not those of the survivors, one each")
    roster = roster_digest(case.record.roster.member, case.roster)
    for survivor, signed in zip(case.survivors.survivors, case.record.commitments, strict=True):
        body, name = signed.body, frame.name(survivor.member)
        if not isinstance(body, Commitment) or body_digest(body) != survivor.commitment:
            raise RemoteProtocolError(f"the commitment of {name} is not the one that the survivor set names")
        about = (body.federation, body.round, body.roster, body.member)
        if about != (frame.federation.id, case.round, roster, survivor.member):
            raise RemoteProtocolError(f"the commitment of {name} is not for this round or roster")
        frame.verifier.verify(signed)


def check_inclusion(case: Case, frame: Frame) -> None:
    """(17) The ledger's archive root covers every survivor, by its commitment's digest."""
    root = _recorded(case, frame).archive
    leaves = [merkle.leaf_hash(encode(survivor)) for survivor in case.survivors.survivors]
    for index, leaf in enumerate(leaves):
        merkle.verify_inclusion(leaf, index, len(leaves), merkle.inclusion_proof(leaves, index), root)


def check_payloads(case: Case, frame: Frame) -> None:
    """(18) Every survivor's payload is in some archive, and is what was committed to, in each that has it."""
    withheld = []
    for commitment in commitments_of(case):
        ref = BlobRef(commitment.root, commitment.size)
        copies = [path for source in frame.sources if (path := source.blob(ref.root))]
        for path in copies:
            if path.stat().st_size != ref.size or frame.ref_of_file(path) != ref:
                raise Damaged(f"a payload is not what its name says: {frame.place(path)}", commitment.member)
        if not copies:
            withheld.append(commitment.member)
    if withheld:
        names = ", ".join(map(frame.name, withheld))
        raise Lacking(f"withheld: no archive given has the payload of {names}", withheld)


def commitments_of(case: Case) -> Iterator[Commitment]:
    """The survivors' commitments, as bodies."""
    for signed in case.record.commitments:
        if isinstance(signed.body, Commitment):
            yield signed.body


def commitments_named(record: RoundRecord) -> Iterator[Digest]:
    """Roots of the blobs that a record names: payloads or masked shards, and sums."""
    for signed in (*record.commitments, *(record.unmasking.sums if record.unmasking else ())):
        if isinstance(signed.body, Commitment):
            yield from signed.body.shards or (signed.body.root,)
        elif isinstance(signed.body, Sum):
            yield signed.body.root


def recipients_of(roster: Roster, federation: Federation) -> list[str]:
    """To whom payloads are sealed, in order: roster members, then the charter's auditors (public keys in hex)."""
    charter = federation.charter
    members = [charter.members[member].sealing_key for member in roster_members(roster)]
    return members + [auditor.sealing_key for auditor in charter.auditors]


def _recorded(case: Case, frame: Frame) -> Statement:
    if case.round not in frame.recorded:
        raise Lacking("the round is not on the ledger (yet)")
    return frame.recorded[case.round]


def _payload_size(roster: Roster, federation: Federation) -> int:
    charter = federation.charter
    plaintext = codec_named(charter.averaging.codec).encoded_size(charter.update_values)
    return payload_size(len(recipients_of(roster, federation)), plaintext)
