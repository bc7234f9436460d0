"""`folkmoot export`, `predict` and `model show`: take a model out of its federation, use it, look at it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from folkmoot.node.model_file import ModelCard
    from folkmoot.node.recorded import RecordedModels
    from folkmoot.protocol.charter_tables import Model
    from folkmoot.protocol.schema import Schema

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_OUT = click.Path(path_type=Path, dir_okay=False)
_HOME = click.Path(path_type=Path, exists=True, file_okay=False)

_SHOWN_TENSORS = 20


@click.command()
@click.option("--home", type=_HOME, required=True, help="The node's home directory.")
@click.option(
    "--round", "number", type=click.IntRange(1), metavar="N", help="Which round's model; else the latest."
)
@click.option("--out", type=_OUT, required=True, metavar="FILE", help="The safetensors file to write.")
@click.option("--own", is_flag=True, help="The model that this member trains for itself (trainer.ditto).")
def export(home: Path, number: int | None, out: Path, own: bool) -> None:
    """Write the model of a finished round to a safetensors file.

    Its metadata name the federation, the round, the statement that the ledger records, and the data schema. A model
    that is no longer kept is computed again from the archive. Tensors that do not travel are this member's, the newest.
    """
    from folkmoot.node.config import Home, load_config
    from folkmoot.node.model_file import write_model
    from folkmoot.node.recorded import RecordedModels

    recorded = RecordedModels(Home(home.resolve()))
    if own:
        if number is not None:
            raise click.UsageError("of a member's own model only the newest is there: leave out --round")
        _export_own(recorded, load_config(Home(home.resolve())).name, out)
        return
    number = number or _latest(recorded)
    card = recorded.card(number)
    snapshot = recorded.vector(number, lambda text: click.echo(text, err=True))
    others, since = recorded.own_parts()
    if "personal" in others:
        card = msgspec.structs.replace(
            card, member=load_config(Home(home.resolve())).name, member_round=since
        )
    write_model(out, card, snapshot, others)
    click.echo(f"wrote {out}: {card.name} round {number}, model {card.model}")
    if card.member:
        click.echo(f"with {_personal(card)}")


def _export_own(recorded: "RecordedModels", name: str, out: Path) -> None:
    from folkmoot.node.model_file import as_own_model, write_model
    from folkmoot.protocol.parts import Parts

    whole, since = recorded.own_model()
    card = as_own_model(recorded.card(since), whole, name)
    take = Parts(card.architecture.tensors).take
    write_model(
        out,
        card,
        take(whole, "shared"),
        {"personal": take(whole, "personal"), "frozen": take(whole, "frozen")},
    )
    click.echo(f"wrote {out}: {card.name}, {_personal(card)}")


@click.command()
@click.option("--model", "file", type=_FILE, required=True, help="A model that 'folkmoot export' wrote.")
@click.option(
    "--data",
    type=_FILE,
    required=True,
    help="CSV, Parquet, JSON or SQLite with the schema's columns; safetensors with x for a model without a schema.",
)
@click.option("--out", type=_OUT, required=True, help="The .csv or .parquet file to write.")
@click.option(
    "--source",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder with a custom model's source; else this one and PYTHONPATH.",
)
def predict(file: Path, data: Path, out: Path, folder: Path) -> None:
    """Predict for every row of a file.

    Writes its rows with a column `prediction` and, for classes, a column `probability_CLASS` for each.
    """
    from folkmoot.node.data.predictions import predict_inputs, predict_rows
    from folkmoot.node.model_file import read_model
    from folkmoot.node.train.predicting import Predictor

    card, vector = read_model(file)
    predictor = Predictor(card, vector, folder.resolve())
    absent: list[str] = []
    if card.data is None:
        rows = predict_inputs(data, out, card.architecture.features, predictor.predict)
    else:
        rows, absent = predict_rows(data, out, card.data, predictor.predict)
    for name in absent:
        click.echo(f"column {name!r} is not in {data}: it counts as missing in every row", err=True)
    click.echo(f"wrote {out}: {rows:,} rows, {', '.join(predictor.columns)}")


@click.group()
def model() -> None:
    """The federation's model."""


