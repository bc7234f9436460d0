"""What the engine and those who work for it share: the parts of a node, and who is told about its progress."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from structlog.stdlib import BoundLogger

from folkmoot.node.archive import Archive, Models
from folkmoot.node.learning import Learning
from folkmoot.node.logs import Once
from folkmoot.node.masked_sums import MaskedSums
from folkmoot.node.masking import Masking
from folkmoot.node.member_state import MemberStates
from folkmoot.node.network import port
from folkmoot.node.outbox import Outbox
from folkmoot.node.payloads import Payloads
from folkmoot.node.retention import Retention
from folkmoot.node.store import Journal
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.effects import Promote
from folkmoot.protocol.metrics import Metrics
from folkmoot.protocol.types import Digest, MemberId, Round


class Watcher(Protocol):
    """Is told what the node's status and report are made of."""

    def promoted(self, effect: Promote) -> None:
        """A round is done."""

    def measured(self, model: Digest, metrics: Metrics, beside: Mapping[str, Mapping[str, float]]) -> None:
        """A model was measured on this member's held-out data; `metrics` is empty if it has none.

        `beside` are the measures of the models that the member trains for itself.
        """

    def spent(self, epsilon: float, refused: str = "") -> None:
        """So much of the privacy budget is gone; `refused`: why this member takes no part in the round."""

    def withheld(self, reason: str) -> None:
        """Why this round is without this member's update, as far as that is known; empty: it is not."""

    def accused(self, name: str, kind: str, reason: str) -> None:
        """The member called `name` signed something that is wrong, or two things that contradict each other."""

    def rolled_back(self, round_: Round) -> None:
        """The final record has another history from that round on: what was done from there no longer counts."""

    def finished(self) -> None:
        """The charter's last round is done, and its model measured."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the engine works with."""

    charter: Charter
    network: port.Network
    journal: Journal
    archive: Archive
    models: Models
    payloads: Payloads
    masking: Masking
    sums: MaskedSums
    learning: Learning
    states: MemberStates
    outbox: Outbox
    watcher: Watcher
    once: Once
    log: BoundLogger
    rng: random.Random
    retention: Retention

    def name(self, member: MemberId | None) -> str:
        """What people call a member."""
        return "unknown" if member is None else self.charter.members[member].name
