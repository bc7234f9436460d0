"""Read an operator's TOML file into a struct, strictly."""

from pathlib import Path
from typing import TypeVar

import msgspec

from folkmoot.protocol.toml import ConfigError, decode_toml

T = TypeVar("T", bound=msgspec.Struct)

MAX_FILE = 1 << 22
"""Bytes above which a file is surely not a configuration."""


def load(path: Path, kind: type[T]) -> T:
    """The struct `kind` from the TOML file at `path`.

    Raises `ConfigError` (exit code 2) naming the file and what is wrong with it; see `decode_toml` for the
    checks.
    """
    try:
        if path.stat().st_size > MAX_FILE:
            raise ConfigError(f"{path}: larger than {MAX_FILE} bytes: not a configuration file")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file: run 'folkmoot init' or give the right --home") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    return decode_toml(text, kind, str(path))
