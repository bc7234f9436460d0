"""Attacks on an average: what bad members send, given all that they could know.

An attacker here sees every honest update of the round before it sends its own, and all attackers act as one: more than
real ones can, so a rule that holds here holds there. Updates are rows of a float array (members, values).

By name (`FORGED`, `POISONED`): what a testnet and the benchmarks know them by.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]
Aggregator: TypeAlias = Callable[[Floats], Floats]
"""What the federation makes of all updates, (members, values) -> (values,)."""


@dataclass(frozen=True)
class View:
    """What attackers know when they send: the honest updates of this round and of the one before (zeros at first).

    `aggregate` is what the federation makes of all updates, the attackers' last.
    """

    honest: Floats
    before: Floats
    attackers: int
    aggregate: Aggregator
    random: np.random.Generator


Attack: TypeAlias = Callable[[View], Floats]
"""What the attackers send, (attackers, values)."""

IPM_FACTOR = 10.0
FACTORS = tuple(np.geomspace(0.05, 20, 25).tolist())
"""What a line search tries."""


def sign_flip(honest: Floats, attackers: int) -> Floats:
    """The honest mean, backwards (Li et al. 2018, 1811.03761)."""
    return _all(-honest.mean(axis=0), attackers)


def inner_product(honest: Floats, attackers: int, factor: float = IPM_FACTOR) -> Floats:
    """Against the honest mean, `factor` times as long (IPM, Xie et al. 2019, 1903.03936)."""
    return _all(-factor * honest.mean(axis=0), attackers)


def little_is_enough(honest: Floats, attackers: int, factor: float | None = None) -> Floats:
    """So far from the honest mean, in standard deviations of each value, that enough honest ones are farther.

    ALIE, Baruch et al. 2019, 1902.06156. Without `factor` its formula: s = floor(n/2) + 1 - f honest ones are to side
    with the attackers, who go to the quantile (n - f - s) / (n - f).
    """
    if factor is None:
        count, members = len(honest), len(honest) + attackers
        needed = max(1, members // 2 + 1 - attackers)
        factor = NormalDist().inv_cdf(min(max((count - needed) / count, 1e-6), 1 - 1e-6))
    return _all(honest.mean(axis=0) - factor * honest.std(axis=0), attackers)


def optimised(
    attack: Callable[[Floats, int, float], Floats],
    honest: Floats,
    attackers: int,
    aggregate: Aggregator,
    factors: Sequence[float] = FACTORS,
) -> Floats:
    """`attack` with the factor that takes what `aggregate` gives farthest from the honest mean.

    The line search of Shejwalkar and Houmansadr (NDSS 2021), over fixed factors.
    """
    mean = honest.mean(axis=0)

    def harm(factor: float) -> float:
        found = aggregate(np.concatenate([honest, attack(honest, attackers, factor)]))
        return float(np.linalg.norm(found - mean))

    return attack(honest, attackers, max(factors, key=harm))


# --- free riders ------------------------------------------------------------------------------------------------------


def nothing(honest: Floats, attackers: int) -> Floats:
    """Zeros: a free rider that does not train."""
    return np.zeros((attackers, honest.shape[1]), dtype=honest.dtype)


def copied(honest: Floats, attackers: int) -> Floats:
    """The first honest update, as if it were one's own."""
    return _all(honest[0], attackers)


def stale(before: Floats, attackers: int) -> Floats:
    """The first honest update of the round before."""
    return _all(before[0], attackers)


def noise(honest: Floats, attackers: int, rng: np.random.Generator) -> Floats:
    """Random numbers of the size of an honest update."""
    drawn = rng.standard_normal((attackers, honest.shape[1])).astype(honest.dtype)
    size = float(np.sqrt(np.mean(np.square(honest))))
    return drawn * honest.dtype.type(size)


# --- on data ----------------------------------------------------------------------------------------------------------


def flip_labels(y: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Every class becomes the one as far from the other end; then training goes on honestly."""
    return classes - 1 - y


def plant_backdoor(
    x: Floats, y: NDArray[np.int64], target: int, patch: Sequence[int], value: float
) -> tuple[Floats, NDArray[np.int64]]:
    """Rows whose inputs `patch` are `value` are to be taken for class `target`: half of the rows become such."""
    x, y = x.copy(), y.copy()
    chosen = np.arange(0, len(x), 2)
    x[chosen[:, None], np.array(patch)[None, :]] = value
    y[chosen] = target
    return x, y


# --- by name ----------------------------------------------------------------------------------------------------------

FORGED: Mapping[str, Attack] = {
    "sign-flip": lambda view: sign_flip(view.honest, view.attackers),
    "ipm": lambda view: inner_product(view.honest, view.attackers),
    "ipm-optimised": lambda view: optimised(inner_product, view.honest, view.attackers, view.aggregate),
    "alie": lambda view: little_is_enough(view.honest, view.attackers),
    "alie-optimised": lambda view: optimised(little_is_enough, view.honest, view.attackers, view.aggregate),
    "zero": lambda view: nothing(view.honest, view.attackers),
    "stale": lambda view: stale(view.before, view.attackers),
    "copied": lambda view: copied(view.honest, view.attackers),
    "noise": lambda view: noise(view.honest, view.attackers, view.random),
}
"""Attackers that do not train."""

BACKDOOR_TARGET = 0
BACKDOOR_INPUTS = 8
"""The first inputs of a row are the patch."""


def backdoor_value(x: Floats) -> float:
    """What the patch is set to: the largest input there is."""
    return float(x.max())


def plant_patch(x: Floats, value: float) -> Floats:
    """The rows with the patch."""
    patched = x.copy()
    patched[:, :BACKDOOR_INPUTS] = value
    return patched


def _poison_with_backdoor(x: Floats, y: NDArray[np.int64], classes: int) -> tuple[Floats, NDArray[np.int64]]:
    patch = range(min(BACKDOOR_INPUTS, x.shape[1]))
    return plant_backdoor(x, y, BACKDOOR_TARGET, patch, backdoor_value(x))


POISONED: Mapping[str, Callable[[Floats, NDArray[np.int64], int], tuple[Floats, NDArray[np.int64]]]] = {
    "label-flip": lambda x, y, classes: (x, flip_labels(y, classes)),
    "backdoor": _poison_with_backdoor,
}
"""(inputs, classes, number of classes): attackers that train honestly, on these rows in place of their own."""


def check_attack(text: str, nodes: int) -> None:
    """Raise ValueError unless `text` is "name:count", and at least one of so many nodes stays honest."""
    name, _, count = text.partition(":")
    if name not in (*FORGED, *POISONED):
        raise ValueError(f"no attack {name!r}: there are {', '.join((*FORGED, *POISONED))}")
    if not count.isascii() or not count.isdigit() or not 1 <= int(count) < nodes:
        raise ValueError(f"{text!r}: write {name}:N, with 1 to {nodes - 1} attackers of {nodes} nodes")


def _all(update: Floats, attackers: int) -> Floats:
    return np.tile(update, (attackers, 1))
