"""How the federation's charters stand on the ledger now: what proposals are drafted from and checked against."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from folkmoot.ledger.identity import check_identity
from folkmoot.ledger.port import LedgerHead
from folkmoot.ledger.reader import LedgerReader
from folkmoot.node.charters import load_charter_in_work, load_timeline
from folkmoot.node.config import Home, NodeConfig, load_config
from folkmoot.node.proposals import Proposal, ProposalError
from folkmoot.protocol.amending import check_amended, compute_changes, make_amendment, verify_amendment
from folkmoot.protocol.charter import Charter, quorum
from folkmoot.protocol.charter_rules import check_charter
from folkmoot.protocol.charter_tables import FINALITY_DEPTH
from folkmoot.protocol.governance import Amendment, decode_changes
from folkmoot.protocol.timeline import Timeline
from folkmoot.protocol.typed_data import Domain, struct_hash
from folkmoot.protocol.types import Round


@dataclass(frozen=True, slots=True)
class Standing:
    """A home's federation, as the ledger has it."""

    home: Home
    config: NodeConfig
    timeline: Timeline
    """All amendments, those too that are not in force or not final yet."""
    final: tuple[Amendment, ...]
    """Those in blocks that the chain calls final."""
    head: LedgerHead
    domain: Domain
    finality_depth: int = FINALITY_DEPTH
    """What makes a block final where the chain does not say it, under the charter that the node works with."""

    @classmethod
    def read(cls, home: Home) -> "Standing":
        """Ask the home's ledger; raises `FolkmootError`."""
        config, founding = load_config(home), load_timeline(home, ()).founding
        contract = bytes.fromhex(config.ledger.contract[2:])
        depth = load_charter_in_work(home).ledger.finality_depth
        reader = LedgerReader(
            config.ledger.rpc, contract, chain_id=founding.ledger.chain_id, finality_depth=depth
        )
        check_identity(reader.identity(), founding)
        head, records = reader.head(), reader.amendments()
        timeline = load_timeline(home, [record.amendment for record in records])
        final = tuple(record.amendment for record in records if record.block <= head.final.number)
        return cls(home, config, timeline, final, head, Domain(founding.ledger.chain_id, contract), depth)

    @property
    def earliest(self) -> Round:
        """The first round from which an amendment that is recorded now may be in force."""
        last = self.timeline.amendments[-1].effective if self.timeline.amendments else 1
        return max(self.head.height + self.timeline.founding.schedule.max_ahead + 1, last)

    @property
    def attesters(self) -> dict[bytes, str]:
        """Who may sign an amendment now: names by address of the audit key."""
        charter = self.timeline.charter_at(self.head.height + 1)
        members = (charter.members[index] for index in charter.attesters)
        return {bytes.fromhex(member.audit_key[2:]): member.name for member in members}

    @property
    def quorum(self) -> int:
        """How many of them have to."""
        return quorum(len(self.attesters))

    def draft(self, after: Charter, effective: Round, suspended: Collection[str] = ()) -> Proposal:
        """What would put `after` in force; raises `CharterError`, `ProposalError`."""
        before = self.timeline.newest
        check_charter(after, "the charter as it would be")
        check_amended(before, after, "the charter as it would be")
        changes = compute_changes(before, after, suspended)
        number = len(self.timeline.amendments) + 1
        federation = self.timeline.federation
        amendment = make_amendment(federation, number, self._previous, effective, after, changes)
        proposal = Proposal(amendment, after, self.domain)
        self.check(proposal)
        return proposal

    @property
    def _previous(self) -> bytes:
        amendments = self.timeline.amendments
        return struct_hash(amendments[-1]) if amendments else self.timeline.federation

    def is_recorded(self, proposal: Proposal) -> bool:
        """Whether the ledger has exactly this amendment."""
        return proposal.amendment in self.timeline.amendments

    def check(self, proposal: Proposal) -> None:
        """Raise `ProposalError` unless the ledger could record the proposal now; `CharterError` if it does not fit."""
        amendment = proposal.amendment
        if (amendment.federation, proposal.domain) != (self.timeline.federation, self.domain):
            raise ProposalError("the proposal is for another federation than this home's")
        if self.is_recorded(proposal):
            raise ProposalError(
                f"amendment {amendment.number} is recorded already: nothing is left to be done"
            )
        if (amendment.number, amendment.previous) != (len(self.timeline.amendments) + 1, self._previous):
            raise ProposalError(
                f"the proposal would be amendment {amendment.number}, but the ledger has "
                f"{len(self.timeline.amendments)} by now: draft it again, on the charter as it is, into another "
                "folder (--out)"
            )
        self.check_round(amendment.effective)
        verify_amendment(amendment, self.timeline.newest, proposal.charter)
        self.check_pending(change.address for change in proposal.changes)

    def check_round(self, effective: Round) -> None:
        """Raise `ProposalError` unless what is recorded now may be in force from that round on."""
        last = self.timeline.newest.schedule.rounds
        if self.earliest > last + 1:
            raise ProposalError(
                f"what is recorded now can be in force from round {self.earliest} on, but the charter ends with round "
                f"{last}: it cannot be changed any more (changes come more than schedule.max_ahead rounds later)"
            )
        if effective < self.earliest:
            raise ProposalError(
                f"the proposal is for round {effective}, but what is recorded now can be in force from round "
                f"{self.earliest} on: draft it again with a later --effective and another --out, and "
                "leave time for the signatures"
            )
        if effective > last + 1:
            raise ProposalError(
                f"the proposal is for round {effective}, but the charter ends with round {last}"
            )

    def check_pending(self, addresses: Iterable[bytes]) -> None:
        """Raise `ProposalError` for an address whose role changes already: the ledger keeps one change to come."""
        coming = [one for one in self.timeline.amendments if one.effective > self.head.height + 1]
        pending = {change.address: one for one in coming for change in decode_changes(one.changes)}
        for address in addresses:
            if address in pending:
                raise ProposalError(
                    f"the role of 0x{address.hex()} changes already with amendment {pending[address].number}: wait "
                    f"until round {pending[address].effective}"
                )
