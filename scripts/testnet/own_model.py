"""A testnet with the user's own model: every node gets a copy of its source, as members would."""

from pathlib import Path
from shutil import copyfile
from typing import Any

from folkmoot.node.train.source import find_source, search_path, source_digest
from folkmoot.protocol.toml import ConfigError
from folkmoot.testnet.examples import Learnable
from folkmoot.testnet.home import OwnModel, Plan

CHANNELS = (16, 32)
"""Of a cnn's convolutions."""


def find_model(source: str, folder: Path) -> OwnModel:
    """Where `source` (module:function) lies: in `folder` or on PYTHONPATH. Raises `ConfigError`."""
    return OwnModel(source=source, file=str(find_source(source, search_path(folder))))


def architecture(plan: Plan, example: Learnable) -> dict[str, Any]:
    """What the charter says of the model, besides its weights; raises `ConfigError` for a cnn on what is no image."""
    if plan.kind == "cnn":
        image = example.image
        if not image:
            raise ConfigError(f"--model cnn: the rows of {example.name!r} are no images")
        return {
            "kind": "cnn",
            "layers": (example.layers[0], *CHANNELS, example.layers[-1]),
            "image": image,
        }
    if plan.model is None:
        return {"kind": example.kind, "layers": example.layers}
    return {
        "kind": "custom",
        "layers": (example.layers[0], example.layers[-1]),
        "source": plan.model.source,
        "source_digest": source_digest(Path(plan.model.file)),
    }


def place_source(model: OwnModel, folder: Path) -> None:
    """Copy the source to where a node with `trainer.path` = `folder` finds it."""
    file = Path(model.file)
    module = Path(*model.source.partition(":")[0].split("."))
    place = folder / (module / file.name if file.name == "__init__.py" else module.with_suffix(".py"))
    place.parent.mkdir(parents=True)
    copyfile(file, place)
