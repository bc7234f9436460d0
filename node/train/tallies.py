"""Measures of a model, added up piece by piece while it goes over the held-out rows.

Only sums are kept, but for the area under the curve, which compares rows with each other: that of very many rows is the
mean over large pieces of them.
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from folkmoot.node.train.wire import Metrics

BINS = 15
"""Steps of sureness in which calibration is measured, of equal width."""

KEPT = 1 << 22
"""Scores that are compared with each other at once: 16 MB of them."""

Floats: TypeAlias = npt.NDArray[np.float32]


class Tally(Protocol):
    """Adds up measures piece by piece."""

    def add(self, scores: Tensor, targets: Tensor) -> None:
        """Count rows; `scores` as the model gave them."""
        ...

    def result(self) -> Metrics:
        """The measures of all rows together; one that is not defined, or not finite, is left out."""
        ...


class ClassTally:
    """accuracy, log_loss, brier, ece and auc, over scores (rows, classes) that `shaped` makes of the model's."""

    def __init__(self, shaped: Callable[[Tensor, int], Tensor], classes: int) -> None:
        self._shaped = shaped
        self._binary = classes == 2
        self._rows = self._right = 0
        self._loss = self._squares = 0.0
        self.calibration = Calibration()
        self._curves = Curves()

    def add(self, scores: Tensor, targets: Tensor) -> None:
        """See `Tally.add`."""
        scores = self._shaped(scores, len(targets))
        logs = torch.log_softmax(scores, dim=1)
        chances, (best, guess) = logs.exp(), logs.max(dim=1)
        found = targets[:, None]
        right = guess == targets
        self._rows += len(targets)
        self._right += int(right.sum())
        self._loss -= float(logs.gather(1, found).sum())
        # (p - 1)^2 of the class that it is, p^2 of all others
        self._squares += float(chances.square().sum() - 2 * chances.gather(1, found).sum()) + len(targets)
        if self._binary:
            self.calibration.add(chances[:, 1], targets == 1)
            self._curves.add(scores[:, 1:] - scores[:, :1], found == 1)
        else:
            self.calibration.add(best.exp(), right)
            self._curves.add(logs, found == torch.arange(scores.shape[1], device=targets.device))

    def result(self) -> Metrics:
        """See `Tally.result`."""
        measured = {
            "accuracy": self._right / self._rows,
            "log_loss": self._loss / self._rows,
            "brier": self._squares / self._rows / (2 if self._binary else 1),
            "ece": self.calibration.error(),
            "auc": self._curves.area(),
        }
        return _finite(measured, self._rows)


class ErrorTally:
    """rmse and mae, in units of the target: `distances` makes of scores and targets how far off they are."""

    def __init__(self, distances: Callable[[Tensor, Tensor], Tensor], scale: float) -> None:
        self._distances = distances
        self._scale = scale
        self._rows = 0
        self._squares = self._sum = 0.0

    def add(self, scores: Tensor, targets: Tensor) -> None:
        """See `Tally.add`."""
        errors = self._distances(scores, targets).double()
        self._rows += len(targets)
        self._squares += float(errors.square().sum())
        self._sum += float(errors.abs().sum())

    def result(self) -> Metrics:
        """See `Tally.result`."""
        rmse, mae = (self._squares / self._rows) ** 0.5, self._sum / self._rows
        return _finite({"rmse": rmse * self._scale, "mae": mae * self._scale}, self._rows)


class Calibration:
    """How often the model is right when it is so sure: rows, chances and hits in `BINS` steps of the chance.

    The chance of two classes is that of the second, of more that of the likeliest one. `error` is the expected
    calibration error (Guo et al. 2017, "On calibration of modern neural networks", equation 3).
    """

    def __init__(self) -> None:
        self.rows, self.chances, self.hits = np.zeros(BINS), np.zeros(BINS), np.zeros(BINS)

    def add(self, chances: Tensor, hits: Tensor) -> None:
        """Count rows: float chances (rows,), and whether it was so (rows,)."""
        found = chances.cpu().numpy().astype(np.float64)
        step = np.clip(np.nan_to_num(found) * BINS, 0, BINS - 1).astype(np.intp)
        self.rows += np.bincount(step, minlength=BINS)
        self.chances += np.bincount(step, found, minlength=BINS)  # NaN stays NaN, and so does the error
        self.hits += np.bincount(step, hits.cpu().numpy(), minlength=BINS)

    def error(self) -> float:
        """Mean distance between chance and frequency, weighted by rows; NaN where a chance was."""
        return float(np.abs(self.chances - self.hits).sum() / self.rows.sum())


class Curves:
    """The area under the curve of each column against the others, then their mean; exact up to `KEPT` scores.

    More scores than that are taken in pieces, which count by the pairs that they compare.
    """

    def __init__(self) -> None:
        self._scores: list[Floats] = []
        self._positive: list[npt.NDArray[np.bool_]] = []
        self._kept = 0
        self._above: npt.NDArray[np.float64] = np.zeros(1)
        self._pairs: npt.NDArray[np.float64] = np.zeros(1)

    def add(self, scores: Tensor, positive: Tensor) -> None:
        """Both (rows, columns)."""
        self._scores.append(scores.float().cpu().numpy())
        self._positive.append(positive.cpu().numpy())
        self._kept += scores.numel()
        if self._kept >= KEPT:
            self._fold()

    def area(self) -> float:
        """Mean over the columns that have rows of both kinds; NaN if none has, or a score is not finite."""
        self._fold()
        defined = self._pairs != 0
        return float((self._above[defined] / self._pairs[defined]).mean()) if defined.any() else float("nan")

    def _fold(self) -> None:
        if not self._scores:
            return
        scores, positive = np.concatenate(self._scores), np.concatenate(self._positive)
        counted = [pairs_in_order(*column) for column in zip(scores.T.copy(), positive.T, strict=True)]
        above, pairs = np.array(counted).T
        self._above, self._pairs = self._above + above, self._pairs + pairs
        self._scores, self._positive, self._kept = [], [], 0


def pairs_in_order(scores: Floats, positive: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Pairs of a positive and a negative row in which the positive one scores higher, ties half; and all pairs.

    Their quotient is the area under the curve. (NaN, pairs) where a score is not finite.
    """
    low, high = np.sort(scores[~positive]), np.sort(scores[positive])
    pairs = float(len(low)) * len(high)
    if not np.isfinite(scores).all():
        return float("nan"), pairs
    below = np.searchsorted(low, high, "left").sum() + np.searchsorted(low, high, "right").sum()
    return float(below) / 2, pairs


def _finite(metrics: Metrics, rows: int) -> Metrics:
    return {name: value for name, value in metrics.items() if np.isfinite(value)} | {"examples": float(rows)}
