"""The audit: what anybody can check of a federation, from its public record and whatever archives they are given.

`run_audit` is the library's door, `folkmoot audit` the command (`folkmoot.ledger.cli`). The numbered list of checks
stands at the top of `checks.py`.
"""

from folkmoot.ledger.audit.checks import Audited, audit, run_audit
from folkmoot.ledger.audit.report import AuditReport, Check, Status
from folkmoot.ledger.audit.sources import SignedCharter, Source, load_signed_charter

__all__ = [
    "AuditReport",
    "Audited",
    "Check",
    "SignedCharter",
    "Source",
    "Status",
    "audit",
    "load_signed_charter",
    "run_audit",
]
