"""A model taken out of its federation: safetensors, with everything in the metadata that using and checking it needs.

The tensors bear the charter's names. The metadata is text: `architecture`, `schema`, `classes` and `scaling` are JSON,
digests are hex. `classes` and `scaling` repeat parts of the schema for those who read nothing else.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from folkmoot.protocol.blob import Rest, ref_of, rest_of, root_with
from folkmoot.protocol.charter import Charter
from folkmoot.protocol.charter_tables import Model, Part, Tensor
from folkmoot.protocol.errors import CharterError, FolkmootError
from folkmoot.protocol.outer import Start
from folkmoot.protocol.parts import Parts
from folkmoot.protocol.ring import Float32s
from folkmoot.protocol.schema import Schema

FORMAT = "folkmoot/v1/model"


class ModelFileError(FolkmootError):
    """A model file that cannot be written or read, or is not one; the message names it."""

    exit_code = 2


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """What a model file says of itself. Digests in hex; `statement` is what the ledger records of the round."""

    name: str
    federation: str
    charter: str
    round: int
    model: str
    statement: str
    architecture: Model
    data: Schema | None = None
    rest: Rest = Rest()
    """What the outer rule remembers beside the weights, as far as the digest `model` needs it."""
    member: str = ""
    """Whose personal tensors are in the file, which no digest covers; empty if the model has none."""
    member_round: int = 0
    """The round that those are from; 0: they are as they began."""


def write_model(
    path: Path, card: ModelCard, snapshot: Float32s, others: Mapping[Part, Float32s] | None = None
) -> None:
    """Replace the file at `path`, whole, by the model in the flat `snapshot`; raises `ModelFileError`.

    `others` are the vectors of its personal and frozen tensors, if it has such.
    """
    flat, shared = snapshot.astype("<f4", copy=False), card.architecture.shared_values
    card = msgspec.structs.replace(card, rest=rest_of(flat.data, 4 * shared))
    whole = Parts(card.architecture.tensors).join({"shared": flat[:shared], **(others or {})})
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_bytes(safetensors.numpy.save(name_tensors(whole, card.architecture), _metadata(card)))
        partial.replace(path)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be written: {error.strerror}") from error


def as_own_model(card: ModelCard, whole: Float32s, member: str) -> ModelCard:
    """The card of a model that a member trained for itself: what its round's card says but for the weights.

    No statement is on them.
    """
    shared = Parts(card.architecture.tensors).take(whole.astype("<f4", copy=False), "shared")
    return msgspec.structs.replace(
        card, model=ref_of(shared.data).root.hex(), statement="", member=member, member_round=card.round
    )


def read_model(path: Path) -> tuple[ModelCard, Float32s]:
    """The card and the whole flat vector of a model file; raises `ModelFileError` unless they fit each other."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"{path}: cannot be read as a model: {error}") from error
    card = _card(path, metadata)
    vector = _flatten(path, tensors, card.architecture.tensors)
    parts = Parts(card.architecture.tensors)
    agreed = [(parts.take(vector, "shared"), card.rest, card.model)]
    if card.architecture.frozen_values:
        agreed.append((parts.take(vector, "frozen"), Rest(), card.architecture.frozen_values))
    for values, rest, wanted in agreed:
        found = root_with(values.astype("<f4", copy=False).data, rest).hex()
        if found != wanted:
            raise ModelFileError(
                f"{path}: its weights are {found}, its metadata says {wanted}: the file was changed; export it again"
            )
    return card, vector


def read_start(path: Path, charter: Charter) -> Start:
    """The weights in `path`, model0.safetensors, as the charter's rule begins with them.

    Raises `CharterError` unless that is what the charter names.
    """
    model = charter.model
    if not path.is_file():
        raise CharterError(
            f"{path}: the starting weights are missing: copy them from another member, or let the node fetch them from "
            "others"
        )
    try:
        tensors = safetensors.numpy.load_file(path)
        pieces = [np.asarray(tensors[one.name], dtype="<f4").reshape(one.size) for one in model.tensors]
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise CharterError(f"{path}: not the charter's model ({error}): copy another member's") from error
    start = Start.of(charter, np.concatenate(pieces))
    for name, found in start.digests().items():
        wanted = getattr(model, name)
        if found != wanted:
            raise CharterError(
                f"{path}: holds weights that start as {found[:16]} under averaging.rule = {charter.averaging.rule!r}, "
                f"the charter names {wanted[:16]} as {name}: copy another member's or, if the rule or a tensor's part "
                f"was changed in a draft by hand, set model.{name} = '{found}'"
            )
    return start


def name_tensors(vector: Float32s, model: Model) -> dict[str, npt.NDArray[np.float32]]:
    """The pieces of a whole flat vector, shaped and by name."""
    pieces = np.split(vector, np.cumsum([tensor.size for tensor in model.tensors])[:-1])
    return {
        tensor.name: np.ascontiguousarray(piece).reshape(tensor.shape)
        for tensor, piece in zip(model.tensors, pieces, strict=True)
    }


def _metadata(card: ModelCard) -> dict[str, str]:
    texts = {
        "format": FORMAT,
        "name": card.name,
        "federation": card.federation,
        "charter": card.charter,
        "round": str(card.round),
        "model": card.model,
        "statement": card.statement,
        "architecture": _json(card.architecture),
    }
    if card.architecture.source_digest:
        texts["source_digest"] = card.architecture.source_digest
    if card.member:
        texts |= {"member": card.member, "member_round": str(card.member_round)}
    if card.rest != Rest():
        texts["rest"] = _json(card.rest)
    if card.data is not None:
        numbers = {column.name: column for column in card.data.columns if column.kind == "number"}
        scaling = {name: {"center": one.center, "scale": one.scale} for name, one in numbers.items()}
        texts |= {
            "schema": _json(card.data),
            "classes": _json(card.data.classes),
            "scaling": _json(scaling),
        }
    return texts


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _card(path: Path, metadata: dict[str, str]) -> ModelCard:
    if metadata.get("format") != FORMAT:
        raise ModelFileError(f"{path}: not a model that 'folkmoot export' wrote")
    table: dict[str, object] = {key: metadata.get(key) for key in ModelCard.__struct_fields__}
    table |= {key: metadata.get(key, default) for key, default in (("member", ""), ("member_round", "0"))}
    try:
        table["architecture"] = msgspec.json.decode(metadata.get("architecture", ""))
        table["rest"] = msgspec.json.decode(metadata.get("rest", "{}"))
        table["data"] = msgspec.json.decode(metadata["schema"]) if "schema" in metadata else None
        return msgspec.convert(table, ModelCard, strict=False)
    except msgspec.MsgspecError as error:
        raise ModelFileError(f"{path}: its metadata cannot be read: {error}") from error


def _flatten(path: Path, tensors: dict[str, npt.NDArray[np.float32]], layout: tuple[Tensor, ...]) -> Float32s:
    wanted = {tensor.name: tensor.shape for tensor in layout}
    for name in [*wanted, *tensors]:
        found = tensors.get(name)
        if found is None or found.dtype != np.float32 or found.shape != wanted.get(name):
            here = "missing" if found is None else f"{found.dtype} {list(found.shape)}"
            raise ModelFileError(f"{path}: tensor {name!r} is {here}, not as its metadata says")
    return np.concatenate([tensors[name].reshape(-1) for name in wanted])
