"""What a check says, and what it looks at."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from folkmoot.node.config import Home, NodeConfig
from folkmoot.node.status_file import NodeStatus
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import Member

State: TypeAlias = Literal["ok", "warning", "problem"]


class Finding(msgspec.Struct, frozen=True):
    """One line: what was checked, how it is, and what to do where it is not well."""

    check: str
    state: State
    detail: str
    advice: str = ""


@dataclass(frozen=True)
class Case:
    """A home that can be read. `status` is its running node's own word; None if no node runs."""

    home: Home
    config: NodeConfig
    charter: Charter
    status: NodeStatus | None
    now: float
    """Unix time."""

    @property
    def member(self) -> Member:
        """This member, as the charter in work has it."""
        return self.charter.members[self.charter.member_named(self.config.name)]


def ok(check: str, detail: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", detail)


def warning(check: str, detail: str, advice: str) -> Finding:
    """It works, and should be looked at."""
    return Finding(check, "warning", detail, advice)


def problem(check: str, detail: str, advice: str = "") -> Finding:
    """The node cannot run, or not take part, like this."""
    return Finding(check, "problem", detail, advice)
