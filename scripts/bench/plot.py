"""Lines over two logarithmic axes, as SVG: enough for the figures in docs/, without a library."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, MARGIN = 560, 340, 60


@dataclass(frozen=True)
class Line:
    """Points (x, y) with a colour; a name stands at the end of the line."""

    points: Sequence[tuple[float, float]]
    colour: str
    name: str = ""
    dotted: bool = False


def plot(title: str, x_title: str, ticks: dict[float, str], lines: Sequence[Line]) -> str:
    """The whole picture; `ticks` names places on the x axis, whose first and last are its ends."""
    values = [y for line in lines for _, y in line.points]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    left, right = math.log10(min(ticks)), math.log10(max(ticks))

    def at(x: float, y: float) -> tuple[float, float]:
        across = MARGIN + (math.log10(x) - left) / (right - left) * (WIDTH - 2 * MARGIN)
        up = HEIGHT - MARGIN - (math.log10(y) - low) / (high - low) * (HEIGHT - 2 * MARGIN)
        return round(across, 1), round(up, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{MARGIN}" y="24">{title}</text>',
    ]
    for power in range(low, high + 1):
        x, y = at(min(ticks), 10.0**power)
        parts.append(f'<path d="M{x} {y}H{WIDTH - MARGIN}" stroke="#ddd"/>')
        parts.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{10.0**power:g}</text>')
    for tick, name in ticks.items():
        x, y = at(tick, 10.0**low)
        parts.append(f'<text x="{x}" y="{y + 20}" text-anchor="middle">{name}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 14}" text-anchor="middle">{x_title}</text>')
    for line in lines:
        points = [at(*point) for point in line.points]
        dash = ' stroke-dasharray="2 4"' if line.dotted else ""
        joined = " ".join(f"{x},{y}" for x, y in points)
        parts.append(
            f'<polyline points="{joined}" fill="none" stroke="{line.colour}" stroke-width="2"{dash}/>'
        )
        parts += [f'<circle cx="{x}" cy="{y}" r="2.5" fill="{line.colour}"/>' for x, y in points]
        x, y = points[-1]
        if line.name:
            parts.append(f'<text x="{x + 6}" y="{y + 4}" fill="{line.colour}">{line.name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
