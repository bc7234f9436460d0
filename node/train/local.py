"""A member's own training: plain SGD on its own rows, and the measure of a model on the rows it holds out.

Everything random comes from (charter seed, member name, round), so that a central loop can repeat it exactly.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from folkmoot.node.train.wire import Metrics, TrainerError
from folkmoot.protocol.charter import Training

EVALUATION_BATCH = 1024

OnStep = Callable[[int, int], None]
"""Called with (steps done, steps in all) while work goes on; raises to break it off."""


@dataclass(frozen=True)
class Rows:
    """Examples in memory: inputs `x` float32 (n, d), classes `y` int64 (n,)."""

    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, x: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> Self:
        """Rows that share the memory of the arrays."""
        return cls(torch.from_numpy(x), torch.from_numpy(y))

    def __len__(self) -> int:
        return len(self.y)


def limit_threads(count: int) -> None:
    """How many threads torch computes with. The last bits of a result depend on it."""
    torch.set_num_threads(count)


def load_rows(path: Path, inputs: int, classes: int) -> Rows:
    """Read `x` and `y` from a safetensors file and check them against the model's width and classes.

    Raises `TrainerError` of kind `data`, naming the file and what is wrong with it.
    """
    try:
        tensors = safetensors.numpy.load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainerError("data", f"cannot read {path}: {error}") from error
    if sorted(tensors) != ["x", "y"]:
        raise TrainerError("data", f"{path} holds the tensors {sorted(tensors)}; it must hold 'x' and 'y'")
    x, y = tensors["x"], tensors["y"]
    if x.dtype != np.float32 or x.ndim != 2 or x.shape[1] != inputs:
        raise TrainerError("data", f"{path}: x is {x.dtype} {x.shape}; it must be float32 (rows, {inputs})")
    if y.dtype != np.int64 or y.shape != x.shape[:1]:
        raise TrainerError("data", f"{path}: y is {y.dtype} {y.shape}; it must be int64 ({len(x)},)")
    if not len(y):
        raise TrainerError("data", f"{path} has no rows")
    if y.min() < 0 or y.max() >= classes:
        raise TrainerError(
            "data", f"{path}: y goes from {y.min()} to {y.max()}; the model has classes 0 to {classes - 1}"
        )
    if not np.isfinite(x).all():
        raise TrainerError("data", f"{path}: x holds NaN or infinity")
    return Rows.of(x, y)


def derive_seed(seed: int, member: str, round: int) -> int:
    """The torch seed of one member's training in one round: 63 bits of SHA-256 over all three."""
    text = f"folkmoot/v1/local-training\n{seed}\n{member}\n{round}"
    return int.from_bytes(sha256(text.encode()).digest()[:8], "little") >> 1


class Sgd:
    """Gradient descent with momentum: the rule of `torch.optim.SGD` without its other options.

    Written out because `torch.optim.SGD` imports torch's compiler: 1.2 CPU seconds for each trainer.
    """

    def __init__(self, parameters: Sequence[Tensor], lr: float, momentum: float) -> None:
        self._parameters = list(parameters)
        self._lr = lr
        self._momentum = momentum
        self._velocity: list[Tensor] | None = None

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """velocity = momentum * velocity + gradient (at first the gradient); weights -= lr * velocity."""
        if self._velocity is None:
            self._velocity = [gradient.clone() for gradient in gradients]
        else:
            torch._foreach_mul_(self._velocity, self._momentum)
            torch._foreach_add_(self._velocity, list(gradients))
        torch._foreach_add_(self._parameters, self._velocity, alpha=-self._lr)


def train(
    module: nn.Module, rows: Rows, training: Training, member: str, round: int, on_step: OnStep
) -> float:
    """Train `module` in place for the charter's epochs; the mean loss over all examples seen.

    Momentum starts anew each round: a velocity belongs to weights that the average has since replaced.
    """
    seed = derive_seed(training.seed, member, round)
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # for layers that draw by themselves, as dropout does
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = Sgd(parameters, float(training.lr), float(training.momentum))
    steps = training.epochs * -(-len(rows) // training.batch)
    total = 0.0
    module.train()
    for done, index in enumerate(batches(len(rows), training.epochs, training.batch, order)):
        on_step(done, steps)
        loss = functional.cross_entropy(module(rows.x[index]), rows.y[index])
        optimizer.step(torch.autograd.grad(loss, parameters))
        total += loss.item() * len(index)
    return total / (training.epochs * len(rows))


def batches(examples: int, epochs: int, batch: int, order: torch.Generator) -> Iterator[Tensor]:
    """Row numbers of each step: every epoch a new permutation, its last batch as short as it falls."""
    for _ in range(epochs):
        shuffled = torch.randperm(examples, generator=order)
        yield from (shuffled[at : at + batch] for at in range(0, examples, batch))


@torch.no_grad()
def evaluate(module: nn.Module, rows: Rows, on_step: OnStep) -> Metrics:
    """`accuracy` (share of rows right), `loss` (mean cross-entropy) and `examples` of `module` on `rows`."""
    module.eval()
    steps = -(-len(rows) // EVALUATION_BATCH)
    right, loss = 0, 0.0
    for done in range(steps):
        on_step(done, steps)
        piece = slice(done * EVALUATION_BATCH, (done + 1) * EVALUATION_BATCH)
        scores, labels = module(rows.x[piece]), rows.y[piece]
        right += int((scores.argmax(dim=1) == labels).sum())
        loss += float(functional.cross_entropy(scores, labels, reduction="sum"))
    return {"accuracy": right / len(rows), "loss": loss / len(rows), "examples": float(len(rows))}
