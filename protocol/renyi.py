"""What noise costs by Renyi divergences: for Skellam noise, which no accountant of a library knows, and Gaussian.

Of one mechanism with noise of z times the L2 norm D2 by which one row moves an integer vector (Agarwal, Kairouz, Liu
2021, 2110.04995, theorem 3.5, with total variance mu = (z D2)^2 and L1 norm D1 <= min(D2^2, sqrt(values) D2)):

    e(a) = a D2^2 / (2 mu) + min(((2a - 1) D2^2 + 6 D1) / (4 mu^2), 3 D1 / (2 mu))        Gaussian: a / (2 z^2)

On a Poisson sample of rate q, for whole a >= 2 (Mironov, Talwar, Zhang 2019, 1908.10530: Skellam noise, too, is
symmetric, so neither of two neighbours is worse than the other):

    e'(a) = log(sum over k of C(a, k) (1 - q)^(a - k) q^k exp((k - 1) e(k))) / (a - 1)

Orders of several mechanisms add up, and epsilon at delta is the least over a of (Canonne, Kamath, Steinke 2020)

    e'(a) + log(1 - 1/a) - log(a delta) / (a - 1)
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from folkmoot.protocol.privacy import Cost

ORDERS = (*range(2, 65), *range(68, 129, 4), 144, 160, 192, 256, 384, 512)


def divergences(costs: Iterable[Cost]) -> npt.NDArray[np.float64]:
    """Renyi divergence of all `costs` together, for each of ORDERS."""
    total = np.zeros(len(ORDERS))
    for cost in costs:
        total += cost.steps * np.array(_of_one_step(cost.sample_rate, cost.noise, cost.bound, cost.values))
    return total


def sampling_error(costs: Iterable[Cost]) -> float:
    """What of delta is gone because noise comes from a table (`secure/noise.py`)."""
    return math.fsum(cost.steps * cost.values * 2.0**-49 for cost in costs)


def epsilon_of(costs: Sequence[Cost], delta: float) -> float:
    """An upper bound of epsilon at `delta`; infinite if there is none."""
    delta -= sampling_error(costs)
    if delta <= 0:
        return math.inf
    orders = np.array(ORDERS, dtype=np.float64)
    bounds = divergences(costs) + np.log1p(-1 / orders) - np.log(orders * delta) / (orders - 1)
    return max(0.0, float(bounds.min()))


def skellam_divergence(order: int, noise: float, bound: float, values: int) -> float:
    """e(a) above; `bound` is D2, 0 for Gaussian noise."""
    gaussian = order / (2 * noise**2)
    if not bound:
        return gaussian
    variance, length = (noise * bound) ** 2, min(bound**2, math.sqrt(values) * bound)
    excess = ((2 * order - 1) * bound**2 + 6 * length) / (4 * variance**2)
    return gaussian + min(excess, 3 * length / (2 * variance))


@lru_cache(maxsize=64)
def _of_one_step(rate: float, noise: float, bound: float, values: int) -> tuple[float, ...]:
    alone = [
        0.0,
        0.0,
        *(skellam_divergence(order, noise, bound, values) for order in range(2, ORDERS[-1] + 1)),
    ]
    return tuple(_sampled(order, rate, alone) for order in ORDERS)


def _sampled(order: int, rate: float, alone: list[float]) -> float:
    """e'(a) above; `alone[k]` is e(k)."""
    if rate == 1:
        return alone[order]
    terms = [
        _log_choose(order, k) + (order - k) * math.log1p(-rate) + k * math.log(rate) + (k - 1) * alone[k]
        if k > 1
        else _log_choose(order, k) + (order - k) * math.log1p(-rate) + k * math.log(rate)
        for k in range(order + 1)
    ]
    largest = max(terms)
    return (largest + math.log(math.fsum(math.exp(term - largest) for term in terms))) / (order - 1)


def _log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)
