"""One member's training task in memory: model and data loaded once, then used round after round."""

import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from folkmoot.node.config import ALONE, DITTO
from folkmoot.node.train import local, models
from folkmoot.node.train.accounting import Budget
from folkmoot.node.train.beside import train_beside
from folkmoot.node.train.devices import choose_device
from folkmoot.node.train.fitting import Turn, fit
from folkmoot.node.train.objectives import make_objective
from folkmoot.node.train.steering import Carried
from folkmoot.node.train.vectors import (
    BYTES,
    Fragment,
    Vector,
    check_finite,
    read_section,
    read_vector,
    write_vector,
)
from folkmoot.node.train.wire import (
    OWN,
    PERSONAL,
    Evaluate,
    Evaluated,
    Fit,
    Fitted,
    Metrics,
    Task,
    TrainerError,
)
from folkmoot.protocol.charter_tables import Part, Training
from folkmoot.protocol.parts import Parts, as_own

_OWN_MODELS = frozenset({DITTO, ALONE})


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
        self._parts = Parts(task.model.tensors)
        self._own_parts = Parts([as_own(tensor) for tensor in task.model.tensors])
        module = models.build_charter_model(task.model, task.source)
        models.check_forward(module, task.model.features, self._objective)
        self._module = module.to(self._device)
        self._train = self._load(Path(task.train))
        self._budget = self._make_budget() if task.privacy.mechanism != "none" else None
        test = Path(task.test)
        self._test = self._load(test) if test.exists() else None
        if task.max_memory:
            self._try_step()

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
            task.plan,
            task.model.shared_values,
        )

    def _try_step(self) -> None:
        """One step, which changes nothing: what does not fit into memory is to fail now, not round after round."""
        start = models.to_vector(self._module)
        zeros = np.zeros(self._parts.count("shared"), np.float32)
        turn = Turn(self._task.member, 0, start, Carried(zeros, zeros), self._parts)
        once = msgspec.structs.replace(self._task.training, steps=1)
        try:
            fit(self._module, self._objective, self._train, once, turn, _unwatched, self._mixed)
        except TrainerError as error:
            if error.kind != "non_finite":
                raise
        models.load_vector(self._module, start)

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
        task, kept = self._task, {name: one.before for name, one in request.kept.items() if one.before}
        start = self._whole(Path(request.base), kept)
        measured = self._measure(start, kept, on_step)
        carried, fragment = self._carried(Path(request.base), kept), self._fragment(request.fragment)
        turn = Turn(task.member, request.round, start, carried, self._parts, fragment)
        made = fit(
            self._module,
            self._objective,
            self._train,
            self._training(),
            turn,
            on_step,
            self._mixed,
            self._budget.noise if self._budget else None,
        )
        next_ = {OWN: made.own, PERSONAL: made.personal}
        for vector in (made.sent, *next_.values()):
            check_finite(vector, f"the update of round {request.round}; try a smaller training.lr")
        for name in request.kept.keys() & _OWN_MODELS:
            next_[name] = self._train_beside(name, kept, turn, on_step)
        write_vector(Path(request.update), made.sent)
        for name, one in request.kept.items():
            write_vector(Path(one.after), next_[name])
        cost = self._budget.cost if self._budget else None
        return Fitted(request.id, self.examples, made.loss, measured.metrics, measured.beside, cost, epsilon)

    def evaluate(self, request: Evaluate, on_step: local.OnStep) -> Evaluated:
        """Measures of a snapshot, and of the member's own models."""
        start = self._whole(Path(request.model), request.kept)
        return msgspec.structs.replace(self._measure(start, request.kept, on_step), id=request.id)

    def _train_beside(self, name: str, kept: Mapping[str, str], turn: Turn, on_step: local.OnStep) -> Vector:
        """One round of an own model; its tensors but for the frozen ones."""
        own, pull = self._own_model(name, kept, turn.start), self._task.ditto if name == DITTO else 0.0
        after = train_beside(
            self._module,
            self._objective,
            self._train,
            self._training(),
            (turn.member, turn.round),
            own,
            turn.start,
            pull,
            on_step,
        )
        return self._own_parts.take(after, "personal")

    def _own_model(self, name: str, kept: Mapping[str, str], common: Vector) -> Vector:
        """The whole vector of an own model; it begins as the federation's is when it is first asked for."""
        own = common.copy()
        if name in kept:
            values = read_vector(Path(kept[name]), self._own_parts.count("personal"))
            self._own_parts.put(own, "personal", values)
        return own

    def _whole(self, base: Path, kept: Mapping[str, str]) -> Vector:
        """The model of a snapshot, with this member's personal tensors and the frozen ones."""
        shared = read_section(base, 0, self._parts.count("shared"))
        vectors: dict[Part, Vector] = {"shared": shared}
        if self._parts.count("personal"):
            file = Path(kept.get(PERSONAL) or self._task.personal)
            vectors["personal"] = read_vector(file, self._parts.count("personal"))
        if self._parts.count("frozen"):
            vectors["frozen"] = self._frozen
        return self._parts.join(vectors)

    @cached_property
    def _frozen(self) -> Vector:
        return read_vector(Path(self._task.frozen), self._parts.count("frozen"))

    def _fragment(self, span: tuple[int, int, int] | None) -> Fragment | None:
        return None if span is None else Fragment(*span)

    def _training(self) -> Training:
        """The charter's, with no more steps than this member takes."""
        training, most = self._task.training, self._task.max_steps
        steps = local.count_steps(self._module, len(self._train), training)
        return msgspec.structs.replace(training, steps=most) if 0 < most < steps else training

    def _carried(self, base: Path, kept: Mapping[str, str]) -> Carried:
        values, training = self._parts.count("shared"), self._task.training
        zeros = np.zeros(values, dtype=np.float32)
        own = read_vector(Path(kept[OWN]), values) if OWN in kept else zeros
        if training.correction != "scaffold":
            return Carried(own, zeros)
        sections = base.stat().st_size // (BYTES * values)
        return Carried(own, read_section(base, sections - 1, values))

    def _measure(self, start: Vector, kept: Mapping[str, str], on_step: local.OnStep) -> Evaluated:
        """Of the model in `start`, and of own ones that there are already."""
        own = {name: self._own_model(name, kept, start) for name in kept.keys() & _OWN_MODELS}
        return Evaluated(
            0,
            self._measure_one(start, on_step),
            {name: self._measure_one(vector, on_step) for name, vector in own.items()},
        )

    def _measure_one(self, vector: Vector, on_step: local.OnStep) -> Metrics:
        if self._test is None:
            return {}
        models.load_vector(self._module, vector)
        return local.evaluate(self._module, self._objective, self._test, on_step)


def _unwatched(done: int, total: int) -> None:
    """Nobody waits for a step that is only tried."""
