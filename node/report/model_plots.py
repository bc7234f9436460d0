"""Plots of the models at the end: each node's beside one another, and how far their chances can be trusted."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from folkmoot.node.report.looks import BLUE, COLOURS, GREY, INK, NAMED, ORANGE, POOLED
from folkmoot.node.report.story import ALONE, HIGHER_IS_BETTER, LABELS, SHARED, Step, Story, losses

TELLING = ("accuracy", "auc", "rmse")
"""The measures by which models are compared."""

LINK = "#C9D3DF"
MARKS = {SHARED: ("o", BLUE), ALONE: ("D", INK)}
"""Mark and colour of each kind of model; others are squares."""


def draw_comparison(story: Story) -> Figure | None:
    """Each node with its models side by side, by the measures that tell most."""
    measures = [name for name in TELLING if sum(map(bool, _found(story, name).values())) > 1]
    if not measures:
        return None
    height = 1.4 + 0.3 * len(story.parts)
    figure = Figure(figsize=(1.5 + 4.4 * len(measures), height), layout="constrained")
    axes = [figure.add_subplot(1, len(measures), at + 1) for at in range(len(measures))]
    for measure, ax in zip(measures, axes, strict=True):
        _compare(ax, story, measure)
    axes[0].set_yticks(range(len(story.parts)), [part.name for part in story.parts])
    labelled = {
        text: handle for ax in axes for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(labelled.values(), labelled.keys(), loc="outside upper left", ncols=4)
    return figure


def _found(story: Story, measure: str) -> dict[str, list[tuple[int, float]]]:
    """(place of the node, value) by what the models are called."""
    return {
        kind: [(at, found[measure]) for at, found in enumerate(models) if measure in found]
        for kind in story.models
        for models in [[part.models.get(kind, {}) for part in story.parts]]
    }


def _compare(ax: Axes, story: Story, measure: str) -> None:
    found = _found(story, measure)
    for place, part in enumerate(story.parts):
        values = [value for points in found.values() for at, value in points if at == place]
        lost = any(loss.part is part and loss.measure == measure for loss in losses(story))
        if values:
            colour, label = (ORANGE, "worse off than alone") if lost else (LINK, None)
            ax.plot([min(values), max(values)], [place, place], color=colour, lw=2.5, zorder=1, label=label)
    for number, (kind, points) in enumerate(found.items()):
        mark, colour = MARKS.get(kind, ("s", COLOURS[2 + number]))
        places, values = [at for at, _ in points], [value for _, value in points]
        ax.scatter(values, places, marker=mark, color=colour, s=42, label=_model_label(kind), zorder=2)
    if measure in story.pooled:
        ax.axvline(story.pooled[measure], color=INK, ls="--", lw=1.4, label=POOLED)
    ax.set_yticks(range(len(story.parts)), [""] * len(story.parts))
    ax.set_ylim(len(story.parts) - 0.3, -0.7)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    better = "right" if measure in HIGHER_IS_BETTER else "left"
    ax.set_xlabel(f"{LABELS[measure]} (better to the {better})")


def _model_label(kind: str) -> str:
    return {SHARED: "shared model", ALONE: "trained alone"}.get(kind, f"{kind} model")


def draw_calibration(story: Story) -> Figure | None:
    """How often it was so over how sure the model was, and how many rows there are of each sureness."""
    curves = {part.name: part.calibration for part in story.parts if part.calibration}
    if not curves:
        return None
    figure = Figure(figsize=(6.6, 6.2), layout="constrained")
    ax, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    ax.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1.2, label="perfectly calibrated")
    steps = next(iter(curves.values()))
    if any(found != steps for found in curves.values()):
        _draw_each(ax, curves)
        steps = _together(list(curves.values()))
    chances, frequencies, rows = _curve(steps)
    spread = [_likely(hits, count) for hits, count in zip(frequencies, rows, strict=True)]
    bars = np.abs(np.array(spread).T - frequencies)
    ax.errorbar(
        chances, frequencies, bars, color=INK, lw=1, elinewidth=1, label="all held-out rows, 95 % likely"
    )
    ax.scatter(chances, frequencies, color=INK, s=12 + 150 * np.array(rows) / sum(rows))
    ax.set(ylabel="how often it was so", ylim=(-0.02, 1.02))
    ax.set_title("Calibration of the shared model (large marks: many rows)")
    ax.legend(loc="upper left", fontsize=9)
    edges = np.arange(len(steps)) / len(steps)
    below.bar(
        edges, [step.rows for step in steps], 1 / len(steps), align="edge", color=BLUE, edgecolor="white"
    )
    below.set(ylabel="rows", xlabel="how sure the model was (chance)", xlim=(-0.02, 1.02))
    return figure


def _draw_each(ax: Axes, curves: Mapping[str, Sequence[Step]]) -> None:
    """A thin line for each node; with a colour and a name if there are few."""
    for at, (name, steps) in enumerate(curves.items()):
        chances, frequencies, _ = _curve(steps)
        if len(curves) <= NAMED:
            ax.plot(chances, frequencies, color=COLOURS[at], lw=1.1, label=name)
        else:
            ax.plot(chances, frequencies, color=GREY, lw=0.6, label=None if at else "each node")


def _curve(steps: Sequence[Step]) -> tuple[list[float], list[float], list[float]]:
    found = [step for step in steps if step.rows]
    chances = [step.chances / step.rows for step in found]
    return chances, [step.hits / step.rows for step in found], [step.rows for step in found]


def _likely(frequency: float, rows: float) -> tuple[float, float]:
    """Wilson's interval: where, 19 times of 20, the frequency lies of which `rows` showed this one."""
    z = 1.96
    centre = (frequency + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * (frequency * (1 - frequency) / rows + z * z / (4 * rows * rows)) ** 0.5
    return centre - half, centre + half


def _together(parts: Sequence[Sequence[Step]]) -> list[Step]:
    return [
        Step(sum(one.rows for one in at), sum(one.chances for one in at), sum(one.hits for one in at))
        for at in zip(*parts, strict=True)
    ]
