"""What DP-SGD costs, by Opacus' PRV accountant (Gopi, Lee, Wutschitz 2021, 2106.02848).

The audit counts again with another library and another accountant (`ledger/audit/accountant.py`).
"""

import math
import warnings
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from folkmoot.node.train.noise import Noise
from folkmoot.node.train.wire import TrainerError
from folkmoot.protocol import renyi
from folkmoot.protocol.charter_tables import Privacy
from folkmoot.protocol.privacy import Cost, grouped
from folkmoot.protocol.secure.masked_noise import NoisePlan

if TYPE_CHECKING:
    from opacus.accountants import IAccountant

RELATIVE_ERROR = 0.003
"""How far, as a part of the budget, what is counted may lie above what is spent. A smaller one takes longer."""

DIGITS = 1000
"""A computed noise is a whole number of thousandths: it is written down, and has to be the same after a restart."""

MAX_NOISE = 1_000_000

FAR = 3
"""A rough bound that is so many times the budget needs no better one."""


_History: TypeAlias = tuple[tuple[float, float, int], ...]
"""Noise, sample rate and steps, in Opacus' order."""


class Budget:
    """The charter's, for one member: what its next update would cost, and whether there is enough left for it."""

    def __init__(
        self,
        privacy: Privacy,
        planned: int,
        rows: int,
        batch: int,
        steps: int,
        plan: NoisePlan | None = None,
        values: int = 0,
    ) -> None:
        """`planned`: rounds that it has to last for; `rows` of the member, of which a step takes about `batch`.

        `plan`: how noise on so many `values` lies under the masks, where it does.
        """
        self._plan, self._values = plan, values
        self._budget, self._delta = float(privacy.epsilon), float(privacy.delta)
        self._privacy = privacy
        self._planned = planned
        self._sample_rate = min(1.0, batch / rows)
        self._steps = steps

    @cached_property
    def cost(self) -> Cost:
        """Of one update."""
        noise = float(self._privacy.noise)
        if not noise:
            steps = self._steps * self._planned
            noise = smallest_noise(self._sample_rate, steps, self._budget, self._delta)
        cost = Cost(sample_rate=self._sample_rate, noise=noise, steps=self._steps)
        if self._plan is None:
            return cost
        return msgspec.structs.replace(cost, bound=self._plan.bound, values=self._values)

    @property
    def noise(self) -> Noise:
        """For one update."""
        return Noise(float(self._privacy.clip), self.cost.noise, self._sample_rate, self._plan)

    def with_next(self, spent: Iterable[Cost]) -> float:
        """Epsilon with one more update; raises `TrainerError` of kind `budget` where that is too much."""
        epsilon = epsilon_of([*spent, self.cost], self._budget, self._delta)
        if not epsilon <= self._budget:
            raise TrainerError(
                "budget",
                f"the privacy budget is spent: one more update would bring epsilon to {epsilon:.4g}, and the charter "
                f"allows {self._privacy.epsilon}",
            )
        return epsilon


def epsilon_of(costs: Iterable[Cost], budget: float, delta: float) -> float:
    """An upper bound, at `delta`, of what `costs` come to.

    Near `budget` it is off by at most `RELATIVE_ERROR` of it; far beyond, where nobody asks how far, it is a rough one.
    """
    found = grouped(costs)
    if any(cost.bound for cost in found):  # Skellam noise: of that no library knows
        return renyi.epsilon_of(found, delta)
    history = [(cost.noise, cost.sample_rate, cost.steps) for cost in found]
    return _bound(tuple(history), budget, delta) if history else 0.0


@lru_cache(maxsize=64)
def _bound(history: _History, budget: float, delta: float) -> float:
    from opacus.accountants import PRVAccountant, RDPAccountant

    rough = _epsilon(RDPAccountant(), history, delta)
    if not rough <= FAR * budget:
        return rough if rough >= 0 else math.inf  # NaN is no bound
    return _epsilon(PRVAccountant(), history, delta, eps_error=RELATIVE_ERROR * budget)


def _epsilon(accountant: "IAccountant", history: _History, delta: float, **how: float) -> float:
    accountant.history = list(history)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are better orders than those it tries
        return float(accountant.get_epsilon(delta, **how))


@lru_cache(maxsize=64)
def smallest_noise(sample_rate: float, steps: int, budget: float, delta: float) -> float:
    """The smallest multiple of 1 / `DIGITS` with which so many steps fit `budget`."""
    from opacus.accountants import RDPAccountant

    def fits_roughly(thousandths: int) -> bool:
        """Cheap, whatever the noise; what it takes is enough, and at most twice too much."""
        return _epsilon(RDPAccountant(), ((thousandths / DIGITS, sample_rate, steps),), delta) <= budget

    def fits(thousandths: int) -> bool:
        cost = Cost(sample_rate=sample_rate, noise=thousandths / DIGITS, steps=steps)
        return epsilon_of([cost], budget, delta) <= budget

    enough = DIGITS
    while not fits_roughly(enough) and enough < MAX_NOISE * DIGITS:
        enough *= 2
    enough = _first(fits_roughly, 1, enough)
    return _first(fits, enough // 2, enough) / DIGITS


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The first number above `low` for which it holds, as it does for `high` and all between."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
