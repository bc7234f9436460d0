"""What may stand in a place of a configuration, in words, from the types of the struct that it is read into."""

import re

import msgspec
from msgspec import inspect

_NO_BOUND = 2**31 - 1
_PLACE = re.compile(r"[^.\[\]]+")


def describe_allowed(kind: type[msgspec.Struct], path: str) -> str:
    """What may stand at the dotted `path` in a `kind`; empty if the types do not say it."""
    node = inspect.type_info(kind)
    for name in _PLACE.findall(path):
        inner = _step(node, name)
        if inner is None:
            return ""
        node = inner
    return _words(node)


def _step(node: inspect.Type, name: str) -> inspect.Type | None:
    """The type of what is called `name`, or stands at that place of a list, in a `node`."""
    plain = _plain(node)
    if isinstance(plain, inspect.StructType):
        return next((field.type for field in plain.fields if field.encode_name == name), None)
    return plain.item_type if isinstance(plain, inspect.ListType | inspect.VarTupleType) else None


def _plain(node: inspect.Type) -> inspect.Type:
    """Without what is said about it, and without the None of what may be left out."""
    if isinstance(node, inspect.Metadata):
        return _plain(node.type)
    if isinstance(node, inspect.UnionType):
        others = [option for option in node.types if not isinstance(option, inspect.NoneType)]
        return _plain(others[0]) if len(others) == 1 else node
    return node


def _words(node: inspect.Type) -> str:
    if isinstance(node, inspect.Metadata) and "description" in (node.extra_json_schema or {}):
        return str((node.extra_json_schema or {})["description"])
    match _plain(node):
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(map(str, values))}"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() as number:
            return "a whole number" + _range(number)
        case inspect.FloatType() as number:
            return "a number" + _range(number)
        case inspect.StrType(pattern=None):
            return "text"
        case inspect.StructType(fields=fields):
            return f"a table of {', '.join(field.encode_name for field in fields)}"
        case (
            inspect.ListType(item_type=item, min_length=least)
            | inspect.VarTupleType(item_type=item, min_length=least)
        ):
            inner, length = _words(item), f" of at least {least}" if least else ""
            return f"a list{length}" + (f", each {inner}" if inner else "")
    return ""


def _range(number: inspect.IntType | inspect.FloatType) -> str:
    """The bounds, without those that are only there to fit 32 bits."""
    low = number.ge if number.ge is not None else number.gt
    high = number.le if number.le is not None else number.lt
    if high is not None and high >= _NO_BOUND:
        high = None
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    if low is not None:
        return f" {'above' if number.ge is None else 'of at least'} {low:g}"
    return f" {'below' if number.le is None else 'of at most'} {high:g}" if high is not None else ""
