"""Rounds with members always away, in virtual time: `.venv/bin/python scripts/bench/absence.py [MEMBERS] [SECONDS]`.

The daemon's round machines in the simulator: lines of 5 to 50 ms, training of 0.1 to 1 s. A share of the members is
away all the time, each for STAY seconds, in turn through all of them; who comes back starts from its journal (killed)
or goes on (frozen). Peers notice a killed one after 0.1 or 5 s, a frozen one after 5 s, and both after 2 s that
nothing comes from them. Every effect is checked against the rules. Prints the rounds of so many virtual SECONDS, and
their share of those of an undisturbed run: mean, least and most of three seeds.
"""

import statistics
import sys
from collections.abc import Iterator
from itertools import cycle

from folkmoot.testnet.simulation.faults import Faults
from folkmoot.testnet.simulation.federation import Simulation
from folkmoot.testnet.simulation.mishaps import Mishaps
from folkmoot.testnet.simulation.node import Node
from folkmoot.testnet.simulation.remembering import remembered_shares, without_collector

SHARES = (0.1, 0.2, 0.3)
STAYS = (20.0, 60.0)
SEEDS = range(3)
ENDLESS = 100_000


class Absences(Simulation):
    """A federation of which some members are always away."""

    def __init__(self, seed: int, members: int, away: int, stay: float, frozen: bool) -> None:
        super().__init__(seed, members, ENDLESS, Faults(until=float(ENDLESS)))
        self._away, self._stay, self._frozen = away, stay, frozen

    def count(self, seconds: float) -> int:
        """The rounds that the node which is furthest has completed by then."""
        with remembered_shares(), without_collector():
            Mishaps(self, self.random).arrange()
            self._take_turns(cycle(self.nodes), first=True)
            while self.now < seconds and (action := self.go_on()) is not None:
                action()
        return max(node.machine.completed for node in self.nodes if node.machine is not None)

    def _take_turns(self, turn: Iterator[Node], first: bool = False) -> None:
        """They leave; when they come back, others do."""
        leaving = [next(turn) for _ in range(self._away)]
        wait = 2.0 if first else 0.0
        for node in leaving:
            self.at(wait, lambda node=node: self._leave(node))  # type: ignore[misc]
        if leaving:
            self.at(wait + self._stay, lambda: self._take_turns(turn))

    def _leave(self, node: Node) -> None:
        if self._frozen:
            self.lives.freeze(node, self._stay)
        else:
            self.lives.end(node)
            self.at(self._stay, lambda: self.lives.boot(node))


def main(members: int, seconds: float) -> None:
    """Run, and print a table for docs/benchmarks.md."""
    whole = [Absences(seed, members, 0, 1.0, False).count(seconds) for seed in SEEDS]
    print(f"{members} members, {seconds:.0f} s, nobody away: {', '.join(map(str, whole))} rounds")
    print("| away | each for | killed | frozen |\n|---|---|---|---|")
    for share in SHARES:
        for stay in STAYS:
            away = round(share * members)
            killed, frozen = (
                describe(
                    [Absences(seed, members, away, stay, frozen).count(seconds) for seed in SEEDS], whole
                )
                for frozen in (False, True)
            )
            print(f"| {away} | {stay:.0f} s | {killed} | {frozen} |", flush=True)


def describe(counts: list[int], whole: list[int]) -> str:
    """Shares of the undisturbed runs."""
    shares = [count / undisturbed for count, undisturbed in zip(counts, whole, strict=True)]
    return f"{statistics.mean(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})"


if __name__ == "__main__":
    words = sys.argv[1:] + ["10", "300"][len(sys.argv) - 1 :]
    main(int(words[0]), float(words[1]))
