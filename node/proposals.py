"""Proposals: an amended charter on its way round the members for their signatures, as a folder.

    proposal.toml       what is to change, and from which round on
    charter.toml        the whole charter as it is to be
    signatures/NAME.sig one signature of each attester who agrees: EIP-712, by its audit key, in hex
    federation/         the founding charter, its signatures and all amended ones: what a new member needs to join

What is signed is the `Amendment` that proposal.toml and charter.toml give together; nothing else in the folder counts.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import tomli_w
from msgspec import Meta

from folkmoot.ledger.audit_key import SIGNATURE_SIZE, AuditKey, recover
from folkmoot.node.charter_files import render_charter
from folkmoot.node.config import Home
from folkmoot.node.toml import load
from folkmoot.protocol.amending import describe_change, make_amendment
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_rules import check_charter
from folkmoot.protocol.charter_tables import Address, Hex32
from folkmoot.protocol.errors import FolkmootError, RemoteProtocolError
from folkmoot.protocol.governance import Amendment, Change, Role, decode_changes
from folkmoot.protocol.typed_data import Domain, signing_digest, struct_hash

FILE, CHARTER, SIGNATURES, FEDERATION = "proposal.toml", "charter.toml", "signatures", "federation"
ADDRESSES = "addresses"
"""In `federation/`: where nodes of members listen, one multiaddr a line, as the proposer knows them."""

_ROLES = {
    Role.REMOVED: "removed",
    Role.SUSPENDED: "suspended",
    Role.MEMBER: "member",
    Role.ATTESTER: "attester",
}
_ROLE_OF = {word: role for role, word in _ROLES.items()}
_Change = Annotated[str, Meta(pattern=r"^0x[0-9a-f]{40} (removed|suspended|member|attester)$")]


class ProposalError(FolkmootError):
    """A proposal cannot be made, signed or submitted like this; the message says what to do."""

    exit_code = 2


class _Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """proposal.toml."""

    format: Literal["folkmoot/v1/proposal"] = "folkmoot/v1/proposal"
    federation: Hex32
    chain_id: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    contract: Address
    number: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    previous: Hex32
    effective: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    charter: Hex32
    changes: tuple[_Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """An amendment, the charter that it names, and the ledger that it is for."""

    amendment: Amendment
    charter: Charter
    domain: Domain

    @property
    def digest(self) -> bytes:
        """What the ledger calls it."""
        return struct_hash(self.amendment)

    @property
    def changes(self) -> tuple[Change, ...]:
        """The roles that change on the ledger."""
        return decode_changes(self.amendment.changes)

    def words(self, before: Charter) -> list[str]:
        """What changes against the charter before it."""
        return describe_change(before, self.charter, self.changes)

    def sign(self, key: AuditKey) -> bytes:
        """An attester's signature, always the same bytes."""
        return key.sign(signing_digest(self.domain, self.amendment))

    def signer(self, signature: bytes) -> bytes:
        """The address of who signed; raises `RemoteProtocolError` if no key can have made it."""
        return recover(signing_digest(self.domain, self.amendment), signature)


