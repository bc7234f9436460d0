"""The steps of the outer rules, piece by piece: one numpy call per operation, float32 in and out (`outer.py`)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np

from folkmoot.protocol.charter_tables import Averaging
from folkmoot.protocol.ring import Float32s

_ONE = np.float32(1)


@dataclass(frozen=True, slots=True)
class Rates:
    """A rule's numbers, from decimal text (a Python float would not round alike in all versions of numpy)."""

    rate: np.float32
    momentum: np.float32
    second_momentum: np.float32
    epsilon: np.float32

    @classmethod
    def of(cls, averaging: Averaging) -> Self:
        """Those of a charter."""
        texts = (averaging.rate, averaging.momentum, averaging.second_momentum, averaging.epsilon)
        return cls(*map(np.float32, texts))


Rule: TypeAlias = Callable[[Rates, Float32s, Float32s, list[Float32s], Float32s], Float32s]
"""(rates, base, mean, states, scratch): changes the states in place and returns the new model, in mean or scratch."""


def _fedavg(
    rates: Rates, base: Float32s, mean: Float32s, states: list[Float32s], scratch: Float32s
) -> Float32s:
    return _move(base, mean, rates.rate)


def _fedavgm(
    rates: Rates, base: Float32s, mean: Float32s, states: list[Float32s], scratch: Float32s
) -> Float32s:
    np.copyto(scratch, _speed_up(rates, states, mean))
    return _move(base, scratch, rates.rate)


def _nesterov(
    rates: Rates, base: Float32s, mean: Float32s, states: list[Float32s], scratch: Float32s
) -> Float32s:
    np.multiply(_speed_up(rates, states, mean), rates.momentum, out=scratch)
    np.add(scratch, mean, out=scratch)
    return _move(base, scratch, rates.rate)


def _fedadam(
    rates: Rates, base: Float32s, mean: Float32s, states: list[Float32s], scratch: Float32s
) -> Float32s:
    first, second = states
    _blend(first, mean, rates.momentum, scratch)
    np.multiply(mean, mean, out=mean)
    _blend(second, mean, rates.second_momentum, scratch)
    return _adapt(rates, base, first, second, scratch)


def _fedyogi(
    rates: Rates, base: Float32s, mean: Float32s, states: list[Float32s], scratch: Float32s
) -> Float32s:
    first, second = states
    _blend(first, mean, rates.momentum, scratch)
    np.multiply(mean, mean, out=mean)
    np.subtract(second, mean, out=scratch)
    np.sign(scratch, out=scratch)
    np.multiply(mean, np.subtract(_ONE, rates.second_momentum), out=mean)
    np.multiply(mean, scratch, out=mean)
    np.subtract(second, mean, out=second)
    return _adapt(rates, base, first, second, scratch)


def _speed_up(rates: Rates, states: list[Float32s], mean: Float32s) -> Float32s:
    """velocity = momentum * velocity + mean, which is returned."""
    (velocity,) = states
    np.multiply(velocity, rates.momentum, out=velocity)
    return np.add(velocity, mean, out=velocity)


def _move(base: Float32s, step: Float32s, rate: np.float32) -> Float32s:
    """base + rate * step, in `step`. A factor of 1 changes no bit."""
    if rate != _ONE:
        np.multiply(step, rate, out=step)
    return np.add(base, step, out=step)


def _blend(state: Float32s, values: Float32s, keep: np.float32, scratch: Float32s) -> None:
    """state = keep * state + (1 - keep) * values."""
    np.multiply(state, keep, out=state)
    np.multiply(values, np.subtract(_ONE, keep), out=scratch)
    np.add(state, scratch, out=state)


def _adapt(rates: Rates, base: Float32s, first: Float32s, second: Float32s, scratch: Float32s) -> Float32s:
    """base + rate * first / (sqrt(second) + epsilon), in `scratch`."""
    np.sqrt(second, out=scratch)
    np.add(scratch, rates.epsilon, out=scratch)
    np.divide(first, scratch, out=scratch)
    return _move(base, scratch, rates.rate)


RULES: Mapping[str, Rule] = {
    "fedavg": _fedavg,
    "fedavgm": _fedavgm,
    "nesterov": _nesterov,
    "fedadam": _fedadam,
    "fedyogi": _fedyogi,
}
"""By the name that a charter gives it."""
