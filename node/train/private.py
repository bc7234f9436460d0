"""DP-SGD: gradients that tell next to nothing of any single row (Abadi et al. 2016, 1607.00133).

A step takes a Poisson sample: every row is in it with the same chance q, by itself. Of each row's gradient what is
longer than C is cut, their sum gets Gaussian noise of deviation sigma * C in every value, and is divided by q times the
number of rows, whatever the sample's size. All that follows (momentum, steering, codecs) only works on with that.

Opacus gives the rows' gradients; clipping and noise are here, because neither the noise nor the sample may come from a
generator whose seed others know. So a private training cannot be repeated, not even by the member itself.
"""

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from folkmoot.node.train.local import Rows, Step
from folkmoot.node.train.models import to_vector
from folkmoot.node.train.noise import Noise, SecretRandom
from folkmoot.node.train.objectives import Objective
from folkmoot.node.train.vectors import Vector
from folkmoot.node.train.wire import TrainerError
from folkmoot.protocol.secure.masked_noise import NoisePlan

HELD_VALUES = 1 << 26
"""Values of rows' gradients that are held at once: 256 MB. A larger sample is gone through in pieces."""

ROUNDINGS = 100
"""Times that a row is rounded anew until it is short enough; most are the first time."""

_TINY = 1e-12

_ROUNDED = 1 + 1e-5
"""A norm in float32 may be too small by as much."""


def private_steps(
    module: nn.Module, objective: Objective, rows: Rows, noise: Noise, random: SecretRandom | None = None
) -> Generator[Step, None, None]:
    """Gradients of one step after another, without end; close the iterator when done.

    `module` is in training mode. `random`: None draws a new one.
    """
    random = random or SecretRandom()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    expected = noise.sample_rate * len(rows)
    with _rows_gradients(module) as watched:
        while True:
            index = torch.from_numpy(random.sample(len(rows), noise.sample_rate))
            total = [torch.zeros_like(parameter) for parameter in parameters]
            cut = partial(_cut, clip=noise.clip)
            loss = _add_rows(watched, objective, rows, index, parameters, cut, total)
            _add_noise(total, random, noise.multiplier * noise.clip)
            gradients = [value / expected for value in total]
            yield Step(gradients, loss / max(1, len(index)), len(index))


@contextmanager
def _rows_gradients(module: nn.Module) -> Iterator[nn.Module]:
    """`module` such that a backward pass leaves each row's gradient in `parameter.grad_sample`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it wraps layers that torch no longer likes to be wrapped so
        watched = GradSampleModule(module, loss_reduction="mean", strict=False)
        try:
            yield watched
        finally:
            watched.to_standard_module()
            module.zero_grad()


def masked_step(
    module: nn.Module, objective: Objective, rows: Rows, noise: Noise, random: SecretRandom | None = None
) -> tuple[Vector, float]:
    """One step whose noise is added later, under the mask: the update in whole numbers of `plan.unit`, and the loss.

    It is minus the sum of the sampled rows' gradients, each cut, scaled to `plan.reach` and rounded.
    """
    plan, random = noise.plan, random or SecretRandom()
    assert plan is not None
    module.train()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    index = torch.from_numpy(random.sample(len(rows), noise.sample_rate))
    total = [torch.zeros_like(parameter) for parameter in parameters]
    cut = partial(_round, clip=noise.clip, plan=plan)
    with _rows_gradients(module) as watched:
        loss = _add_rows(watched, objective, rows, index, parameters, cut, total)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.zero_()
        for parameter, value in zip(parameters, total, strict=True):
            parameter.copy_(value.clamp(-plan.limit, plan.limit) * -plan.unit)
    return to_vector(module), loss / max(1, len(index))


def _add_rows(
    watched: nn.Module,
    objective: Objective,
    rows: Rows,
    index: Tensor,
    parameters: Sequence[Tensor],
    cut: Callable[[Sequence[Tensor]], Iterable[Tensor]],
    total: Sequence[Tensor],
) -> float:
    """Add what `cut` makes of the gradients of the rows in `index` to `total`; the sum of their losses."""
    piece, loss = max(1, HELD_VALUES // sum(map(torch.numel, parameters))), 0.0
    for at in range(0, len(index), piece):
        part = index[at : at + piece]
        mean = objective.loss(watched(rows.x[part]), rows.y[part])
        mean.backward()  # type: ignore[no-untyped-call]
        loss += mean.item() * len(part)
        gradients = [_take_rows(parameter, len(part)) for parameter in parameters]
        for value, part_of_it in zip(total, cut(gradients), strict=True):
            value += part_of_it
    return loss


def _cut(gradients: Sequence[Tensor], clip: float) -> Iterator[Tensor]:
    """The sum of the rows' gradients, none longer than `clip`."""
    factors = _factors(gradients, clip)
    for gradient in gradients:
        yield torch.tensordot(factors, gradient, dims=1)


