"""Check 29: what became of every member's contribution to every round.

What is not in a round's sum can be so for reasons that must not be confused: nobody has it, it came too late, it was
left out though it was there. The record alone shows who is in. Nodes' journals, where homes are given, hold what else
was said: commitments that did not count, and what proposers wrote of those whom they left out.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from folkmoot.ledger.audit.grouping import rounds_told, spans
from folkmoot.ledger.audit.report import MemberRound, MemberRow, Status, Tally
from folkmoot.ledger.audit.round_checks import Case, Frame
from folkmoot.ledger.audit.sources import Source
from folkmoot.protocol.certificates import roster_members
from folkmoot.protocol.errors import LocalProtocolError, RemoteProtocolError
from folkmoot.protocol.journal import Proposed, Said, Voted, decode_entry
from folkmoot.protocol.messages import Commitment, Proposal, Propose, Ready, Signed, roster_digest
from folkmoot.protocol.types import Digest, MemberId, Round
from folkmoot.protocol.validation import omitted_digest

_UNEXPLAINED = "was named in the roster and is not in the sum; archives do not show whether it had committed"


class State(StrEnum):
    """What became of a contribution."""

    CONTRIBUTED = "contributed"
    """It is in the sum."""
    MISSING = "missing"
    """Nothing given shows that there ever was one."""
    LATE = "late"
    """It is signed, but was not there in time: for a roster that was given up, or missed when survivors were named."""
    WITHHELD = "withheld"
    """It was committed to and counted, but nobody shows its bytes."""
    INVALID = "invalid"
    """It was committed to, but is not what it should be."""
    EXCLUDED = "excluded"
    """It was committed to for the very roster that was decided on, and left out. It may have been late."""
    EQUIVOCATED = "equivocated"
    """Its member signed contradicting things in that round."""


Faults = Mapping[MemberId, tuple[State, str]]
"""What other checks found of members in a round: INVALID, WITHHELD or EQUIVOCATED, and why."""


@dataclass
class Seen:
    """What members signed in one round beside its record."""

    commitments: dict[MemberId, list[Commitment]] = field(default_factory=dict)
    readies: set[MemberId] = field(default_factory=set)
    has_journal: bool = False
    """Whether a home was given whose node wrote something down of that round."""
    omissions: dict[tuple[Digest, MemberId], MemberId] = field(default_factory=dict)
    """Who lacked a member's payload, by survivor set and member: the proposer's signed reason for leaving it out."""


def read_journals(number: Round, sources: Iterable[Source], frame: Frame) -> Seen:
    """What the journals of the homes given hold of a round; only what is well signed counts."""
    seen = Seen()
    for source in sources:
        for data in source.journal(number):
            try:
                entry = decode_entry(data)
            except LocalProtocolError:
                continue
            seen.has_journal = True
            match entry:
                case Said(signed=signed):
                    _note(signed, seen, frame)
                case Voted(commitments=commitments):
                    for signed in commitments:
                        _note(signed, seen, frame)
                case Proposed(propose=propose):
                    _note_omissions(propose, seen, frame)
    return seen


def _note(signed: Signed, seen: Seen, frame: Frame) -> None:
    if isinstance(signed.body, Commitment) and _is_good(signed, frame):
        seen.commitments.setdefault(signed.member, []).append(signed.body)
    elif isinstance(signed.body, Ready) and _is_good(signed, frame):
        seen.readies.add(signed.member)


def _note_omissions(propose: Propose, seen: Seen, frame: Frame) -> None:
    proposal = propose.proposal.body
    if isinstance(proposal, Proposal) and _is_good(propose.proposal, frame):
        if (proposal.survivors, proposal.omitted) != (
            propose.survivors.digest,
            omitted_digest(propose.omitted),
        ):
            return
        for omission in propose.omitted:
            seen.omissions[proposal.survivors, omission.member] = omission.lacking


class Participation:
    """Collects every member's states over the rounds; see `MemberRow`."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._rows: dict[str, _Row] = {}
        self._unexplained: dict[str, list[Round]] = {}
        """By name: in which rounds a member was named in the roster and left out, and no journal tells of it."""

    def add_round(self, case: Case, frame: Frame, seen: Seen, faults: Faults) -> None:
        """A round whose roster and survivors are checked; `faults` are what other checks found of members."""
        for member, judged in _judge(case, frame, seen):
            state, why = faults.get(member, judged)
            if why == _UNEXPLAINED:
                self._unexplained.setdefault(frame.name(member), []).append(case.round)
            self._row(frame, member).add(case.round, state, why)
            if state is State.EXCLUDED:
                self._tally.add(
                    Status.INCONCLUSIVE,
                    f"round {case.round}: {frame.name(member)} is excluded: {why}",
                    round_=case.round,
                    member=frame.name(member),
                    where=case.where,
                )
        self._tally.add_pass()

    def tell_unexplained(self) -> None:
        """Say, after the last round, where only homes could show whether somebody was missing, late or excluded."""
        if self._unexplained:
            named = "; ".join(
                f"{name} in {rounds_told(rounds)}" for name, rounds in self._unexplained.items()
            )
            self._tally.remark(
                f"in the roster but not in the sum, and archives alone do not show why ({named}): the journal of that "
                "member or of the proposer does (--home)"
            )

    def add_attestation(self, frame: Frame, member: MemberId) -> None:
        """A member's signature stands on the ledger."""
        self._row(frame, member).attested += 1

    def rows(self) -> tuple[MemberRow, ...]:
        """All members that took part in anything, or could have."""
        return tuple(row.close() for row in self._rows.values())

    def expect(self, frame: Frame) -> None:
        """Members of a charter: they have a row even if they never did anything."""
        for member in range(len(frame.federation.charter.members)):
            self._row(frame, member)

    def _row(self, frame: Frame, member: MemberId) -> "_Row":
        """By name: a member keeps its name when keys, roles and indices change."""
        entry = frame.federation.charter.members[member]
        row = self._rows.setdefault(entry.name, _Row(entry.name))
        row.role = "attester" if entry.attester else "member"
        return row


