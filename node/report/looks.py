"""How all plots look.

Colours are Okabe and Ito's, which people who see fewer colours can tell apart. Up to `NAMED` nodes have a colour and a
place in the legend each; of more the best and the worst are named, and all others are thin and grey.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.typing import RcKeyType

from folkmoot.node.report.story import HIGHER_IS_BETTER

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6BB1")
BLUE, ORANGE, GREY, INK, ABSENT = "#0072B2", "#D55E00", "#9AA3AF", "#222222", "#F1D9C7"
POOLED = "trained on all rows in one place"

NAMED = 8
"""Nodes that have a colour of their own."""

STYLE: dict[RcKeyType, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E6EB",
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "text.parse_math": False,  # a member's name is no formula
    "svg.fonttype": "none",  # text stays text: small, and found by a search
    "svg.hashsalt": "folkmoot",  # the same picture is the same file
}


class Look(NamedTuple):
    """How one node's line is drawn; an empty label has no place in the legend, `tag` stands at the line's end."""

    name: str
    colour: str
    width: float
    label: str = ""
    tag: str = ""


def looks(lines: Mapping[str, Sequence[tuple[int, float]]], measure: str) -> list[Look]:
    """Of each node's line; those that stand out come last, on top."""
    if len(lines) <= NAMED:
        return [Look(name, colour, 1.6, name) for name, colour in zip(lines, COLOURS, strict=False)]
    ranked = sorted(lines, key=lambda name: lines[name][-1][1], reverse=measure in HIGHER_IS_BETTER)
    best, worst = ranked[0], ranked[-1]
    return [
        *(Look(name, GREY, 0.6, "" if at else "each node") for at, name in enumerate(ranked[1:-1])),
        Look(best, BLUE, 1.6, "best node in the end", best),
        Look(worst, ORANGE, 1.6, "worst node in the end", worst),
    ]


def marker(points: int) -> str:
    """A dot for each point, while there is room."""
    return "o" if points <= 30 else ""
