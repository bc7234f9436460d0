"""A contract on titanoboa's EVM beside the same rules in memory: each call is given to both, and both must agree."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import boa
from boa.contracts.vyper.vyper_contract import VyperDeployer

from folkmoot.ledger import codec, rules
from folkmoot.ledger.audit_key import AuditKey
from folkmoot.ledger.build import expected_code_hash
from folkmoot.ledger.calldata import encode_call, encode_enrolment
from folkmoot.ledger.calls import Call
from folkmoot.ledger.errors import LedgerRejected
from folkmoot.ledger.identity import Founding
from folkmoot.protocol.typed_data import Domain, keccak256, signing_digest, struct_hash

SOURCE = Path(__file__).parents[2] / "ledger" / "contract" / "RoundLedger.vy"
CHARTER = keccak256(b"charter")
KEYS = sorted((AuditKey(keccak256(b"key %d" % index)) for index in range(48)), key=lambda key: key.address)
HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
"""Half the order of secp256k1, rounded down: the largest low s."""
BY_ADDRESS = {key.address: key for key in KEYS}


class Disagreement(AssertionError):
    """The contract and the rules in memory say different things."""


@lru_cache(maxsize=1)
def round_ledger() -> VyperDeployer:
    """The contract, compiled from its source."""
    return boa.loads_partial(SOURCE.read_text())


class Pair:
    """One federation, twice. `deployer` may be of a changed source."""

    def __init__(
        self,
        attesters: Sequence[AuditKey],
        lead: int = 2,
        others: Sequence[AuditKey] = (),
        deployer: VyperDeployer | None = None,
        enrolled: bool = True,
    ) -> None:
        """`others` are members that are no attesters; not `enrolled`, the founding is not over."""
        more = tuple(sorted(key.address for key in others))
        founding = Founding(CHARTER, tuple(sorted(key.address for key in attesters)), lead, more)
        self.contract: Any = (deployer or round_ledger()).deploy(
            CHARTER, [_hex(address) for address in founding.attesters], len(more), lead
        )
        address = bytes.fromhex(self.contract.address[2:])
        self.domain = Domain(boa.env.evm.patch.chain_id, address)
        self.identity = founding.identity(self.domain.chain_id, address, expected_code_hash())
        self.state = rules.found(self.identity, more)
        if more and enrolled:
            assert self.send(encode_enrolment(more)) is None

    def sign(self, body: object, keys: Sequence[AuditKey], domain: Domain | None = None) -> tuple[bytes, ...]:
        """Their signatures, in the order of the keys."""
        digest = signing_digest(domain or self.domain, body)
        return tuple(key.sign(digest) for key in keys)

    def send(self, data: bytes, sender: Any = None) -> str | None:
        """A transaction to the contract; None if it succeeded, else the reason of its revert."""
        done = boa.env.execute_code(self.contract.address, sender=sender, data=data)
        if not done.is_error:
            self.logs = done._log_entries
            return None
        payload = bytes(done.output)
        length = int.from_bytes(payload[36:68], "big")
        return payload[68 : 68 + length].decode() if payload[:4] == bytes.fromhex("08c379a0") else "revert"

    def judge(self, call: Call) -> str | None:
        """What the contract says of a call; raises `Disagreement` unless the rules say and do the same."""
        said, events = None, ()
        try:
            self.state, events = rules.apply(self.state, call, self._signer_of)
        except LedgerRejected as error:
            said = error.reason
        found = self.send(encode_call(call))
        if found != said:
            raise Disagreement(f"{type(call).__name__}: the contract says {found}, the rules {said}")
        if said is None:  # else the chain takes back whatever there was
            self._compare_events(events)
            self.compare_views()
        return found

    def compare_views(self) -> None:
        """All that the contract shows is as in memory."""
        state, contract = self.state, self.contract
        position = (state.height, state.head, state.config, state.amendments, state.governance)
        agree("position", tuple(contract.position()), position)
        agree("quorum", contract.quorum(), state.quorum)
        attesters = sorted(address for address in state.members if state.role_of(address) == 3)
        agree("attesters", sorted(bytes.fromhex(address[2:]) for address in contract.attesters()), attesters)
        for address, standing in state.members.items():
            agree("role", contract.role(_hex(address)), state.role_of(address))
            agree("flagged", contract.flagged(_hex(address)), standing.is_flagged)

    def _signer_of(self, body: object, signature: bytes) -> bytes:
        # For the ledger in memory that is nobody's signature, like any other broken one; here be exact.
        if int.from_bytes(signature[32:], "big") & (2**255 - 1) > HALF_ORDER:
            raise LedgerRejected("high s")
        return codec.recover_signers(self.domain, struct_hash(body), [signature])[0]

    def _compare_events(self, events: Sequence[rules.Event]) -> None:
        agree("number of events", len(self.logs), len(events))
        for (_, _, topics, data), event in zip(self.logs, events, strict=True):
            words = [topic.to_bytes(32, "big") for topic in topics]
            agree("event", _decoded(self.state.federation, words, data), _expected(event))


def _decoded(federation: bytes, topics: list[bytes], data: bytes) -> tuple[object, ...]:
    if topics[0] == codec.FINALIZED_TOPIC:
        return codec.decode_finalized(federation, topics, data)
    if topics[0] == codec.AMENDED_TOPIC:
        return codec.decode_amended(federation, topics, data)
    if topics[0] == codec.ATTESTED_TOPIC:
        return codec.decode_attested(topics, data)[:2]
    return (codec.decode_address(topics[1]),)


def _expected(event: rules.Event) -> tuple[object, ...]:
    match event:
        case rules.Finalized(statement=statement, digest=digest):
            return statement, digest, _submitter()
        case rules.Amended(amendment=amendment, digest=digest):
            return amendment, digest, _submitter()
        case rules.Attested(digest=digest, attester=attester):
            return digest, attester
        case rules.Equivocated(member=member):
            return (member,)


def _submitter() -> bytes:
    return bytes.fromhex(boa.env.eoa[2:])


def agree(what: str, found: object, expected: object) -> None:
    """Raise `Disagreement` unless `found` is `expected`."""
    if found != expected:
        raise Disagreement(f"{what}: the contract shows {found}, the rules {expected}")


def _hex(address: bytes) -> str:
    return "0x" + address.hex()