def write_proposal(folder: Path, proposal: Proposal, before: Charter) -> None:
    """Write a new proposal's folder; raises `ProposalError` if there is another one, or anything else, in it."""
    if folder.exists() and any(folder.iterdir()):
        if _is_same(folder, proposal):
            return
        what = "another proposal" if (folder / FILE).is_file() else "something else"
        raise ProposalError(f"{folder}: holds {what}: give another --out")
    comment = "".join(f"#   {line}\n" for line in proposal.words(before))
    text = (
        f"# From round {proposal.amendment.effective} on, if a quorum of the attesters signs (folkmoot member sign):\n"
        f"{comment}# charter.toml beside this file is the whole charter as it would be.\n\n"
        + tomli_w.dumps(msgspec.to_builtins(_terms(proposal)))
    )
    try:
        (folder / SIGNATURES).mkdir(parents=True, exist_ok=True)
        (folder / CHARTER).write_text(render_charter(proposal.charter), encoding="utf-8")
        (folder / FILE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ProposalError(f"{folder}: cannot be written: {error.strerror}") from error


def _is_same(folder: Path, proposal: Proposal) -> bool:
    return (folder / FILE).is_file() and read_proposal(folder) == proposal


def read_proposal(folder: Path) -> Proposal:
    """Read a proposal's folder; raises `ProposalError`, or `ConfigError` for a bad key."""
    if not (folder / FILE).is_file():
        raise ProposalError(f"{folder}: no {FILE} in it: give the folder of a proposal")
    terms, charter = load(folder / FILE, _Terms), load(folder / CHARTER, Charter)
    check_charter(charter, str(folder / CHARTER))
    if charter.digest.hex() != terms.charter:
        raise ProposalError(
            f"{folder / CHARTER}: is not the charter that {FILE} names (digest {charter.digest.hex()}): get both anew"
        )
    amendment = make_amendment(
        bytes.fromhex(terms.federation),
        terms.number,
        bytes.fromhex(terms.previous),
        terms.effective,
        charter,
        tuple(_parse_change(text) for text in terms.changes),
    )
    return Proposal(amendment, charter, Domain(terms.chain_id, bytes.fromhex(terms.contract[2:])))


def _terms(proposal: Proposal) -> _Terms:
    amendment = proposal.amendment
    return _Terms(
        federation=amendment.federation.hex(),
        chain_id=proposal.domain.chain_id,
        contract=f"0x{proposal.domain.contract.hex()}",
        number=amendment.number,
        previous=amendment.previous.hex(),
        effective=amendment.effective,
        charter=amendment.charter.hex(),
        changes=tuple(f"0x{change.address.hex()} {_ROLES[change.role]}" for change in proposal.changes),
    )


def _parse_change(text: str) -> Change:
    address, _, role = text.partition(" ")
    return Change(bytes.fromhex(address[2:]), _ROLE_OF[role])


# --- signatures -----------------------------------------------------------------------------------------------------


def write_signature(folder: Path, name: str, signature: bytes) -> Path:
    """Put a member's signature into the folder; where it lies. Raises `ProposalError`."""
    path = folder / SIGNATURES / f"{name}.sig"
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(signature.hex() + "\n", encoding="ascii")
    except OSError as error:
        raise ProposalError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def read_signatures(folder: Path, proposal: Proposal, attesters: Mapping[bytes, str]) -> dict[bytes, bytes]:
    """The signatures of `attesters` (names by address) in the folder, by address.

    Raises `ProposalError` for a file that is none, or of somebody whose signature does not count.
    """
    found: dict[bytes, bytes] = {}
    for path in sorted((folder / SIGNATURES).glob("*.sig")):
        try:
            signature = bytes.fromhex(path.read_text(encoding="ascii"))
            if len(signature) != SIGNATURE_SIZE:
                raise ValueError(f"{len(signature)} bytes")
            address = proposal.signer(signature)
        except (OSError, ValueError, RemoteProtocolError) as error:
            raise ProposalError(f"{path}: not a signature ({error}): ask for the file again") from error
        if attesters.get(address) != path.stem:
            raise ProposalError(
                f"{path}: made by 0x{address.hex()}, which is not the audit key of an attester called {path.stem}: was "
                "the proposal changed after it was signed? Remove the file to go on without it"
            )
        found[address] = signature
    return found


# --- what a new member needs ----------------------------------------------------------------------------------------


def enclose_federation(folder: Path, home: Home, addresses: Sequence[str]) -> None:
    """Put the federation's charters so far, and where its nodes listen, into the folder."""
    place = folder / FEDERATION
    try:
        shutil.copytree(home.charter_signatures, place / home.charter_signatures.name, dirs_exist_ok=True)
        shutil.copyfile(home.charter, place / home.charter.name)
        if home.charters.is_dir():
            shutil.copytree(home.charters, place / home.charters.name, dirs_exist_ok=True)
        (place / ADDRESSES).write_text("".join(f"{one}\n" for one in addresses), encoding="ascii")
    except OSError as error:
        raise ProposalError(f"{place}: cannot be written: {error}") from error
