"""SGD and AdamW by their rules alone.

Written out because the first optimiser of `torch.optim` imports torch's compiler: 1.2 CPU seconds for each trainer.
The tests hold them to torch's own.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from folkmoot.protocol.charter_tables import Training

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Optimizer(Protocol):
    """Changes the parameters that it was made with, in place."""

    def step(self, gradients: Sequence[Tensor]) -> None:
        """One step; `gradients` in the order of the parameters."""
        ...


def make_optimizer(training: Training, parameters: Sequence[Tensor]) -> Optimizer:
    """The charter's optimiser, with nothing remembered."""
    lr, decay = float(training.lr), float(training.weight_decay)
    if training.optimizer == "adamw":
        return AdamW(parameters, lr, decay)
    return Sgd(parameters, lr, float(training.momentum), decay)


class Sgd:
    """Gradient descent with momentum and weight decay, the rule of `torch.optim.SGD` without its other options."""

    def __init__(self, parameters: Sequence[Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._lr = lr
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._velocity: list[Tensor] | None = None

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """velocity = momentum * velocity + gradient (at first the gradient); weights -= lr * velocity."""
        gradients = list(gradients)
        if self._weight_decay:
            torch._foreach_add_(gradients, self._parameters, alpha=self._weight_decay)
        if self._velocity is None:
            self._velocity = [gradient.clone() for gradient in gradients]
        else:
            torch._foreach_mul_(self._velocity, self._momentum)
            torch._foreach_add_(self._velocity, gradients)
        torch._foreach_add_(self._parameters, self._velocity, alpha=-self._lr)


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), the rule of `torch.optim.AdamW`."""

    def __init__(self, parameters: Sequence[Tensor], lr: float, weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._lr = lr
        self._weight_decay = weight_decay
        self._steps = 0
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """weights *= 1 - lr * decay; weights -= lr * mean / (sqrt(mean square) + epsilon), both means unbiased."""
        self._steps += 1
        rate = self._lr / (1 - BETA1**self._steps)
        correction = (1 - BETA2**self._steps) ** 0.5
        state = zip(self._parameters, gradients, self._means, self._squares, strict=True)
        for parameter, gradient, mean, square in state:
            parameter.mul_(1 - self._lr * self._weight_decay)
            mean.lerp_(gradient, 1 - BETA1)
            square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
            parameter.addcdiv_(mean, (square.sqrt() / correction).add_(EPSILON), value=-rate)
