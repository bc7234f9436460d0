"""What members may tell each other of a model, and what all of them together measured."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.protocol.metrics import BOUNDS, Metrics, check_metrics, mean_metrics, select_metrics

values = st.one_of(st.floats(), st.integers(-(10**40), 10**40))
found = st.dictionaries(st.sampled_from([*BOUNDS, "loss", ""]), values)
sound = st.fixed_dictionaries(
    {"examples": st.integers(1, 1000).map(float)},
    optional={name: st.floats(0.0, 1.0) for name in BOUNDS if name != "examples"},
)


@given(found)
def test_whatever_a_trainer_says_only_sound_metrics_are_told(measured: dict[str, float]) -> None:
    told = select_metrics(measured)
    check_metrics(told)
    assert {name for name, _ in told} <= set(measured)


@pytest.mark.parametrize(
    "metrics",
    [
        (("accuracy", 0.5),),
        (("examples", 0.0),),
        (("examples", 5.0), ("accuracy", 0.5)),
        (("examples", 5.0), ("examples", 5.0)),
        (("accuracy", 1.5), ("examples", 5.0)),
        (("auc", math.nan), ("examples", 5.0)),
        (("examples", 5.0), ("rmse", math.inf)),
        (("examples", 5.0), ("fun", 0.5)),
    ],
)
def test_unsound_metrics_are_refused(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="metric"):
        check_metrics(metrics)


def test_members_count_by_their_rows() -> None:
    mean = mean_metrics(
        [
            {"accuracy": 1.0, "examples": 30.0, "rmse": 1.0},
            {"accuracy": 0.5, "examples": 10.0, "rmse": 3.0},
            {"examples": 60.0},
            {"accuracy": 0.0},
            {},
        ]
    )
    assert mean == {"accuracy": 0.875, "examples": 100.0, "rmse": pytest.approx(math.sqrt(3.0))}
    assert mean_metrics([]) == {}


@given(st.lists(sound))
def test_a_mean_lies_between_the_members(members: list[dict[str, float]]) -> None:
    mean = mean_metrics(members)
    for name in set(mean) - {"examples"}:
        having = [member[name] for member in members if name in member]
        assert min(having) - 1e-9 <= mean[name] <= max(having) + 1e-9
