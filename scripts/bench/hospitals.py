"""What a federation gains each of its members on real tables, with the node's own functions and without daemons.

    hospitals.py heart FOLDER [--seeds N] [--rounds N] [--lr R] [--layers 32] [WAY ...]
    hospitals.py telco FILE.csv ...

`heart`: UCI heart disease, FOLDER holds its four processed.*.data files, each a hospital's; any disease is predicted.
`telco`: IBM's customer churn, each kind of contract is a member's, and the contract itself is not learnt from. Neither
is part of this project. Rows are encoded by a schema that is proposed from a file, as `charter new` does.

Each seed deals the rows of every member to five folds that have as many of each class, and trains five times, each time
without one fold, on which the models are measured: so every row counts once. The area under the curve compares rows of
one fold only. All models begin with the same weights and train for as many epochs, by the same terms. Prints a Markdown
table, and a sentence for everybody who is worse off than alone.
"""

import argparse
import csv
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from folkmoot.node.charter_draft import averaging_table, merge
from folkmoot.node.data.propose import propose_schema
from folkmoot.node.data.source import Source
from folkmoot.node.report.story import ALONE, SHARED, Part, Story, losses
from folkmoot.node.train import local, models
from folkmoot.node.train.tallies import pairs_in_order
from folkmoot.protocol.charter import Averaging, Training
from folkmoot.protocol.ring import Float32s
from folkmoot.protocol.rows import encode
from folkmoot.protocol.schema import Schema
from folkmoot.testnet.examples import Rows
from folkmoot.testnet.rehearsal import Rehearsal, Terms

FOLDS = 5
HOSPITALS = {
    "Cleveland": "cleveland",
    "Hungary": "hungarian",
    "Switzerland": "switzerland",
    "Long Beach": "va",
}
HEART = (
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope"),
    *("ca", "thal"),
)
CODES = ("cp", "restecg", "slope", "thal")

EXACT = Averaging(codec="f32")
WAYS: dict[str, dict[str, dict[str, object]]] = {
    "secure": {},
    "open, int4": {"averaging": {"mode": "open"}},
    "nesterov 0.9/0.7": {"averaging": {"rule": "nesterov"}},
    "feddyn 0.1": {"training": {"correction": "feddyn", "alpha": "0.1"}},
}
"""How the members work together, as `charter new --set` would have it: what is not said is as in a draft."""

Table = list[dict[str, str]]


def read_hearts(folder: Path) -> dict[str, Table]:
    """Rows of each hospital as text; a cholesterol of 0 is none."""
    found = {}
    for hospital, name in HOSPITALS.items():
        table = []
        for line in (folder / f"processed.{name}.data").read_text().split():
            *values, sick = line.split(",")
            row = {key: value for key, value in zip(HEART, values, strict=True) if value != "?"}
            if float(row.get("chol", 1)) == 0:
                del row["chol"]
            table.append({**row, "disease": "yes" if float(sick) else "no"})
        found[hospital] = table
    return found


def read_churn(file: Path) -> dict[str, Table]:
    """Rows of each kind of contract as text, without it and the customer's number."""
    found: dict[str, Table] = {}
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            member = row.pop("Contract")
            del row["customerID"]
            found.setdefault(member, []).append({key: value for key, value in row.items() if value.strip()})
    return found


def encode_tables(
    tables: Mapping[str, Table], like: Sequence[str], target: str
) -> tuple[Schema, dict[str, Rows]]:
    """Every member's rows, by a schema proposed from the rows of the members in `like`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for member, table in tables.items():
            _write(folder / f"{member}.csv", table)
        _write(folder / "like.csv", [row for member in like for row in tables[member]])
        codes = [code for code in CODES if code in tables[like[0]][0]]
        schema, _ = propose_schema(folder / "like.csv", target, allow_missing=True, categories=codes)
        with Source(folder) as source:
            return schema, {member: _encoded(source, schema, f"{member}.csv") for member in tables}


def _write(file: Path, table: Table) -> None:
    names = list(dict.fromkeys(name for row in table for name in row))
    with file.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, names)
        writer.writeheader()
        writer.writerows(table)


def _encoded(source: Source, schema: Schema, file: str) -> Rows:
    pieces = [encode(schema, batch.columns) for batch in source.batches(f"SELECT * FROM '{file}'", file)]
    x, y = np.concatenate([piece.x for piece in pieces]), np.concatenate([piece.y for piece in pieces])
    return Rows(x, y.astype(np.int64))


def deal_folds(rows: Rows, draw: np.random.Generator) -> npt.NDArray[np.intp]:
    """The fold of each row: each class in turn, in an order that is drawn."""
    fold = np.empty(len(rows), dtype=np.intp)
    start = 0
    for label in np.unique(rows.y):
        of_class = draw.permutation(np.flatnonzero(rows.y == label))
        fold[of_class] = (start + np.arange(len(of_class))) % FOLDS
        start += len(of_class)
    return fold


class Measured:
    """Pairs of a sick and a healthy row in the right order, and all pairs, of each member and model."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[str, str], npt.NDArray[np.float64]] = {}

    def add(self, model: str, member: str, scores: npt.NDArray[np.float32], y: npt.NDArray[np.int64]) -> None:
        """Count the rows of one fold."""
        found = np.array(pairs_in_order(scores, y == 1))
        self._pairs[model, member] = self._pairs.get((model, member), np.zeros(2)) + found

    def areas(self) -> dict[tuple[str, str], float]:
        """The area under the curve by model and member."""
        return {key: float(above / pairs) for key, (above, pairs) in self._pairs.items()}


