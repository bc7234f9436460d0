"""Checks 1 to 9: what the ledger alone shows. The numbers are those of `checks.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from folkmoot.ledger.audit.report import Status, Tally
from folkmoot.ledger.audit_key import recover
from folkmoot.ledger.build import expected_code_hash
from folkmoot.ledger.errors import LedgerUnavailable, WrongLedger
from folkmoot.ledger.port import LedgerHead, LedgerIdentity, Record
from folkmoot.protocol.charter import Charter, federation_id, quorum
from folkmoot.protocol.errors import RemoteProtocolError
from folkmoot.protocol.messages import Signed, Statement
from folkmoot.protocol.typed_data import Domain, signing_digest_of, struct_hash
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


@dataclass(frozen=True)
class LedgerView:
    """What one RPC showed, read once so that all checks speak of the same moment."""

    identity: LedgerIdentity
    head: LedgerHead
    records: tuple[Record, ...]


def read_view(ledger: PublicRecord, name: str, reached: Tally, code: Tally) -> LedgerView | None:
    """(1) Ask `ledger`, called `name`; None, with the reason in a tally, if it shows nothing that can be checked."""
    try:
        identity, head = ledger.identity(), ledger.head()
        # Rounds beyond this head may be recorded while we ask; they are the next audit's.
        view = LedgerView(identity, head, tuple(ledger.records(1, head.height)))
    except LedgerUnavailable as error:
        reached.add(Status.UNREACHABLE, f"{name}: {error}")
        return None
    except WrongLedger as error:
        # (4) The reader refuses other code before it asks anything else.
        reached.add_pass()
        code.add(Status.FAIL, f"{name}: {error}")
        return None
    reached.add_pass()
    return view


def check_agreement(views: Sequence[LedgerView], tally: Tally) -> None:
    """(2) All RPCs show one record; one may be behind the others."""
    if len(views) < 2:
        tally.add(Status.SKIPPED, "needs answers from two RPCs")
        return
    first = views[0]
    for place, other in enumerate(views[1:], start=2):
        if other.identity != first.identity:
            tally.add(
                Status.FAIL, f"RPC {place} shows another chain, contract, charter or attesters than RPC 1"
            )
        for mine, theirs in zip(first.records, other.records, strict=False):
            if mine.statement != theirs.statement:
                tally.add(
                    Status.FAIL,
                    f"round {mine.statement.round}: RPC {place} shows another statement than RPC 1",
                )
    tally.add_pass()


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


def check_rounds(view: LedgerView, tally: Tally) -> None:
    """(5) One statement for every round from 1 to the height, in order."""
    rounds = [record.statement.round for record in view.records]
    expected = list(range(1, view.head.height + 1))
    if rounds != expected:
        missing = sorted(set(expected) - set(rounds))
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
            tally.add(Status.FAIL, f"round {statement.round} does not continue the statement before it")
        previous = struct_hash(statement)
        if record.digest != previous:
            tally.add(
                Status.FAIL, f"round {statement.round}: the event's digest is not that of its statement"
            )
        tally.add_pass()
    if previous is not None and view.head.digest != previous:
        tally.add(Status.FAIL, f"the contract's head {view.head.digest.hex()} is not the last statement")


def check_quorum(view: LedgerView, attestations: Sequence[Signed], tally: Tally) -> None:
    """(7) At least k different attesters signed every statement; k follows from their number.

    `attestations` are those that archives hold, unchecked.
    """
    identity = view.identity
    needed = quorum(len(identity.attesters))
    if identity.quorum != needed:
        tally.add(Status.FAIL, f"the contract asks for {identity.quorum} signatures, {needed} are a quorum")
    domain = Domain(identity.chain_id, identity.contract)
    for record in view.records:
        # If our contract was called by another one, the transaction's input is not known to us.
        signatures = record.signatures or [
            signed.signature for signed in attestations if signed.body == record.statement
        ]
        # Who signed the last statement of a checkpoint has signed them all: each names the one before it.
        alone = record.signed == record.digest
        signed = struct_hash(record.statement) if alone else record.signed
        found = len(_signers(domain, signed, signatures) & set(identity.attesters))
        where = f"round {record.statement.round}"
        if found >= needed:
            tally.add_pass()
        elif record.signatures:
            tally.add(Status.FAIL, f"{where}: {found} attesters signed, {needed} are needed")
        else:
            tally.add(
                Status.INCONCLUSIVE,
                f"{where} was recorded through another contract: its signatures are unknown",
            )


def check_bases(view: LedgerView, charter: Charter | None, tally: Tally) -> None:
    """(8) Every round starts from the model of the round before it, the first from the charter's."""
    base = None if charter is None else bytes.fromhex(charter.model.initial)
    for record in view.records:
        if base is not None and record.statement.base != base:
            before = (
                "the charter's starting weights" if record.statement.round == 1 else "the model before it"
            )
            tally.add(Status.FAIL, f"round {record.statement.round} does not start from {before}")
        base = record.statement.model
        tally.add_pass()


def check_finality(view: LedgerView, development: bool, tally: Tally) -> None:
    """(9) The blocks that hold the record are final: no reorganisation can take them back."""
    if development:
        tally.add(Status.SKIPPED, "a development chain, nothing on it is final")
        return
    height, final = view.head.height, view.head.finalized_height
    if final < height:
        tally.add(
            Status.INCONCLUSIVE,
            f"rounds {final + 1} to {height} are in blocks not yet final: audit again later",
        )
    tally.add_pass(height)


def statements_of(view: LedgerView) -> Mapping[Round, Statement]:
    """The recorded statements by round."""
    return {record.statement.round: record.statement for record in view.records}


def _signers(domain: Domain, struct: Digest, signatures: Sequence[bytes]) -> set[bytes]:
    signed = signing_digest_of(domain, struct)
    found = set()
    for signature in signatures:
        try:
            found.add(recover(signed, signature))
        except RemoteProtocolError:
            continue  # nobody's signature counts for nobody
    return found


def _list(rounds: Sequence[Round]) -> str:
    return ", ".join(map(str, rounds[:10])) + (" …" if len(rounds) > 10 else "")
