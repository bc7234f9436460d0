"""What a privacy log comes to, counted by other people's code than the members': dp-accounting's privacy loss
distributions (Doroshenko et al. 2022, 2207.04380), where members use Opacus' PRV accountant.

An extra, `folkmoot[privacy]`: the auditor's install does without.
"""

from collections.abc import Iterable
from functools import lru_cache

from folkmoot.protocol.privacy import Cost, grouped
from folkmoot.protocol.renyi import ORDERS, divergences, sampling_error

TOLERANCE = 0.01
"""Part of the budget by which two accountants may differ: both round upwards, each in its own way."""


class NoAccountant(Exception):
    """dp-accounting is not installed."""


def epsilon_of(costs: Iterable[Cost], delta: float) -> float:
    """Epsilon at `delta` of all `costs` together, rounded upwards; raises `NoAccountant`."""
    found = sorted(grouped(costs), key=lambda cost: (cost.sample_rate, cost.noise, cost.bound))
    if any(cost.bound for cost in found):
        return _skellam(tuple(found), delta)
    return _epsilon(tuple((cost.sample_rate, cost.noise, cost.steps) for cost in found), delta)


@lru_cache(maxsize=256)
def _skellam(costs: tuple[Cost, ...], delta: float) -> float:
    """Skellam noise: no library knows its losses. The Renyi divergences are ours, what follows from them is not."""
    try:
        from dp_accounting.rdp import rdp_privacy_accountant
    except ImportError as error:
        raise NoAccountant from error
    epsilon, _ = rdp_privacy_accountant.compute_epsilon(
        ORDERS, divergences(costs), max(0.0, delta - sampling_error(costs))
    )
    return float(epsilon)


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
