"""A report says in words, figures and plots what its nodes measured, and who loses by the federation."""

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from matplotlib import rc_context

from folkmoot.node.cli.report import report
from folkmoot.node.report import plots
from folkmoot.node.report.folder import ReportError, write_folder
from folkmoot.node.report.looks import NAMED, STYLE, looks
from folkmoot.node.report.model_plots import draw_calibration, draw_comparison
from folkmoot.node.report.round_plots import draw_costs, draw_learning, draw_participation
from folkmoot.node.report.story import ALONE, PERSONAL, SHARED, Part, Step, Story, is_worse, losses
from folkmoot.node.status_file import RoundStatus

STEPS = [
    Step(rows=10, chances=2.0, hits=3.0),
    Step(rows=0, chances=0, hits=0),
    Step(rows=5, chances=4.5, hits=5),
]


def rounds(count: int, who: list[str], **measured: float) -> list[RoundStatus]:
    return [
        RoundStatus(
            round=number,
            participants=who if number > 1 else who[:-1],
            seconds=0.5,
            model_digest="ab" * 32,
            statement="cd" * 32,
            metrics={"accuracy": 0.5 + number / 100, **measured, "examples": 40.0} if number < count else {},
            bytes=1000 * number,
        )
        for number in range(1, count + 1)
    ]


def story(nodes: int = 3, count: int = 4, alone: float = 0.5, name: str = "node") -> Story:
    names = [f"{name}-{at}" for at in range(nodes)]
    models: Mapping[str, Mapping[str, float]] = {
        SHARED: {"accuracy": 0.53, "examples": 40.0},
        ALONE: {"accuracy": alone, "examples": 40.0},
    }
    parts = [
        Part(name=one, rounds=rounds(count, names, ece=at / 100), models=models, calibration=STEPS)
        for at, one in enumerate(names)
    ]
    return Story(title="clinics", mode="open", parts=parts, pooled={"accuracy": 0.6})


def test_who_is_worse_off_than_alone_is_said_in_a_plain_sentence() -> None:
    assert [str(loss) for loss in losses(story(1, alone=0.56))] == [
        "node-0 is worse off with the federation than alone: accuracy 0.53 with the shared model, 0.56 with one "
        "trained on its own rows only, measured on 40 held-out rows."
    ]
    assert losses(story(alone=0.54)) == []


def test_a_personal_model_counts_where_it_is_the_better_one() -> None:
    (part,) = story(1, alone=0.6).parts
    for personal, said in ((0.57, ["its personal model"]), (0.5, ["the shared model"]), (0.59, [])):
        own = replace(part, models={**part.models, PERSONAL: {"accuracy": personal, "examples": 40.0}})
        found = losses(Story(title="clinics", mode="open", parts=[own]))
        assert [which for loss in found for which in said if which in str(loss)] == said


@pytest.mark.parametrize(
    ("measure", "ours", "own", "worse"),
    [
        ("auc", 0.70, 0.71, False),
        ("auc", 0.70, 0.73, True),
        ("auc", 0.73, 0.70, False),
        ("rmse", 101.0, 100.0, False),
        ("rmse", 103.0, 100.0, True),
        ("rmse", 90.0, 100.0, False),
    ],
)
def test_a_loss_is_more_than_two_points_or_two_hundredths_of_an_error(
    measure: str, ours: float, own: float, worse: bool
) -> None:
    assert is_worse(measure, ours, own) is worse


def test_the_folder_has_a_page_plots_and_figures(tmp_path: Path) -> None:
    page = write_folder(tmp_path / "new" / "report", story(alone=0.6))
    text = page.read_text()
    for name in plots.PLOTS:
        assert (page.parent / f"{name}.svg").read_bytes().startswith(b"<?xml")
        assert f'src="{name}.svg"' in text
    assert text.count("is worse off with the federation than alone") == 3
    with (page.parent / "rounds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert rows[2] == {
        "round": "1",
        "node": "node-2",
        "took_part": "0",
        "participants": "2",
        "seconds": "0.500",
        "bytes": "1000",
        "accuracy": "0.51",
        "ece": "0.02",
        "examples": "40.0",
        "model": "ab" * 32,
    }
    with (page.parent / "nodes.csv").open() as file:
        assert [(row["node"], row["model"], row["accuracy"]) for row in csv.DictReader(file)][-2:] == [
            ("node-2", "alone", "0.6"),
            ("", "pooled", "0.6"),
        ]
    with (page.parent / "calibration.csv").open() as file:
        assert [row["rows"] for row in csv.DictReader(file)] == ["10", "5"] * 3


def test_the_same_story_gives_the_same_files(tmp_path: Path) -> None:
    first, second = (write_folder(tmp_path / name, story(1)).parent for name in ("one", "two"))
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name


def test_names_are_text_on_the_page_and_in_the_plots(tmp_path: Path) -> None:
    page = write_folder(tmp_path, story(1, alone=0.6, name="<b>$x^2$"))
    assert "<b>" not in page.read_text() and "&lt;b&gt;" in page.read_text()
    assert "&lt;b&gt;$x^2$-0" in (tmp_path / "comparison.svg").read_text()


def test_what_nobody_measured_has_no_plot(tmp_path: Path) -> None:
    bare = Story(title="new", mode="secure", parts=[Part(name="alice", rounds=[])])
    assert [draw(bare) for draw in plots.PLOTS.values()] == [None] * 5
    assert "No round is finished yet." in write_folder(tmp_path, bare).read_text()


def test_every_measure_has_its_axes_with_a_line_for_each_node_and_what_it_is_compared_with() -> None:
    with rc_context(STYLE):
        figure = draw_learning(story())
    assert figure is not None
    assert [ax.get_title("left") for ax in figure.axes] == [
        "accuracy (higher is better)",
        "calibration error (ECE) (lower is better)",
    ]
    drawn = [line.get_label() for line in figure.axes[1].lines]
    assert drawn == ["node-0", "node-1", "node-2", "mean over the members"]
    same = [line.get_label() for line in figure.axes[0].lines]
    assert same == ["every node (same rows)", "trained alone, mean", "trained on all rows in one place"]


def test_of_many_nodes_the_best_and_the_worst_stand_out() -> None:
    lines = {f"node-{at:02d}": [(1, 0.0), (2, at / 16)] for at in range(16)}
    styles = looks(lines, "accuracy")
    assert len(styles) == 16 > NAMED
    assert [style.tag for style in styles if style.tag] == ["node-15", "node-00"]
    assert [style.tag for style in looks(lines, "log_loss") if style.tag] == ["node-00", "node-15"]
    assert [style.label for style in styles if style.label] == [
        "each node",
        "best node in the end",
        "worst node in the end",
    ]


def test_large_and_small_federations_are_drawn() -> None:
    for nodes, count in ((1, 1), (16, 70)):
        told = story(nodes, count)
        for draw in (draw_comparison, draw_calibration, draw_costs, draw_participation):
            assert draw(told) is not None


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="file"):
        write_folder(tmp_path / "file" / "report", story())


def test_a_home_where_nothing_ran_says_what_to_do(tmp_path: Path) -> None:
    failed = CliRunner().invoke(report, ["--home", str(tmp_path)])
    assert isinstance(failed.exception, ReportError)
    assert "start it with 'folkmoot run'" in str(failed.exception)
