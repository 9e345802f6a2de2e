"""Buildings, and the outlined shapes that buildings, vehicles and household things are put together from.

An outline is a silhouette in `ink.line`, `EDGE` larger than the shape all round, painted before the shape itself; the
declared sizes include it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..pen import RGB, Ink, Pen, Point
from .registry import kind

EDGE = 0.05  # how far an outline reaches beyond its shape, in frame units: about one pixel at 32 pixels
GLASS, WHITE, SOOT, GLOW = (178, 222, 246), (255, 255, 255), (46, 48, 58), (255, 232, 120)


def luma(ink: Ink) -> float:
    """How light the main colour looks, 0 to 255."""
    return (ink.main[0] * 3 + ink.main[1] * 6 + ink.main[2]) / 10


def mark(ink: Ink) -> RGB:
    """A shade of the main colour for fine lines on it: darker, except on black, where only lighter ones show."""
    return ink.light if luma(ink) < 70 else ink.line


def trim(ink: Ink) -> RGB:
    """White for stripes and bands on the main colour, or grey where the main colour is white."""
    return (176, 184, 196) if luma(ink) > 235 else WHITE


def solid(pen: Pen, line: RGB, *parts: tuple[Sequence[Point], RGB]) -> None:
    """Polygons, each with its fill, under one common outline: all the outlines first, then all the fills."""
    for points, _ in parts:
        pen.line([*points, points[0]], 2 * EDGE, line)
    for points, fill in parts:
        pen.polygon(points, fill)


def slab(pen: Pen, box: tuple[float, float, float, float], fill: RGB, line: RGB, radius: float = 0.0) -> None:
    """An outlined rectangle (x0, y0, x1, y1) with rounded corners."""
    x0, y0, x1, y1 = box
    pen.rect(x0 - EDGE, y0 - EDGE, x1 + EDGE, y1 + EDGE, line, radius + EDGE)
    pen.rect(x0, y0, x1, y1, fill, radius)


def disc(pen: Pen, cx: float, cy: float, r: float, fill: RGB, line: RGB) -> None:
    """An outlined circle."""
    pen.circle(cx, cy, r + EDGE, line)
    pen.circle(cx, cy, r, fill)


@kind("house", "buildings", "brown", (0.95, 0.95))
def house(pen: Pen, ink: Ink, state: str | None) -> None:
    slab(pen, (0.36, -0.78, 0.58, -0.2), ink.main, ink.line)
    slab(pen, (-0.7, -0.15, 0.7, 0.9), ink.main, ink.line)
    solid(pen, ink.line, ([(-0.9, -0.08), (0.0, -0.9), (0.9, -0.08)], ink.main))
    pen.polygon([(-0.9, -0.08), (-0.74, -0.23), (0.74, -0.23), (0.9, -0.08)], ink.dark)
    pen.line([(-0.3, -0.42), (0.3, -0.42)], 0.06, mark(ink))
    slab(pen, (-0.44, 0.3, -0.12, 0.9), (120, 74, 48), ink.line, 0.06)
    pen.circle(-0.2, 0.62, 0.045, GLOW)
    slab(pen, (0.16, 0.24, 0.48, 0.54), GLASS, ink.line)
    pen.line([(0.32, 0.24), (0.32, 0.54)], 0.05, ink.line)
    pen.line([(0.16, 0.39), (0.48, 0.39)], 0.05, ink.line)


def _tower(x0: float, x1: float, top: float, foot: float) -> list[Point]:
    """A wall from x0 to x1 with three merlons along its top."""
    step = (x1 - x0) / 5
    points: list[Point] = [(x0, foot)]
    for i in range(5):
        y = top if i % 2 == 0 else top + 0.13
        points += [(x0 + i * step, y), (x0 + (i + 1) * step, y)]
    return [*points, (x1, foot)]


@kind("castle", "buildings", "white", (0.95, 0.95))
def castle(pen: Pen, ink: Ink, state: str | None) -> None:
    pen.line([(0.0, -0.42), (0.0, -0.92)], 0.06, mark(ink) if luma(ink) > 70 else ink.line)
    solid(pen, ink.line, ([(0.03, -0.9), (0.42, -0.76), (0.03, -0.62)], (232, 84, 74)))
    keep = _tower(-0.34, 0.34, -0.46, 0.5)
    left, right = _tower(-0.9, -0.42, -0.3, 0.9), _tower(0.42, 0.9, -0.3, 0.9)
    wall = _tower(-0.45, 0.45, 0.06, 0.9)
    solid(pen, ink.line, (keep, ink.dark))
    solid(pen, ink.line, (wall, ink.main), (left, ink.main), (right, ink.main))
    for x in (-0.66, 0.66):
        pen.rect(x - 0.08, 0.06, x + 0.08, 0.36, SOOT, 0.08)
    pen.rect(-0.08, -0.24, 0.08, -0.02, SOOT, 0.08)
    pen.line([(-0.43, 0.1), (-0.43, 0.9)], 0.04, mark(ink))
    pen.line([(0.43, 0.1), (0.43, 0.9)], 0.04, mark(ink))
    pen.pie(0.0, 0.62, 0.26, 0.28, 180, 360, SOOT)
    pen.rect(-0.26, 0.6, 0.26, 0.93, SOOT)
    pen.rect(-0.17, 0.56, 0.17, 0.93, (132, 84, 50))


@kind("lighthouse", "buildings", "red", (0.62, 0.98))
def lighthouse(pen: Pen, ink: Ink, state: str | None) -> None:
    pen.polygon([(0.0, -0.58), (-0.62, -0.72), (-0.62, -0.44)], GLOW)
    pen.polygon([(0.0, -0.58), (0.62, -0.72), (0.62, -0.44)], GLOW)
    slab(pen, (-0.57, 0.84, 0.57, 0.93), (136, 140, 150), ink.line, 0.07)

    def band(y0: float, y1: float) -> list[Point]:
        # The tower narrows from half width 0.52 at its foot (y 0.86) to 0.3 at the gallery (y -0.36).
        a, b = (0.3 + (y + 0.36) * 0.18 for y in (y0, y1))
        return [(-a, y0), (a, y0), (b, y1), (-b, y1)]

    solid(pen, ink.line, (band(-0.36, 0.86), ink.main))
    for y in (-0.1, 0.34):
        pen.polygon(band(y, y + 0.16), trim(ink))
    pen.rect(-0.1, 0.62, 0.1, 0.84, SOOT, 0.08)
    slab(pen, (-0.17, -0.74, 0.17, -0.4), (255, 244, 170), ink.line)
    pen.rect(-0.03, -0.74, 0.03, -0.4, ink.line)
    slab(pen, (-0.4, -0.42, 0.4, -0.3), ink.main, ink.line, 0.03)
    solid(pen, ink.line, ([(-0.3, -0.68), (0.0, -0.93), (0.3, -0.68)], ink.main))


@kind("pyramid", "buildings", "yellow", (0.97, 0.8))
def pyramid(pen: Pen, ink: Ink, state: str | None) -> None:
    top, left, corner, right = (0.1, -0.75), (-0.92, 0.56), (0.44, 0.75), (0.92, 0.5)
    solid(pen, ink.line, ([top, left, corner], ink.main), ([top, corner, right], ink.dark))

    def along(a: Point, share: float) -> Point:
        return (top[0] + (a[0] - top[0]) * share, top[1] + (a[1] - top[1]) * share)

    line = mark(ink) if luma(ink) < 70 else ink.dark
    for share in (0.3, 0.53, 0.77):
        pen.line([along(left, share), along(corner, share)], 0.05, line)
        pen.line([along(corner, share), along(right, share)], 0.05, mark(ink))
    for share, spots in ((0.3, (0.55,)), (0.53, (0.3, 0.72)), (0.77, (0.2, 0.5, 0.8))):
        for spot in spots:  # the upright joints of the course of stones that begins at `share`
            below = min(share + 0.235, 1.0)
            a, b = along(left, share), along(corner, share)
            c, d = along(left, below), along(corner, below)
            x = a[0] + (b[0] - a[0]) * spot
            across = (x - c[0]) / (d[0] - c[0])
            pen.line([(x, a[1] + (b[1] - a[1]) * spot), (x, c[1] + (d[1] - c[1]) * across)], 0.04, line)
