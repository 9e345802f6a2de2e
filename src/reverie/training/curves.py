"""Learning curves of several runs in one small SVG: `python -m reverie.training.curves NAME=log.jsonl ... --out FILE`.

One logged value against steps, on a logarithmic scale, smoothed by the mean over neighbours; the values as they were
logged are drawn faintly behind, so that unrest shows.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from ..files import write_atomically

Curve = list[tuple[float, float]]
COLOURS = ("#1b6ca8", "#d1495b", "#3d8b40", "#8e6c8a", "#c98b2b", "#444444", "#5fb3b3", "#a8327e")
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 320, 56, 14, 190, 36


def read_curve(path: str | Path, value: str) -> Curve:
    """(step, value) of each line of a log that has it; ValueError for a log without any above 0."""
    rows = (json.loads(line) for line in Path(path).read_text("utf-8").splitlines())
    found = [(row["step"], row[value]) for row in rows if row.get(value, 0) > 0]
    if not found:
        raise ValueError(f"{path} has no {value!r} above 0, so there is nothing to draw.")
    return found


def smooth(curve: Curve, reach: int = 2) -> Curve:
    """Each value the geometric mean of itself and up to `reach` neighbours on either side."""
    logs = [math.log(value) for _, value in curve]
    found = []
    for place, (step, _) in enumerate(curve):
        near = logs[max(0, place - reach) : place + reach + 1]
        found.append((step, math.exp(sum(near) / len(near))))
    return found


def drawn(curves: Mapping[str, Curve], title: str, reach: int = 2) -> str:
    """The SVG. reach: of the smoothing; 0 for none."""
    points = [point for curve in curves.values() for point in curve]
    last = max(step for step, _ in points)
    low, high = (math.log10(pick(value for _, value in points)) for pick in (min, max))
    low, high = low - 0.03, max(high, low + 0.1) + 0.03

    def place(step: float, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / last
        return x, TOP + (HEIGHT - TOP - BOTTOM) * (high - math.log10(value)) / (high - low)

    def line(curve: Curve, colour: str, width: float, opacity: float) -> str:
        path = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in curve)
        return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}" opacity="{opacity}"/>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for value in _marks(10**low, 10**high):
        _, y = place(0, value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, _ = place(share * last, 10**low)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 20}" text-anchor="middle">{share * last:.0f}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 5}">{escape(title)}</text>')
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        y = TOP + 12 + 18 * number
        parts += [line(curve, colour, 0.8, 0.35), line(smooth(curve, reach), colour, 1.8, 1)]
        parts.append(f'<text x="{WIDTH - RIGHT + 12}" y="{y}" fill="{colour}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _marks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of every power of ten within the range."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [digit * 10.0**power for power in powers for digit in (1, 2, 5) if low <= digit * 10.0**power <= high]


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m reverie.training.curves`."""
    parser = argparse.ArgumentParser(description="Draw the learning curves of several runs.")
    parser.add_argument("runs", nargs="+", metavar="NAME=LOG")
    parser.add_argument("--value", default="loss", help="which logged value (default: %(default)s)")
    parser.add_argument("--title", help="what is drawn")
    parser.add_argument("--out", required=True, help="the SVG")
    given = parser.parse_args(arguments)
    curves = {}
    for run in given.runs:
        name, _, path = run.partition("=")
        curves[name] = read_curve(path, given.value)
    text = drawn(curves, given.title or f"{given.value} against steps")
    write_atomically(Path(given.out), lambda part: part.write_text(text, "utf-8"))


if __name__ == "__main__":
    main()
