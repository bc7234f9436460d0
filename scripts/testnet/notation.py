"""How the specification writes down a msgspec struct: names, types with their bounds, defaults."""

import json

import msgspec
from msgspec import inspect


def array_of(kind: type[msgspec.Struct]) -> str:
    """A struct that travels as an array: its tag and items."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    tag = [] if info.tag is None else [f'"{info.tag}"']
    items = tag + [f"{field.name} {_type(field.type)}" for field in info.fields]
    return _wrapped(f"{kind.__name__:<12} = [", items, "]")


def table_of(kind: type[msgspec.Struct]) -> str:
    """A struct that is written as a table: a line for each field, with its default."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    lines = [f"{kind.__name__} = {{"]
    for field in info.fields:
        default = "" if field.default is msgspec.NODEFAULT else f"   (default {_default(field.default)})"
        lines.append(f"  {field.name:<13} {_type(field.type)}{default}")
    return "\n".join([*lines, "}"])


def _default(value: object) -> str:
    return "all defaults" if isinstance(value, msgspec.Struct) else json.dumps(value)


def _type(node: inspect.Type) -> str:
    match node:
        case inspect.Metadata(type=inner):
            return _type(inner)
        case inspect.BytesType(min_length=low, max_length=high):
            return f"bytes{low}" if low is not None and low == high else f"bytes{_at_most(high)}"
        case inspect.StrType(pattern=pattern, max_length=high):
            return f"str{_at_most(high)}" if pattern is None else f"str {pattern}"
        case inspect.IntType() | inspect.FloatType():
            return _number(node)
        case inspect.TupleType(item_types=items):
            return f"[{', '.join(map(_type, items))}]"
        case inspect.VarTupleType(item_type=item, max_length=high):
            return f"[{_type(item)}, ...{_at_most(high)}]"
        case inspect.LiteralType(values=values):
            return " | ".join(json.dumps(value) for value in values)
        case inspect.UnionType(types=options):
            structs = [option for option in options if isinstance(option, inspect.StructType)]
            return "Body" if len(structs) > 1 else " or ".join(_type(option) for option in options)
        case inspect.NoneType():
            return "nil"
        case inspect.BoolType():
            return "bool"
        case inspect.StructType(cls=cls):
            return cls.__name__
    raise TypeError(f"no notation for {node}")


def _number(node: inspect.IntType | inspect.FloatType) -> str:
    if isinstance(node, inspect.IntType) and node.ge == 0:
        for bits in (31, 32, 63, 64):
            if node.lt == 2**bits or node.le == 2**bits - 1:
                return f"uint{bits}"
    name = "int" if isinstance(node, inspect.IntType) else "float64"
    low = f"{node.ge:g} <= " if node.ge is not None else f"{node.gt:g} < " if node.gt is not None else ""
    high = "" if node.le is None else f" <= {_power(node.le)}"
    return f"{low}{name}{high}"


def _power(value: float) -> str:
    power = int(value + 1).bit_length() - 1
    return f"2^{power}-1" if power >= 16 and value == 2**power - 1 else f"{value:g}"


def _at_most(count: int | None) -> str:
    return "" if count is None else f" <= {count}"


def _wrapped(start: str, items: list[str], end: str) -> str:
    lines, indent = [start], " " * len(start)
    for place, item in enumerate(items):
        text = item + (end if place == len(items) - 1 else ",")
        if lines[-1].strip() != start.strip() and len(lines[-1]) + len(text) > 104:
            lines.append(indent + text)
        else:
            lines[-1] += ("" if lines[-1] == start else " ") + text
    return "\n".join(lines)