def _round(gradients: Sequence[Tensor], clip: float, plan: NoisePlan) -> list[Tensor]:
    """The same in whole numbers: `clip` becomes `plan.reach`, and rounded no row is longer than `plan.bound`."""
    factors = _factors(gradients, clip) * (plan.reach / clip)
    flat = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1) * factors[:, None]
    rounded, rows = torch.zeros_like(flat), torch.arange(len(flat))
    for _ in range(ROUNDINGS):
        tried = (flat[rows] + torch.rand_like(flat[rows])).floor()
        rounded[rows] = tried
        rows = rows[torch.linalg.vector_norm(tried.double(), dim=1) > plan.bound]
        if not len(rows):
            break
    rounded[rows] = 0  # as good as never: one time in two is the worst that can be
    sizes = [gradient[0].numel() for gradient in gradients]
    pieces = torch.split(rounded.sum(0), sizes)
    return [piece.reshape(gradient.shape[1:]) for piece, gradient in zip(pieces, gradients, strict=True)]


def _take_rows(parameter: Tensor, rows: int) -> Tensor:
    """The rows' gradients of one parameter, (rows, *shape), which it then forgets; zeros if it had no part."""
    found = getattr(parameter, "grad_sample", None)
    parameter.grad, parameter.grad_sample = None, None  # type: ignore[attr-defined]
    if found is None:
        return torch.zeros(rows, *parameter.shape, device=parameter.device)
    gradient: Tensor = torch.stack(found).sum(0) if isinstance(found, list) else found
    return gradient.detach()


def _factors(gradients: Sequence[Tensor], clip: float) -> Tensor:
    """What each row's gradient, over all parameters, is to be multiplied by so that it is no longer than `clip`.

    One that is not finite would take the whole sum with it, noise and all: it becomes zero, in place.
    """
    norms = torch.stack([torch.linalg.vector_norm(one.flatten(1), dim=1) for one in gradients]).norm(dim=0)
    bad = ~norms.isfinite()
    if bad.any():
        for gradient in gradients:
            gradient[bad] = 0
        norms[bad] = 0
    factors: Tensor = clip / (norms * _ROUNDED + _TINY)
    return factors.clamp(max=1.0)


def _add_noise(total: Sequence[Tensor], random: SecretRandom, deviation: float) -> None:
    for value in total:
        drawn = torch.from_numpy(random.normal(value.numel())) * deviation
        value.copy_((value.double().cpu() + drawn.reshape(value.shape)).to(value.dtype))


# --- which models -----------------------------------------------------------------------------------------------------


def check_private(module: nn.Module, features: int, objective: Objective) -> None:
    """Raise `TrainerError` for a model whose rows' gradients cannot be told apart, naming the layer."""
    module.train()
    for name, layer in module.named_modules():
        for error in _faults_of(layer):
            raise TrainerError("model", f"privacy: the layer {name or 'at the top'} cannot be used: {error}")
    kind = torch.int64 if objective.classes else torch.float32
    rows = Rows(torch.randn(3, features), torch.zeros(3, dtype=kind))
    _check_rows_apart(module, rows)
    steps = private_steps(module, objective, rows, Noise(1.0, 1.0, 1.0))
    try:
        next(steps)
    except TrainerError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        raise TrainerError(
            "model", f"privacy: Opacus cannot tell the rows' gradients apart: {text}"
        ) from error
    finally:
        steps.close()


def _faults_of(layer: nn.Module) -> Iterator[str]:
    """What Opacus says against this very layer (not its children), in one line each."""
    check = ModuleValidator.VALIDATORS.get(type(layer))
    if check is not None and any(True for _ in layer.parameters()):
        for error in check(layer):
            yield f"{type(layer).__name__}: {str(error).splitlines()[0]}"


@torch.no_grad()
def _check_rows_apart(module: nn.Module, rows: Rows) -> None:
    """What the model says of a row must not depend on the rows beside it."""
    module.eval()
    together, alone = module(rows.x), module(rows.x[:1])
    module.train()
    if not torch.allclose(together[:1], alone, rtol=1e-3, atol=1e-4):
        raise TrainerError(
            "model",
            "privacy: what the model gives for a row depends on the rows beside it, so no row's part can be bounded",
        )
