"""Check 23: all signatures that were seen anywhere, against each other."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain

from folkmoot.ledger.audit.report import Status, Tally
from folkmoot.ledger.audit.round_checks import Frame
from folkmoot.ledger.audit.sources import Source
from folkmoot.protocol.equivocation import Register, verify_evidence
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.fork import Fork, decode_fork
from folkmoot.protocol.messages import Commitment, Evidence, Share, Signed, decode_frame, encode
from folkmoot.protocol.record import RoundRecord
from folkmoot.protocol.types import MemberId, Round


class EquivocationSearch:
    """Tells of everybody who signed two things of which an honest member signs one, or dealt a share that is none.

    Contradictions are of one round, so rounds are looked at one by one and then forgotten.
    """

    def __init__(self, sources: Sequence[Source], tally: Tally) -> None:
        self._tally = tally
        self._kept: dict[Round, list[Evidence]] = defaultdict(list)
        self._forks: dict[Round, list[Fork]] = defaultdict(list)
        for evidence in _kept_evidence(sources):
            # Receipts have no slot, so whatever is evidence has a round.
            self._kept[evidence.first.body.round].append(evidence)
        for fork in _kept_forks(sources):
            self._forks[fork.round].append(fork)

    @property
    def rounds(self) -> Iterable[Round]:
        """Rounds of which nodes kept evidence, or two histories."""
        return self._kept.keys() | self._forks.keys()

    def add_round(
        self, number: Round, frame: Frame, records: Sequence[RoundRecord], attested: Iterable[Signed]
    ) -> set[MemberId]:
        """Look at everything that is of one round; returns whom it convicts. `attested` is known to be well signed."""
        register, convicted = Register(), set[MemberId]()
        kept = self._kept.pop(number, [])
        contradictions = (signed for evidence in kept for signed in (evidence.first, evidence.second))
        unchecked = chain(_in_records(records), contradictions, _in_forks(self._forks.pop(number, [])))
        good = (signed for signed in unchecked if _is_of(frame, signed) and _is_good(frame, signed))
        for signed in chain(attested, good):
            evidence = register.note(signed)
            if evidence is not None:
                convicted.add(signed.member)
                self._tell(evidence, _describe(evidence, frame), frame)
            self._tally.add_pass()
        for evidence in kept:
            if _is_bad_share(evidence, frame):
                convicted.add(evidence.first.member)
                name, round_ = frame.name(evidence.first.member), evidence.second.body.round
                self._tell(
                    evidence,
                    f"{name} dealt a share that does not fit its commitment for round {round_}",
                    frame,
                )
        return convicted

    def _tell(self, evidence: Evidence, what: str, frame: Frame) -> None:
        self._tally.add(
            Status.MISBEHAVIOUR,
            what,
            round_=evidence.first.body.round,
            member=frame.name(evidence.first.member),
            where="two signatures: see the proof",
            proof={"evidence": encode(evidence).hex()},
        )


def _is_of(frame: Frame, signed: Signed) -> bool:
    """An identity key's signature is over the federation's id, which the body then does not repeat."""
    return getattr(signed.body, "federation", frame.federation.id) == frame.federation.id


def _is_good(frame: Frame, signed: Signed) -> bool:
    """A bad signature proves nothing against anybody; the check of its place says so."""
    try:
        frame.verifier.verify(signed)
    except RemoteProtocolError:
        return False
    return True


def _is_bad_share(evidence: Evidence, frame: Frame) -> bool:
    """A share that was dealt is no contradiction by itself: it is held against the commitment kept with it."""
    if not isinstance(evidence.first.body, Commitment) or not isinstance(evidence.second.body, Share):
        return False
    try:
        verify_evidence(evidence, frame.verifier)
    except RemoteProtocolError:
        return False
    return _is_of(frame, evidence.first)


def _in_records(records: Sequence[RoundRecord]) -> Iterator[Signed]:
    for record in records:
        yield record.roster
        yield from record.commitments
        yield from record.certificate.votes
        yield from record.opening.locks
        yield from record.attestations
        if record.unmasking is not None:
            yield from record.unmasking.sums
            yield from record.unmasking.fingerprints


def _in_forks(forks: Sequence[Fork]) -> Iterator[Signed]:
    yield from _in_records([fork.record for fork in forks if fork.record is not None])
    for fork in forks:
        yield from fork.recorded.attestations


def _kept_forks(sources: Sequence[Source]) -> Iterator[Fork]:
    """Two histories of one round that a node saw: whoever signed both is convicted by that alone."""
    for data in (found for source in sources for found in source.forks()):
        with suppress(RemoteProtocolError):
            yield decode_fork(data)


def _kept_evidence(sources: Sequence[Source]) -> Iterator[Evidence]:
    """What nodes kept as proof; it convicts by its signatures alone, so bad bytes are no finding."""
    for data in (found for source in sources for found in source.evidence()):
        try:
            frame = decode_frame(data)
        except RemoteProtocolError:
            continue
        if isinstance(frame, Evidence):
            yield frame


def _describe(evidence: Evidence, frame: Frame) -> str:
    body = evidence.first.body
    name, kind = frame.name(evidence.first.member), type(body).__name__
    return f"{name} signed two different {kind}s for round {body.round}"
