"""The contract's rules once more, in Python, for the ledger in memory: a state, and calls that make the next one of it.

Refusals have the contract's words. A test drives both with the same calls and compares (`test_contract_in_memory`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from folkmoot.ledger.calldata import MAX_SIGNATURES
from folkmoot.ledger.calls import PREFIXES, REPORTED, Amend, Attest, Call, Checkpoint, Finalize, Report
from folkmoot.ledger.codec import NO_ADDRESS
from folkmoot.ledger.errors import LedgerRejected
from folkmoot.ledger.port import LedgerIdentity
from folkmoot.protocol.charter import federation_id, quorum
from folkmoot.protocol.charter_tables import MAX_CHECKPOINT
from folkmoot.protocol.governance import Amendment, Role
from folkmoot.protocol.messages import Statement
from folkmoot.protocol.typed_data import encode_words, struct_hash
from folkmoot.protocol.types import Digest, Round

MAX_ATTESTERS = MAX_SIGNATURES
MAX_PENDING = 8
"""Amendments that may wait for their round."""
NEVER = 2**64 - 1

SignerOf = Callable[[object, bytes], bytes]
"""(statement, amendment or other signed body, signature) -> 20-byte address of who signed, or `NO_ADDRESS`."""


class Standing(msgspec.Struct, frozen=True):
    """What is known of an address: its role before the round `since`, and from it on."""

    before: Role
    after: Role
    since: Round = 0
    is_flagged: bool = False

    def role_at(self, round_: Round) -> Role:
        """The role at a round."""
        return self.after if round_ >= self.since else self.before


_STRANGER = Standing(Role.REMOVED, Role.REMOVED)


class Waiting(msgspec.Struct, frozen=True):
    """A recorded amendment that is not in force yet."""

    effective: Round
    charter: Digest
    quorum: int


class State(msgspec.Struct, frozen=True):
    """What the contract holds. `effective` is the last amendment's, 0 before the first."""

    federation: Digest
    lead: int
    height: Round
    head: Digest
    config: Digest
    quorum: int
    members: Mapping[bytes, Standing]
    amendments: int
    governance: Digest
    effective: Round = 0
    waiting: tuple[Waiting, ...] = ()
    tallies: Mapping[Digest, tuple[tuple[bytes, bytes], ...]] = {}

    def role_of(self, address: bytes) -> Role:
        """The role of an address at the next round."""
        return self.members.get(address, _STRANGER).role_at(self.height + 1)


class Finalized(msgspec.Struct, frozen=True):
    """A statement is recorded; `signatures` are on the one with the digest `signed`."""

    statement: Statement
    digest: Digest
    signed: Digest
    signatures: tuple[bytes, ...]
    signers: tuple[bytes, ...]


class Attested(msgspec.Struct, frozen=True):
    """One more attester signed the next statement by its own transaction."""

    digest: Digest
    attester: bytes


class Amended(msgspec.Struct, frozen=True):
    """An amendment is recorded."""

    amendment: Amendment
    digest: Digest
    signatures: tuple[bytes, ...]
    signers: tuple[bytes, ...]


class Equivocated(msgspec.Struct, frozen=True):
    """A member is flagged."""

    member: bytes


Event: TypeAlias = Finalized | Attested | Amended | Equivocated
Outcome = tuple[State, tuple[Event, ...]]


def found(identity: LedgerIdentity, others: Sequence[bytes] = ()) -> State:
    """The state after the founding; `others` are the members that are no attesters."""
    federation = federation_id(identity.charter_digest, identity.chain_id, identity.contract)
    attesters = dict.fromkeys(identity.attesters, Standing(Role.REMOVED, Role.ATTESTER))
    return State(
        federation=federation,
        lead=identity.lead,
        height=0,
        head=federation,
        config=identity.charter_digest,
        quorum=identity.quorum,
        members=attesters | dict.fromkeys(others, Standing(Role.REMOVED, Role.MEMBER)),
        amendments=0,
        governance=federation,
    )


def apply(state: State, call: Call, signer_of: SignerOf) -> Outcome:
    """What a call changes; raises `LedgerRejected` where the contract reverts."""
    match call:
        case Finalize():
            return _finalize(state, call, signer_of)
        case Attest():
            return _attest(state, call, signer_of)
        case Checkpoint():
            return _checkpoint(state, call, signer_of)
        case Amend():
            return _amend(state, call, signer_of)
        case Report():
            return _report(state, call, signer_of)


# --- statements -----------------------------------------------------------------------------------------------------


def _finalize(state: State, call: Finalize, signer_of: SignerOf) -> Outcome:
    digest = _check(state, call.statement, state.height + 1, state.head)
    signers = _check_quorum(state, call.statement, call.signatures, signer_of)
    event = Finalized(call.statement, digest, digest, call.signatures, signers)
    return _advance(state, state.height + 1, digest), (event,)


def _attest(state: State, call: Attest, signer_of: SignerOf) -> Outcome:
    digest = _check(state, call.statement, state.height + 1, state.head)
    signer = signer_of(call.statement, call.signature)
    _require(state.role_of(signer) is Role.ATTESTER, "attester")
    before = state.tallies.get(digest, ())
    _require(all(signer != other for other, _ in before), "attested")
    tally = (*before, (signer, call.signature))
    attested = msgspec.structs.replace(state, tallies={**state.tallies, digest: tally})
    event = Attested(digest, signer)
    if len(tally) < state.quorum:
        return attested, (event,)
    signers, signatures = zip(*tally, strict=True)
    recorded = Finalized(call.statement, digest, digest, signatures, signers)
    return _advance(attested, state.height + 1, digest), (event, recorded)


