"""Two accountants on the same updates: Opacus' PRV, which members use, and dp-accounting's PLD, which audits use.

`accountants.py` prints a Markdown table: epsilon by each, how far apart they are, and the CPU seconds of each. Delta is
1e-5; the first two rows are those of the measured table that this project began with.
"""

import time
from collections.abc import Callable

from folkmoot.ledger.audit import accountant
from folkmoot.node.train import accounting
from folkmoot.protocol.privacy import Cost

DELTA = 1e-5
CASES = (
    Cost(sample_rate=0.0393, noise=1.079, steps=127),
    Cost(sample_rate=0.01, noise=1.0, steps=1000),
    Cost(sample_rate=0.05, noise=2.87, steps=500),
    Cost(sample_rate=0.05, noise=0.79, steps=500),
    Cost(sample_rate=0.002, noise=0.6, steps=20_000),
    Cost(sample_rate=1.0, noise=12.0, steps=60),
)


def timed(count: Callable[[], float]) -> tuple[float, float]:
    """Epsilon, and the CPU seconds that it took."""
    began = time.process_time()
    return count(), time.process_time() - began


def main() -> None:
    """Print the table."""
    accounting.epsilon_of([Cost(sample_rate=0.5, noise=1.0, steps=1)], 1.0, DELTA)  # imports
    accountant.epsilon_of([Cost(sample_rate=0.5, noise=1.0, steps=1)], DELTA)
    print("| sample rate, noise, steps | PRV | PLD | apart | CPU s, PRV | CPU s, PLD |")
    print("|---|---|---|---|---|---|")
    for cost in CASES:
        pld, pld_seconds = timed(lambda cost=cost: accountant.epsilon_of([cost], DELTA))  # type: ignore[misc]
        prv, prv_seconds = timed(lambda cost=cost, pld=pld: accounting.epsilon_of([cost], pld, DELTA))  # type: ignore[misc]
        what = f"{cost.sample_rate:g}, {cost.noise:g}, {cost.steps:,}"
        print(
            f"| {what} | {prv:.3f} | {pld:.3f} | {prv / pld - 1:.2%} | {prv_seconds:.2f} | {pld_seconds:.2f} |"
        )


if __name__ == "__main__":
    main()
