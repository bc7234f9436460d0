"""Changes to nested values: flipped bits hardly ever leave MessagePack or JSON readable, and so get nowhere.

One place of the value is changed: a number into one at the edge of what fits, a text or a list shorter, longer, doubled
or taken from elsewhere in the same value.
"""

import math
import random
from collections.abc import Callable
from typing import Any

import msgspec

NUMBERS = [0, 1, -1, 2, 63, 64, 255, 256, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1]
FLOATS = [0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1e308]
LONG = 2000

Path = tuple[Any, ...]


def mutated(data: bytes, rng: random.Random) -> bytes | None:
    """`data` with one value in it changed; None if it is neither MessagePack nor JSON, with or without a first byte."""
    for skip in (0, 1):
        for decode, encode in _FORMATS:
            try:
                value = decode(data[skip:])
                if isinstance(value, list | dict):
                    return data[:skip] + encode(change(value, rng))
            except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError, ValueError):
                continue
    return None


_FORMATS: list[tuple[Callable[[bytes], Any], Callable[[Any], bytes]]] = [
    (msgspec.msgpack.decode, msgspec.msgpack.encode),
    (msgspec.json.decode, msgspec.json.encode),
]


def change(value: Any, rng: random.Random) -> Any:
    """A copy of `value` that differs in one place."""
    places = _places(value)
    path = rng.choice(places)
    inside = _at(value, path)
    if rng.random() < 0.3:
        return _replaced(value, path, _at(value, rng.choice(places)))
    return _replaced(value, path, _other(inside, rng))


def _other(value: Any, rng: random.Random) -> Any:
    match value:
        case bool() | None:
            return rng.choice([True, False, None, 0])
        case int():
            return rng.choice([*NUMBERS, value + 1, value - 1, str(value)])
        case float():
            return rng.choice([*FLOATS, -value, 0])
        case str():
            # A text may hold a file of its own.
            other = _other_sequence(value, rng)
            return rng.choice([other, value.upper(), "\0", "é" * 3, "1e999", "-0"])
        case bytes():
            return _flipped(value, rng) if value and rng.random() < 0.5 else _other_sequence(value, rng)
        case list():
            return [*_other_sequence(value, rng)]
        case dict():
            return {key: inside for key, inside in value.items() if rng.random() < 0.8}
    return value


def _other_sequence(value: Any, rng: random.Random) -> Any:
    at = rng.randint(0, len(value))
    match rng.randint(0, 4):
        case 0:
            return value[:at]
        case 1:
            return value[:at] + value[at + 1 :]
        case 2:
            return value[:at] + value[at : at + 1] + value[at:]
        case 3:
            return value * rng.choice([2, 3, max(1, LONG // max(1, len(value)))])
        case _:
            return value[::-1]


def _flipped(value: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(value))
    return value[:at] + bytes([value[at] ^ 1 << rng.randrange(8)]) + value[at + 1 :]


def _places(value: Any, path: Path = ()) -> list[Path]:
    inside: Any = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    return [path, *(place for key, each in inside for place in _places(each, (*path, key)))]


def _at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


def _replaced(value: Any, path: Path, other: Any) -> Any:
    if not path:
        return other
    key, *rest = path
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = _replaced(value[key], tuple(rest), other)
    return copy
