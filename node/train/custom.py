"""A model of the member's own: the function that its charter names, run from exactly the bytes that were agreed on."""

import inspect
import sys
import traceback
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
from torch import nn

from folkmoot.node.train.wire import TrainerError


class CustomSource(msgspec.Struct, frozen=True):
    """Where a custom model comes from: `name` is module:function, `digest` the file's SHA-256, empty if any will do."""

    name: str
    file: Path
    digest: str = ""


def build_custom(source: CustomSource, features: int, outputs: int) -> nn.Module:
    """Call the function; it gets `features` and `outputs` by name, as far as it takes them.

    Raises `TrainerError` where the source is another, cannot be run or gives no module.
    """
    function = _load(source)
    sizes = {"features": features, "outputs": outputs}
    try:
        taken = inspect.signature(function).parameters
        takes_all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken.values())
        module = function(**{name: size for name, size in sizes.items() if takes_all or name in taken})
    except Exception as error:
        raise _failed(source, error) from error
    if not isinstance(module, nn.Module):
        raise TrainerError("model", f"{source.name} gave a {type(module).__name__}, not a torch.nn.Module")
    return module


def _load(source: CustomSource) -> Callable[..., Any]:
    """The function itself, from a module made anew: no cached byte code, and no module of the same name."""
    name, _, function = source.name.partition(":")
    try:
        text = source.file.read_bytes()
    except OSError as error:
        raise TrainerError("model", f"{source.file}: cannot be read: {error.strerror}") from error
    found = sha256(text).hexdigest()
    if source.digest and found != source.digest:
        raise TrainerError(
            "model",
            f"{source.file}: its SHA-256 is {found}, the charter says {source.digest} for {source.name}",
        )
    module = ModuleType(name)
    module.__file__ = str(source.file)
    sys.modules[name] = module  # dataclasses, among others, look their module up
    try:
        exec(compile(text, str(source.file), "exec", dont_inherit=True), module.__dict__)
    except Exception as error:
        raise _failed(source, error) from error
    maker: Callable[..., Any] | None = getattr(module, function, None)
    if not callable(maker):
        raise TrainerError("model", f"{source.file} has no function {function!r}")
    return maker


def _failed(source: CustomSource, error: Exception) -> TrainerError:
    traceback.print_exception(error)
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return TrainerError("model", f"{source.name} in {source.file} failed: {text}")
