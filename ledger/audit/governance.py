"""Checks 27 and 28: what changed by amendment, hence who could sign when; and what was reported of members on chain.

The contract's own records are enough for the first: the founding attesters, and the changes of roles that each
amendment carries. The charters that amendments name are needed for the checks of archives only (`rounds.py`).
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from folkmoot.ledger.audit.report import Status, Tally
from folkmoot.ledger.audit_key import recover
from folkmoot.ledger.calls import PREFIXES, REPORTED
from folkmoot.ledger.port import AmendmentRecord, LedgerIdentity
from folkmoot.protocol.charter import federation_id, quorum
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.governance import Amendment, Role, decode_changes
from folkmoot.protocol.typed_data import TYPES, Domain, keccak256, signing_digest_of, struct_hash
from folkmoot.protocol.types import Digest, Round

if TYPE_CHECKING:
    from folkmoot.ledger.audit.ledger_checks import LedgerView

NEVER = 2**64 - 1


@dataclass(frozen=True)
class Span:
    """From round `first` on: the charter in force, and who attests (20-byte addresses)."""

    first: Round
    config: Digest
    attesters: frozenset[bytes]


class Roles:
    """Which charter was in force in which round, and who was what, as the ledger has it."""

    def __init__(self, identity: LedgerIdentity, amendments: Sequence[Amendment]) -> None:
        """Raises `RemoteProtocolError` for changes that the contract would have refused."""
        spans = [Span(1, identity.charter_digest, frozenset(identity.attesters))]
        self.last: dict[bytes, Role] = dict.fromkeys(identity.attesters, Role.ATTESTER)
        """What every address is in the end that ever was an attester, or was named by an amendment."""
        for amendment in amendments:
            changes = {change.address: change.role for change in decode_changes(amendment.changes)}
            self.last |= changes
            attesters = set(spans[-1].attesters) - set(changes)
            attesters |= {address for address, role in changes.items() if role is Role.ATTESTER}
            if spans[-1].first >= amendment.effective:  # never in force
                spans.pop()
            spans.append(Span(amendment.effective, amendment.charter, frozenset(attesters)))
        self.spans = tuple(spans)
        self._firsts = [span.first for span in spans]

    def at(self, round_: Round) -> Span:
        """What holds in a round."""
        return self.spans[max(0, bisect_right(self._firsts, round_) - 1)]

    def next_change(self, round_: Round) -> Round:
        """The first round after `round_` from which on something else holds; `NEVER` if nothing is to come."""
        place = bisect_right(self._firsts, round_)
        return self._firsts[place] if place < len(self._firsts) else NEVER


def roles_of(identity: LedgerIdentity, records: Sequence[AmendmentRecord]) -> Roles:
    """The roles on a ledger; what its amendments do not allow to be read is left out (27 tells of it)."""
    amendments = [record.amendment for record in records]
    while amendments:
        try:
            return Roles(identity, amendments)
        except RemoteProtocolError:
            amendments.pop()
    return Roles(identity, ())


def check_amendments(view: "LedgerView", tally: Tally) -> None:
    """(27) A chain from the founding to the contract's governance head, each link signed by a quorum in time."""
    identity, head = view.identity, view.head
    previous = federation = federation_id(identity.charter_digest, identity.chain_id, identity.contract)
    passed: list[Amendment] = []
    for number, record in enumerate(view.amendments, start=1):
        try:
            _check_amendment(view, record, number, previous, federation, Roles(identity, passed))
            passed.append(record.amendment)
            Roles(identity, passed)
        except _Unsigned as error:
            tally.add(Status.INCONCLUSIVE, f"amendment {number}: {error}", where=view.name)
        except RemoteProtocolError as error:
            tally.add(Status.FAIL, f"amendment {number}: {error}", where=view.name)
            return
        previous = record.digest
        tally.add_pass()
    if (len(view.amendments), previous) != (head.amendments, head.governance):
        tally.add(
            Status.FAIL,
            f"the contract has {head.amendments} amendments, the last one 0x{head.governance.hex()}; its events show "
            f"{len(view.amendments)}",
            where=view.name,
        )
        return
    _check_configs(view, Roles(identity, passed), tally)


class _Unsigned(RemoteProtocolError):
    """Its signatures are not known."""


def _check_amendment(
    view: "LedgerView",
    record: AmendmentRecord,
    number: int,
    previous: Digest,
    federation: Digest,
    before: Roles,
) -> None:
    """Raises `RemoteProtocolError` unless the amendment continues the chain, is in time and signed."""
    amendment = record.amendment
    if (amendment.number, amendment.previous, amendment.federation) != (number, previous, federation):
        raise RemoteProtocolError("it does not continue the amendment before it")
    if struct_hash(amendment) != record.digest:
        raise RemoteProtocolError("the event's digest is not its own")
    # In which order a block's transactions were made is not known here: both heights are possible.
    heights = sorted({
        sum(one.block < record.block for one in view.records), sum(one.block <= record.block for one in view.records)
    })  # fmt: skip
    if amendment.effective <= heights[0] + view.identity.lead:
        late = f"too late for round {amendment.effective}"
        raise RemoteProtocolError(f"it was recorded after {heights[0]} rounds: {late}")
    if amendment.effective < before.spans[-1].first:
        raise RemoteProtocolError("it is in force before the amendment before it")
    if not record.signatures:
        raise _Unsigned("it was recorded through another contract: its signatures are unknown")
    domain = Domain(view.identity.chain_id, view.identity.contract)
    signers = set(recover_all(domain, record.digest, record.signatures))
    if not any(len(signers & _attesters(before, height)) >= _quorum(before, height) for height in heights):
        raise RemoteProtocolError("no quorum of the attesters signed it")


