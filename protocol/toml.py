"""Strict TOML: text in, a checked msgspec struct out, or one line that says which key is wrong and how to
mend it.

Pure: callers read and write the files. Charter and node configuration are both decoded here, so that a
mistyped key is explained in the same words everywhere.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import TypeVar

import msgspec
from msgspec import inspect

from folkmoot.protocol.allowed import describe_allowed
from folkmoot.protocol.errors import FolkmootError

T = TypeVar("T", bound=msgspec.Struct)

_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<key>.+)`$")

_SHOWN = 40
_MAX_PARTS = 16
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+"""
_LONG_KEY = re.compile(rf"(?<![\w-])(?:{_PART}){{{_MAX_PARTS}}}", re.ASCII)
"""tomllib takes minutes for a key of a hundred thousand parts."""


class ConfigError(FolkmootError):
    """A file that the operator wrote cannot be used as it stands; the message names file, key and remedy."""

    exit_code = 2


def decode_toml(text: str, kind: type[T], source: str) -> T:
    """Decode TOML `text` into the struct `kind`; `source` (a file name) only appears in messages.

    Raises `ConfigError` for bad syntax (with the line), and, with the dotted path of the key, for an unknown
    key (with the nearest known one), a missing key and a value of the wrong type or out of bounds.
    """
    if _LONG_KEY.search(text):
        raise ConfigError(f"{source}: a key of more than {_MAX_PARTS} parts with dots between them")
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # tomllib's own, numbers of thousands of digits, nesting
        raise ConfigError(f"{source}: not valid TOML: {error}") from error
    return convert_table(table, kind, source)


def convert_table(table: Mapping[str, object], kind: type[T], source: str) -> T:
    """The struct `kind` from a table; raises `ConfigError` as `decode_toml`, `source` begins the message."""
    # Before msgspec, to which a typo in a required key would be a missing key.
    for path, known in _unknown_keys(table, inspect.type_info(kind), ""):
        raise ConfigError(f"{source}: unknown key '{path}'; {_suggestion(path, known)}")
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {_explain(str(error), table, kind)}") from error


def toml_value(value: str | bool | int | float | Sequence[str] | Sequence[int]) -> str:
    """`value` as TOML writes it (strings quoted and escaped), for code that renders a TOML file."""
    if isinstance(value, str):
        # A JSON string is a TOML basic string, except that TOML escapes DEL and JSON does not.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return "[" + ", ".join(toml_value(item) for item in value) + "]"


def _unknown_keys(value: object, node: inspect.Type, path: str) -> Iterator[tuple[str, list[str]]]:
    """Each key of `value` that no struct of `node` has, as its dotted path, with the names known there."""
    if isinstance(node, inspect.Metadata):
        yield from _unknown_keys(value, node.type, path)
    elif isinstance(node, inspect.StructType) and isinstance(value, dict):
        fields = {field.encode_name: field.type for field in node.fields}
        for key, item in value.items():
            here = f"{path}.{key}" if path else key
            if key in fields:
                yield from _unknown_keys(item, fields[key], here)
            else:
                yield here, sorted(fields)
    elif isinstance(node, inspect.UnionType):
        structs = [option for option in node.types if isinstance(option, inspect.StructType)]
        if len(structs) == 1:  # an optional table; of tagged tables msgspec itself picks the one to check
            yield from _unknown_keys(value, structs[0], path)
    elif isinstance(node, inspect.ListType | inspect.VarTupleType) and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown_keys(item, node.item_type, f"{path}[{index}]")


def _suggestion(path: str, known: Sequence[str]) -> str:
    key = path.rpartition(".")[2]
    nearest = get_close_matches(key, known, n=1)
    return f"did you mean '{nearest[0]}'?" if nearest else f"known keys here: {', '.join(known)}"


def _explain(message: str, table: Mapping[str, object], kind: type[msgspec.Struct]) -> str:
    """msgspec's message ("Expected `str`, got `int` - at `$.name`") with the key in front, and what may stand there."""
    found = _AT.match(message)
    assert found is not None  # the pattern matches every string
    what, path = found["what"], found["path"] or ""
    missing = _MISSING.match(what)
    if missing:
        return f"'{path + '.' if path else ''}{missing['key']}' is missing: add it"
    if allowed := describe_allowed(kind, path):
        return f"'{path}': must be {allowed}{_found(table, path)}"
    return f"'{path}': {what[:1].lower()}{what[1:].replace('`', '')}"


def _found(table: Mapping[str, object], path: str) -> str:
    """What stands there instead, where that is one short value."""
    value: object = table
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return f", not {json.dumps(value)[:_SHOWN]}" if isinstance(value, str | bool | int | float) else ""
