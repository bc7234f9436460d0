"""Peers' faults are counted always and logged once per kind and peer: a hostile peer cannot fill the log."""

from __future__ import annotations

import logging

from folkmoot.node.network.port import Stats

log = logging.getLogger(__name__)

_MAX_REMEMBERED = 10_000
"""Strangers can make up identities; beyond this many nothing new is logged, only counted."""


class Refusals:
    """Counts into `Stats.refused`."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._logged: set[tuple[str, str]] = set()

    def count(self, kind: str, peer: object, detail: object = "") -> None:
        """Count one fault of `kind` by `peer` (a member or a peer id)."""
        self._stats.refused[kind] += 1
        key = (kind, str(peer))
        if key in self._logged or len(self._logged) >= _MAX_REMEMBERED:
            return
        self._logged.add(key)
        log.warning("refused %s from peer %s (further ones are only counted) %s", kind, peer, detail)
