"""The one encoding of signed terms that a digest is over.

What a charter does not say is not in it: a field that stands at its default is left out. So a later version may add a
field, and the digest of every charter that was signed before stays what it was.
"""

import msgspec


def encode_terms(terms: msgspec.Struct) -> bytes:
    """The msgpack encoding of `terms` as nested maps, fields in their order, those left out that have their default."""
    return msgspec.msgpack.encode(_said(terms))


def _said(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        names, defaults = value.__struct_fields__, value.__struct_defaults__
        required = [msgspec.NODEFAULT] * (len(names) - len(defaults))
        pairs = zip(names, (*required, *defaults), strict=True)
        return {name: _said(said) for name, default in pairs if (said := getattr(value, name)) != default}
    if isinstance(value, tuple):
        return [_said(entry) for entry in value]
    return value
