"""Nobody honest falls behind for long: who is well holds what the others hold, a little later at most."""

from folkmoot.protocol.types import Round
from folkmoot.testnet.simulation.charters import Charters
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.invariants import Broken
from folkmoot.testnet.simulation.node import Node

LAG = 30.0
"""Seconds after which everybody who was well all the while has finished what somebody honest has.

A node that the others finished without hears of it with the next announcement, at most 16 s later, and has to fetch.
"""


class KeepingUp:
    """Told of every mishap and every finished round; raises `Broken`."""

    def __init__(self, faults: Faults, charters: Charters) -> None:
        self._faults = faults
        self._charters = charters
        self._well_since: dict[str, float] = {}
        self._first: dict[Round, float] = {}
        self._done: dict[str, Round] = {}

    def disturb(self, node: Node, now: float) -> None:
        """Something happened to the node, or to its lines: it may need as long again."""
        self._well_since[node.name] = now

    def start_over(self, node: Node, now: float) -> None:
        """The node has given rounds up, or forgotten them: who had what first is to be seen anew."""
        self.disturb(node, now)
        self._first.clear()
        self._done[node.name] = max(node.models, default=0)

    def check(self, nodes: list[Node], finisher: Node, round_: Round, now: float) -> None:
        """Somebody honest has finished a round: all honest `nodes` to which nothing happened lately are close."""
        before, self._done[finisher.name] = self._done.get(finisher.name, 0), round_
        self._first.setdefault(round_, now)
        if now < self._faults.until + LAG and (
            self._faults.loss or self._faults.slow or self._faults.bandwidth or self._faults.crossing
        ):
            return
        self._check(finisher, before, now)
        for node in nodes:
            if node is not finisher:
                self._check(node, self._done.get(node.name, 0), now)

    def _check(self, node: Node, done: Round, now: float) -> None:
        """`done` is what the node had up to now."""
        if not self._charters.at(max(self._first)).has(node):
            return  # it has left, and nobody tells it how its last round ended; or it has yet to join
        well = node.hears and now - self._well_since.get(node.name, 0.0) >= LAG
        next_done = self._first.get(done + 1, now)
        if well and now - next_done > LAG:
            raise Broken(
                f"{node.name} went without round {done + 1} for {now - next_done:.0f} s after the first who had it, "
                "though nothing happened to it"
            )
