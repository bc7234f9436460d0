"""What a model is to learn: its loss, and the measures of how well it does, by the charter's task.

Measures are named as in `protocol/metrics.py`: accuracy and log_loss, with two classes auc; of a regression rmse and
mae, in the target's own units.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from folkmoot.node.train.wire import Metrics, TrainerError
from folkmoot.protocol.schema import Schema


class Tally(Protocol):
    """Adds up measures piece by piece."""

    def add(self, scores: Tensor, targets: Tensor) -> None:
        """Count rows; `scores` as the model gave them."""
        ...

    def result(self) -> Metrics:
        """The measures of all rows together; one that is not defined, or not finite, is left out."""
        ...


class Objective(Protocol):
    """Loss and measures. `outputs`: scores that the model gives for a row; `classes`: 0 for a regression."""

    outputs: int
    classes: int

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar; raises `TrainerError` where the scores have another shape than agreed."""
        ...

    def tally(self) -> Tally:
        """A new count."""
        ...


def make_objective(schema: Schema | None, outputs: int) -> Objective:
    """By the charter's schema; without one, a class for each of the model's outputs.

    Raises `TrainerError` where the model's outputs do not suit the task.
    """
    if schema is None:
        return Classification(outputs, outputs)
    if outputs != schema.outputs and (schema.task, outputs) != ("binary", 1):
        raise TrainerError(
            "model",
            f"the model has {outputs} outputs; the charter's {schema.task} task needs {schema.outputs}",
        )
    if schema.task == "regression":
        return Regression(float(schema.scale))
    return Classification(outputs, len(schema.classes))


class Classification:
    """Cross-entropy over the classes. One output for two classes is the log odds of the second."""

    def __init__(self, outputs: int, classes: int) -> None:
        self.outputs = outputs
        self.classes = classes

    def scores(self, given: Tensor, rows: int) -> Tensor:
        """One score for each class: (rows, classes)."""
        scores = _shaped(given, rows, self.outputs)
        return (
            scores if self.outputs == self.classes else torch.cat([torch.zeros_like(scores), scores], dim=1)
        )

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """See `Objective.loss`."""
        return functional.cross_entropy(self.scores(scores, len(targets)), targets)

    def tally(self) -> Tally:
        """See `Objective.tally`."""
        return _ClassTally(self)


class Regression:
    """Squared error on the scaled target."""

    outputs = 1
    classes = 0

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """See `Objective.loss`."""
        return functional.mse_loss(_shaped(scores, len(targets), 1)[:, 0], targets)

    def tally(self) -> Tally:
        """See `Objective.tally`."""
        return _ErrorTally(self.scale)


class _ClassTally:
    def __init__(self, objective: Classification) -> None:
        self._objective = objective
        self._rows = self._right = 0
        self._loss = 0.0
        self._odds: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, scores: Tensor, targets: Tensor) -> None:
        scores = self._objective.scores(scores, len(targets))
        self._rows += len(targets)
        self._right += int((scores.argmax(dim=1) == targets).sum())
        self._loss += float(functional.cross_entropy(scores, targets, reduction="sum"))
        if self._objective.classes == 2:
            self._odds.append((scores[:, 1] - scores[:, 0]).cpu())
            self._targets.append(targets.cpu())

    def result(self) -> Metrics:
        metrics = {"accuracy": self._right / self._rows, "log_loss": self._loss / self._rows}
        if self._odds:
            odds, targets = torch.cat(self._odds).numpy(), torch.cat(self._targets).numpy()
            metrics["auc"] = area_under_curve(odds, targets == 1)
        return _finite(metrics, self._rows)


class _ErrorTally:
    def __init__(self, scale: float) -> None:
        self._scale = scale
        self._rows = 0
        self._squares = self._distances = 0.0

    def add(self, scores: Tensor, targets: Tensor) -> None:
        errors = (_shaped(scores, len(targets), 1)[:, 0] - targets).double()
        self._rows += len(targets)
        self._squares += float(errors.square().sum())
        self._distances += float(errors.abs().sum())

    def result(self) -> Metrics:
        rmse, mae = (self._squares / self._rows) ** 0.5, self._distances / self._rows
        return _finite({"rmse": rmse * self._scale, "mae": mae * self._scale}, self._rows)


def area_under_curve(scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_]) -> float:
    """Chance that a positive row scores above a negative one, ties counting half; NaN with one class only."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives or not np.isfinite(scores).all():
        return float("nan")
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # the mean rank of each group of ties, from 1
    above = ranks[places[positive]].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def _shaped(given: Tensor, rows: int, outputs: int) -> Tensor:
    """(rows, outputs), or for one output (rows,)."""
    if not isinstance(given, Tensor):
        raise TrainerError("model", f"the model's forward gave a {type(given).__name__}, not a tensor")
    if outputs == 1 and given.shape == (rows,):
        given = given.unsqueeze(1)
    if given.shape != (rows, outputs):
        raise TrainerError(
            "model",
            f"the model's forward gave the shape {tuple(given.shape)} for {rows} rows; the charter asks for "
            f"({rows}, {outputs})",
        )
    return given


def _finite(metrics: Metrics, rows: int) -> Metrics:
    return {name: value for name, value in metrics.items() if np.isfinite(value)} | {"examples": float(rows)}
