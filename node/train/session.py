"""One member's training task in memory: model and data loaded once, then used round after round."""

import sys
from pathlib import Path

import msgspec
import numpy as np

from folkmoot.node.train import local, models
from folkmoot.node.train.accounting import Budget
from folkmoot.node.train.devices import choose_device
from folkmoot.node.train.fitting import Turn, fit
from folkmoot.node.train.noise import Noise
from folkmoot.node.train.objectives import make_objective
from folkmoot.node.train.steering import Carried
from folkmoot.node.train.vectors import BYTES, check_finite, read_section, read_vector, write_vector
from folkmoot.node.train.wire import Fit, Fitted, Metrics, Task
from folkmoot.protocol.charter import Training


class Session:
    """Fits and evaluates the task's model; every error of task, data, model or device is a `TrainerError`."""

    def __init__(self, task: Task) -> None:
        local.limit_threads(task.threads)
        self._task = task
        self._device = choose_device(task.device)
        self._mixed = task.mixed and self._device.type != "cpu"
        if task.mixed and not self._mixed:
            print("trainer.mixed_precision: not on the CPU, which computes in float32", file=sys.stderr)
        self._objective = make_objective(task.data, task.model.outputs)
        module = models.build_charter_model(task.model, task.source)
        models.check_forward(module, task.model.features, self._objective)
        self._module = module.to(self._device)
        self._train = self._load(Path(task.train))
        self._budget = self._make_budget() if task.privacy.mechanism != "none" else None
        test = Path(task.test)
        self._test = self._load(test) if test.exists() else None

    def _load(self, path: Path) -> local.Rows:
        rows = local.load_rows(path, self._task.model.features, self._objective.classes)
        return rows.to(self._device)

    def _make_budget(self) -> Budget:
        """Raises `TrainerError` for a model whose rows' gradients cannot be told apart."""
        from folkmoot.node.train.private import check_private

        task, training = self._task, self._training()
        check_private(self._module, task.model.features, self._objective)
        return Budget(
            task.privacy,
            task.planned,
            len(self._train),
            training.batch,
            local.count_steps(self._module, len(self._train), training),
        )

    @property
    def examples(self) -> int:
        """Rows to train on."""
        return len(self._train)

    def fit(self, request: Fit, on_step: local.OnStep) -> Fitted:
        """Measure the base, train from it, write what is to be sent and what the member keeps.

        Raises `TrainerError` of kind `non_finite`, and writes nothing, where training ran off to infinity; of kind
        `budget`, before anything is computed, where the update would cost too much privacy.
        """
        epsilon = self._budget.with_next(request.spent) if self._budget else 0.0
        task, base = self._task, Path(request.base)
        start = read_section(base, 0, task.model.parameters)
        carried = self._carried(request)
        models.load_vector(self._module, start)
        metrics = self._measure(on_step)
        whose = Turn(task.member, request.round, start, carried)
        noise = self._noise()
        made = fit(
            self._module, self._objective, self._train, self._training(), whose, on_step, self._mixed, noise
        )
        for vector in (made.sent, made.own):
            check_finite(vector, f"the update of round {request.round}; try a smaller training.lr")
        write_vector(Path(request.update), made.sent)
        if request.next_state:
            write_vector(Path(request.next_state), made.own)
        cost = self._budget.cost if self._budget else None
        return Fitted(request.id, self.examples, made.loss, metrics, cost, epsilon)

    def _noise(self) -> Noise | None:
        if self._budget is None:
            return None
        cost = self._budget.cost
        return Noise(float(self._task.privacy.clip), cost.noise, cost.sample_rate)

    def _training(self) -> Training:
        """The charter's, with no more steps than this member takes."""
        training, most = self._task.training, self._task.max_steps
        steps = local.count_steps(self._module, len(self._train), training)
        return msgspec.structs.replace(training, steps=most) if 0 < most < steps else training

    def _carried(self, request: Fit) -> Carried:
        parameters, training = self._task.model.parameters, self._task.training
        zeros = np.zeros(parameters, dtype=np.float32)
        own = read_vector(Path(request.state), parameters) if request.state else zeros
        if training.correction != "scaffold":
            return Carried(own, zeros)
        base = Path(request.base)
        sections = base.stat().st_size // (BYTES * parameters)
        return Carried(own, read_section(base, sections - 1, parameters))

    def evaluate(self, model: Path, on_step: local.OnStep) -> Metrics:
        """Metrics of the vector in file `model`."""
        models.load_vector(self._module, read_section(model, 0, self._task.model.parameters))
        return self._measure(on_step)

    def _measure(self, on_step: local.OnStep) -> Metrics:
        if self._test is None:
            return {}
        return local.evaluate(self._module, self._objective, self._test, on_step)
