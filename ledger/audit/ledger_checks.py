"""Checks 1 to 9: what the ledger alone shows. The numbers are those of `checks.py`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from folkmoot.ledger.audit.governance import Reporting, ReportRecord, Roles, recover_all, roles_of
from folkmoot.ledger.audit.memory import Recall, Remembered
from folkmoot.ledger.audit.report import Status, Tally
from folkmoot.ledger.audit.state import Provable, StateProof, Unproven
from folkmoot.ledger.build import expected_code_hash
from folkmoot.ledger.errors import LedgerUnavailable, WrongLedger
from folkmoot.ledger.port import AmendmentRecord, LedgerHead, LedgerIdentity, Record
from folkmoot.protocol.charter import Charter, federation_id, quorum
from folkmoot.protocol.charter_tables import MAX_CHECKPOINT
from folkmoot.protocol.messages import Signed, Statement
from folkmoot.protocol.typed_data import Domain, struct_hash
from folkmoot.protocol.types import Digest, Round


class PublicRecord(Protocol):
    """The reading part of the `Ledger` port: all that an audit needs of it."""

    def identity(self) -> LedgerIdentity:
        """See `Ledger.identity`."""
        ...

    def head(self) -> LedgerHead:
        """See `Ledger.head`."""
        ...

    def records(self, first: Round, last: Round | None = None) -> list[Record]:
        """See `Ledger.records`."""
        ...

    def amendments(self) -> list[AmendmentRecord]:
        """See `Ledger.amendments`."""
        ...


@dataclass(frozen=True)
class LedgerView:
    """What one RPC showed, read once so that all checks speak of the same moment.

    `proof` is None where the ledger is none that could prove anything; `known` is the hash that it shows now of the
    block that was final when `remembered` was.
    """

    name: str
    identity: LedgerIdentity
    head: LedgerHead
    records: tuple[Record, ...]
    amendments: tuple[AmendmentRecord, ...] = ()
    reports: tuple[ReportRecord, ...] = ()
    proof: StateProof | Unproven | None = None
    remembered: Remembered | None = None
    known: Digest | None = None


def read_view(
    ledger: PublicRecord, name: str, reached: Tally, code: Tally, recall: Recall | None = None
) -> LedgerView | None:
    """(1) Ask `ledger`, called `name`; None, with the reason in a tally, if it shows nothing that can be checked."""
    try:
        identity, head = ledger.identity(), ledger.head()
        # Rounds beyond this head may be recorded while we ask; they are the next audit's.
        records = tuple(ledger.records(1, head.height))
        amendments = tuple(ledger.amendments()[: head.amendments])
        reports = tuple(ledger.reports()) if isinstance(ledger, Reporting) else ()
        federation = federation_id(identity.charter_digest, identity.chain_id, identity.contract)
        remembered = recall(federation) if recall else None
        proof, known = None, None
        if isinstance(ledger, Provable):
            proof = ledger.prove(head, roles_of(identity, amendments).last)
            known = ledger.block_hash(remembered.final_block) if remembered else None
    except LedgerUnavailable as error:
        reached.add(Status.UNREACHABLE, f"{name}: {error}")
        return None
    except WrongLedger as error:
        # (4) The reader refuses other code before it asks anything else.
        reached.add_pass()
        code.add(Status.FAIL, f"{name}: {error}")
        return None
    reached.add_pass()
    return LedgerView(name, identity, head, records, amendments, reports, proof, remembered, known)


def check_agreement(views: Sequence[LedgerView], tally: Tally) -> None:
    """(2) All RPCs show one record; one may be behind the others."""
    if len(views) < 2:
        tally.add(Status.SKIPPED, "needs answers from two RPCs")
        return
    first = views[0]
    for other in views[1:]:
        _compare(first, other, tally)
    tally.add_pass()


def _compare(first: LedgerView, other: LedgerView, tally: Tally) -> None:
    if other.identity != first.identity:
        what = "another chain, contract, charter or attesters"
        tally.add(Status.FAIL, f"{other.name} shows {what} than {first.name}")
    if other.head.final.number == first.head.final.number and other.head.final != first.head.final:
        what = f"final block {first.head.final.number} shown with another hash"
        tally.add(Status.FAIL, f"{other.name} has {what} than {first.name}: they are not on one chain")
    for mine, theirs in zip(first.records, other.records, strict=False):
        if mine.statement != theirs.statement:
            number = mine.statement.round
            tally.add(
                Status.FAIL,
                f"round {number}: {other.name} shows another statement than {first.name}",
                round_=number,
                where=other.name,
            )


def check_chain_id(view: LedgerView, charter: Charter | None, tally: Tally) -> None:
    """(3) The federation id on the ledger is that of this chain, contract and charter."""
    identity = view.identity
    expected = federation_id(identity.charter_digest, identity.chain_id, identity.contract)
    named = {record.statement.federation for record in view.records} or {view.head.digest}
    if named != {expected}:
        tally.add(
            Status.FAIL, f"the record is not of the federation founded here on chain {identity.chain_id}"
        )
    if charter is not None and charter.ledger.chain_id != identity.chain_id:
        tally.add(
            Status.FAIL, f"chain {identity.chain_id}, the charter names chain {charter.ledger.chain_id}"
        )
    tally.add_pass()


def check_code(view: LedgerView, charter: Charter | None, tally: Tally) -> None:
    """(4) The contract runs the code that ships with this program, and that the charter names."""
    found = view.identity.code_hash
    if found != expected_code_hash():
        tally.add(
            Status.FAIL, f"code hash 0x{found.hex()}, this release ships 0x{expected_code_hash().hex()}"
        )
    if charter is not None and found.hex() != charter.ledger.code_hash:
        tally.add(Status.FAIL, f"code hash 0x{found.hex()}, the charter names 0x{charter.ledger.code_hash}")
    tally.add_pass()


SHOWN_ROUNDS = 10
"""Rounds that a finding names."""


def check_rounds(view: LedgerView, tally: Tally) -> None:
    """(5) One statement for every round from 1 to the height, in order."""
    rounds = [record.statement.round for record in view.records]
    height = view.head.height
    if len(rounds) != height or rounds != list(range(1, len(rounds) + 1)):
        # Not all that are missing: a height is a word of whoever shows the ledger, and may be absurd
        known = set(rounds)
        missing = list(islice((one for one in range(1, height + 1) if one not in known), SHOWN_ROUNDS + 1))
        what = f"rounds {_list(missing)} are missing" if missing else "rounds are repeated or out of order"
        tally.add(Status.FAIL, f"the ledger's height is {view.head.height}, but in its events {what}")
    tally.add_pass(len(rounds))


def check_hash_chain(view: LedgerView, tally: Tally) -> None:
    """(6) Every statement names the one before it, the first the federation, and the contract's head is the last."""
    previous: Digest | None = None
    for record in view.records:
        statement = record.statement
        named = statement.federation if previous is None else previous
        if statement.previous != named:
            tally.add(
                Status.FAIL,
                f"round {statement.round} does not continue the statement before it",
                round_=statement.round,
                where=view.name,
            )
        previous = struct_hash(statement)
        if record.digest != previous:
            tally.add(
                Status.FAIL,
                f"round {statement.round}: the event's digest is not that of its statement",
                round_=statement.round,
                where=view.name,
            )
        tally.add_pass()
    if previous is not None and view.head.digest != previous:
        tally.add(Status.FAIL, f"the contract's head {view.head.digest.hex()} is not the last statement")


