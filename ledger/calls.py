"""What a transaction may ask of the contract, and what the record of it is called."""

from typing import TypeAlias

import msgspec

from folkmoot.protocol.governance import Amendment
from folkmoot.protocol.messages import Signed, Statement


class _Call(msgspec.Struct, frozen=True, array_like=True):
    """Base of the calls. Signatures are 64 bytes each, in ascending order of their signers' addresses."""


class Finalize(_Call, frozen=True, tag="finalize"):
    """Record the next round's statement under a quorum's signatures."""

    statement: Statement
    signatures: tuple[bytes, ...]


class Attest(_Call, frozen=True, tag="attest"):
    """Add one attester's signature to the next round's statement, which is recorded when a quorum has done so."""

    statement: Statement
    signature: bytes


class Checkpoint(_Call, frozen=True, tag="checkpoint"):
    """Record 1 to 32 consecutive rounds under one charter; the signatures are on the last statement."""

    statements: tuple[Statement, ...]
    signatures: tuple[bytes, ...]


class Amend(_Call, frozen=True, tag="amend"):
    """Change the charter, under signatures of a quorum of the next round's attesters."""

    amendment: Amendment
    signatures: tuple[bytes, ...]


class Report(_Call, frozen=True, tag="report"):
    """Flag a member for two signed bodies of which it may sign one only (`protocol/equivocation.py`)."""

    first: Signed
    second: Signed


Call: TypeAlias = Finalize | Attest | Checkpoint | Amend | Report

REPORTED = ("Statement", "Commitment", "Proposal", "Vote", "Lock", "Sum", "Fingerprint")
"""The types that can be reported; their places are the contract's numbers for them."""

PREFIXES = (2, 4, 3, 3, 3, 4, 3)
"""How many words of each say what the body is the only one of."""
