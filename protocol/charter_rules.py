"""Reading a charter, and the rules that its tables must keep among each other."""

import msgspec

from folkmoot.protocol.charter import Charter, crowd, max_faults, quorum, shares_to_open
from folkmoot.protocol.charter_options import check_options
from folkmoot.protocol.charter_tables import (
    MAX_ATTESTERS,
    MAX_MEMBERS,
    MAX_ON_8_BITS,
    MAX_SUMMED,
    MIN_GROUP,
    READY_SIZE,
    Model,
    Secrecy,
)
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.messages import MAX_FRAME
from folkmoot.protocol.schema import Schema, check_schema
from folkmoot.protocol.toml import decode_toml


def parse_charter(text: str, source: str = "charter.toml") -> Charter:
    """Read a charter from TOML text; raises `CharterError` (or `ConfigError` for an unknown key) naming `source`."""
    charter = decode_toml(text, Charter, source)
    check_charter(charter, source)
    return charter


def decode_charter(data: bytes, source: str = "charter") -> Charter:
    """Strictly read a charter's canonical bytes; raises `CharterError`."""
    try:
        charter = msgspec.msgpack.decode(data, type=Charter)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CharterError(f"{source}: not a charter: {error}") from error
    if charter.encoded != data:
        raise CharterError(f"{source}: a charter that is not in canonical form")
    check_charter(charter, source)
    return charter


def check_charter(charter: Charter, source: str = "charter") -> None:
    """Raise `CharterError` where the tables contradict each other or themselves."""
    for what in ("name", "peer_id", "identity_key", "sealing_key", "audit_key"):
        values = [getattr(member, what) for member in charter.members]
        if len(set(values)) != len(values):
            raise CharterError(f"{source}: two members share one {what}; every member needs its own")
    if not 1 <= len(charter.members) <= MAX_MEMBERS:
        raise CharterError(f"{source}: {len(charter.members)} members; a federation has 1 to {MAX_MEMBERS}")
    if not 1 <= len(charter.attesters) <= MAX_ATTESTERS:
        raise CharterError(
            f"{source}: {len(charter.attesters)} attesters; the contract takes 1 to {MAX_ATTESTERS}: set "
            "attester = false for the other members"
        )
    names = [tensor.name for tensor in charter.model.tensors]
    if not names or len(set(names)) != len(names):
        raise CharterError(f"{source}: model.tensors must name each tensor once, and at least one")
    _check_model(charter.model, source)
    _check_parts(charter.model, source)
    if charter.data is not None:
        _check_data(charter.data, charter.model, source)
    if charter.averaging.exponent_min > charter.averaging.exponent_max:
        raise CharterError(f"{source}: averaging.exponent_min is above exponent_max")
    if charter.schedule.grace_min > charter.schedule.grace_max:
        raise CharterError(f"{source}: schedule.grace_min is above grace_max")
    if charter.schedule.attempt_min > charter.schedule.attempt_max:
        raise CharterError(f"{source}: schedule.attempt_min is above attempt_max")
    if charter.ledger.cadence > charter.schedule.max_ahead:
        raise CharterError(
            f"{source}: ledger.cadence = {charter.ledger.cadence}, but rounds wait when more than schedule.max_ahead = "
            f"{charter.schedule.max_ahead} of them are not on the ledger; it must be at least the cadence"
        )
    check_options(charter, source)
    _check_sizes(charter, source)
    if charter.is_secure:
        _check_secrecy(charter, source)


def _check_secrecy(charter: Charter, source: str) -> None:
    members, secrecy = len(charter.members), charter.secrecy
    if members < MIN_GROUP:
        raise CharterError(
            f"{source}: {members} members in secure mode, which takes {MIN_GROUP} or more (of two each would know the "
            "other's update): set averaging.mode = 'open'"
        )
    if secrecy.ring == 8 and members > MAX_ON_8_BITS:
        raise CharterError(
            f"{source}: secrecy.ring = 8 has room for the sums of {MAX_ON_8_BITS} members, not of {members}: "
            "set it to 16 or 32"
        )
    for size in sorted(set(charter.group_sizes)):
        _check_group(size, secrecy, source)


