"""Plots over the rounds: what was measured, what it cost, who took part."""

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from folkmoot.node.report.looks import ABSENT, BLUE, GREY, INK, POOLED, looks, marker
from folkmoot.node.report.story import ALONE, HIGHER_IS_BETTER, LABELS, Story


def draw_learning(story: Story) -> Figure | None:
    """Every measure over the rounds: each node's line, and where a model trained on all rows would be."""
    measures = [name for name in story.measures if any(part.series(name) for part in story.parts)]
    if not measures:
        return None
    figure, axes = _grid(len(measures))
    for measure, ax in zip(measures, axes, strict=False):
        _draw_measure(ax, story, measure)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper")
    return figure


def _grid(count: int) -> tuple[Figure, list[Axes]]:
    columns = min(2, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(5.0 * columns + 1.6, 0.4 + 2.7 * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, at + 1) for at in range(count)]
    return figure, axes


def _draw_measure(ax: Axes, story: Story, measure: str) -> None:
    lines = {part.name: part.series(measure) for part in story.parts if part.series(measure)}
    if len(lines) > 1 and len({tuple(line) for line in lines.values()}) == 1:
        lines = {"every node (same rows)": next(iter(lines.values()))}
    for look in looks(lines, measure):
        rounds, values = zip(*lines[look.name], strict=True)
        dot = marker(len(rounds))
        ax.plot(rounds, values, color=look.colour, lw=look.width, marker=dot, ms=3, label=look.label or None)
        if look.tag:
            above = "bottom" if values[-1] == max(line[-1][1] for line in lines.values()) else "top"
            at = (rounds[-1], values[-1])
            ax.annotate(look.tag, at, color=look.colour, ha="right", va=above, fontsize=8)
    if len(lines) > 1 or len(story.parts) == 1:
        together = [(number, found[measure]) for number, found in story.together.items() if measure in found]
        if together:
            ax.plot(*zip(*together, strict=True), color=INK, lw=1.6, label="mean over the members")
    alone = [found[measure] for part in story.parts if measure in (found := part.models.get(ALONE, {}))]
    if alone:
        ax.axhline(sum(alone) / len(alone), color=GREY, ls=":", lw=1.8, label="trained alone, mean")
    if measure in story.pooled:
        ax.axhline(story.pooled[measure], color=INK, ls="--", lw=1.4, label=POOLED)
    better = "higher" if measure in HIGHER_IS_BETTER else "lower"
    ax.set_title(f"{LABELS[measure]} ({better} is better)")
    ax.set_xlabel("round")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_costs(story: Story) -> Figure | None:
    """Seconds and bytes of every round: the median over the nodes, and from the least to the most."""
    if not story.rounds:
        return None
    figure = Figure(figsize=(8.4, 4.4), layout="constrained")
    seconds, sizes = figure.subplots(2, 1, sharex=True)
    by_round = {number: story.rows_of(number) for number in story.rounds}
    _band(seconds, story, {number: [row.seconds for row in rows] for number, rows in by_round.items()})
    seconds.set_ylabel("seconds a round")
    moved = {number: [row.bytes for row in rows] for number, rows in by_round.items()}
    scale, unit = _unit(max(size for found in moved.values() for size in found))
    _band(sizes, story, {number: [size / scale for size in found] for number, found in moved.items()})
    sizes.set(ylabel=f"{unit} a node", xlabel="round")
    sizes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in (seconds, sizes):
        ax.set_ylim(bottom=0)
    seconds.set_title("Time, and bytes sent and received, of every round")
    if len(story.parts) > 1:
        seconds.legend(loc="upper right", fontsize=9)
    return figure


def _band(ax: Axes, story: Story, values: Mapping[int, Sequence[float]]) -> None:
    rounds = list(values)
    middle = [median(found) for found in values.values()]
    ax.plot(rounds, middle, color=BLUE, marker=marker(len(rounds)), ms=3, label="median node")
    if len(story.parts) > 1:
        low, high = [min(found) for found in values.values()], [max(found) for found in values.values()]
        ax.fill_between(rounds, low, high, color=BLUE, alpha=0.18, lw=0, label="from the least to the most")


def _unit(most: float) -> tuple[float, str]:
    return next(((size, unit) for size, unit in ((1e9, "GB"), (1e6, "MB")) if most >= size), (1e3, "kB"))


def draw_participation(story: Story) -> Figure | None:
    """Who took part in which round."""
    rounds, members = story.rounds, story.members
    if not rounds:
        return None
    there = np.array(
        [[name in story.participants(number) for number in rounds] for name in members], dtype=float
    )
    figure = Figure(figsize=(8.4, 0.9 + 0.24 * len(members)), layout="constrained")
    ax = figure.add_subplot()
    edges = np.append(rounds, rounds[-1] + 1) - 0.5
    ax.pcolormesh(
        *(edges, np.arange(len(members) + 1) - 0.5, there),
        cmap=ListedColormap([ABSENT, BLUE]),
        vmin=0,
        vmax=1,
        edgecolors="white",
        linewidth=0.8 if len(rounds) <= 60 else 0,
    )
    shares = zip(members, there.mean(axis=1), strict=True)
    ax.set_yticks(range(len(members)), [f"{name}  {share:.0%}" for name, share in shares])
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.set_title("Who took part (blue), and in what share of the rounds")
    ax.set_xlabel("round")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
