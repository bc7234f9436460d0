"""What a model is to learn: its loss, and the measures of how well it does, by the charter's task.

Measures are named as in `protocol/metrics.py`: accuracy, auc, log_loss, brier and ece of classes, rmse and mae, in the
target's own units, of a regression.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from folkmoot.node.train.tallies import ClassTally, ErrorTally, Tally
from folkmoot.node.train.wire import TrainerError
from folkmoot.protocol.schema import Schema


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

    def tally(self) -> ClassTally:
        """See `Objective.tally`."""
        return ClassTally(self.scores, self.classes)


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
        return ErrorTally(_distances, self.scale)


def _distances(scores: Tensor, targets: Tensor) -> Tensor:
    return _shaped(scores, len(targets), 1)[:, 0] - targets


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
