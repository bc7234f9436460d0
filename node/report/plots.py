"""All plots of a report, as files. matplotlib is in this folder's plotting files only; no daemon imports them."""

from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from folkmoot.node.report.looks import STYLE
from folkmoot.node.report.model_plots import draw_calibration, draw_comparison
from folkmoot.node.report.round_plots import draw_costs, draw_learning, draw_participation
from folkmoot.node.report.story import Story

PLOTS: Mapping[str, Callable[[Story], Figure | None]] = {
    "comparison": draw_comparison,
    "learning": draw_learning,
    "calibration": draw_calibration,
    "costs": draw_costs,
    "participation": draw_participation,
}


def write_plots(folder: Path, story: Story, kind: str) -> dict[str, Path]:
    """Draw what there is into files of `kind`, svg or png; paths by the plot's name. Raises `OSError`."""
    paths = {}
    with rc_context(STYLE):
        for name, draw in PLOTS.items():
            figure = draw(story)
            if figure is not None:
                paths[name] = folder / f"{name}.{kind}"
                figure.savefig(paths[name], dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return paths
