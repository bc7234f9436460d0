"""A member's own training on its own rows, and the measure of a model on the rows it holds out.

Everything random comes from (charter seed, member name, round), so that a central loop can repeat it exactly.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import NamedTuple, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from folkmoot.node.train import models
from folkmoot.node.train.objectives import Objective
from folkmoot.node.train.optimizers import make_optimizer
from folkmoot.node.train.steering import Steering
from folkmoot.node.train.tallies import Tally
from folkmoot.node.train.wire import Metrics, TrainerError
from folkmoot.protocol.charter_tables import Training

EVALUATION_BATCH = 1024

Floats: TypeAlias = npt.NDArray[np.float32]

OnStep = Callable[[int, int], None]
"""Called with (steps done, steps in all) while work goes on; raises to break it off."""


@dataclass(frozen=True)
class Rows:
    """Examples in memory: inputs `x` float32 (n, d); `y` (n,) int64 classes, or float32 targets of a regression."""

    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, x: Floats, y: npt.NDArray[np.int64] | Floats) -> Self:
        """Rows that share the memory of the arrays."""
        return cls(torch.from_numpy(x), torch.from_numpy(y))

    def to(self, device: torch.device) -> Self:
        """The same rows in the memory of `device`."""
        return type(self)(self.x.to(device), self.y.to(device))

    def __len__(self) -> int:
        return len(self.y)


class Step(NamedTuple):
    """The gradients of one step, in the order of the parameters; mean loss and number of the rows behind it."""

    gradients: Sequence[Tensor]
    loss: float
    rows: int


class Outcome(NamedTuple):
    """Mean loss over all examples seen, and how many steps were taken."""

    loss: float
    steps: int


def limit_threads(count: int) -> None:
    """How many threads torch computes with. The last bits of a result depend on it."""
    torch.set_num_threads(count)


def load_rows(path: Path, features: int, classes: int) -> Rows:
    """Read `x` and `y` from a safetensors file and check them; `classes` is 0 for a regression.

    Raises `TrainerError` of kind `data`, naming the file and what is wrong with it.
    """
    try:
        tensors = safetensors.numpy.load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainerError("data", f"cannot read {path}: {error}") from error
    if sorted(tensors) != ["x", "y"]:
        raise TrainerError("data", f"{path} holds the tensors {sorted(tensors)}; it must hold 'x' and 'y'")
    x, y = tensors["x"], tensors["y"]
    if x.dtype != np.float32 or x.ndim != 2 or x.shape[1] != features:
        raise TrainerError("data", f"{path}: x is {x.dtype} {x.shape}; it must be float32 (rows, {features})")
    kind = np.dtype(np.int64 if classes else np.float32)
    if y.dtype != kind or y.shape != x.shape[:1]:
        raise TrainerError("data", f"{path}: y is {y.dtype} {y.shape}; it must be {kind} ({len(x)},)")
    if not len(y):
        raise TrainerError("data", f"{path} has no rows")
    if classes and (y.min() < 0 or y.max() >= classes):
        raise TrainerError(
            "data", f"{path}: y goes from {y.min()} to {y.max()}; the model has classes 0 to {classes - 1}"
        )
    for name in ("x", "y"):
        if not np.isfinite(tensors[name]).all():
            raise TrainerError("data", f"{path}: {name} holds NaN or infinity")
    return Rows.of(x, y)


def derive_seed(seed: int, member: str, round: int) -> int:
    """The torch seed of one member's training in one round: 63 bits of SHA-256 over all three."""
    text = f"folkmoot/v1/local-training\n{seed}\n{member}\n{round}"
    return int.from_bytes(sha256(text.encode()).digest()[:8], "little") >> 1


