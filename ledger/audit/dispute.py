"""The audit of single updates under a permit: `folkmoot audit dispute`.

 1. `record`        the round that the permit is for was decided: roster, certificate, opening, attestations,
                    commitments, sums and releases hold
 2. `permit`        a quorum signed it, it is for what was opened in that round, and enough survivors stay hidden
 3. `answers`       every other survivor gave the seeds that it committed to
 4. `shards`        the named members' masked shards are there, and are those committed to
 5. `fingerprints`  the named members' signed fingerprints are those of these shards
 6. `encoding`      without its masks, each vector is one that an honest member could have sent
 7. `charter`       all members signed the founding charter; the round's own is the one in force by the ledger's
                    amendments (all others rest on this; what came later stands at the end)

A ledger need be named for rounds under an amended charter only: that rounds are recorded, `folkmoot audit` checks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias, TypeVar

import msgspec

from folkmoot.ledger.audit import round_checks, secure_checks
from folkmoot.ledger.audit.in_force import Ground, federation_at
from folkmoot.ledger.audit.report import Check, Status, Tallies, Tally, exit_code_of, worst_of
from folkmoot.ledger.audit.round_checks import Case, Frame
from folkmoot.ledger.audit.sources import Convicted, Lacking, Source
from folkmoot.ledger.permit_files import SignedPermit
from folkmoot.ledger.signing import KeyVerifier
from folkmoot.protocol.certificates import compute_statement, verify_final
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.messages import Final
from folkmoot.protocol.pieces import Open
from folkmoot.protocol.record import decode_record
from folkmoot.protocol.secure import permit as rules
from folkmoot.protocol.secure.fingerprint import Challenge, challenge_seed
from folkmoot.protocol.secure.permit import Permit
from folkmoot.protocol.secure.unveil import Unveiled, unveil, vector_masks
from folkmoot.protocol.typed_data import Domain
from folkmoot.protocol.types import MemberId, Round

T = TypeVar("T")

_Seeds: TypeAlias = Mapping[MemberId, Mapping[MemberId, bytes]]
"""By member and peer."""

PASSED = {
    "record": "{} records",
    "permit": "signed by a quorum",
    "answers": "{} answers",
    "shards": "{} members",
    "fingerprints": "{} members",
    "encoding": "{} members",
    "charter": "that of the round",
}
"""Every check in its order, and what it says when all is well (`{}`: how many)."""

_OF_MEMBERS = ("answers", "shards", "fingerprints", "encoding")


class TensorSize(msgspec.Struct, frozen=True):
    """How large one tensor of an update is: its Euclidean norm, and its largest magnitude."""

    name: str
    norm: float
    largest: float


class OpenedUpdate(msgspec.Struct, frozen=True):
    """One member's update: its weight in the mean (1 to 255), and its tensors."""

    member: str
    weight: int
    tensors: tuple[TensorSize, ...]


class DisputeReport(msgspec.Struct, frozen=True, kw_only=True):
    """All checks in their order, and the updates that could be opened."""

    format: Literal["folkmoot/v1/dispute"] = "folkmoot/v1/dispute"
    status: Status
    round: int
    reason: str
    checks: tuple[Check, ...]
    updates: tuple[OpenedUpdate, ...]

    @property
    def exit_code(self) -> int:
        """As that of `AuditReport`."""
        return exit_code_of(self.status)

    def check(self, id_: str) -> Check:
        """The check called `id_`; raises `KeyError`."""
        return {check.id: check for check in self.checks}[id_]


def run_dispute(
    ground: Ground, signed: SignedPermit, answers: Mapping[str, bytes], secrets: Mapping[str, bytes]
) -> DisputeReport:
    """Open the updates that a permit names, as far as answers and archives go; never raises for what those hold.

    `answers`: sealed answers by what they are called in messages. `secrets`: the auditor's X25519 secrets by the hex of
    their public halves (`replay.sealing_secrets`). Raises `CharterError` or `ConfigError` if there is no charter that
    can be read.
    """
    permit, tallies = signed.permit, Tallies(PASSED)
    federation = federation_at(permit.round, ground, tallies["charter"])
    updates: list[OpenedUpdate] = []
    if federation is None:
        tallies.skip("rests on `charter`", [id_ for id_ in PASSED if id_ != "charter"])
    else:
        verifier = KeyVerifier(federation, Domain(federation.charter.ledger.chain_id, ground.contract))
        frame = Frame(federation, verifier, ground.sources, {})
        updates = list(_run_checks(frame, signed, answers, secrets, tallies))
    checks = tallies.close()
    return DisputeReport(
        status=worst_of(checks),
        round=permit.round,
        reason=permit.reason,
        checks=tuple(checks),
        updates=tuple(updates),
    )


