"""Draft a charter: from the members' public keys, a schema and a few choices to `charter.toml` and starting weights.

Whoever drafts decides nothing: the file is read, changed where need be and signed by all.
"""

import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import safetensors
import safetensors.numpy

from folkmoot.ledger.build import expected_code_hash
from folkmoot.node.model_file import name_tensors
from folkmoot.node.parts_draft import assign_parts
from folkmoot.node.train.command import trainer_environment
from folkmoot.node.train.source import find_source, locate_source, search_path, source_digest
from folkmoot.protocol.charter import Charter, default_mode
from folkmoot.protocol.charter_rules import check_charter
from folkmoot.protocol.charter_tables import Averaging, Member, Model, Privacy, Rate, Tensor, Training
from folkmoot.protocol.codec import codec_named
from folkmoot.protocol.errors import CharterError
from folkmoot.protocol.outer import Start
from folkmoot.protocol.ring import Float32s
from folkmoot.protocol.schema import Schema
from folkmoot.protocol.sealing import payload_size
from folkmoot.protocol.toml import ConfigError, convert_table

MODEL_FILE = "model0.safetensors"
MAX_ATTESTERS = 31
"""What the contract takes; in a larger federation the first ones attest."""

MODEL_SECONDS = 120.0
"""How long building the model may take, importing torch included."""

SLOW_LINK = 2e6
"""Bytes a second at which a member should still be able to fetch a round's updates in one attempt."""

SECURE_WEIGHT_CAP = 1_024
"""Examples for full weight where a secure draft says nothing else. Weights have 255 steps, and a light update has fewer
bits in the ring: with a cap far above everybody's examples all updates would be coarse."""

DEFAULT_RULE = "fedavg"
"""The outer rule of a draft that says nothing else."""

DEFAULT_ROBUST = "nnm"
"""What `averaging.robust=true` stands for."""

USUAL_RATES = {
    "fedavgm": {"rate": "1", "momentum": "0.9"},
    "nesterov": {"rate": "0.7", "momentum": "0.9"},
    "fedadam": {"rate": "0.01", "momentum": "0.9", "second_momentum": "0.99", "epsilon": "0.001"},
    "fedyogi": {"rate": "0.01", "momentum": "0.9", "second_momentum": "0.99", "epsilon": "0.001"},
}
"""What a draft with that outer rule proposes."""

USUAL_TRAINING = {"cnn": {"lr": "0.05"}}
"""What a draft with that kind of model proposes; with momentum 0.9, steps of 0.1 throw a cnn about."""

Table: TypeAlias = dict[str, Any]
"""A TOML table, before msgspec makes a `Charter` of it."""


def parse_assignments(assignments: Sequence[str]) -> Table:
    """`["training.lr=0.05", "averaging.codec=f32"]` as nested tables; raises `ConfigError`.

    A value is TOML; what is no TOML is text, so that words and decimal numbers need no quotes in quotes.
    """
    tables: Table = {}
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        *names, last = path.strip().split(".")
        if not equals or not last or not all(names):
            raise ConfigError(f"--set {assignment}: write KEY=VALUE, such as training.lr=0.05")
        table = tables
        for name in names:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise ConfigError(f"--set {assignment}: {name} is set to a value already")
        table[last] = _term((*names, last), _value(value.strip()))
    return tables


def _term(path: tuple[str, ...], value: object) -> object:
    """A term as a charter has it."""
    if path == ("averaging", "robust") and isinstance(value, bool):
        return DEFAULT_ROBUST if value else "none"
    return str(value) if path in _RATES and isinstance(value, int) else value


_RATES = {
    (table, field.name)
    for table, terms in (("training", Training), ("averaging", Averaging), ("privacy", Privacy))
    for field in msgspec.structs.fields(terms)
    if field.type is Rate
}
"""Terms that are decimal text: `training.momentum=0` means "0"."""


def _value(text: str) -> object:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    # Rates are decimal text in a charter, so that every machine reads the same number.
    return text if isinstance(value, float) else value


def layers_of(given: Sequence[int], schema: Schema | None) -> tuple[int, ...]:
    """All widths of a built-in model, from inputs to outputs; raises `ConfigError`.

    `given` are the hidden ones where a schema says the rest, else all of them.
    """
    if schema is not None:
        return (schema.features, *given, schema.outputs)
    if len(given) < 2:
        raise ConfigError(
            "without --schema-from, --layers needs all widths, from inputs to classes: 64,32,10"
        )
    return tuple(given)


def model_table(model: str, layers: tuple[int, ...], folder: Path, image: Sequence[int] = ()) -> Table:
    """The charter's model, but for its weights: `model` is a built-in kind or module:function, looked for in `folder`.

    `image` is the height, width and channels of a cnn's rows. Raises `ConfigError` if there is no such module.
    """
    if ":" not in model:
        return {"kind": model, "layers": layers} | ({"image": tuple(image)} if image else {})
    digest = source_digest(find_source(model, search_path(folder)))
    return {"kind": "custom", "layers": layers, "source": model, "source_digest": digest}


def draw_model(
    table: Table, seed: int, folder: Path, start: Path | None = None, *, fill: bool = False
) -> tuple[Float32s, tuple[Tensor, ...]]:
    """Draw starting weights in a child process (torch is heavy): the flat vector and its layout.

    `table` and `folder` are those of `model_table`. With `start` the weights are those of that safetensors file; if it
    lacks some, `fill` lets these be drawn. Raises `CharterError` with the child's own words.
    """
    with tempfile.TemporaryDirectory() as scratch:
        flat = Path(scratch) / "model0.f32"
        path = str(find_source(table["source"], search_path(folder))) if "source" in table else ""
        terms = {**table, "path": path, "start": str(start or ""), "fill": fill}
        text = msgspec.json.encode(terms).decode()
        answer = run_child("folkmoot.node.train.founding", text, str(seed), str(flat))
        tensors = msgspec.json.decode(answer, type=tuple[Tensor, ...])
        return np.fromfile(flat, dtype="<f4"), tensors


