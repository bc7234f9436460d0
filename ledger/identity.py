"""Is this the ledger that the charter means? Asked before a node or an auditor believes anything it says."""

from folkmoot.ledger.errors import WrongLedger
from folkmoot.ledger.port import LedgerIdentity
from folkmoot.protocol.charter import Charter


def check_identity(identity: LedgerIdentity, charter: Charter) -> None:
    """Raise `WrongLedger` unless chain, code, charter, attesters and quorum are those of `charter`."""
    where = f"the contract 0x{identity.contract.hex()}"
    _same(
        "the chain id",
        charter.ledger.chain_id,
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
        charter.digest.hex(),
        identity.charter_digest.hex(),
        "the contract belongs to another federation, or the charter was changed after it was deployed",
    )
    _same(
        f"the attesters in {where}", _show(attester_addresses(charter)), _show(identity.attesters), _REDEPLOY
    )
    _same(f"the quorum in {where}", charter.attester_quorum, identity.quorum, _REDEPLOY)


_REDEPLOY = "deploy the contract again from this charter"


def attester_addresses(charter: Charter) -> tuple[bytes, ...]:
    """The audit-key addresses of the charter's attesters (20 bytes each), ascending as the contract wants them."""
    return tuple(sorted(bytes.fromhex(charter.members[index].audit_key[2:]) for index in charter.attesters))


def _show(addresses: tuple[bytes, ...]) -> str:
    return " ".join(f"0x{address.hex()}" for address in addresses)


def _same(what: str, expected: object, found: object, advice: str) -> None:
    if expected != found:
        raise WrongLedger(what, expected, found, advice)