def _run_checks(
    frame: Frame,
    signed: SignedPermit,
    answers: Mapping[str, bytes],
    secrets: Mapping[str, bytes],
    tallies: Tallies,
) -> Iterator[OpenedUpdate]:
    """(1) to (6)"""
    permit = signed.permit
    case = _find_case(frame, permit, tallies["record"])
    if case is None:
        tallies.skip("rests on `record`", ("permit", *_OF_MEMBERS))
    elif _judge(tallies["permit"], _check_permit, case, frame, signed) is None:
        tallies.skip("rests on `permit`", _OF_MEMBERS)
    else:
        dispute = _Dispute(case, frame, permit, tallies)
        yield from dispute.open(dispute.read(answers, secrets.get(permit.auditor)))


def _judge(tally: Tally, check: Callable[..., T], *arguments: object) -> T | None:
    """What `check` returns, which is never None; None if it failed, which is told."""
    try:
        result = check(*arguments)
    except (Lacking, OSError) as error:
        tally.add(Status.INCONCLUSIVE, str(error))
    except Convicted as error:
        tally.add(Status.MISBEHAVIOUR, str(error))
    except (RemoteProtocolError, LocalProtocolError) as error:
        tally.add(Status.FAIL, str(error))
    else:
        tally.add_pass()
        return result
    return None


# --- the round and the permit ---------------------------------------------------------------------------------------


def _find_case(frame: Frame, permit: Permit, tally: Tally) -> Case | None:
    """(1) The first record of the round that holds."""
    sources = [source for source in frame.sources if source.has_record(permit.round)]
    if not sources:
        tally.add(Status.INCONCLUSIVE, f"no archive given has a record of round {permit.round}")
    found = (_judge(tally, _check_record, source, permit.round, frame) for source in sources)
    return next((case for case in found if case is not None), None)


def _check_record(source: Source, number: Round, frame: Frame) -> Case:
    data = source.record(number)
    if data is None:
        raise Lacking(f"the record of round {number} has gone from {source.name}")
    case = Case(number, f"round {number} in {source.name}", decode_record(data))
    round_checks.check_roster(case, frame)
    round_checks.check_certificate(case, frame)
    round_checks.check_opening(case, frame)
    secure_checks.check_commitments(case, frame)
    final = Final(case.record.attestations, case.record.model)
    attested = verify_final(final, frame.federation, frame.verifier)
    if attested != compute_statement(frame.federation, case.survivors, case.record.model.root):
        raise RemoteProtocolError(f"{case.where}: the attestations are on another statement")
    secure_checks.sums_of(case, frame)
    secure_checks.check_releases(case, frame)
    return case


def _check_permit(case: Case, frame: Frame, signed: SignedPermit) -> Permit:
    """(2) Signatures, round, and the crowd that is left."""
    round_ = secure_checks.masked_round(case, frame)
    rules.verify_permit(signed.permit, signed.signatures, frame.federation)
    rules.check_round(signed.permit, round_)
    rules.check_crowd(round_, [signed.permit])
    return signed.permit


# --- updates --------------------------------------------------------------------------------------------------------


