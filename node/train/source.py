"""Where a custom model's source lies, and whether it is the one that the charter names. Nothing is imported here.

A model is one file: only what is in it is covered by the charter's digest. It may import installed packages.
"""

import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from folkmoot.protocol.charter_tables import Model
from folkmoot.protocol.toml import ConfigError


def search_path(own: Path) -> list[Path]:
    """The folders searched for a model's module: `own`, then PYTHONPATH and the installed packages."""
    return [own, *(Path(entry) for entry in sys.path if entry)]


def find_source(source: str, folders: Sequence[Path]) -> Path:
    """The file of the module in `source` (module:function); raises `ConfigError` naming the folders searched."""
    module, _, function = source.partition(":")
    if not function or not all(part.isidentifier() for part in [*module.split("."), function]):
        raise ConfigError(f"model source {source!r}: write module:function")
    stem = Path(*module.split("."))
    for folder in folders:
        for path in (folder / stem.with_suffix(".py"), folder / stem / "__init__.py"):
            if path.is_file():
                return path.absolute()
    searched = ", ".join(str(folder) for folder in folders if folder.is_dir()) or folders[0]
    raise ConfigError(
        f"model source {source!r}: no {stem.with_suffix('.py')} in {searched}: put the file into {folders[0]}"
    )


def source_digest(path: Path) -> str:
    """SHA-256 of the file in hex, as `sha256sum` prints it; raises `ConfigError`."""
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def locate_source(model: Model, own: Path) -> str:
    """The file of a custom model, empty for built-in ones; raises `ConfigError` if it is not the charter's."""
    if model.kind != "custom":
        return ""
    path = find_source(model.source, search_path(own))
    found = source_digest(path)
    if found != model.source_digest:
        raise ConfigError(
            f"{path}: not the source of the charter's model {model.source!r}: its SHA-256 is {found}, the charter "
            f"says {model.source_digest}: get the file that all members agreed on"
        )
    return str(path)