@model.command()
@click.argument("file", type=_FILE, required=False)
@click.option("--home", type=_HOME, help="A node's home: its charter's model and the rounds that it has.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(file: Path | None, home: Path | None, as_json: bool) -> None:
    """Show what a model file, or the model of a node's home, is and where it comes from."""
    if (file is None) == (home is None):
        raise click.UsageError("give a model FILE or --home, one of them")
    rows = dict(_of_file(file, as_json) if file is not None else _of_home(home or Path(), as_json))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows)))
        return
    width = max(map(len, rows))
    for key, value in rows.items():
        click.echo(f"{key:<{width}}  {value}")


def _latest(recorded: "RecordedModels") -> int:
    from folkmoot.node.recorded import RecordedError

    rounds = recorded.rounds()
    if not rounds:
        raise RecordedError("no round is finished in this home yet: nothing to export")
    return rounds[-1]


def _of_file(file: Path, as_json: bool) -> Iterator[tuple[str, object]]:
    from folkmoot.node.model_file import read_model

    card, _ = read_model(file)
    yield from _of_card(card)
    yield from _of_architecture(card.architecture, card.data, as_json)


def _of_home(home: Path, as_json: bool) -> Iterator[tuple[str, object]]:
    from folkmoot.node.charter_files import load_charter
    from folkmoot.node.config import Home
    from folkmoot.node.recorded import RecordedModels

    where = Home(home.resolve())
    charter, recorded = load_charter(where), RecordedModels(where)
    rounds = recorded.rounds()
    if rounds:
        yield from _of_card(recorded.card(rounds[-1]))
        kept = [number for number in rounds if recorded.is_kept(number)]
        yield "recorded", rounds if as_json else f"{len(rounds)} rounds"
        yield "kept", kept if as_json else ", ".join(map(str, kept)) + " (others are computed again)"
    else:
        yield "name", charter.name
        yield "model", f"{charter.model.initial} (starting weights; no round is finished yet)"
    yield from _of_architecture(charter.model, charter.data, as_json)


def _of_card(card: "ModelCard") -> Iterator[tuple[str, object]]:
    yield from (
        (key, getattr(card, key)) for key in ("name", "federation", "charter", "round", "model", "statement")
    )
    if card.member:
        yield "personal", _personal(card)


def _personal(card: "ModelCard") -> str:
    when = f"after round {card.member_round}" if card.member_round else "as they began"
    what = "the personal tensors of" if card.statement else "the own model of"
    return f"{what} {card.member}, {when}"


def _of_architecture(terms: "Model", data: "Schema | None", as_json: bool) -> Iterator[tuple[str, object]]:
    yield "kind", terms.kind
    yield "layers", terms.layers if as_json else " ".join(map(str, terms.layers))
    if terms.image:
        yield "image", terms.image if as_json else " x ".join(map(str, terms.image))
    if terms.source:
        yield "source", terms.source
        yield "source_digest", terms.source_digest
    yield "parameters", terms.parameters if as_json else f"{terms.parameters:,}"
    if as_json:
        yield "tensors", msgspec.to_builtins(terms.tensors)
        yield "data", msgspec.to_builtins(data)
        return
    shown = [f"{tensor.name} {list(tensor.shape)}" for tensor in terms.tensors[:_SHOWN_TENSORS]]
    more = f", and {len(terms.tensors) - len(shown)} more" if len(shown) < len(terms.tensors) else ""
    yield "tensors", ", ".join(shown) + more
    if data is not None:
        yield (
            "predicts",
            f"{data.target} ({data.task}){': ' if data.classes else ''}{', '.join(data.classes)}",
        )
        yield "from", ", ".join(column.name for column in data.columns)
