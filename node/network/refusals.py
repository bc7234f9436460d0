"""Peers' faults are counted always and logged once per kind and peer: a hostile peer cannot fill the log.

Those that only bad will explains count against the member (`conduct.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import trio

from folkmoot.node.network.conduct import Conduct, ShutOut
from folkmoot.node.network.port import Stats
from folkmoot.protocol.types import MemberId

log = logging.getLogger(__name__)

_MAX_REMEMBERED = 10_000
"""Strangers can make up identities; beyond this many nothing new is logged, only counted."""


class Refusals:
    """Counts into `Stats.refused`, and keeps the members' conduct."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._logged: set[tuple[str, str]] = set()
        self._conduct = Conduct()
        self.members: dict[Any, MemberId] = {}
        """Whose are the names by which a transport knows its peers."""
        self.on_shut_out: Callable[[MemberId], None] = lambda member: None
        """Called when a member is shut out, to end what it has open."""

    def count(self, kind: str, peer: object, detail: object = "") -> None:
        """Count one fault of `kind` by `peer` (a member, or what the transport calls it)."""
        peer = self.members.get(peer, peer)
        self._stats.refused[kind] += 1
        key = (kind, str(peer))
        if key in self._logged or len(self._logged) >= _MAX_REMEMBERED:
            return
        self._logged.add(key)
        log.warning("refused %s from peer %s (further ones are only counted) %s", kind, peer, detail)

    def blame(self, kind: str, peer: object, detail: object = "", *, grave: bool = False) -> None:
        """Count a fault that no honest member commits; enough of them, or a grave one, shut the member out."""
        self.count(kind, peer, detail)
        self.mark(self.members.get(peer, peer), f"{kind}: {detail}" if detail else kind, grave=grave)

    def mark(self, member: object, reason: str, *, grave: bool = False) -> None:
        """As `blame`, for a fault that is counted elsewhere."""
        now = trio.current_time()
        if isinstance(member, int) and self._conduct.fault(member, reason, now, grave=grave):
            seconds = self._conduct.until(member) - now
            log.warning("member %s is shut out for %.0f s: %s", member, seconds, reason)
            self.on_shut_out(member)

    def shut_out_until(self, member: MemberId) -> float:
        """The time until which the member is shut out; in the past if it is not."""
        return self._conduct.until(member)

    def is_shut_out(self, peer: object) -> bool:
        """Whether nothing of this peer is wanted now."""
        member = self.members.get(peer, peer)
        return isinstance(member, int) and trio.current_time() < self._conduct.until(member)

    def shut_out(self) -> list[ShutOut]:
        """Who is shut out now."""
        return self._conduct.shut_out(trio.current_time())
