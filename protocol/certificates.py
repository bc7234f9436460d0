"""Checks of things that prove themselves: certificate, opening, roster, final. The node and the auditor share them.

Each check is one comment and one `if`; what fails raises `Reject`.
"""

import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from folkmoot.protocol.charter import Charter
from folkmoot.protocol.errors import Reject
from folkmoot.protocol.groups import Groups, draw_groups
from folkmoot.protocol.hashing import digest
from folkmoot.protocol.merkle import leaf_hash, root
from folkmoot.protocol.messages import (
    Body,
    Certificate,
    Final,
    Lock,
    Opening,
    Ready,
    Roster,
    Signed,
    Statement,
    SurvivorSet,
    Vote,
    encode,
    roster_digest,
)
from folkmoot.protocol.metrics import check_metrics
from folkmoot.protocol.secure.masked_noise import exponent_bounds
from folkmoot.protocol.signing import Verifier
from folkmoot.protocol.types import Attempt, Digest, MemberId, Round

MASK_KEY_SIZE = 32
"""Bytes of an X25519 public key."""


@dataclass(frozen=True)
class Federation:
    """The fixed frame of every check: the charter in force and the federation's id (chain and contract included)."""

    id: Digest
    charter: Charter

    @cached_property
    def config(self) -> Digest:
        """The digest of the configuration in force; the charter's own until an amendment."""
        return self.charter.digest

    def groups(self, round_: Round) -> Groups:
        """Who shares masks with whom in this round."""
        return draw_groups(self.charter, self.id, round_)

    def proposers(self, round_: Round, base: Digest) -> tuple[MemberId, ...]:
        """The order in which members propose; drawn by the beacon H(federation, round, previous model digest)."""
        beacon = digest("folkmoot/v1/beacon", self.id, struct.pack(">Q", round_), base)
        members = range(len(self.charter.members))
        return tuple(
            sorted(members, key=lambda member: digest("folkmoot/v1/order", beacon, struct.pack(">I", member)))
        )

    def proposer(self, round_: Round, base: Digest, attempt: Attempt) -> MemberId:
        """Who names the roster and proposes in this attempt."""
        order = self.proposers(round_, base)
        return order[attempt % len(order)]


def compute_exponents(readies: Sequence[Ready], faults: int) -> bytes:
    """The scale of each tensor of a roster."""
    return common_exponents([ready.exponents for ready in readies], faults)


def common_exponents(announced: Sequence[bytes], faults: int) -> bytes:
    """The (f+1)-th largest that members announce, for each tensor, so f liars cannot raise it. int8 each."""
    columns = zip(*(struct.unpack(f"{len(one)}b", one) for one in announced), strict=True)
    place = min(faults, len(announced) - 1)
    scales = [sorted(column, reverse=True)[place] for column in columns]
    return struct.pack(f"{len(scales)}b", *scales)


def archive_digest(survivors: SurvivorSet) -> Digest:
    """RFC 6962 root over the survivors in order: a commitment's inclusion in the statement is a short path."""
    return root([leaf_hash(encode(survivor)) for survivor in survivors.survivors])


def verify_ready(signed: Signed, federation: Federation, verifier: Verifier) -> Ready:
    """Check a READY by itself (not its round or base)."""
    ready, charter = signed.body, federation.charter
    # [REJECT] It is a READY
    if not isinstance(ready, Ready):
        raise Reject(f"expected a READY, got {type(ready).__name__}")
    # [REJECT] One exponent per tensor (and one per tensor's control variates), within the charter's bounds
    if len(ready.exponents) != len(charter.update_sizes):
        raise Reject(
            f"READY with {len(ready.exponents)} exponents, an update has {len(charter.update_sizes)}"
        )
    low, high = exponent_bounds(charter)
    if any(
        not low <= exponent <= high for exponent in struct.unpack(f"{len(ready.exponents)}b", ready.exponents)
    ):
        raise Reject(f"READY with an exponent outside [{low}, {high}]")
    # [REJECT] Its weight is a positive count; in secure mode it shows nothing, but the key of its masks
    if charter.is_secure:
        if ready.num_examples or ready.metrics or len(ready.mask_key) != MASK_KEY_SIZE:
            raise Reject("READY of secure mode with a weight or metrics in clear, or without a mask key")
    elif ready.num_examples < 1 or ready.mask_key:
        raise Reject("READY without examples, or with a mask key in open mode")
    # [REJECT] Its metrics are known ones, within their bounds
    try:
        check_metrics(ready.metrics)
    except ValueError as error:
        raise Reject(f"READY: {error}") from error
    # [REJECT] The member exists and signed it
    verifier.verify(signed)
    return ready


def verify_roster(signed: Signed, federation: Federation, verifier: Verifier) -> Roster:
    """Check a roster whole: proposer, members' READYs, common scales."""
    roster, charter = signed.body, federation.charter
    # [REJECT] It is a roster
    if not isinstance(roster, Roster):
        raise Reject(f"expected a roster, got {type(roster).__name__}")
    # [REJECT] It comes from the proposer of its attempt
    if signed.member != federation.proposer(roster.round, roster.base, roster.attempt):
        raise Reject(
            f"roster from member {signed.member}, who is not the proposer of attempt {roster.attempt}"
        )
    # [REJECT] Members are in ascending order, each once, and at least a quorum
    members = [ready.member for ready in roster.readies]
    if members != sorted(set(members)):
        raise Reject("roster members are not in strictly ascending order")
    if len(members) < charter.quorum:
        raise Reject(f"roster of {len(members)}, the quorum is {charter.quorum}")
    # [REJECT] Every READY is good, and of this round and base
    readies = [verify_ready(ready, federation, verifier) for ready in roster.readies]
    if any((ready.round, ready.base) != (roster.round, roster.base) for ready in readies):
        raise Reject("roster holds a READY of another round or base")
    # [REJECT] The scales follow from the READYs
    if roster.exponents != compute_exponents(readies, charter.faults):
        raise Reject("roster scales do not follow from its READYs")
    verifier.verify(signed)
    return roster


