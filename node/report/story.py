"""What a report tells: of each node its rounds, and how it does with the federation and without."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from folkmoot.node.status_file import RoundStatus
from folkmoot.protocol.metrics import mean_metrics

WORSE = 0.02
"""A member loses by the federation where its measure is worse than alone by more than that (errors: that share)."""

LABELS = {
    "accuracy": "accuracy",
    "auc": "AUC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error (ECE)",
    "rmse": "RMSE",
    "mae": "MAE",
}
"""The measures that are shown, in this order, as people know them."""

HIGHER_IS_BETTER = ("accuracy", "auc")

SHARED, PERSONAL, ALONE = "shared", "personal", "alone"
_OURS = (SHARED, PERSONAL)
"""What a member owes to the federation."""


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows to which the model gave about the same chance: how many, the sum of their chances, how often it was so."""

    rows: float
    chances: float
    hits: float


@dataclass(frozen=True, kw_only=True)
class Part:
    """One node. `models`: measures on its held-out rows, of the shared model and others, by what they are called."""

    name: str
    rounds: Sequence[RoundStatus]
    models: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    calibration: Sequence[Step] = ()

    def series(self, measure: str) -> list[tuple[int, float]]:
        """(round, value) of the shared model, where it was measured."""
        return [(row.round, row.metrics[measure]) for row in self.rounds if measure in row.metrics]

    @property
    def shared(self) -> Mapping[str, float]:
        """Measures of the shared model, the last that was measured."""
        return self.models.get(SHARED, {})


@dataclass(frozen=True, kw_only=True)
class Story:
    """A federation as one or all of its nodes saw it. `pooled`: a model trained on all rows in one place."""

    title: str
    mode: str
    parts: Sequence[Part]
    pooled: Mapping[str, float] = field(default_factory=dict)

    @property
    def measures(self) -> list[str]:
        """Those that any node has, in the order of `LABELS`."""
        found = {name for part in self.parts for row in part.rounds for name in row.metrics}
        found |= {name for part in self.parts for model in part.models.values() for name in model}
        return [name for name in LABELS if name in found]

    @property
    def models(self) -> list[str]:
        """What the nodes' models are called, the shared one first."""
        return list(dict.fromkeys([SHARED, *(name for part in self.parts for name in part.models)]))

    @property
    def rounds(self) -> list[int]:
        """All rounds that a node remembers."""
        return sorted({row.round for part in self.parts for row in part.rounds})

    @property
    def members(self) -> list[str]:
        """The nodes, and whoever else took part in a round that they remember."""
        took_part = (name for part in self.parts for row in part.rounds for name in row.participants)
        return list(dict.fromkeys([*(part.name for part in self.parts), *took_part]))

    @property
    def together(self) -> dict[int, dict[str, float]]:
        """Measures over all members' rows by round: of all nodes, or as one node heard of the others in open mode."""
        if len(self.parts) == 1:
            return {row.round: row.members_metrics for row in self.parts[0].rounds}
        return {number: mean_metrics(row.metrics for row in self.rows_of(number)) for number in self.rounds}

    def rows_of(self, round_: int) -> list[RoundStatus]:
        """What each node that knows it tells of a round."""
        return [row for part in self.parts for row in part.rounds if row.round == round_]

    def participants(self, round_: int) -> frozenset[str]:
        """Whose updates are in the model of a round, as the nodes that know it say."""
        return frozenset(name for row in self.rows_of(round_) for name in row.participants)


@dataclass(frozen=True)
class Loss:
    """A member's measure that is worse with the federation than alone, beyond `WORSE`; as text a plain sentence.

    `model`: which of those that it owes to the federation does best.
    """

    part: Part
    measure: str
    model: str
    ours: float
    own: float

    def __str__(self) -> str:
        which = "the shared model" if self.model == SHARED else f"its {self.model} model"
        models = f"{self.ours:.3g} with {which}, {self.own:.3g} with one trained on its own rows only"
        rows = f"measured on {self.part.models[self.model].get('examples', 0.0):,.0f} held-out rows"
        loser = f"{self.part.name} is worse off with the federation than alone"
        return f"{loser}: {LABELS[self.measure]} {models}, {rows}."


def losses(story: Story) -> list[Loss]:
    """Who is worse off with the federation than alone, by what; a personal model counts where it is the better one."""
    found = []
    for part in story.parts:
        alone = part.models.get(ALONE, {})
        for measure in ("auc", "accuracy", "rmse"):
            ours = {
                kind: part.models[kind][measure] for kind in _OURS if measure in part.models.get(kind, {})
            }
            if ours and measure in alone:
                best = (max if measure in HIGHER_IS_BETTER else min)(ours, key=lambda kind: ours[kind])
                if is_worse(measure, ours[best], alone[measure]):
                    found.append(Loss(part, measure, best, ours[best], alone[measure]))
    return found


def is_worse(measure: str, ours: float, own: float) -> bool:
    """Whether `ours` is behind `own` by more than `WORSE`, in points of a share or as a share of an error."""
    return own - ours > WORSE if measure in HIGHER_IS_BETTER else ours > own * (1 + WORSE)
