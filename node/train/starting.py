"""Starting weights from a file: safetensors, by the names of the model's `state_dict`."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from folkmoot.node.train.wire import TrainerError

_SHOWN = 5


@torch.no_grad()
def take_start(module: nn.Module, file: Path, *, fill: bool = False) -> None:
    """Overwrite the module's float tensors with those of a safetensors file, whose floats may be of any width.

    Tensors that it lacks stay as they were drawn if `fill` is set. Raises `TrainerError` naming what does not fit.
    """
    found = _read(file)
    own = {name: tensor for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
    unknown = [name for name, values in found.items() if name not in own]
    missing = [name for name in own if name not in found]
    if unknown:
        raise TrainerError(
            "model", f"{file}: the model has no tensor {_named(unknown)}; it has {_named(list(own))}"
        )
    if missing and (not fill or len(missing) == len(own)):
        raise TrainerError(
            "model",
            f"{file}: lacks {_named(missing)}: take a file with all of the model or, if it holds some of it, let the "
            "rest be drawn (--start-fill)",
        )
    for name, values in found.items():
        own[name].copy_(_checked(file, name, values, own[name]))


def _read(file: Path) -> dict[str, Tensor]:
    """Its float tensors: integer ones, such as counts of batches, stay with each member."""
    try:
        return {name: values for name, values in load_file(file).items() if values.is_floating_point()}
    except (OSError, SafetensorError) as error:
        raise TrainerError("model", f"{file}: not a safetensors file: {error}") from error


def _checked(file: Path, name: str, values: Tensor, own: Tensor) -> Tensor:
    if values.shape != own.shape:
        raise TrainerError(
            "model", f"{file}: {name} is {list(values.shape)}, the model's is {list(own.shape)}"
        )
    values = values.to(torch.float32)
    if not values.isfinite().all():
        raise TrainerError("model", f"{file}: {name} holds values that are not finite in float32")
    return values


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