def roster_members(roster: Roster) -> tuple[MemberId, ...]:
    """Who takes part, ascending."""
    return tuple(signed.member for signed in roster.readies)


def verify_survivors(survivors: SurvivorSet, roster: Signed, federation: Federation) -> None:
    """Check a survivor set against the (already verified) roster that it names."""
    body = roster.body
    assert isinstance(body, Roster)
    # [REJECT] It names this roster, its round and its base, and the configuration in force
    if survivors.roster != roster_digest(roster.member, body):
        raise Reject("survivor set names another roster")
    if (survivors.round, survivors.base, survivors.config) != (body.round, body.base, federation.config):
        raise Reject("survivor set of another round, base or configuration than its roster")
    # [REJECT] Survivors are roster members in ascending order
    members = survivors.members
    if list(members) != sorted(set(members)) or not set(members) <= set(roster_members(body)):
        raise Reject("survivors are not distinct roster members in ascending order")
    _check_crowds(members, federation.groups(survivors.round))


def _check_crowds(members: Collection[MemberId], groups: Groups) -> None:
    # [REJECT] They are a quorum, and of each group that is in it there are enough (secure mode: `k_min` too)
    if len(members) < groups.quorum:
        raise Reject(f"{len(members)} survivors, {groups.quorum} are needed")
    for group in groups:
        staying = len(set(group.members).intersection(members))
        if 0 < staying < group.needed:
            raise Reject(f"{staying} survivors of group {group.number}, {group.needed} are needed, or none")


def _verify_quorum(
    signatures: Sequence[Signed], expected: type[Body], needed: int, verifier: Verifier
) -> None:
    what = expected.__name__
    members = [signed.member for signed in signatures]
    # [REJECT] Enough members, each once
    if members != sorted(set(members)) or len(members) < needed:
        raise Reject(
            f"{len(set(members))} distinct {what} signatures in ascending order, {needed} are needed"
        )
    # [REJECT] All on one and the same body
    if not isinstance(signatures[0].body, expected) or any(
        one.body != signatures[0].body for one in signatures
    ):
        raise Reject(f"{what} signatures are not all on one body")
    # [REJECT] Every signature is its member's
    for signed in signatures:
        verifier.verify(signed)


def verify_certificate(certificate: Certificate, federation: Federation, verifier: Verifier) -> Attempt:
    """Check Q votes of one attempt on one set; returns the attempt."""
    _verify_quorum(certificate.votes, Vote, federation.charter.quorum, verifier)
    vote, survivors = certificate.votes[0].body, certificate.survivors
    assert isinstance(vote, Vote)
    # [REJECT] The votes are on the set that is shown, in this federation
    if (vote.federation, vote.round, vote.survivors) != (federation.id, survivors.round, survivors.digest):
        raise Reject("certificate votes are not on the survivor set that it shows")
    # [REJECT] Of each group that survives a quorum voted: they hold the shares that open its self-masks
    voters = [signed.member for signed in certificate.votes]
    for group in federation.groups(survivors.round).lacking(voters, survivors.members):
        raise Reject(f"certificate without a quorum of group {group.number}, whose members survive")
    return vote.attempt


def verify_opening(opening: Opening, federation: Federation, verifier: Verifier) -> Lock:
    """Check Q locks of one attempt on one set and sums; returns what they all say."""
    _verify_quorum(opening.locks, Lock, federation.charter.quorum, verifier)
    lock, survivors = opening.locks[0].body, opening.survivors
    assert isinstance(lock, Lock)
    # [REJECT] The locks are on the set that is shown, in this federation
    if (lock.federation, lock.round, lock.survivors) != (federation.id, survivors.round, survivors.digest):
        raise Reject("opening locks are not on the survivor set that it shows")
    return lock


def verify_final(final: Final, federation: Federation, verifier: Verifier) -> Statement:
    """Check a statement's attestations and that the model is the one it names; returns the statement."""
    charter = federation.charter
    _verify_quorum(final.attestations, Statement, charter.attester_quorum, verifier)
    statement = final.attestations[0].body
    assert isinstance(statement, Statement)
    # [REJECT] Attesters signed, of this federation under this configuration
    if not {signed.member for signed in final.attestations} <= set(charter.attesters):
        raise Reject("statement signed by members who are no attesters")
    if (statement.federation, statement.config) != (federation.id, federation.config):
        raise Reject("statement of another federation or configuration")
    # [REJECT] The model shown is the model named, and has the charter's length
    if final.model.root != statement.model or final.model.size != 4 * charter.snapshot_values:
        raise Reject("final shows another model than its statement names")
    return statement


def compute_statement(federation: Federation, survivors: SurvivorSet, model: Digest) -> Statement:
    """The record of a round: every field follows from the survivor set and the sums."""
    return Statement(
        federation=federation.id,
        round=survivors.round,
        previous=survivors.previous,
        config=survivors.config,
        base=survivors.base,
        survivors=survivors.digest,
        model=model,
        archive=archive_digest(survivors),
    )
