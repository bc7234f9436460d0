"""Is this the ledger that the charter means? Asked before a node or an auditor believes anything it says."""

import msgspec

from folkmoot.ledger.errors import WrongLedger
from folkmoot.ledger.port import LedgerIdentity
from folkmoot.protocol.charter import Charter, quorum
from folkmoot.protocol.typed_data import keccak256
from folkmoot.protocol.types import Digest


class Founding(msgspec.Struct, frozen=True):
    """What a contract is deployed with: addresses of 20 bytes, ascending; `others` are members, but no attesters."""

    charter: Digest
    attesters: tuple[bytes, ...]
    lead: int
    others: tuple[bytes, ...] = ()

    @property
    def members(self) -> Digest:
        """The hash chain over all members, as the contract computes it."""
        chained = self.charter
        for address in (*self.attesters, *self.others):
            chained = keccak256(chained + address)
        return chained

    def identity(self, chain_id: int, contract: bytes, code_hash: Digest) -> LedgerIdentity:
        """What a contract shows that was deployed with this."""
        return LedgerIdentity(
            chain_id=chain_id,
            contract=contract,
            code_hash=code_hash,
            charter_digest=self.charter,
            attesters=self.attesters,
            quorum=quorum(len(self.attesters)),
            lead=self.lead,
            members=self.members,
        )


def founding_of(charter: Charter) -> Founding:
    """What the contract of `charter`, the founding one, is deployed with."""
    return Founding(
        charter=charter.digest,
        attesters=attester_addresses(charter),
        others=_addresses(charter, attesters=False),
        lead=charter.schedule.max_ahead,
    )


def check_identity(identity: LedgerIdentity, charter: Charter) -> None:
    """Raise `WrongLedger` unless chain, code, charter, members, attesters and quorum are those of `charter`.

    `charter` is the founding one: amendments change nothing of this.
    """
    where = f"the contract 0x{identity.contract.hex()}"
    code_hash = bytes.fromhex(charter.ledger.code_hash)
    expected = founding_of(charter).identity(charter.ledger.chain_id, identity.contract, code_hash)
    _same(
        "the chain id",
        expected.chain_id,
        identity.chain_id,
        "set ledger.rpc to an RPC of the charter's chain",
    )
    _same(
        f"the code hash of {where}",
        f"0x{charter.ledger.code_hash}",
        f"0x{identity.code_hash.hex()}",
        "set ledger.contract to the federation's contract",
    )
    _same(
        f"the charter digest in {where}",
        expected.charter_digest.hex(),
        identity.charter_digest.hex(),
        "the contract belongs to another federation, or the charter was changed after it was deployed",
    )
    _same(f"the attesters in {where}", _show(expected.attesters), _show(identity.attesters), _REDEPLOY)
    _same(f"the quorum in {where}", expected.quorum, identity.quorum, _REDEPLOY)
    _same(f"max_ahead in {where}", expected.lead, identity.lead, _REDEPLOY)
    _same(f"the digest of all members in {where}", expected.members.hex(), identity.members.hex(), _ENROL)


_REDEPLOY = "deploy the contract again from this charter"
_ENROL = "if its deployment was interrupted, or enrolled others, deploy the contract again from this charter"


def attester_addresses(charter: Charter) -> tuple[bytes, ...]:
    """The audit-key addresses of the charter's attesters (20 bytes each), ascending as the contract wants them."""
    return _addresses(charter, attesters=True)


def _addresses(charter: Charter, *, attesters: bool) -> tuple[bytes, ...]:
    chosen = (member for member in charter.members if member.attester is attesters)
    return tuple(sorted(bytes.fromhex(member.audit_key[2:]) for member in chosen))


def _show(addresses: tuple[bytes, ...]) -> str:
    return " ".join(f"0x{address.hex()}" for address in addresses)


def _same(what: str, expected: object, found: object, advice: str) -> None:
    if expected != found:
        raise WrongLedger(what, expected, found, advice)