def check_quorum(
    view: LedgerView, record: Record, roles: Roles, attestations: Iterable[Signed], tally: Tally
) -> Mapping[bytes, bytes]:
    """(7) At least k different attesters of the round signed the statement, or one of a checkpoint that follows it.

    k follows from their number. Returns who did (20-byte addresses), with what signature. `attestations` are those
    that archives hold, unchecked: the transaction's input is not known to us if our contract was called by another one.
    """
    number, attesters = record.statement.round, roles.at(record.statement.round).attesters
    needed = quorum(len(attesters))
    where = f"{view.name}, block {record.block}, transaction 0x{record.transaction.hex()}"
    signatures = record.signatures or tuple(
        signed.signature for signed in attestations if signed.body == record.statement
    )
    domain = Domain(view.identity.chain_id, view.identity.contract)
    # The event's own digest may be wrong, which is for (6) to say.
    own = struct_hash(record.statement)
    signed = own if record.signed == record.digest else record.signed
    signers = recover_all(domain, signed, signatures)
    found = {address: signers[address] for address in sorted(attesters & signers.keys())}
    if signed != own and not _is_in_checkpoint(view, record):
        problem = f"round {number}: what attesters signed is neither its statement nor a checkpoint of it"
        tally.add(Status.FAIL, problem, round_=number, where=where)
    elif len(found) >= needed:
        tally.add_pass()
    elif record.signatures:
        problem = f"round {number}: {len(found)} attesters signed, {needed} are needed"
        tally.add(Status.FAIL, problem, round_=number, where=where)
    else:
        problem = f"round {number} was recorded through another contract: its signatures are unknown"
        tally.add(Status.INCONCLUSIVE, problem, round_=number, where=where)
    return found


def _is_in_checkpoint(view: LedgerView, record: Record) -> bool:
    """Whether what was signed is a statement that follows this one closely: each names the one before it."""
    number = record.statement.round
    return any(later.digest == record.signed for later in view.records[number : number + MAX_CHECKPOINT - 1])


def check_bases(view: LedgerView, charter: Charter | None, tally: Tally) -> None:
    """(8) Every round starts from the model of the round before it, the first from the charter's."""
    base = None if charter is None else bytes.fromhex(charter.model.initial)
    for record in view.records:
        if base is not None and record.statement.base != base:
            before = (
                "the charter's starting weights" if record.statement.round == 1 else "the model before it"
            )
            number = record.statement.round
            tally.add(
                Status.FAIL, f"round {number} does not start from {before}", round_=number, where=view.name
            )
        base = record.statement.model
        tally.add_pass()


def check_finality(view: LedgerView, development: bool, tally: Tally) -> None:
    """(9) The blocks that hold the record are final: no reorganisation can take them back."""
    if development:
        tally.add(Status.SKIPPED, "a development chain, nothing on it is final")
        return
    height, final = view.head.height, view.head.finalized_height
    if final > height:
        problem = f"{final} rounds are said to be final, {height} to be recorded"
        tally.add(Status.FAIL, problem, where=view.name)
    if final < height:
        tally.add(
            Status.INCONCLUSIVE,
            f"rounds {final + 1} to {height} are in blocks not yet final: audit again later",
        )
    tally.add_pass(height)


def statements_of(view: LedgerView) -> Mapping[Round, Statement]:
    """The recorded statements by round."""
    return {record.statement.round: record.statement for record in view.records}


def _list(rounds: Sequence[Round]) -> str:
    return ", ".join(map(str, rounds[:SHOWN_ROUNDS])) + (" …" if len(rounds) > SHOWN_ROUNDS else "")
