"""The architectures that a charter can name, and their flat vectors.

A vector holds the float tensors of `state_dict`, in its order, each flattened; integer buffers stay local.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import pairwise
from pathlib import Path
from types import MethodType

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from folkmoot.node.train.convolutions import cnn
from folkmoot.node.train.custom import CustomSource, build_custom
from folkmoot.node.train.objectives import Objective
from folkmoot.node.train.vectors import Vector
from folkmoot.node.train.wire import TrainerError
from folkmoot.protocol.charter_tables import Model, Part, Tensor


def build(
    kind: str, layers: Sequence[int], source: CustomSource | None = None, image: Sequence[int] = ()
) -> nn.Module:
    """A module of the charter's `kind` and `layers` (widths, from inputs to outputs).

    `mlp` has a ReLU between layers; `logistic` is one layer without hidden ones; `cnn` convolves an `image` (height,
    width, channels); `custom` is what `source` makes. Raises `TrainerError`.
    """
    if len(layers) < 2:
        raise TrainerError(
            "model", f"model.layers = {list(layers)}: give at least the inputs and the outputs"
        )
    if kind == "custom" and source is not None:
        return build_custom(source, layers[0], layers[-1])
    if kind == "cnn" and len(image) == 3:
        return cnn(layers, image)
    if kind == "logistic" and len(layers) != 2:
        raise TrainerError(
            "model", f"model.layers = {list(layers)}: a logistic model has inputs and outputs only"
        )
    if kind not in ("mlp", "logistic"):
        raise TrainerError(
            "model",
            f"model.kind = {kind!r} is not known here; known are 'mlp', 'logistic', with an image 'cnn' and, with a "
            "source, 'custom'",
        )
    stack: list[nn.Module] = [nn.Linear(layers[0], layers[1])]
    for inputs, outputs in pairwise(layers[1:]):
        stack += [nn.ReLU(), nn.Linear(inputs, outputs)]
    return nn.Sequential(*stack)


def build_charter_model(model: Model, source: str = "") -> nn.Module:
    """The charter's module; `source` is the file of a custom one.

    Raises `TrainerError` where its tensors are not those of the charter's layout, or `source` is not the charter's.
    """
    custom = CustomSource(model.source, Path(source), model.source_digest) if source else None
    module = build(model.kind, model.layers, custom, model.image)
    mine = layout(module)
    for index, (have, want) in enumerate(zip(mine, model.tensors, strict=False)):
        if msgspec.structs.replace(have, part=want.part) != want:
            raise TrainerError(
                "model",
                f"tensor {index} is {have.name} {list(have.shape)} here, but the charter says {want.name} "
                f"{list(want.shape)}; model.tensors must follow the state_dict of the model",
            )
    if len(mine) != len(model.tensors):
        raise TrainerError(
            "model", f"the model has {len(mine)} float tensors, but the charter lays out {len(model.tensors)}"
        )
    _check_ties(module, {tensor.name: tensor.part for tensor in model.tensors})
    freeze(module, {tensor.name for tensor in model.tensors if tensor.part == "frozen"})
    return module


def freeze(module: nn.Module, names: Set[str]) -> None:
    """Let training leave the tensors with these names alone.

    A layer whose statistics are frozen works with them in training too, instead of those of each batch.
    """
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if name in names:
            parameter.requires_grad_(False)
    for path, layer in module.named_modules():
        kept = [
            name for name, tensor in layer.named_buffers(path, recurse=False) if tensor.is_floating_point()
        ]
        if kept and names >= set(kept):
            layer.eval()
            layer.train = MethodType(lambda layer, mode=True: layer, layer)


def _check_ties(module: nn.Module, parts: Mapping[str, Part]) -> None:
    """Raise `TrainerError` where one tensor goes by two names that are of different parts."""
    seen: dict[int, str] = {}
    for name, tensor in _float_tensors(module):
        first = seen.setdefault(tensor.data_ptr(), name)
        if tensor.numel() and parts[first] != parts[name]:
            raise TrainerError(
                "model",
                f"{first} and {name} are one tensor, but the charter makes one {parts[first]} and the other "
                f"{parts[name]}: let model.shared and model.frozen take both or neither",
            )


def build_seeded(
    kind: str,
    layers: Sequence[int],
    seed: int,
    source: CustomSource | None = None,
    image: Sequence[int] = (),
) -> nn.Module:
    """The module with starting weights drawn from `seed`, by torch's own initialisation or the custom model's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(kind, layers, source, image)


def initial_vector(kind: str, layers: Sequence[int], seed: int, image: Sequence[int] = ()) -> Vector:
    """Starting weights of a built-in model; flat float32, shape (P,)."""
    return to_vector(build_seeded(kind, layers, seed, image=image))


def check_forward(module: nn.Module, features: int, objective: Objective) -> None:
    """One forward pass and its loss on rows of zeros, without training; raises `TrainerError` where they fail."""
    module.eval()
    kind = torch.int64 if objective.classes else torch.float32
    try:
        with torch.no_grad():
            objective.loss(module(torch.zeros(2, features)), torch.zeros(2, dtype=kind))
    except TrainerError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        raise TrainerError("model", f"the model's forward fails on {features} features: {text}") from error


def layout(module: nn.Module) -> tuple[Tensor, ...]:
    """Name and shape of each float tensor, in vector order; what is no parameter is a statistic."""
    trained = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    return tuple(
        Tensor(name=name, shape=tuple(tensor.shape), statistic=name not in trained)
        for name, tensor in _float_tensors(module)
    )


def to_vector(module: nn.Module) -> Vector:
    """A copy of the module's float tensors as one flat float32 vector."""
    pieces = [tensor.detach().to("cpu", torch.float32).reshape(-1) for _, tensor in _float_tensors(module)]
    vector: Vector = torch.cat(pieces).numpy()
    return vector


def split_trained(module: nn.Module, vector: Vector) -> list[torch.Tensor]:
    """The pieces of a flat vector for the parameters that training changes, in their order and on their device."""
    places, at = dict[str, torch.Tensor](), 0
    values = torch.from_numpy(np.ascontiguousarray(vector))
    for name, tensor in _float_tensors(module):
        places[name] = values[at : at + tensor.numel()].reshape(tensor.shape).to(tensor.device)
        at += tensor.numel()
    return [places[name] for name, parameter in module.named_parameters() if parameter.requires_grad]


def statistics(module: nn.Module) -> npt.NDArray[np.bool_]:
    """Which values of the flat vector are statistics: no parameters."""
    return np.concatenate([np.full(tensor.size, tensor.statistic) for tensor in layout(module)])


def load_vector(module: nn.Module, vector: Vector) -> None:
    """Copy the flat float32 `vector` into the module's float tensors; its length must be theirs."""
    values = torch.from_numpy(np.ascontiguousarray(vector))
    at = 0
    for _, tensor in _float_tensors(module):
        # The tensors of state_dict share memory with the module's own.
        tensor.copy_(values[at : at + tensor.numel()].reshape(tensor.shape))
        at += tensor.numel()
    if at != len(vector):
        raise TrainerError("model", f"a vector of {len(vector)} values for a model of {at}")


def _float_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            yield name, tensor
