"""One member's training task in memory: model and data loaded once, then used round after round."""

from pathlib import Path

from folkmoot.node.train import local, models
from folkmoot.node.train.devices import choose_device
from folkmoot.node.train.objectives import make_objective
from folkmoot.node.train.vectors import check_finite, read_section, write_vector
from folkmoot.node.train.wire import Metrics, Task


class Session:
    """Fits and evaluates the task's model; every error of task, data, model or device is a `TrainerError`."""

    def __init__(self, task: Task) -> None:
        local.limit_threads(task.threads)
        self._task = task
        self._device = choose_device(task.device)
        self._objective = make_objective(task.data, task.model.outputs)
        module = models.build_charter_model(task.model, task.source)
        models.check_forward(module, task.model.features, self._objective)
        self._module = module.to(self._device)
        self._train = self._load(Path(task.train))
        test = Path(task.test)
        self._test = self._load(test) if test.exists() else None

    def _load(self, path: Path) -> local.Rows:
        rows = local.load_rows(path, self._task.model.features, self._objective.classes)
        return rows.to(self._device)

    @property
    def examples(self) -> int:
        """Rows to train on."""
        return len(self._train)

    def fit(self, round: int, base: Path, update: Path, on_step: local.OnStep) -> tuple[float, Metrics]:
        """Measure `base`, train from it, write trained minus base to `update`.

        Returns the mean training loss and the base's metrics. Raises `TrainerError` of kind `non_finite`, and
        writes nothing, where training ran off to infinity.
        """
        task = self._task
        start = read_section(base, 0, task.model.parameters)
        models.load_vector(self._module, start)
        metrics = self._measure(on_step)
        loss = local.train(
            self._module, self._objective, self._train, task.training, task.member, round, on_step
        )
        difference = models.to_vector(self._module) - start
        check_finite(difference, f"the update of round {round}; try a smaller training.lr")
        write_vector(update, difference)
        return loss, metrics

    def evaluate(self, model: Path, on_step: local.OnStep) -> Metrics:
        """Metrics of the vector in file `model`."""
        models.load_vector(self._module, read_section(model, 0, self._task.model.parameters))
        return self._measure(on_step)

    def _measure(self, on_step: local.OnStep) -> Metrics:
        if self._test is None:
            return {}
        return local.evaluate(self._module, self._objective, self._test, on_step)
