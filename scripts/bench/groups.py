"""How secure mode grows with its members: `.venv/bin/python scripts/bench/groups.py [GROUP_SIZE] [MEMBERS...]`.

One simulated round each, with real masks on a small model: bytes of shards and sums that a node sends, as models of
ring values, frames that it takes in, and virtual seconds. The machine, validation and masks are those of a node;
signatures are fakes, and of the many checks of the same share (every node checks all that are released) all but the
first are looked up, because one process stands in for all nodes here.
"""

import sys
import time
from functools import lru_cache

from folkmoot.protocol.secure import dealing, sharing
from folkmoot.testnet.simulation.federation import Simulation
from folkmoot.testnet.simulation.masked_workshop import MaskedWorkshop

MEMBERS = (32, 64, 128, 256)


def measure(members: int, group_size: int) -> tuple[str, float, float, float, float]:
    """Groups, models sent by the busiest node, frames for each node, virtual and real seconds."""
    began = time.perf_counter()
    simulation = Simulation(1, members, 1, secure=True, group_size=group_size)
    simulation.run(600.0)
    workshop, charter = simulation._workshop, simulation.charter
    assert isinstance(workshop, MaskedWorkshop)
    model = charter.model.parameters * charter.secrecy.ring / 8
    sizes = charter.group_sizes
    groups = f"{len(sizes)} of {min(sizes)}" + (f" to {max(sizes)}" if max(sizes) > min(sizes) else "")
    busiest = max(workshop.sent.values()) / model
    return groups, busiest, simulation.delivered / members, simulation.now, time.perf_counter() - began


def main() -> None:
    """Print a table in Markdown."""
    dealing.verify_share = lru_cache(maxsize=None)(sharing.verify_share)  # type: ignore[assignment]
    group_size, *chosen = (int(argument) for argument in sys.argv[1:]) if len(sys.argv) > 1 else (0,)
    print("| members | groups | models sent per node | frames per node | virtual s | real s |")
    print("|---|---|---|---|---|---|")
    for members in chosen or MEMBERS:
        groups, sent, frames, virtual, real = measure(members, group_size if members > group_size else 0)
        print(
            f"| {members} | {groups} | {sent:.2f} | {frames:,.0f} | {virtual:.1f} | {real:.0f} |", flush=True
        )


if __name__ == "__main__":
    main()