def _attesters(roles: Roles, height: Round) -> frozenset[bytes]:
    return roles.at(height + 1).attesters


def _quorum(roles: Roles, height: Round) -> int:
    return quorum(len(_attesters(roles, height)))


def _check_configs(view: "LedgerView", roles: Roles, tally: Tally) -> None:
    """Every statement names the charter that was in force, and so does the contract for the next round."""
    for record in view.records:
        number = record.statement.round
        if record.statement.config != roles.at(number).config:
            what = "names another charter than the one in force"
            tally.add(Status.FAIL, f"round {number} {what}", round_=number, where=view.name)
    if view.head.config != roles.at(view.head.height + 1).config:
        tally.add(
            Status.FAIL, "the contract has another charter in force than its amendments say", where=view.name
        )


def recover_all(domain: Domain, struct: Digest, signatures: Sequence[bytes]) -> Mapping[bytes, bytes]:
    """Who signed the struct of this hash (20-byte addresses), with what signature; nobody's counts for nobody."""
    signed = signing_digest_of(domain, struct)
    found = {}
    for signature in signatures:
        try:
            found[recover(signed, signature)] = signature
        except RemoteProtocolError:
            continue
    return found


# --- reports --------------------------------------------------------------------------------------------------------


class ReportRecord(msgspec.Struct, frozen=True):
    """One `Equivocated` event: the EIP-712 words of two bodies of one member.

    `kind` is a place in `calls.REPORTED`; `signatures` are the two of the transaction, none if it came through another
    contract.
    """

    member: bytes
    kind: int
    first: tuple[bytes, ...]
    second: tuple[bytes, ...]
    signatures: tuple[bytes, ...]
    transaction: Digest
    block: int


@runtime_checkable
class Reporting(Protocol):
    """A public record that shows what was reported."""

    def reports(self) -> list[ReportRecord]:
        """All reports, in order; raises errors of `folkmoot.ledger.errors`."""
        ...


def check_reports(view: "LedgerView", names: Mapping[bytes, str], tally: Tally) -> None:
    """(28) What was reported on chain convicts: both bodies are signed by the member, and cannot both be honest."""
    for report in view.reports:
        name = names.get(report.member, f"0x{report.member.hex()}")
        where = f"{view.name}, block {report.block}, transaction 0x{report.transaction.hex()}"
        try:
            _verify_report(view, report)
        except _Unsigned as error:
            tally.add(Status.INCONCLUSIVE, f"the report on {name}: {error}", member=name, where=where)
        except RemoteProtocolError as error:
            tally.add(Status.FAIL, f"the report on {name}: {error}", member=name, where=where)
        else:
            round_ = int.from_bytes(report.first[1], "big")
            what = f"{name} signed two different {REPORTED[report.kind]}s for round {round_}, as reported on the ledger"
            proof = {
                "kind": REPORTED[report.kind],
                "words": [[word.hex() for word in words] for words in (report.first, report.second)],
                "signatures": [signature.hex() for signature in report.signatures],
            }
            tally.add(Status.MISBEHAVIOUR, what, round_=round_, member=name, where=where, proof=proof)
    tally.add_pass(len(view.reports))


def _verify_report(view: "LedgerView", report: ReportRecord) -> None:
    identity = view.identity
    federation = federation_id(identity.charter_digest, identity.chain_id, identity.contract)
    if report.kind >= len(REPORTED):
        raise RemoteProtocolError("it is of no kind that can be reported")
    prefix, kind = PREFIXES[report.kind], REPORTED[report.kind]
    if report.first[:1] != (federation,) or report.first[:prefix] != report.second[:prefix]:
        raise RemoteProtocolError("its two bodies may both be honest")
    if report.first == report.second or len(report.first) != len(report.second):
        raise RemoteProtocolError("its two bodies are the same, or not of one kind")
    if len(report.signatures) != 2:
        raise _Unsigned("it came through another contract: its signatures are unknown")
    domain = Domain(identity.chain_id, identity.contract)
    for words, signature in zip((report.first, report.second), report.signatures, strict=True):
        if report.member not in recover_all(domain, _words_hash(kind, words), [signature]):
            raise RemoteProtocolError("one of its bodies is not signed by that member")


def _words_hash(kind: str, words: Sequence[bytes]) -> Digest:
    """The struct hash of a body of which only the words of its encoding are known."""
    type_string = next(one for one in TYPES if one.startswith(f"{kind}("))
    return keccak256(keccak256(type_string.encode()) + b"".join(words))
