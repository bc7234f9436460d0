"""Lines over a logarithmic axis as SVG, for the figures in docs/; they look as the plots of a report do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from folkmoot.node.report.looks import COLOURS, STYLE

__all__ = ["COLOURS", "Line", "plot"]


@dataclass(frozen=True)
class Line:
    """Points (x, y) with a colour, a name in the legend, and what may lie around them: (least, most) of each y."""

    points: Sequence[tuple[float, float]]
    colour: str
    name: str = ""
    dotted: bool = False
    around: Sequence[tuple[float, float]] = ()


def plot(
    title: str,
    x_title: str,
    lines: Sequence[Line],
    *,
    ticks: Mapping[float, str] | None = None,
    y_title: str = "",
    y_scale: str = "log",
) -> str:
    """The whole picture; `ticks` names places on the x axis."""
    with rc_context(STYLE):
        figure = Figure(figsize=(6.6, 4.0), layout="constrained")
        ax = figure.add_subplot(title=title, xlabel=x_title, ylabel=y_title, xscale="log", yscale=y_scale)
        for line in lines:
            x, y = zip(*line.points, strict=True)
            dash, label = (":" if line.dotted else "-"), (line.name or None)
            ax.plot(x, y, color=line.colour, ls=dash, lw=1.6, marker="o", ms=3, label=label)
            if line.around:
                ax.fill_between(x, *zip(*line.around, strict=True), color=line.colour, alpha=0.2, lw=0)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # no powers of ten
        if ticks is not None:
            ax.set_xticks(list(ticks), list(ticks.values()))
            ax.minorticks_off()
        ax.legend(fontsize=9)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
