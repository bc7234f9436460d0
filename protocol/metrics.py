"""Measures of a model on held-out data: the few named numbers that members tell each other, each within its bounds.

Classification has `accuracy`, `auc`, `log_loss`, `brier` (mean squared error of the chances, over two classes that of
the second) and `ece`, the expected calibration error; regression has `rmse` and `mae`. With more than two classes `auc`
is the mean of each class against the others. `examples` is the number of rows that they were measured on.
"""

from collections.abc import Iterable, Mapping
from math import sqrt
from typing import TypeAlias

Metrics: TypeAlias = tuple[tuple[str, float], ...]
"""(name, value) by ascending name; empty where nothing was measured, otherwise with `examples`."""

EXAMPLES = "examples"
LARGEST = 1e30
"""Bound of what has none by itself: sums over all members stay finite."""

BOUNDS: dict[str, tuple[float, float]] = {
    "accuracy": (0.0, 1.0),
    "auc": (0.0, 1.0),
    "brier": (0.0, 2.0),
    "ece": (0.0, 1.0),
    EXAMPLES: (1.0, 2.0**53),
    "log_loss": (0.0, LARGEST),
    "mae": (0.0, LARGEST),
    "rmse": (0.0, LARGEST),
}
"""The names there are, with their least and largest value."""

SQUARES = frozenset({"rmse"})
"""Roots of means: what they are the roots of is averaged."""


def is_sound(name: str, value: float) -> bool:
    """Whether there is a measure of that name and `value` is within its bounds (NaN never is)."""
    low, high = BOUNDS.get(name, (1.0, 0.0))
    return low <= value <= high


def check_metrics(metrics: Metrics) -> None:
    """Raise `ValueError` unless names are known and ascending, values within bounds and `examples` among them."""
    names = [name for name, _ in metrics]
    if names != sorted(set(names)):
        raise ValueError("metrics are not in strictly ascending order")
    for name, value in metrics:
        if not is_sound(name, value):
            raise ValueError(f"no metric {name!r} can be {value}")
    if names and EXAMPLES not in names:
        raise ValueError(f"metrics without {EXAMPLES!r}")


def select_metrics(found: Mapping[str, float]) -> Metrics:
    """What of `found` may be told to others: a trainer may measure more, or nothing sound."""
    told = tuple((name, float(value)) for name, value in sorted(found.items()) if is_sound(name, value))
    return told if EXAMPLES in dict(told) else ()


def mean_metrics(members: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """One model's measures over the rows of all members: means weighted by `examples`, which are added up.

    That is the measure over all rows together; only of `auc`, which compares rows with each other, it is a mean, and of
    `ece`, in which members' errors may cancel each other, the most that it can be. A member that lacks a measure has
    no part in it.
    """
    measured = [member for member in members if EXAMPLES in member]
    mean = {}
    for name in sorted({name for member in measured for name in member}):
        having = [member for member in measured if name in member]
        weight = sum(member[EXAMPLES] for member in having)
        power = 2 if name in SQUARES else 1
        total = sum(member[EXAMPLES] * member[name] ** power for member in having) / weight
        mean[name] = weight if name == EXAMPLES else (sqrt(total) if power == 2 else total)
    return mean