@dataclass
class _Row:
    name: str
    role: str = "member"
    attested: int = 0
    contributed: int = 0
    rounds: list[MemberRound] = field(default_factory=list)
    judged: set[Round] = field(default_factory=set)

    def add(self, number: Round, state: State, why: str) -> None:
        self.judged.add(number)
        if state is State.CONTRIBUTED:
            self.contributed += 1
        else:
            self.rounds.append(MemberRound(number, state.value, why))

    def close(self) -> MemberRow:
        states = [one.state for one in self.rounds]
        return MemberRow(
            name=self.name,
            role=self.role,
            attested=self.attested,
            contributed=self.contributed,
            others={state.value: states.count(state.value) for state in State if state.value in states},
            rounds=tuple(self.rounds),
            spans=spans(self.judged),
        )


def _judge(case: Case, frame: Frame, seen: Seen) -> Iterator[tuple[MemberId, tuple[State, str]]]:
    """Every member's state by the record and what was seen beside it."""
    counted = {survivor.member for survivor in case.survivors.survivors}
    named = set(roster_members(case.roster))
    roster = roster_digest(case.record.roster.member, case.roster)
    for member in range(len(frame.federation.charter.members)):
        if member in counted:
            yield member, (State.CONTRIBUTED, "")
        else:
            yield member, _judge_absent(member, case, frame, seen, member in named, roster)


def _judge_absent(
    member: MemberId, case: Case, frame: Frame, seen: Seen, is_named: bool, roster: Digest
) -> tuple[State, str]:
    """A member that is not in the sum."""
    commitments = [one for one in seen.commitments.get(member, []) if one.round == case.round]
    if any(one.roster == roster for one in commitments):
        lacking = seen.omissions.get((case.survivors.digest, member))
        if lacking is not None:
            return (
                State.LATE,
                f"committed, but {frame.name(lacking)} had not got it when survivors were named",
            )
        return State.EXCLUDED, "committed for this roster and was left out; it may have been late"
    if commitments:
        return State.LATE, "committed in an attempt that was given up"
    if is_named:
        found = "was named in the roster, and no commitment was found"
        return State.MISSING, found if seen.has_journal else _UNEXPLAINED
    if member in seen.readies:
        return State.LATE, "was ready, but not when the roster was named"
    return State.MISSING, "was not named in the roster"


def _is_good(signed: Signed, frame: Frame) -> bool:
    if getattr(signed.body, "federation", frame.federation.id) != frame.federation.id:
        return False
    try:
        frame.verifier.verify(signed)
    except RemoteProtocolError:
        return False
    return True
