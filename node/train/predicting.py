"""What a model that was taken out of its federation says of rows."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from folkmoot.node.model_file import ModelCard
from folkmoot.node.train import models
from folkmoot.node.train.local import EVALUATION_BATCH, Floats
from folkmoot.node.train.objectives import Classification, make_objective
from folkmoot.node.train.source import locate_source
from folkmoot.node.train.vectors import Vector

Column = npt.NDArray[np.object_] | npt.NDArray[np.float64] | npt.NDArray[np.int64]


class Predictor:
    """A model ready to be asked. The source of a custom one is looked for in `folder` and on PYTHONPATH."""

    def __init__(self, card: ModelCard, vector: Vector, folder: Path) -> None:
        """Raises `ConfigError` or `TrainerError` where the model is not what its card says."""
        terms = card.architecture
        self._data = card.data
        self._objective = make_objective(card.data, terms.outputs)
        self._module = models.build_charter_model(terms, locate_source(terms, folder))
        models.check_forward(self._module, terms.features, self._objective)
        models.load_vector(self._module, vector)
        self._module.eval()

    @property
    def columns(self) -> list[str]:
        """Names of the columns that `predict` gives."""
        return ["prediction", *(f"probability_{name}" for name in self._classes())]

    @torch.no_grad()
    def predict(self, x: Floats) -> dict[str, Column]:
        """For inputs float32 (n, features), each column (n,): the class or number, and the chance of each class."""
        scores = np.concatenate([self._scores(x[at : at + EVALUATION_BATCH]) for at in _starts(len(x))])
        if self._data is not None and self._data.task == "regression":
            return {"prediction": scores[:, 0] * float(self._data.scale) + float(self._data.center)}
        chances = torch.softmax(torch.from_numpy(scores), dim=1).numpy()
        classes = np.array(self._classes(), dtype=object)
        values = [classes[scores.argmax(axis=1)], *chances.T]
        return dict(zip(self.columns, values, strict=True))

    def _scores(self, x: Floats) -> npt.NDArray[np.float64]:
        """One score for each class or, in a regression, the scaled prediction."""
        given = self._module(torch.from_numpy(np.ascontiguousarray(x)))
        if isinstance(self._objective, Classification):
            given = self._objective.scores(given, len(x))
        scores: npt.NDArray[np.float64] = given.reshape(len(x), -1).double().numpy()
        return scores

    def _classes(self) -> list[str]:
        if self._data is None:
            return [str(number) for number in range(self._objective.classes)]
        return list(self._data.classes)


def _starts(rows: int) -> range:
    return range(0, max(rows, 1), EVALUATION_BATCH)
