"""Calls for a `Pair`: valid ones, and valid ones with exactly one thing wrong.

Random calls almost never come near a quorum and let real faults live; so every call starts from a good one with the
least number of signatures, and at most one thing of it is spoilt (and signed anew where that is what is tried).
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

import msgspec
from contract_pair import BY_ADDRESS, HALF_ORDER, KEYS, Pair

from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.calls import REPORTED, Amend, Attest, Call, Checkpoint, Finalize, Report
from folkmoot.protocol.governance import Amendment, Change, Role, encode_changes
from folkmoot.protocol.messages import (
    Body,
    Commitment,
    Fingerprint,
    Lock,
    Proposal,
    Signed,
    Statement,
    Sum,
    Vote,
)
from folkmoot.protocol.typed_data import Domain, keccak256, struct_hash

T = TypeVar("T")


class Caller:
    """Makes calls for a pair, from one source of randomness."""

    def __init__(self, pair: Pair, random: Random) -> None:
        self.pair = pair
        self.random = random
        self._salt = 0

    def next(self) -> Call:
        """A call: half of them valid, half with one thing wrong."""
        kinds: Sequence[Callable[[], Call]] = (
            self.finalize,
            self.finalize,
            self.attest,
            self.attest,
            self.checkpoint,
            self.amend,
            self.amend,
            self.report,
        )
        call = self.pick(kinds)()
        return call if self.random.random() < 0.5 else self.spoil(call)

    # --- valid calls ------------------------------------------------------------------------------------------------

    def finalize(self) -> Finalize:
        body = self.statements(1)[0]
        return Finalize(body, self.signatures(body))

    def attest(self) -> Attest:
        # Of few different statements, so that some come to a quorum.
        body = self.statements(1, salt=self.random.randrange(2))[0]
        (signature,) = self.pair.sign(body, [self.pick(self.attesters())])
        return Attest(body, signature)

    def checkpoint(self) -> Checkpoint:
        longest = 5
        if self.pair.state.waiting:
            longest = min(longest, self.pair.state.waiting[0].effective - self.pair.state.height - 1)
        bodies = self.statements(self.random.randint(1, max(1, longest)))
        return Checkpoint(bodies, self.signatures(bodies[-1]))

    def amend(self) -> Amend:
        state = self.pair.state
        first = max(state.height + state.lead + 1, state.effective)
        amendment = Amendment(
            federation=state.federation,
            number=state.amendments + 1,
            previous=state.governance,
            charter=self.pick((self.word(), state.config)),
            blob=self.word(),
            size=self.random.randrange(2**40),
            effective=first + self.random.choice((0, 0, 1, 3)),
            changes=encode_changes(self.changes()),
        )
        return Amend(amendment, self.signatures(amendment))

    def report(self) -> Report:
        who = self.pick([BY_ADDRESS[address] for address in self.pair.state.members])
        first, second = self.bodies(self.random.randrange(len(REPORTED)))
        return Report(*(Signed(0, body, self.pair.sign(body, [who])[0]) for body in (first, second)))

    # --- what they are made of --------------------------------------------------------------------------------------

    def statements(self, count: int, salt: int | None = None) -> tuple[Statement, ...]:
        """Statements that continue the head."""
        state, made = self.pair.state, list[Statement]()
        previous = state.head
        for round_ in range(state.height + 1, state.height + 1 + count):
            words = [self.word() if salt is None else keccak256(b"%d %d" % (salt, at)) for at in range(4)]
            made.append(Statement(state.federation, round_, previous, state.config, *words))
            previous = struct_hash(made[-1])
        return tuple(made)

    def changes(self) -> tuple[Change, ...]:
        """A few changes that leave 1 to 31 attesters."""
        state, next_ = self.pair.state, self.pair.state.height + 1
        attesters = sum(one.after is Role.ATTESTER for one in state.members.values())
        changes = []
        for key in self.random.sample(KEYS, self.random.randint(0, 3)):
            known = state.members.get(key.address)
            if known is not None and known.since > next_:
                continue
            now = state.role_of(key.address)
            role = self.pick([role for role in (*Role, Role.ATTESTER) if role is not now])
            after = attesters + (role is Role.ATTESTER) - (now is Role.ATTESTER)
            if 1 <= after <= 31:
                attesters = after
                changes.append(Change(key.address, role))
        return tuple(changes)

    def bodies(self, kind: int) -> tuple[Body, Body]:
        """Two bodies of a type that no member may both sign."""
        federation = self.pair.state.federation
        round_, small, word = self.random.randrange(100), self.random.randrange(3), self.word()
        one, two = self.word(), self.word()
        made: dict[str, Callable[[bytes], Body]] = {
            "Statement": lambda x: Statement(federation, round_, word, word, word, word, word, x),
            "Commitment": lambda x: Commitment(
                federation, round_, word, small, x, 7, word, (x,), (), (word,)
            ),
            "Proposal": lambda x: Proposal(federation, round_, small, word, x),
            "Vote": lambda x: Vote(federation, round_, small, x),
            "Lock": lambda x: Lock(federation, round_, small, word, x),
            "Sum": lambda x: Sum(federation, round_, word, small, x, 7),
            "Fingerprint": lambda x: Fingerprint(federation, round_, small, word, word, x),
        }
        make = made[REPORTED[kind]]
        return make(one), make(two)

    def attesters(self) -> list[AuditKey]:
        """Those of the next round, ascending."""
        state = self.pair.state
        return [key for key in KEYS if state.role_of(key.address) is Role.ATTESTER]

    def signatures(self, body: object, domain: Domain | None = None) -> tuple[bytes, ...]:
        """Exactly a quorum's."""
        return self.pair.sign(body, self.quorum(), domain)

    def quorum(self) -> list[AuditKey]:
        """As many attesters as are needed, ascending."""
        chosen = self.random.sample(self.attesters(), self.pair.state.quorum)
        return sorted(chosen, key=lambda key: key.address)

    def word(self) -> bytes:
        self._salt += 1
        return keccak256(b"%d %d" % (self._salt, self.random.randrange(2**32)))

    def pick(self, options: Sequence[T]) -> T:
        return options[self.random.randrange(len(options))]

    # --- one thing wrong --------------------------------------------------------------------------------------------

    def spoil(self, call: Call) -> Call:
        """The call with one thing wrong."""
        match call:
            case Finalize(body, signatures):
                if self.random.random() < 0.4:
                    return Finalize(changed := self.other(body), self.signatures(changed))
                return Finalize(body, self.spoil_signatures(body, signatures))
            case Attest(body, signature):
                if self.random.random() < 0.4:
                    changed = self.other(body)
                    return Attest(changed, self.pair.sign(changed, [self.pick(self.attesters())])[0])
                return Attest(body, self.spoil_one(body, signature))
            case Checkpoint(bodies, signatures):
                return self.spoil_checkpoint(bodies, signatures)
            case Amend(amendment, signatures):
                if self.random.random() < 0.7:
                    return Amend(changed := self.other_amendment(amendment), self.signatures(changed))
                return Amend(amendment, self.spoil_signatures(amendment, signatures))
            case Report():
                return self.spoil_report(call)

    def other(self, body: Statement) -> Statement:
        """A statement that does not belong here."""
        waiting = self.pair.state.waiting
        field, value = self.pick(
            (
                ("round", body.round + 1),
                ("round", body.round - 1),
                ("round", body.round + 2**64 - 2**63),
                ("previous", self.word()),
                ("previous", self.pair.state.federation),
                ("federation", self.word()),
                ("config", self.word()),
                ("config", waiting[0].charter if waiting else self.pair.identity.charter_digest[::-1]),
            )
        )
        return msgspec.structs.replace(body, **{field: value})

    def spoil_signatures(self, body: object, good: tuple[bytes, ...]) -> tuple[bytes, ...]:
        at = self.random.randrange(len(good))
        other = at + 1 if at + 1 < len(good) else at - 1
        how = self.pick(("duplicate", "twice", "short", "swap", "none", "one", "one", "one", "one"))
        spoilt = list(good)
        if how == "duplicate" and len(good) > 1:
            spoilt[other] = good[at]
        elif how == "twice":
            spoilt.insert(at, good[at])
        elif how == "short":
            del spoilt[at]
        elif how == "swap" and len(good) > 1:
            spoilt[at], spoilt[other] = good[other], good[at]
        elif how == "none":
            spoilt = []
        else:
            return self.replace_signer(body, good, at)
        return tuple(spoilt)

    def replace_signer(self, body: object, good: tuple[bytes, ...], at: int) -> tuple[bytes, ...]:
        """Somebody who may not sign takes a place, in the right order; or the signature itself is bad."""
        if self.random.random() < 0.4:
            return (*good[:at], self.spoil_one(body, good[at]), *good[at + 1 :])
        keys = [*self.quorum()[1:], self.stranger()]
        return self.pair.sign(body, sorted(keys, key=lambda key: key.address))

    def spoil_one(self, body: object, good: bytes) -> bytes:
        domain, attester = self.pair.domain, self.pick(self.attesters())
        return self.pick(
            (
                lambda: bytes(64),
                lambda: good[:32] + (HALF_ORDER + 1).to_bytes(32, "big"),
                lambda: good[:32] + bytes([good[32] ^ 0x80]) + good[33:],
                lambda: self.pair.sign(body, [self.stranger()])[0],
                lambda: self.pair.sign(body, [attester], Domain(domain.chain_id + 1, domain.contract))[0],
                lambda: self.pair.sign(body, [attester], Domain(domain.chain_id, bytes(20)))[0],
                lambda: self.pair.sign(self.statements(1)[0], [attester])[0],
            )
        )()

    def stranger(self) -> AuditKey:
        """No attester of the next round; if possible one that was, or that will be, or that is a member."""
        state = self.pair.state
        near = [BY_ADDRESS[address] for address in state.members if state.role_of(address) != Role.ATTESTER]
        far = [key for key in KEYS if key.address not in state.members]
        return self.pick(near) if near and self.random.random() < 0.8 else self.pick(far)

    def spoil_checkpoint(self, bodies: tuple[Statement, ...], signatures: tuple[bytes, ...]) -> Checkpoint:
        how = self.pick(("first", "empty", "gap", "broken", "beyond", "beyond", "beyond", "signatures"))
        at = self.random.randrange(len(bodies))
        if how == "first":
            return Checkpoint(bodies, self.signatures(bodies[0]))
        if how == "empty":
            return Checkpoint((), signatures)
        if how == "gap":
            return Checkpoint(bodies[:at] + bodies[at + 1 :], signatures)
        if how == "broken":
            return Checkpoint((*bodies[:at], self.other(bodies[at]), *bodies[at + 1 :]), signatures)
        waiting = self.pair.state.waiting
        if how == "beyond" and waiting:
            bodies = self.statements(min(32, waiting[0].effective - self.pair.state.height))
            return Checkpoint(bodies, self.signatures(bodies[-1]))
        return Checkpoint(bodies, self.spoil_signatures(bodies[-1], signatures))

    def other_amendment(self, amendment: Amendment) -> Amendment:
        """An amendment against the rules."""
        state = self.pair.state
        pending = [address for address, one in state.members.items() if one.since > state.height + 1]
        some = self.pick(KEYS).address
        listed = [Change(address, Role.REMOVED) for address in state.members if state.role_of(address)]
        two = encode_changes((Change(b"\x01" * 20, Role.MEMBER), Change(b"\x02" * 20, Role.MEMBER)))
        # As many as would make 32 attesters.
        crowd = range(1, 33 - sum(one.after is Role.ATTESTER for one in state.members.values()))
        field, value = self.pick(
            (
                ("number", amendment.number + 1),
                ("number", amendment.number - 1),
                ("previous", self.word()),
                ("federation", self.word()),
                ("effective", state.height + state.lead),
                ("effective", max(0, state.effective - 1)),
                ("effective", 0),
                ("changes", two[::-1]),
                ("changes", (two[0], two[0])),
                ("changes", (bytes(31) + b"\x02",)),
                ("changes", (some + bytes(11) + b"\x04",)),
                ("changes", (some + b"\x01" + bytes(10) + b"\x02",)),
                ("changes", (some + bytes([0] * 11) + bytes([state.role_of(some)]),)),
                ("changes", encode_changes(tuple(Change(one, Role.SUSPENDED) for one in pending[:1]))),
                ("changes", encode_changes(tuple(listed))),
                ("changes", encode_changes(tuple(Change(bytes([one]) * 20, Role.ATTESTER) for one in crowd))),
            )
        )
        return msgspec.structs.replace(amendment, **{field: value})

    def spoil_report(self, call: Report) -> Report:
        first, second = call.first, call.second
        how = self.pick(("same", "other", "federation", "stranger", "signer", "signature", "again"))
        if how == "same":
            return Report(first, first)
        if how == "other":
            field = "attempt" if hasattr(second.body, "attempt") else "round"
            body = msgspec.structs.replace(second.body, **{field: getattr(second.body, field) + 1})
            return Report(first, self.resign(second, body, self.signer_of(second)))
        if how == "federation":
            bodies = [msgspec.structs.replace(one.body, federation=bytes(32)) for one in (first, second)]
            who = self.signer_of(first)
            return Report(self.resign(first, bodies[0], who), self.resign(second, bodies[1], who))
        if how in ("stranger", "signer"):
            far = self.pick([key for key in KEYS if key.address not in self.pair.state.members])
            told = self.resign(second, second.body, far)
            return Report(self.resign(first, first.body, far) if how == "stranger" else first, told)
        if how == "signature":
            return Report(
                first,
                msgspec.structs.replace(second, signature=self.spoil_one(second.body, second.signature)),
            )
        flagged = [address for address, one in self.pair.state.members.items() if one.is_flagged]
        who = BY_ADDRESS[self.pick(flagged)] if flagged else self.signer_of(first)
        return Report(self.resign(first, first.body, who), self.resign(second, second.body, who))

    def resign(self, signed: Signed, body: Body, key: AuditKey) -> Signed:
        return Signed(signed.member, body, self.pair.sign(body, [key])[0])

    def signer_of(self, signed: Signed) -> AuditKey:
        return BY_ADDRESS[self.pair._signer_of(signed.body, signed.signature)]