def run_seed(
    terms: Terms, ways: Sequence[str], members: Mapping[str, Rows], rounds: int, seed: int
) -> Measured:
    """All folds of one seed, all models."""
    draw, measured = np.random.default_rng(seed), Measured()
    folds = {name: deal_folds(rows, draw) for name, rows in members.items()}
    for fold in range(FOLDS):
        train = {name: _part(rows, folds[name] != fold) for name, rows in members.items()}
        for model, vectors in _train_all(terms, ways, train, rounds, seed):
            for name, vector in vectors.items():
                test = _part(members[name], folds[name] == fold)
                measured.add(model, name, _odds(terms, vector, test), test.y)
    return measured


def _part(rows: Rows, chosen: npt.NDArray[np.bool_]) -> Rows:
    return Rows(rows.x[chosen], rows.y[chosen])


def _train_all(
    terms: Terms, ways: Sequence[str], train: Mapping[str, Rows], rounds: int, seed: int
) -> Iterator[tuple[str, dict[str, Float32s]]]:
    """What each kind of model is called, and each member's."""
    yield ALONE, {name: _train(terms, [rows], rounds, seed) for name, rows in train.items()}
    for way in ways:
        training = msgspec.structs.replace(terms.training, **WAYS[way].get("training", {}))
        drafted = averaging_table(None, len(train), WAYS[way])
        averaging = msgspec.convert(merge(drafted, WAYS[way].get("averaging", {})), Averaging)
        together = Terms(terms.kind, terms.layers, training, averaging)
        yield way, dict.fromkeys(train, _train(together, list(train.values()), rounds, seed))
    every = Rows(
        np.concatenate([rows.x for rows in train.values()]), np.concatenate([r.y for r in train.values()])
    )
    yield "pooled", dict.fromkeys(train, _train(terms, [every], rounds, seed))


def _train(terms: Terms, shares: Sequence[Rows], rounds: int, seed: int) -> Float32s:
    federation = Rehearsal(terms, shares, seed)
    for _ in range(rounds):
        federation.play()
    return federation.model.copy()


@torch.no_grad()
def _odds(terms: Terms, vector: Float32s, rows: Rows) -> npt.NDArray[np.float32]:
    module = models.build(terms.kind, terms.layers)
    models.load_vector(module, vector)
    module.eval()
    scores = module(torch.from_numpy(rows.x))
    odds: npt.NDArray[np.float32] = (scores[:, 1] - scores[:, 0]).numpy()
    return odds


def show(
    members: Mapping[str, Rows], ways: Sequence[str], runs: Sequence[dict[tuple[str, str], float]]
) -> None:
    """The table, and who is worse off than alone."""
    columns = [ALONE, *ways, "pooled"]
    print(f"| AUC, mean and deviation of {len(runs)} seeds | rows | {' | '.join(columns)} |")
    print("|---|---" + "|---" * len(columns) + "|")
    for name, rows in members.items():
        cells = [_spread([run[model, name] for run in runs]) for model in columns]
        print(f"| {name} | {len(rows):,} | {' | '.join(cells)} |")
    means = [[statistics.mean(run[model, name] for name in members) for run in runs] for model in columns]
    print(f"| mean | {sum(map(len, members.values())):,} | {' | '.join(map(_spread, means))} |\n")
    for way in ways:
        lost = losses(_story(members, way, runs))
        print(f"{way}: " + ("nobody is worse off than alone." if not lost else " ".join(map(str, lost))))


def _story(members: Mapping[str, Rows], way: str, runs: Sequence[dict[tuple[str, str], float]]) -> Story:
    def measured(model: str, name: str) -> dict[str, float]:
        return {"auc": statistics.mean(run[model, name] for run in runs), "examples": len(members[name])}

    parts = [
        Part(name=name, rounds=[], models={SHARED: measured(way, name), ALONE: measured(ALONE, name)})
        for name in members
    ]
    return Story(title=way, mode="", parts=parts)


def _spread(values: Sequence[float]) -> str:
    deviation = f" +- {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


def main() -> None:
    """Read, train, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["heart", "telco"])
    parser.add_argument("data", type=Path)
    parser.add_argument("ways", nargs="*", metavar="WAY", help=f"some of: {', '.join(WAYS)}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--lr", default="0.02")
    parser.add_argument("--layers", type=int, nargs="*", default=[], help="hidden layers; none: logistic")
    options = parser.parse_args()
    local.limit_threads(1)
    if options.what == "heart":
        schema, members = encode_tables(read_hearts(options.data), ["Cleveland"], "disease")
    else:
        tables = read_churn(options.data)
        schema, members = encode_tables(tables, list(tables), "Churn")
    terms = Terms(
        kind="mlp" if options.layers else "logistic",
        layers=(schema.features, *options.layers, 2),
        training=Training(epochs=1, batch=32, lr=options.lr),
        averaging=EXACT,
    )
    ways = options.ways or list(WAYS)
    runs = [run_seed(terms, ways, members, options.rounds, seed).areas() for seed in range(options.seeds)]
    show(members, ways, runs)


if __name__ == "__main__":
    main()
