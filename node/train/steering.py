"""What a member's training adds to its gradients, and what it sends of the result, so that unlike rows agree.

X is the round's model, D = trained - X, a `Training.alpha`, L the length of the path (below). Per member one vector is
kept from round to round, zeros before the first; it advances only with rounds that the member's update is in.

    FedProx   gradient += prox (theta - X)                                           (Li et al. 2020)
    FedDyn    gradient += alpha (theta - X) - h;   h' = h - alpha D;   sends D - h' / alpha
              (Acar et al. 2021, with the members' h in place of the server's: the mean of what they send is its step)
    SCAFFOLD  gradient += c - c_i;   c_i' = c_i - c - D / (lr L);   sends D and c_i' - c_i
              (Karimireddy et al. 2020, option II; c is the federation's, behind the model's values)
    FedNova   sends D L(normalize_to) / L(steps taken)                               (Wang et al. 2020)

L is the sum of the weights with which each step's gradient is in D: with momentum rho, the sum of (1 - rho^k) / (1 -
rho) over k = 1 .. steps. Statistics, which no step changes, are sent as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from folkmoot.node.train.vectors import Vector
from folkmoot.protocol.charter_tables import Training


@dataclass(frozen=True)
class Carried:
    """What a round of training starts with beside the model, flat float32 (P,) each.

    `own` is the member's vector (FedDyn's h, SCAFFOLD's c_i), `common` the federation's (SCAFFOLD's c).
    """

    own: Vector
    common: Vector


class Steering:
    """Changes gradients before the optimiser sees them; holds what it needs as torch tensors."""

    def __init__(
        self, training: Training, parameters: Sequence[Tensor], shift: Sequence[Tensor] = ()
    ) -> None:
        """`parameters` hold the round's model now; `shift` is added to every gradient."""
        self._clip = float(training.clip)
        self._pull = float(training.alpha if training.correction == "feddyn" else training.prox)
        self._parameters = list(parameters)
        self._anchor = [parameter.detach().clone() for parameter in parameters] if self._pull else []
        self._shift = list(shift)

    @torch.no_grad()
    def apply(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients to step by: clipped to `Training.clip` (global norm), then steered."""
        steered = list(gradients)
        if self._clip:
            length = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(steered))))
            if length > self._clip:
                steered = list(torch._foreach_mul(steered, self._clip / length))
        if self._pull:
            steered = list(torch._foreach_add(steered, self._parameters, alpha=self._pull))
            steered = list(torch._foreach_add(steered, self._anchor, alpha=-self._pull))
        if self._shift:
            steered = list(torch._foreach_add(steered, self._shift))
        return steered


def shift_of(training: Training, carried: Carried) -> Vector | None:
    """What is added to every gradient besides the pull to the model, flat; None if nothing is."""
    if training.correction == "feddyn":
        return -carried.own
    if training.correction == "scaffold":
        return carried.common - carried.own
    return None


def path_length(training: Training, steps: int) -> float:
    """L, how far so many steps go under a constant gradient, in steps of the learning rate."""
    rho = float(training.momentum) if training.optimizer == "sgd" else 0.0
    if rho == 0:
        return float(steps)
    if rho == 1:
        return steps * (steps + 1) / 2
    return (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)


def make_update(
    training: Training, moved: Vector, steps: int, is_statistic: np.ndarray, carried: Carried
) -> tuple[Vector, Vector]:
    """What is sent, and the member's own vector afterwards.

    `moved` is D after `steps` steps; `is_statistic`, bool (P,), tells what takes the plain mean.
    """
    own = carried.own
    if training.correction == "feddyn":
        alpha = np.float32(training.alpha)
        own = np.where(is_statistic, np.float32(0), own - alpha * moved)
        return moved - own / alpha, own
    sent = moved
    if training.normalize_to:
        factor = np.float32(path_length(training, training.normalize_to) / path_length(training, steps))
        sent = np.where(is_statistic, moved, moved * factor)
    if training.correction == "scaffold":
        mean = moved / np.float32(float(training.lr) * path_length(training, steps))
        own = np.where(is_statistic, np.float32(0), own - carried.common - mean)
        sent = np.concatenate([sent, own - carried.own])
    return sent, own
