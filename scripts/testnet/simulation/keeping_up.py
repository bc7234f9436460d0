"""Nobody honest falls behind for long: who is up and connected holds what others hold, a few rounds later at most."""

from folkmoot.protocol.types import Round
from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.invariants import Broken
from folkmoot.testnet.simulation.node import Node

SETTLING = 45.0
"""Seconds after its last mishap from which a node must keep up."""

LAG = 2
"""Rounds that it may be behind the first."""


class KeepingUp:
    """Told of every mishap and every finished round; raises `Broken`."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._well_since: dict[str, float] = {}

    def disturb(self, node: Node, now: float) -> None:
        """Something happened to the node, or to its lines; it may need some time."""
        self._well_since[node.name] = now

    def check(self, nodes: list[Node], round_: Round, now: float) -> None:
        """Somebody honest has finished a round: all honest `nodes` to which nothing happened lately are close."""
        if now < self._faults.until and (self._faults.loss or self._faults.slow or self._faults.bandwidth):
            return
        for node in nodes:
            if node.machine is None or node.frozen or now - self._well_since.get(node.name, 0.0) < SETTLING:
                continue
            if node.machine.completed < round_ - LAG:
                raise Broken(
                    f"{node.name} has {node.machine.completed} rounds when another has {round_}, though nothing "
                    f"happened to it for {SETTLING:.0f} s"
                )
