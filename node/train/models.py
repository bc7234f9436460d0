"""The architectures that a charter can name, and their flat vectors.

A vector holds the float tensors of `state_dict`, in its order, each flattened; integer buffers stay local.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from folkmoot.node.train.vectors import Vector
from folkmoot.node.train.wire import TrainerError
from folkmoot.protocol.charter import Model, Tensor


def build(kind: str, layers: Sequence[int]) -> nn.Module:
    """A module of the charter's `kind` and `layers` (widths, from inputs to classes).

    `mlp` has a ReLU between layers; `logistic` is one layer without hidden ones. Raises `TrainerError`.
    """
    if len(layers) < 2:
        raise TrainerError(
            "model", f"model.layers = {list(layers)}: give at least the inputs and the classes"
        )
    if kind == "logistic" and len(layers) != 2:
        raise TrainerError(
            "model", f"model.layers = {list(layers)}: a logistic model has inputs and classes only"
        )
    if kind not in ("mlp", "logistic"):
        raise TrainerError(
            "model", f"model.kind = {kind!r} is not known here; known are 'mlp' and 'logistic'"
        )
    stack: list[nn.Module] = [nn.Linear(layers[0], layers[1])]
    for inputs, outputs in pairwise(layers[1:]):
        stack += [nn.ReLU(), nn.Linear(inputs, outputs)]
    return nn.Sequential(*stack)


def build_charter_model(model: Model) -> nn.Module:
    """The charter's module; raises `TrainerError` where its tensors are not those of the charter's layout."""
    module = build(model.kind, model.layers)
    mine = layout(module)
    for index, (have, want) in enumerate(zip(mine, model.tensors, strict=False)):
        if have != want:
            raise TrainerError(
                "model",
                f"tensor {index} is {have.name} {list(have.shape)} here, but the charter says {want.name} "
                f"{list(want.shape)}; model.tensors must follow the state_dict of the model",
            )
    if len(mine) != len(model.tensors):
        raise TrainerError(
            "model", f"the model has {len(mine)} float tensors, but the charter lays out {len(model.tensors)}"
        )
    return module


def initial_vector(kind: str, layers: Sequence[int], seed: int) -> Vector:
    """Starting weights, drawn by torch's own initialisation from `seed`; flat float32, shape (P,)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return to_vector(build(kind, layers))


def layout(module: nn.Module) -> tuple[Tensor, ...]:
    """Name and shape of each float tensor, in vector order."""
    return tuple(Tensor(name=name, shape=tuple(tensor.shape)) for name, tensor in _float_tensors(module))


def to_vector(module: nn.Module) -> Vector:
    """A copy of the module's float tensors as one flat float32 vector."""
    pieces = [tensor.detach().to(torch.float32).reshape(-1) for _, tensor in _float_tensors(module)]
    vector: Vector = torch.cat(pieces).numpy()
    return vector


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
