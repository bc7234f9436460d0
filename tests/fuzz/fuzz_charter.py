"""Charters: the canonical bytes that members fetch from each other, and TOML as people write it."""

from fuzzing import Target
from msgspec.structs import replace

from folkmoot.node.charter_files import render_charter
from folkmoot.protocol.charter import Charter, verify_charter
from folkmoot.protocol.charter_rules import decode_charter, parse_charter
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.schema import Column, Schema
from folkmoot.protocol.toml import ConfigError
from folkmoot.testnet.simulation.node import simulated_charter


def read(data: bytes) -> None:
    """Text if it begins with a `#`."""
    if data[:1] == b"#":
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return
        charter = parse_charter(text)
    else:
        charter = decode_charter(data)
        assert charter.encoded == data
    _use(charter)


def _use(charter: Charter) -> None:
    """What is first done with a charter that reads well."""
    assert charter.quorum <= len(charter.members) and sum(charter.group_sizes) == len(charter.members)
    assert charter.model.parameters >= 1
    assert parse_charter(render_charter(charter)) == charter
    verify_charter(charter, {member.name: bytes(64) for member in charter.members})


def _with_data() -> Charter:
    """Learns from declared columns, with a model of the member's own making."""
    made = simulated_charter(4, 3, secure=True, group_size=4)
    columns = (
        Column(name="age", kind="number", center="40", scale="1e1", missing="indicate"),
        Column(name="plan", kind="category", categories=("a", "b"), other=True),
    )
    data = Schema(task="multiclass", target="left", classes=("x", "y", "z"), columns=columns)
    model = replace(made.model, kind="custom", layers=(5, 3), source="own:make", source_digest="11" * 32)
    return replace(made, model=model, data=data)


def seeds() -> list[bytes]:
    """Open and secure ones, with and without a data schema, in both forms."""
    charters = [simulated_charter(4, 3), simulated_charter(7, 3, secure=True), _with_data()]
    texts = (b"#\n" + render_charter(one).encode() for one in charters)
    return [*(one.encoded for one in charters), *texts]


TARGET = Target("charter", read, (CharterError, ConfigError), seeds, max_bytes=8192)
