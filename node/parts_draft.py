"""Which of a model's tensors travel: patterns of a draft, and what they come to.

Patterns are matched here alone, on the drafter's machine: the charter that is signed holds what they came to.
"""

import re
from collections.abc import Sequence

import msgspec

from folkmoot.protocol.charter_tables import Part, Tensor
from folkmoot.protocol.errors import CharterError

MAX_PATTERN = 500
"""Characters of a pattern."""

_SHOWN = 5


def assign_parts(tensors: Sequence[Tensor], shared: str = "", frozen: str = "") -> tuple[Tensor, ...]:
    """The tensors with their parts, by regular expressions that match whole names; empty: no such wish.

    `frozen` ones never change; of the others `shared` ones travel, the rest are personal. Raises `CharterError` for a
    pattern that is none, or that chooses nothing or everything.
    """
    is_frozen, is_shared = _matches("frozen", frozen, tensors), _matches("shared", shared, tensors)
    both = [tensor.name for tensor in tensors if tensor.name in is_frozen & is_shared]
    if both:
        raise CharterError(
            f"model.frozen and model.shared both match {both[0]!r}: what is frozen does not travel, so let "
            "model.shared match none of it"
        )

    def part(name: str) -> Part:
        if name in is_frozen:
            return "frozen"
        return "shared" if not shared or name in is_shared else "personal"

    return tuple(msgspec.structs.replace(tensor, part=part(tensor.name)) for tensor in tensors)


def _matches(key: str, pattern: str, tensors: Sequence[Tensor]) -> set[str]:
    """The names that a pattern matches."""
    if not pattern:
        return set()
    if len(pattern) > MAX_PATTERN:
        raise CharterError(f"model.{key}: a pattern of {len(pattern)} characters; at most {MAX_PATTERN}")
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise CharterError(f"model.{key} = {pattern!r}: not a regular expression: {error}") from error
    found = {tensor.name for tensor in tensors if expression.fullmatch(tensor.name)}
    if len(found) in (0, len(tensors)):
        what = "no tensor" if not found else "every tensor"
        raise CharterError(
            f"model.{key} = {pattern!r} matches {what} of the model (whole names count): they are "
            f"{_named([tensor.name for tensor in tensors])}"
        )
    return found


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
