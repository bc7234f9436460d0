"""What a federation gains each of its members on real tables, with the node's own functions and without daemons.

    hospitals.py heart FOLDER [WAY ...] [--seeds N] [--rounds N] [--lr R] [--model logistic|mlp|normed]
    hospitals.py telco FILE.csv ...

`heart`: UCI heart disease, FOLDER holds its four processed.*.data files, each a hospital's; any disease is predicted.
`telco`: IBM's customer churn, each kind of contract is a member's, and the contract itself is not learnt from. Neither
is part of this project. Rows are encoded by a schema that is proposed from a file, as `charter new` does.

Each seed deals the rows of every member to five folds that have as many of each class, and trains five times, each time
without one fold, on which the models are measured: so every row counts once. The area under the curve compares rows of
one fold only. All models begin with the same weights and train for as many epochs, by the same terms. Prints a Markdown
table, and a sentence for everybody who is worse off than alone.

With `--model normed` members may keep tensors to themselves: their norms (FedBN) or their last layer (FedPer). With
Ditto each trains a model of its own beside the common one (`folkmoot.node.train.beside`).
"""

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from tables import encode_tables, read_churn, read_hearts

from folkmoot.node.charter_draft import averaging_table, merge
from folkmoot.node.report.story import ALONE, PERSONAL, SHARED, Part, Story, losses
from folkmoot.node.train import local, models
from folkmoot.node.train.beside import train_beside
from folkmoot.node.train.custom import CustomSource
from folkmoot.node.train.objectives import Classification
from folkmoot.node.train.tallies import pairs_in_order
from folkmoot.protocol.charter_tables import Averaging, Training
from folkmoot.protocol.ring import Float32s
from folkmoot.testnet.examples import Rows
from folkmoot.testnet.rehearsal import Rehearsal, Terms

FOLDS = 5
EXACT = Averaging(codec="f32")
Changes = dict[str, dict[str, object]]
WAYS: dict[str, Changes] = {
    "secure": {},
    "open, int4": {"averaging": {"mode": "open"}},
    "nesterov 0.9/0.7": {"averaging": {"rule": "nesterov"}},
    "feddyn 0.1": {"training": {"correction": "feddyn", "alpha": "0.1"}},
    "own norms": {"model": {"shared": "(first|last).*"}},
    "own last layer": {"model": {"shared": "(first|norm).*"}},
    "ditto 1": {"trainer": {"ditto": 1.0}},
}
"""How the members work together, as `charter new --set` would have it: what is not said is as in a draft.

`trainer` is the member's own affair and stands in its node.toml.
"""

MODELS = {
    "logistic": ("logistic", (), None),
    "mlp": ("mlp", (16,), None),
    "normed": ("custom", (), CustomSource("normed_mlp:build", Path(__file__).with_name("normed_mlp.py"))),
}
"""Kind, hidden layers and source of the models there are."""


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
    shares = list(train.values())
    yield ALONE, {name: _train(terms, [rows], rounds, seed)[0] for name, rows in train.items()}
    for way in ways:
        pull = WAYS[way].get("trainer", {}).get("ditto", 0.0)
        found = _train(_agreed(terms, WAYS[way], len(train)), shares, rounds, seed, float(str(pull)))
        yield way, dict(zip(train, found, strict=True))
    every = Rows(np.concatenate([rows.x for rows in shares]), np.concatenate([rows.y for rows in shares]))
    yield "pooled", dict.fromkeys(train, _train(terms, [every], rounds, seed)[0])


def _agreed(terms: Terms, way: Changes, members: int) -> Terms:
    """What a draft for so many members says, with the changes of a way."""
    averaging = msgspec.convert(
        merge(averaging_table(None, members, way), way.get("averaging", {})), Averaging
    )
    training = msgspec.structs.replace(terms.training, **way.get("training", {}))
    return replace(terms, training=training, averaging=averaging, **way.get("model", {}))  # type: ignore[arg-type]


def _train(
    terms: Terms, shares: Sequence[Rows], rounds: int, seed: int, ditto: float = 0.0
) -> list[Float32s]:
    """Each member's model in the end: the common one, with what it keeps of it, or its own beside it."""
    federation = Rehearsal(terms, shares, seed)
    own = [federation.model_of(member) for member in range(len(shares))]
    for _ in range(rounds):
        common = [federation.model_of(member) for member in range(len(shares))]
        federation.play()
        if ditto:
            training = federation.charter.training
            for member, rows in enumerate(shares):
                turn = (f"node-{member}", federation.round)
                own[member] = _beside(terms, rows, training, turn, own[member], common[member], ditto)
    return own if ditto else [federation.model_of(member) for member in range(len(shares))]


def _beside(
    terms: Terms,
    rows: Rows,
    training: Training,
    turn: tuple[str, int],
    own: Float32s,
    common: Float32s,
    pull: float,
) -> Float32s:
    """One round of a member's own model."""
    module, tensors = models.build(terms.kind, terms.layers, terms.source), local.Rows.of(rows.x, rows.y)
    return train_beside(module, Classification(2, 2), tensors, training, turn, own, common, pull, _unwatched)


def _unwatched(done: int, total: int) -> None:
    """Nobody waits for the progress of a measurement."""


@torch.no_grad()
def _odds(terms: Terms, vector: Float32s, rows: Rows) -> npt.NDArray[np.float32]:
    module = models.build(terms.kind, terms.layers, terms.source)
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

    kind = PERSONAL if WAYS[way].keys() & {"model", "trainer"} else SHARED
    parts = [
        Part(name=name, rounds=[], models={kind: measured(way, name), ALONE: measured(ALONE, name)})
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
    parser.add_argument("--model", choices=MODELS, default="logistic")
    options = parser.parse_args()
    local.limit_threads(1)
    if options.what == "heart":
        schema, members = encode_tables(read_hearts(options.data), ["Cleveland"], "disease")
    else:
        tables = read_churn(options.data)
        schema, members = encode_tables(tables, list(tables), "Churn")
    kind, hidden, source = MODELS[options.model]
    terms = Terms(
        kind=kind,
        layers=(schema.features, *hidden, 2),
        training=Training(epochs=1, batch=32, lr=options.lr),
        averaging=EXACT,
        source=source,
    )
    ways = options.ways or [way for way in WAYS if options.model == "normed" or "model" not in WAYS[way]]
    runs = [run_seed(terms, ways, members, options.rounds, seed).areas() for seed in range(options.seeds)]
    show(members, ways, runs)


if __name__ == "__main__":
    main()