def write_draft(out: Path, text: str, weights: Float32s, model: Model) -> None:
    """Write the charter's text to `out`, and the starting weights beside it; raises `CharterError`."""
    beside = out.with_name(MODEL_FILE)
    try:
        safetensors.numpy.save_file(name_tensors(weights, model), beside)
        out.write_text(text, encoding="utf-8")
    except (OSError, safetensors.SafetensorError) as error:
        raise CharterError(f"{out} and {beside}: cannot be written: {error}") from error


def run_model(charter: Charter, folder: Path) -> None:
    """Build the charter's model in a child process and run it on rows of its input's width.

    A custom model's source is looked for in `folder`. Raises `CharterError`, or `ConfigError` for another source.
    """
    source = locate_source(charter.model, folder)
    run_child("folkmoot.node.train.check", source, given=msgspec.msgpack.encode(charter))


def run_child(module: str, *arguments: str, given: bytes = b"") -> bytes:
    """What `python -m module` prints; raises `CharterError` with its last line where it fails."""
    command = [sys.executable, "-P", "-m", module, *arguments]
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, env=trainer_environment(), timeout=MODEL_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise CharterError(f"the model was not built within {MODEL_SECONDS:.0f} s") from error
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise CharterError(lines[-1] if lines else f"the model cannot be built (exit code {done.returncode})")
    return done.stdout


def take_patterns(chosen: Table) -> tuple[dict[str, str], Table]:
    """What --set says of the model's parts (`model.shared` and `model.frozen`), and all else that it says.

    Raises `ConfigError` for another term of the model, which follows from the model itself.
    """
    table = chosen.get("model", {})
    unknown = set(table) - {"shared", "frozen"} if isinstance(table, dict) else {"kind"}
    if unknown:
        raise ConfigError(f"--set model.{unknown.pop()}: of the model only shared and frozen can be set")
    patterns = {key: str(pattern) for key, pattern in table.items()}
    return patterns, {key: value for key, value in chosen.items() if key != "model"}


def model_terms(table: Table, tensors: Sequence[Tensor], patterns: Mapping[str, str]) -> Table:
    """The charter's model with its tensors' parts, but for the digests of its weights.

    `patterns`: the regular expressions `shared` and `frozen`, as far as there are any; raises `CharterError` for bad
    ones.
    """
    parted = assign_parts(tensors, **patterns)
    return {**table, **Start.unknown(parted), "tensors": msgspec.to_builtins(parted)}


def averaging_table(mode: str | None, members: int, chosen: Table) -> Table:
    """What a draft says of averaging before what was `chosen` by --set: secure if the federation's size allows it, and
    an outer rule with the rates that suit it.
    """
    averaging = chosen.get("averaging")
    if isinstance(averaging, dict) and "mode" in averaging:
        if mode not in (None, averaging["mode"]):
            raise ConfigError(f"--mode {mode} and --set averaging.mode={averaging['mode']}: give one of them")
        mode = averaging["mode"]
    mode = mode or default_mode(members)
    rule = averaging.get("rule", DEFAULT_RULE) if isinstance(averaging, dict) else DEFAULT_RULE
    table = {"mode": mode, **USUAL_RATES.get(rule, {}), "rule": rule}
    return {**table, "weight_cap": SECURE_WEIGHT_CAP} if mode == "secure" else table


def build_charter(members: Sequence[Member], chain_id: int, tables: Table) -> Charter:
    """The charter of these members under `tables` (name, model, schedule and whatever else was chosen).

    Members beyond those that the contract takes do not attest.

    Raises `CharterError` or `ConfigError` where something is missing or contradicts.
    """
    attesting = [
        msgspec.structs.replace(member, attester=index < MAX_ATTESTERS)
        for index, member in enumerate(members)
    ]
    terms = {
        "ledger": {"chain_id": chain_id, "code_hash": expected_code_hash().hex()},
        "members": msgspec.to_builtins(attesting),
        **tables,
    }
    charter = convert_table(terms, Charter, "the charter would not be valid")
    if "attempt_min" not in tables.get("schedule", {}):
        charter = _with_time_for_updates(charter)
    check_charter(charter)
    return charter


def _with_time_for_updates(charter: Charter) -> Charter:
    """A shortest attempt in which even a slow link brings all updates: before the first round, nothing else says."""
    schedule = charter.schedule
    values = charter.update_values
    if charter.is_secure:
        sums = len(charter.group_sizes) if charter.sums_by_group else 1
        received = (
            (1 + sums) * values * charter.secrecy.ring // 8
        )  # my shards of the others, then the other sums
    else:
        one = payload_size(len(charter.members), codec_named(charter.averaging.codec).encoded_size(values))
        received = one * (len(charter.members) - 1)
    seconds = round(received / SLOW_LINK, 1)
    longest = min(max(schedule.attempt_min, seconds), schedule.attempt_max)
    return msgspec.structs.replace(charter, schedule=msgspec.structs.replace(schedule, attempt_min=longest))


def merge(into: Table, other: Table) -> Table:
    """`into` with the tables of `other` laid over it, key by key."""
    merged = dict(into)
    for key, value in other.items():
        known = merged.get(key)
        merged[key] = merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return merged