class _Dispute:
    """Checks 3 to 6, for every named member, on a record that holds and under a permit that does."""

    def __init__(self, case: Case, frame: Frame, permit: Permit, tallies: Tallies) -> None:
        self._case, self._frame, self._permit, self._tallies = case, frame, permit, tallies
        self._round = secure_checks.masked_round(case, frame)
        self._named = rules.named_members(permit, frame.federation.charter)

    def read(self, answers: Mapping[str, bytes], secret: bytes | None) -> _Seeds:
        """(3) Of each named member whose masks are known by now, the seeds that it has with the other survivors."""
        tally = self._tallies["answers"]
        if secret is None:
            tally.add(Status.INCONCLUSIVE, "no home given has the auditor's key, to which answers are sealed")
            return {}
        given: dict[MemberId, dict[MemberId, bytes]] = {member: {} for member in self._round.members}
        for name, sealed in answers.items():
            answer = _judge(tally, self._open_answer, name, sealed, secret)
            if answer is None:
                continue
            for other, seed in answer.seeds:
                given[other][answer.member] = given[answer.member][other] = seed
        known = {}
        for member in self._named:
            sharing = set(self._round.members).intersection(self._round.circles.circle(member))
            silent = sharing - set(given[member]) - {member}
            if silent:
                names = ", ".join(map(self._frame.name, sorted(silent)))
                what = f"{self._frame.name(member)} stays hidden: no good answer of {names}"
                tally.add(Status.INCONCLUSIVE, what)
            else:
                known[member] = given[member]
        return known

    def _open_answer(self, name: str, sealed: bytes, secret: bytes) -> rules.Answer:
        try:
            answer = rules.open_answer(sealed, secret)
            rules.verify_answer(answer, self._permit, self._round)
        except RemoteProtocolError as error:
            raise RemoteProtocolError(f"{name}: {error}") from error
        return answer

    def open(self, seeds: _Seeds) -> Iterator[OpenedUpdate]:
        """(4) to (6); shards and fingerprints are checked without seeds, too."""
        for member in self._named:
            name = self._frame.name(member)
            shards = _judge(self._tallies["shards"], self._find_shards, member)
            if shards is None:
                self._tallies.skip(f"{name} rests on `shards`", ("fingerprints", "encoding"))
                continue
            _judge(self._tallies["fingerprints"], self._check_prints, member, shards)
            if member not in seeds:
                self._tallies.skip(f"{name} rests on `answers`", ("encoding",))
                continue
            found = _judge(self._tallies["encoding"], self._unveil, member, shards, seeds[member])
            if found is not None:
                yield self._describe(name, found)

    def _find_shards(self, member: MemberId) -> list[Open]:
        """(4)"""
        commitment, layout = self._round.commitments[member], self._round.layout
        opened, missing = list[Open](), list[str]()
        for shard in range(layout.shards):
            size = layout.shard_bytes(shard)
            open_ = secure_checks.open_shard(self._case, self._frame, commitment, shard, size)
            if open_ is None:
                missing.append(str(shard))
            else:
                opened.append(open_)
        if missing:
            name = self._frame.name(member)
            raise Lacking(f"no archive given has shards {', '.join(missing)} of {name}'s masked vector whole")
        return opened

    def _check_prints(self, member: MemberId, shards: Sequence[Open]) -> MemberId:
        """(5)"""
        name = self._frame.name(member)
        prints = secure_checks.signed_values(self._case, self._frame)
        signed = next((values for one, values in prints if one.member == member and values), None)
        if signed is None:
            raise Lacking(f"the record has no fingerprints of {name}")
        roots = [ref.root for ref in secure_checks.sums_of(self._case, self._frame)]
        challenge = Challenge(self._round.layout, challenge_seed(self._round.survivors.digest, roots))
        for shard, open_ in enumerate(shards):
            if challenge.of_shard(shard, open_) != signed[shard]:
                raise Convicted(
                    f"{name} signed a fingerprint of its shard {shard} that is not that of the shard it committed to"
                )
        return member

    def _unveil(self, member: MemberId, shards: Sequence[Open], seeds: Mapping[MemberId, bytes]) -> Unveiled:
        """(6)"""
        releases = secure_checks.releases_of(self._case, self._frame)
        found = unveil(self._round, shards, vector_masks(self._round, releases, member, seeds))
        if found.faults:
            name = self._frame.name(member)
            raise Convicted(
                f"{name} put into the sum what is no update under the masks it committed to: {'; '.join(found.faults)}"
            )
        return found

    def _describe(self, name: str, found: Unveiled) -> OpenedUpdate:
        sizes = zip(self._frame.federation.charter.model.shared, found.norms, found.largest, strict=True)
        return OpenedUpdate(
            name, found.weight, tuple(TensorSize(tensor.name, norm, top) for tensor, norm, top in sizes)
        )