def _checkpoint(state: State, call: Checkpoint, signer_of: SignerOf) -> Outcome:
    _require(0 < len(call.statements) <= MAX_CHECKPOINT, "no statements")
    digest, digests = state.head, []
    for round_, statement in enumerate(call.statements, start=state.height + 1):
        digest = _check(state, statement, round_, digest)
        digests.append(digest)
    height = state.height + len(digests)
    _require(height < (state.waiting[0].effective if state.waiting else NEVER), "config")
    signers = _check_quorum(state, call.statements[-1], call.signatures, signer_of)
    events = tuple(
        Finalized(statement, own, digest, call.signatures, signers)
        for statement, own in zip(call.statements, digests, strict=True)
    )
    return _advance(state, height, digest), events


def _check(state: State, statement: Statement, round_: Round, previous: Digest) -> Digest:
    """The digest of a statement that is of this round, charter and federation, and continues `previous`."""
    _require(statement.round == round_, "round")
    _require(statement.previous == previous, "previous")
    _require(statement.config == state.config, "config")
    _require(statement.federation == state.federation, "federation")
    return struct_hash(statement)


def _check_quorum(
    state: State, body: object, signatures: Sequence[bytes], signer_of: SignerOf
) -> tuple[bytes, ...]:
    """The signers: at least a quorum of the next round's attesters, each once."""
    _require(len(signatures) >= state.quorum, "quorum")
    signers = tuple(signer_of(body, signature) for signature in signatures)
    last = NO_ADDRESS
    for signer in signers:
        _require(signer > last, "order")
        _require(state.role_of(signer) is Role.ATTESTER, "attester")
        last = signer
    return signers


def _advance(state: State, height: Round, digest: Digest) -> State:
    """Take the new height and head, and the amendments that are in force from the next round on."""
    due = [one for one in state.waiting if one.effective <= height + 1]
    moved = msgspec.structs.replace(state, height=height, head=digest, waiting=state.waiting[len(due) :])
    return msgspec.structs.replace(moved, config=due[-1].charter, quorum=due[-1].quorum) if due else moved


# --- amendments and reports -----------------------------------------------------------------------------------------


def _amend(state: State, call: Amend, signer_of: SignerOf) -> Outcome:
    amendment = call.amendment
    _require(amendment.number == state.amendments + 1, "number")
    _require(amendment.previous == state.governance, "previous")
    _require(amendment.federation == state.federation, "federation")
    _require(amendment.effective > state.height + state.lead, "effective")
    _require(state.effective <= amendment.effective < NEVER, "effective")
    _require(len(state.waiting) < MAX_PENDING, "pending")
    signers = _check_quorum(state, amendment, call.signatures, signer_of)
    members = _change(state, amendment)
    attesters = sum(one.after is Role.ATTESTER for one in members.values())
    _require(0 < attesters <= MAX_ATTESTERS, "attesters")
    digest = struct_hash(amendment)
    changed = msgspec.structs.replace(
        state,
        members=members,
        amendments=amendment.number,
        governance=digest,
        effective=amendment.effective,
        waiting=(*state.waiting, Waiting(amendment.effective, amendment.charter, quorum(attesters))),
    )
    return changed, (Amended(amendment, digest, call.signatures, signers),)


def _change(state: State, amendment: Amendment) -> dict[bytes, Standing]:
    """The members as of an amendment's round."""
    members, last, next_ = dict(state.members), NO_ADDRESS, state.height + 1
    for word in amendment.changes:
        address, role = word[:20], int.from_bytes(word[20:], "big")
        _require(address > last, "changes not ascending")
        last = address
        known = members.get(address, _STRANGER)
        _require(role <= Role.ATTESTER and role != known.role_at(next_), "change")
        _require(known.since <= next_, "pending")
        members[address] = Standing(
            known.role_at(next_), Role(role), amendment.effective, is_flagged=known.is_flagged
        )
    return members


def _report(state: State, call: Report, signer_of: SignerOf) -> Outcome:
    first, second = call.first.body, call.second.body
    kinds = [type(body).__name__ for body in (first, second)]
    _require(kinds[0] == kinds[1] and kinds[0] in REPORTED, "kind")
    prefix = PREFIXES[REPORTED.index(kinds[0])]
    mine, theirs = encode_words(first), encode_words(second)
    _require(mine[0] == state.federation, "federation")
    _require(mine[:prefix] == theirs[:prefix], "different things")
    _require(mine != theirs, "the same")
    member = signer_of(first, call.first.signature)
    _require(member == signer_of(second, call.second.signature), "signers")
    _require(member in state.members, "member")
    standing = state.members[member]
    _require(not standing.is_flagged, "flagged")
    flagged = msgspec.structs.replace(standing, is_flagged=True)
    return msgspec.structs.replace(state, members={**state.members, member: flagged}), (Equivocated(member),)


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise LedgerRejected(reason)
