"""The geometric shapes, and the outlined strokes that the food and nature drawings share with them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..pen import RGB, Ink, Pen, Point
from .registry import kind

RIM = 0.055  # width of the outline, frame units


def is_black(ink: Ink) -> bool:
    """Whether the main colour is so dark that details have to be lighter than it."""
    return ink.line[0] < 20 and sum(ink.main) < 210


def mark(ink: Ink) -> RGB:
    """A colour for fine lines that shows on every main colour."""
    return (206, 208, 216) if is_black(ink) else ink.line


def shade(ink: Ink) -> RGB:
    """A colour for soft details (dimples, holes) that shows on every main colour."""
    return ink.light if is_black(ink) else ink.dark


def grow(points: Sequence[Point], by: float) -> list[Point]:
    """The polygon with every edge moved outward by `by` frame units; corners are mitred, at most 2.2 times `by` out."""
    n = len(points)
    area = sum(points[i - 1][0] * points[i][1] - points[i][0] * points[i - 1][1] for i in range(n))
    sign = by if area > 0 else -by
    normals = []
    for i in range(n):
        (x0, y0), (x1, y1) = points[i], points[(i + 1) % n]
        length = math.hypot(x1 - x0, y1 - y0) or 1.0
        normals.append(((y1 - y0) / length, (x0 - x1) / length))
    out = []
    for i, (x, y) in enumerate(points):
        (ax, ay), (bx, by_) = normals[i - 1], normals[i]
        mx, my = ax + bx, ay + by_
        length = math.hypot(mx, my) or 1.0
        reach = sign * min(2.2, 2 / length)
        out.append((x + mx / length * reach, y + my / length * reach))
    return out


def polygon(pen: Pen, points: Sequence[Point], fill: RGB, line: RGB) -> None:
    """A polygon with an outline around it."""
    pen.polygon(grow(points, RIM), line)
    pen.polygon(points, fill)


def blob(pen: Pen, points: Sequence[Point], fill: RGB, line: RGB) -> None:
    """A smooth closed curve with an outline around it."""
    pen.blob(grow(points, RIM), line)
    pen.blob(points, fill)


def disc(pen: Pen, cx: float, cy: float, rx: float, ry: float, fill: RGB, line: RGB) -> None:
    """An ellipse with its outline inside the radii given, so that the radii are its extent."""
    pen.ellipse(cx, cy, rx, ry, line)
    pen.ellipse(cx, cy, rx - RIM, ry - RIM, fill)


def stroke(pen: Pen, points: Sequence[Point], width: float, fill: RGB, line: RGB) -> None:
    """A round-ended stroke with an outline around it."""
    pen.line(points, width + 2 * RIM, line)
    pen.line(points, width, fill)


def petal(
    pen: Pen,
    x: float,
    y: float,
    angle: float,
    length: float,
    width: float,
    fill: RGB,
    line: RGB,
) -> None:
    """A pointed oval growing from (x, y); angle in degrees clockwise from 3 o'clock, length and width its extent."""
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    shape = ((0, 0), (0.28, 0.42), (0.62, 0.44), (1, 0), (0.62, -0.44), (0.28, -0.42))
    long, wide = length - RIM, width - 2 * RIM
    blob(
        pen,
        [(x + u * long * c - v * wide * s, y + u * long * s + v * wide * c) for u, v in shape],
        fill,
        line,
    )


def star_points(n: int, outer: float, inner: float, cy: float = 0.0) -> list[Point]:
    """The corners of an n-pointed star, the first pointing up."""
    turns = [(math.pi * i / n - math.pi / 2, inner if i % 2 else outer) for i in range(2 * n)]
    return [(r * math.cos(t), cy + r * math.sin(t)) for t, r in turns]


@kind("circle", "shapes", natural="blue", size=(0.95, 0.95))
def circle(pen: Pen, ink: Ink, state: str | None) -> None:
    disc(pen, 0, 0, 0.95, 0.95, ink.main, ink.line)


@kind("square", "shapes", natural="red", size=(0.88, 0.88))
def square(pen: Pen, ink: Ink, state: str | None) -> None:
    pen.rect(-0.88, -0.88, 0.88, 0.88, ink.line, 0.06)
    pen.rect(-0.82, -0.82, 0.82, 0.82, ink.main, 0.03)


@kind("triangle", "shapes", natural="yellow", size=(0.98, 0.88))
def triangle(pen: Pen, ink: Ink, state: str | None) -> None:
    polygon(pen, [(0, -0.76), (0.875, 0.825), (-0.875, 0.825)], ink.main, ink.line)


@kind("star", "shapes", natural="yellow", size=(0.98, 0.94))
def star(pen: Pen, ink: Ink, state: str | None) -> None:
    polygon(pen, star_points(5, 0.91, 0.42, 0.098), ink.main, ink.line)


@kind("heart", "shapes", natural="red", size=(0.96, 0.9))
def heart(pen: Pen, ink: Ink, state: str | None) -> None:
    for grown, fill in ((RIM, ink.line), (0.0, ink.main)):
        pen.circle(-0.44, -0.38, 0.465 + grown, fill)
        pen.circle(0.44, -0.38, 0.465 + grown, fill)
        pen.polygon(grow([(0, -0.5), (0.815, -0.105), (0, 0.83), (-0.815, -0.105)], grown), fill)
    pen.ellipse(-0.56, -0.5, 0.14, 0.1, ink.light)
