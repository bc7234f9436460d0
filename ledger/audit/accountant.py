"""What a privacy log comes to, counted by other people's code than the members': dp-accounting's privacy loss
distributions (Doroshenko et al. 2022, 2207.04380), where members use Opacus' PRV accountant.

An extra, `folkmoot[privacy]`: the auditor's install does without.
"""

from collections.abc import Iterable
from functools import lru_cache

from folkmoot.protocol.privacy import Cost, grouped

TOLERANCE = 0.01
"""Part of the budget by which two accountants may differ: both round upwards, each in its own way."""


class NoAccountant(Exception):
    """dp-accounting is not installed."""


def epsilon_of(costs: Iterable[Cost], delta: float) -> float:
    """Epsilon at `delta` of all `costs` together, rounded upwards; raises `NoAccountant`."""
    found = sorted(grouped(costs), key=lambda cost: (cost.sample_rate, cost.noise))
    return _epsilon(tuple((cost.sample_rate, cost.noise, cost.steps) for cost in found), delta)


@lru_cache(maxsize=256)
def _epsilon(costs: tuple[tuple[float, float, int], ...], delta: float) -> float:
    if not costs:
        return 0.0
    try:
        import dp_accounting
        from dp_accounting import pld
    except ImportError as error:
        raise NoAccountant from error
    accountant = pld.PLDAccountant()
    for sample_rate, noise, steps in costs:
        event = dp_accounting.PoissonSampledDpEvent(sample_rate, dp_accounting.GaussianDpEvent(noise))
        accountant.compose(event, steps)
    return float(accountant.get_epsilon(delta))
