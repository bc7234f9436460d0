"""A report as one page: what the figures say in words, a table, and the plots, which lie beside it."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from folkmoot.node.report.story import ALONE, LABELS, SHARED, Story, losses

CAPTIONS = {
    "comparison": "Each node's shared model beside one that it trained on its own rows alone.",
    "learning": "Measured on the rows that each node holds out, after every round.",
    "calibration": "Of all rows to which the model gave a chance of 70 %, 70 % should have been so. A curve of few "
    "rows jumps by chance alone.",
    "costs": "A round lasts from one model to the next; bytes are those that a node sent and received in it.",
    "participation": "Whose updates are in the model of each round.",
}

NO_COMPARISON = (
    "Nothing is known of models that members trained alone, so whether it pays for each is not shown."
)


def render(story: Story, plots: Mapping[str, Path], tables: Sequence[Path], version: str) -> str:
    """The page; `plots` and `tables` lie in its folder. Names come from charters, so they are escaped."""
    style = files("folkmoot.node.report").joinpath("page.css").read_text()
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(story.title)}</title><style>{style}</style></head><body>",
        f'<h1>{escape(story.title)}</h1><p class="soft">{_extent(story)}</p>',
        *_verdict(story),
        *_table(story),
    ]
    for name, path in plots.items():
        caption = f"<figcaption>{CAPTIONS[name]}</figcaption>"
        parts.append(f'<figure><img src="{path.name}" alt="{name}">{caption}</figure>')
    links = ", ".join(f'<a href="{path.name}">{path.name}</a>' for path in tables)
    parts.append(
        f'<p class="soft">Figures: {links}. Written by folkmoot {escape(version)}.</p></body></html>\n'
    )
    return "\n".join(parts)


def _extent(story: Story) -> str:
    rounds = story.rounds
    if not rounds:
        return "No round is finished yet."
    which = f"rounds {rounds[0]} to {rounds[-1]}" if len(rounds) > 1 else f"round {rounds[0]}"
    return f"{len(story.members)} members, {which}, {story.mode} mode"


def _verdict(story: Story) -> Iterator[str]:
    """Who loses by the federation, or that nobody does; or that it cannot be told."""
    compared = [part for part in story.parts if ALONE in part.models and part.shared]
    lost = losses(story)
    for loss in lost:
        yield f'<p class="loss">{escape(str(loss))}</p>'
    if not compared:
        yield f'<p class="soft">{NO_COMPARISON}</p>'
    elif not lost:
        who = "No node is" if len(compared) > 1 else f"{escape(compared[0].name)} is not"
        yield f"<p>{who} worse off with the federation than alone.</p>"


def _table(story: Story) -> Iterator[str]:
    """Every model's measures, node by node."""
    if not story.measures:
        return
    yield '<h2>Held-out rows</h2><div class="wide"><table><tr><th>node</th><th>model</th><th class="n">rows</th>'
    yield "".join(f'<th class="n">{escape(LABELS[name])}</th>' for name in story.measures) + "</tr>"
    for part in story.parts:
        for model in story.models:
            if model in part.models:
                yield _line(part.name, model, part.models[model], story.measures)
    if story.pooled:
        yield _line("all", "trained on all rows in one place", story.pooled, story.measures)
    yield "</table></div>"


def _line(node: str, model: str, measured: Mapping[str, float], measures: Sequence[str]) -> str:
    named = {SHARED: "shared", ALONE: "trained alone"}.get(model, model)
    rows = f"{measured['examples']:,.0f}" if "examples" in measured else "-"
    values = [f"{measured[name]:.4g}" if name in measured else "-" for name in measures]
    numbers = "".join(f'<td class="n">{value}</td>' for value in (rows, *values))
    return f"<tr><td>{escape(node)}</td><td>{escape(named)}</td>{numbers}</tr>"
