"""A home's last model, measured once more: how far the chances can be trusted that it gives the rows held out."""

from folkmoot.node.config import Home, load_config
from folkmoot.node.recorded import RecordedModels
from folkmoot.node.report.story import Step
from folkmoot.node.train import local, models
from folkmoot.node.train.objectives import Classification, make_objective
from folkmoot.node.train.source import locate_source


def calibration_of(home: Home) -> list[Step]:
    """The steps of calibration of the last finished round's model; empty without held-out rows, or in a regression.

    Raises `FolkmootError` where the home, its data or its custom model are not in order.
    """
    recorded, config = RecordedModels(home), load_config(home)
    rounds, test = recorded.rounds(), home.resolve(config.data.test)
    if not rounds or not test.is_file():
        return []
    card = recorded.card(rounds[-1])
    terms = card.architecture
    objective = make_objective(card.data, terms.outputs)
    if not isinstance(objective, Classification):
        return []
    module = models.build_charter_model(terms, locate_source(terms, home.resolve(config.trainer.path)))
    models.load_vector(module, recorded.whole(rounds[-1], _unheard))
    tally = objective.tally()
    local.count(module, tally, local.load_rows(test, terms.features, objective.classes), _unwatched)
    found = tally.calibration
    return [Step(*map(float, step)) for step in zip(found.rows, found.chances, found.hits, strict=True)]


def _unheard(text: str) -> None:
    """That a model is computed again is nothing to tell."""


def _unwatched(done: int, total: int) -> None:
    """Nobody waits for the progress of a measurement."""
