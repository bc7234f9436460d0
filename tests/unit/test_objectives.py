"""Losses and measures by task, against scikit-learn's and by hand."""

import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.node.train.objectives import (
    Classification,
    Objective,
    Regression,
    make_objective,
)
from folkmoot.node.train.tallies import BINS, pairs_in_order
from folkmoot.node.train.wire import Metrics, TrainerError
from folkmoot.protocol.metrics import select_metrics
from folkmoot.protocol.schema import Column, Schema

AGE = Column(name="age", kind="number")
BINARY = Schema(task="binary", target="churn", classes=("No", "Yes"), columns=(AGE,))
PRICE = Schema(task="regression", target="price", columns=(AGE,), scale="100")


def measure(objective: Objective, scores: torch.Tensor, targets: torch.Tensor) -> Metrics:
    tally = objective.tally()
    for at in range(0, len(targets), 7):
        tally.add(scores[at : at + 7], targets[at : at + 7])
    return tally.result()


def some_scores(outputs: int, classes: int, rows: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(rows, outputs, generator=draw).mul(4).round() / 4  # with ties
    return scores, torch.randint(0, classes, (rows,), generator=draw)


def test_two_classes_are_measured_as_scikit_learn_does() -> None:
    scores, targets = some_scores(2, 2)
    found = measure(make_objective(BINARY, 2), scores, targets)
    chances = torch.softmax(scores, dim=1)[:, 1].numpy()
    assert found["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(targets, scores[:, 1] - scores[:, 0]))
    assert found["log_loss"] == pytest.approx(sklearn.metrics.log_loss(targets, chances), rel=1e-5)
    assert found["accuracy"] == sklearn.metrics.accuracy_score(targets, scores.argmax(dim=1))
    assert found["brier"] == pytest.approx(sklearn.metrics.brier_score_loss(targets, chances), rel=1e-5)
    assert found["examples"] == 60
    assert dict(select_metrics(found)) == found


def test_many_classes_are_measured_as_scikit_learn_does() -> None:
    scores, targets = some_scores(5, 5)
    found = measure(make_objective(None, 5), scores, targets)
    assert set(found) == {"accuracy", "auc", "brier", "ece", "log_loss", "examples"}
    chances = torch.softmax(scores.double(), dim=1).numpy()
    assert found["log_loss"] == pytest.approx(sklearn.metrics.log_loss(targets, chances), rel=1e-5)
    assert found["brier"] == pytest.approx(sklearn.metrics.brier_score_loss(targets, chances), rel=1e-5)
    area = sklearn.metrics.roc_auc_score(targets, chances, multi_class="ovr")
    assert found["auc"] == pytest.approx(area, abs=1e-3)  # float32 and float64 differ in what is a tie


@pytest.mark.parametrize("classes", [2, 5])
def test_calibration_is_the_mean_distance_of_chance_and_frequency(classes: int) -> None:
    scores, targets = some_scores(classes, classes, rows=300)
    chances = torch.softmax(scores, dim=1).double().numpy()
    sure = chances[:, 1] if classes == 2 else chances.max(axis=1)
    right = targets.numpy() == (1 if classes == 2 else chances.argmax(axis=1))
    step = np.minimum((sure * BINS).astype(int), BINS - 1)
    expected = sum(abs(sure[step == at].sum() - right[step == at].sum()) for at in range(BINS)) / 300
    assert measure(make_objective(None, classes), scores, targets)["ece"] == pytest.approx(expected, abs=1e-5)


def test_a_model_that_is_right_and_sure_is_calibrated_and_one_that_is_wrong_and_sure_is_not() -> None:
    targets = torch.arange(60) % 3
    sure = torch.nn.functional.one_hot(targets, 3) * 40.0
    right, wrong = (measure(make_objective(None, 3), one, targets) for one in (sure, -sure))
    assert (right["ece"], right["brier"], right["auc"]) == (pytest.approx(0), pytest.approx(0), 1.0)
    assert wrong["ece"] == pytest.approx(0.5)  # two wrong classes share the chance
    assert wrong["auc"] == 0.0


def test_very_many_rows_are_compared_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, targets = some_scores(2, 2, rows=700)
    whole = measure(make_objective(BINARY, 2), scores, targets)
    monkeypatch.setattr("folkmoot.node.train.tallies.KEPT", 200)
    pieces = measure(make_objective(BINARY, 2), scores, targets)
    assert pieces["auc"] == pytest.approx(whole["auc"], abs=0.05)
    assert pieces["auc"] != whole["auc"]
    assert {**pieces, "auc": 0} == {**whole, "auc": 0}


def test_one_output_is_the_log_odds_of_the_second_class() -> None:
    odds, targets = some_scores(1, 2)
    one = make_objective(BINARY, 1)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(odds[:, 0], targets.float())
    assert one.loss(odds, targets).item() == pytest.approx(expected.item(), rel=1e-5)
    assert one.loss(odds[:, 0], targets).item() == one.loss(odds, targets).item()
    both = measure(make_objective(BINARY, 2), torch.cat([torch.zeros_like(odds), odds], dim=1), targets)
    assert measure(one, odds, targets) == both


def test_a_regression_is_measured_in_the_targets_own_units() -> None:
    objective = make_objective(PRICE, 1)
    scores, targets = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([0.0, 2.0, 2.0])
    assert objective.loss(scores, targets).item() == pytest.approx(5 / 3)
    found = measure(objective, scores, targets)
    assert found == {"rmse": pytest.approx(100 * math.sqrt(5 / 3)), "mae": pytest.approx(100), "examples": 3}
    assert measure(objective, scores[:, 0], targets) == found


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1))
def test_the_area_is_the_chance_that_positives_rank_higher(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in rows], dtype=np.float32)
    positive = np.array([label for _, label in rows])
    pairs = [(a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]]
    above, compared = pairs_in_order(scores, positive)
    assert (above, compared) == (sum(pairs), len(pairs))


def test_what_is_not_defined_is_left_out() -> None:
    scores, _ = some_scores(2, 2)
    one_class = torch.zeros(60, dtype=torch.int64)
    measures = {"accuracy", "brier", "ece", "log_loss", "examples"}
    assert set(measure(Classification(2, 2), scores, one_class)) == measures
    assert set(measure(Classification(2, 2), scores * torch.nan, one_class)) == {"accuracy", "examples"}
    assert measure(Regression(), torch.full((3, 1), torch.inf), torch.zeros(3)) == {"examples": 3}


@pytest.mark.parametrize(
    ("schema", "outputs", "message"),
    [(BINARY, 3, "binary task needs 2"), (PRICE, 2, "regression task needs 1")],
)
def test_outputs_that_do_not_suit_the_task_are_refused(schema: Schema, outputs: int, message: str) -> None:
    with pytest.raises(TrainerError, match=message):
        make_objective(schema, outputs)


@pytest.mark.parametrize("objective", [Classification(2, 2), Regression()])
def test_scores_of_another_shape_are_refused(objective: Objective) -> None:
    targets = torch.zeros(4, dtype=torch.int64 if objective.classes else torch.float32)
    with pytest.raises(TrainerError, match=r"gave the shape \(4, 3\) for 4 rows; the charter asks for"):
        objective.loss(torch.zeros(4, 3), targets)
    with pytest.raises(TrainerError, match="gave a tuple, not a tensor"):
        objective.loss((torch.zeros(4, 2), None), targets)  # type: ignore[arg-type]