def _check_group(size: int, secrecy: Secrecy, source: str) -> None:
    if size < MIN_GROUP:
        raise CharterError(
            f"{source}: secrecy.group_size = {secrecy.group_size}: of two each would know the other's update; the "
            f"smallest group has {MIN_GROUP} members"
        )
    needed = max(quorum(size), crowd(size, secrecy.k_min))
    if not 3 <= needed <= size:
        raise CharterError(
            f"{source}: secrecy.k_min = {secrecy.k_min}: a sum needs 3 survivors or more to hide anybody, and "
            f"a group has {size} members"
        )
    least, threshold = max(2, max_faults(size) + 1), shares_to_open(size, secrecy.threshold)
    if not least <= threshold <= quorum(size):
        raise CharterError(
            f"{source}: secrecy.threshold = {threshold}: in a group of {size} it must be at least {least} (or "
            f"colluders could unmask) and at most the quorum {quorum(size)} (or nobody could)"
        )


def _check_sizes(charter: Charter, source: str) -> None:
    """Sums must fit the ring, and a roster with everybody's READY one frame."""
    members, tensors = len(charter.members), len(charter.update_sizes)
    if members > MAX_SUMMED and not charter.is_secure:
        raise CharterError(
            f"{source}: {members} members are too many for exact sums in open mode, which has room for {MAX_SUMMED}"
        )
    roster = members * (READY_SIZE + tensors) + tensors
    if roster > MAX_FRAME:
        raise CharterError(
            f"{source}: a roster of {members} members and {tensors} tensors takes up to {roster} bytes, the limit of a "
            f"message is {MAX_FRAME}: join small tensors, or found smaller federations"
        )


def _check_model(model: Model, source: str) -> None:
    if model.kind == "custom" and not (model.source and model.source_digest):
        raise CharterError(f"{source}: a custom model needs model.source and model.source_digest")
    if model.kind != "custom" and (model.source or model.source_digest):
        raise CharterError(f"{source}: model.source is for model.kind = 'custom'; this one is {model.kind!r}")
    if model.kind not in ("mlp", "cnn") and len(model.layers) != 2:
        raise CharterError(
            f"{source}: model.layers = {list(model.layers)}: a {model.kind} model has inputs and outputs only"
        )
    if len(model.image) != (3 if model.kind == "cnn" else 0):
        raise CharterError(
            f"{source}: model.image = {list(model.image)} for a {model.kind} model: a cnn's rows are images, and it "
            "needs their [height, width, channels]; no other kind does"
        )
    if model.image:
        _check_image(model, source)


def _check_parts(model: Model, source: str) -> None:
    if not model.shared:
        raise CharterError(
            f"{source}: no tensor in model.tensors is shared: there would be nothing to average"
        )
    parts = {tensor.part for tensor in model.tensors}
    for part, name in (("personal", "personal_start"), ("frozen", "frozen_values")):
        if (part in parts) != bool(getattr(model, name)):
            raise CharterError(
                f"{source}: model.{name} belongs to a model with {part} tensors, and to no other: draft it with "
                "'folkmoot charter new'"
            )


def _check_image(model: Model, source: str) -> None:
    height, width, channels = model.image
    if height * width * channels != model.features:
        raise CharterError(
            f"{source}: model.image = {list(model.image)} has {height * width * channels} values, but model.layers "
            f"begins with {model.features}"
        )
    # Each convolution is followed by a pooling that halves both sides.
    convolutions = len(model.layers) - 2
    if not 1 <= convolutions < min(height, width).bit_length():
        raise CharterError(
            f"{source}: model.layers = {list(model.layers)} for images of {height} x {width}: between inputs and "
            "outputs a cnn has a convolution or more, each of which halves the sides: here at most "
            f"{min(height, width).bit_length() - 1}"
        )


def _check_data(schema: Schema, model: Model, source: str) -> None:
    check_schema(schema, source)
    # One output is enough for two classes: the log odds of the second.
    fits = model.outputs == schema.outputs or (schema.task, model.outputs) == ("binary", 1)
    if model.features != schema.features or not fits:
        raise CharterError(
            f"{source}: model.layers begins with {model.features} and ends with {model.outputs}, but the data schema "
            f"gives {schema.features} inputs and asks for {schema.outputs} outputs"
        )