def train(
    module: nn.Module,
    objective: Objective,
    rows: Rows,
    training: Training,
    member: str,
    round: int,
    on_step: OnStep,
    shift: npt.NDArray[np.float32] | None = None,
    mixed: bool = False,
    source: Iterator[Step] | None = None,
) -> Outcome:
    """Train `module` in place by the charter's terms.

    `shift`, flat float32 (P,), is added to every gradient (`steering.py`); `mixed` computes matrix products in
    bfloat16. The optimiser starts anew each round: what it remembers belongs to weights that the average has since
    replaced. `source` gives the gradients, where those of `batches` will not do.
    Raises `TrainerError` of kind `non_finite` at the first loss that is NaN or infinite.
    """
    seed = derive_seed(training.seed, member, round)
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # for layers that draw by themselves, as dropout does
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = make_optimizer(training, parameters)
    steering = Steering(training, parameters, () if shift is None else models.split_trained(module, shift))
    source = source or _plain_steps(module, objective, rows, parameters, training.batch, order, mixed)
    steps = count_steps(module, len(rows), training)
    total, seen = 0.0, 0
    module.train()
    for done in range(steps):
        on_step(done, steps)
        gradients, loss, count = next(source)
        if not isfinite(loss):
            raise TrainerError(
                "non_finite",
                f"the loss of round {round} is {loss} at step {done + 1} of {steps}: try a smaller training.lr, or "
                "look for extreme values in the data",
            )
        optimizer.step(steering.apply(gradients))
        total += loss * count
        seen += count
    return Outcome(total / max(1, seen), steps)


def _plain_steps(
    module: nn.Module,
    objective: Objective,
    rows: Rows,
    parameters: Sequence[Tensor],
    batch: int,
    order: torch.Generator,
    mixed: bool,
) -> Iterator[Step]:
    """The gradients of one batch after another, without end."""
    for index in batches(len(rows), batch, order, _least_rows(module)):
        with torch.autocast(rows.x.device.type, torch.bfloat16) if mixed else nullcontext():
            loss = objective.loss(module(rows.x[index]), rows.y[index])
        value = loss.item()
        gradients = torch.autograd.grad(loss, parameters, materialize_grads=True) if isfinite(value) else ()
        yield Step(gradients, value, len(index))


def count_steps(module: nn.Module, examples: int, training: Training) -> int:
    """How many steps a round has by the charter."""
    return training.steps or training.epochs * len(_starts(examples, training.batch, _least_rows(module)))


def batches(examples: int, batch: int, order: torch.Generator, least: int = 1) -> Iterator[Tensor]:
    """Row numbers of each step, without end: every epoch a new permutation, its last batch as short as it falls.

    A last batch of fewer than `least` rows is joined to the one before.
    """
    starts = _starts(examples, batch, least)
    while True:
        shuffled = torch.randperm(examples, generator=order)
        yield from (shuffled[at:end] for at, end in pairwise([*starts, examples]))


def _starts(examples: int, batch: int, least: int) -> list[int]:
    """Where the batches of one epoch begin."""
    starts = list(range(0, examples, batch))
    return starts[:-1] if len(starts) > 1 and examples - starts[-1] < least else starts


def _least_rows(module: nn.Module) -> int:
    """The fewest rows that `module` can train on at once: of a single one, batch normalisation has no variance."""
    return 2 if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules()) else 1


def evaluate(module: nn.Module, objective: Objective, rows: Rows, on_step: OnStep) -> Metrics:
    """The objective's measures of `module` on `rows`, and `examples`, their number."""
    tally = objective.tally()
    count(module, tally, rows, on_step)
    return tally.result()


@torch.no_grad()
def count(module: nn.Module, tally: Tally, rows: Rows, on_step: OnStep) -> None:
    """Add all rows to `tally`, as `module` scores them."""
    module.eval()
    steps = -(-len(rows) // EVALUATION_BATCH)
    for done in range(steps):
        on_step(done, steps)
        piece = slice(done * EVALUATION_BATCH, (done + 1) * EVALUATION_BATCH)
        tally.add(module(rows.x[piece]), rows.y[piece])
