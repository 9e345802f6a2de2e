"""Vehicles: car, bus, boat, airplane, rocket and train, told apart by their outlines first."""

from __future__ import annotations

from ..pen import Ink, Pen, Point
from .buildings import EDGE, GLASS, GLOW, SOOT, WHITE, disc, mark, slab, solid, trim
from .registry import kind

HUB, WOOD, FLAME = (206, 212, 222), (150, 98, 56), (255, 140, 40)


def _wheel(pen: Pen, x: float, y: float, r: float) -> None:
    pen.circle(x, y, r, SOOT)
    pen.circle(x, y, r * 0.5, HUB)


@kind("car", "vehicles", "red", (0.97, 0.65))
def car(pen: Pen, ink: Ink, state: str | None) -> None:
    pen.pie(-0.06, 0.08, 0.63 + EDGE, 0.73, 180, 360, ink.line)
    slab(pen, (-0.92, -0.08, 0.92, 0.4), ink.main, ink.line, 0.22)
    pen.pie(-0.06, 0.08, 0.63, 0.68, 180, 360, ink.main)
    pen.pie(-0.13, -0.04, 0.4, 0.38, 180, 270, GLASS)
    pen.pie(0.0, -0.04, 0.4, 0.38, 270, 360, GLASS)
    pen.circle(0.8, 0.1, 0.1, GLOW)
    pen.rect(-0.92, 0.04, -0.82, 0.2, (255, 110, 90), 0.04)
    pen.line([(0.06, 0.12), (0.2, 0.12)], 0.06, mark(ink))
    for x in (-0.5, 0.5):
        _wheel(pen, x, 0.4, 0.25)


@kind("bus", "vehicles", "yellow", (0.97, 0.68), plural="buses")
def bus(pen: Pen, ink: Ink, state: str | None) -> None:
    slab(pen, (-0.92, -0.63, 0.92, 0.46), ink.main, ink.line, 0.14)
    for i in range(4):
        x = -0.78 + i * 0.335
        pen.rect(x, -0.41, x + 0.25, -0.13, GLASS, 0.05)
    pen.rect(0.6, -0.41, 0.82, 0.38, ink.line, 0.05)
    pen.rect(0.63, -0.38, 0.79, 0.35, GLASS, 0.03)
    pen.rect(-0.92, 0.05, 0.54, 0.13, mark(ink))
    pen.circle(0.87, 0.22, 0.07, GLOW)
    for x in (-0.54, 0.36):
        _wheel(pen, x, 0.44, 0.24)


@kind("boat", "vehicles", "blue", (0.95, 0.95))
def boat(pen: Pen, ink: Ink, state: str | None) -> None:
    pen.line([(-0.06, -0.91), (-0.06, 0.35)], 0.08, WOOD)
    solid(pen, ink.line, ([(0.06, -0.8), (0.6, 0.1), (0.06, 0.1)], WHITE))
    solid(pen, ink.line, ([(-0.18, -0.72), (-0.18, 0.1), (-0.72, 0.1)], ink.main))
    hull: list[Point] = [(-0.9, 0.24), (0.9, 0.24), (0.8, 0.58), (0.58, 0.9), (-0.54, 0.9), (-0.76, 0.66)]
    solid(pen, ink.line, (hull, ink.main))
    pen.polygon([(-0.87, 0.33), (0.87, 0.33), (0.84, 0.42), (-0.84, 0.42)], trim(ink))
    for x in (-0.36, 0.02, 0.4):
        pen.circle(x, 0.66, 0.09, mark(ink))
        pen.circle(x, 0.66, 0.05, GLASS)


def _heading(u: float, v: float) -> Point:
    """Where a point of the airplane, u forward and v to its right, lies while it climbs to the upper right."""
    return ((u + v) * 0.742 + 0.16, (v - u) * 0.742 - 0.16)


# The right half of the airplane seen from above, nose to tail.
_PLANE = (
    (1.0, 0.0), (0.95, 0.1), (0.8, 0.17), (0.32, 0.18), (-0.26, 0.95), (-0.48, 0.95), (-0.22, 0.18), (-0.66, 0.14),
    (-0.88, 0.44), (-1.04, 0.44), (-0.94, 0.0),
)  # fmt: skip


@kind("airplane", "vehicles", "white", (0.985, 0.985))
def airplane(pen: Pen, ink: Ink, state: str | None) -> None:
    outline = [*_PLANE, *((u, -v) for u, v in reversed(_PLANE[1:-1]))]
    for side in (-1, 1):
        engine = [(0.24, 0.42), (0.24, 0.58), (-0.2, 0.58), (-0.2, 0.42)]
        solid(pen, ink.line, ([_heading(u, v * side) for u, v in engine], ink.dark))
    solid(pen, ink.line, ([_heading(u, v) for u, v in outline], ink.main))
    for side in (-1, 1):
        tip = [(-0.12, 0.76), (-0.26, 0.95), (-0.48, 0.95), (-0.41, 0.76)]
        pen.polygon([_heading(u, v * side) for u, v in tip], ink.dark)
        pen.line([_heading(0.26, 0.2 * side), _heading(-0.2, 0.18 * side)], 0.045, mark(ink))
    pen.line([_heading(-0.62, 0.0), _heading(-0.98, 0.0)], 0.09, mark(ink))
    pen.polygon([_heading(u, v) for u, v in ((0.86, -0.09), (0.86, 0.09), (0.7, 0.15), (0.7, -0.15))], (70, 150, 214))


@kind("rocket", "vehicles", "red", (0.66, 0.98))
def rocket(pen: Pen, ink: Ink, state: str | None) -> None:
    pen.polygon([(-0.24, 0.56), (-0.3, 0.78), (-0.13, 0.74), (0, 0.98), (0.13, 0.74), (0.3, 0.78), (0.24, 0.56)], FLAME)
    pen.polygon([(-0.13, 0.56), (0, 0.82), (0.13, 0.56)], GLOW)
    for side in (-1, 1):
        fin = [(0.34, 0.06), (0.61, 0.4), (0.61, 0.78), (0.26, 0.52)]
        solid(pen, ink.line, ([(x * side, y) for x, y in fin], ink.main))
    flank = [(0.14, -0.78), (0.28, -0.56), (0.38, -0.28), (0.41, 0.0), (0.37, 0.28), (0.28, 0.56)]
    body: list[Point] = [(0.0, -0.93), *flank, *((-x, y) for x, y in reversed(flank))]
    solid(pen, ink.line, (body, ink.main))
    pen.polygon([(0.0, -0.93), flank[0], (0.21, -0.67), (-0.21, -0.67), (-0.14, -0.78)], trim(ink))
    disc(pen, 0.0, -0.2, 0.18, GLASS, mark(ink))
    pen.line([(-0.3, 0.38), (0.3, 0.38)], 0.07, trim(ink))


@kind("train", "vehicles", "black", (0.97, 0.87))
def train(pen: Pen, ink: Ink, state: str | None) -> None:
    funnel = [(0.34, -0.1), (0.34, -0.48), (0.24, -0.76), (0.74, -0.76), (0.64, -0.48), (0.64, -0.1)]
    catcher = [(0.62, 0.36), (0.92, 0.78), (0.5, 0.78)]
    solid(pen, ink.line, (funnel, ink.main), (catcher, (226, 74, 62)))
    slab(pen, (-0.3, -0.24, 0.82, 0.42), ink.main, ink.line, 0.14)
    slab(pen, (-0.84, -0.7, -0.2, 0.46), ink.main, ink.line)
    slab(pen, (-0.92, -0.82, -0.1, -0.66), ink.main, ink.line, 0.05)
    pen.rect(-0.68, -0.48, -0.36, -0.14, GLASS, 0.05)
    slab(pen, (-0.04, -0.38, 0.16, -0.26), (240, 190, 60), ink.line, 0.06)
    for x in (0.08, 0.42):
        pen.rect(x, -0.24, x + 0.07, 0.42, (240, 190, 60))
    disc(pen, 0.8, -0.02, 0.09, GLOW, ink.line)
    slab(pen, (-0.84, 0.4, 0.7, 0.48), (226, 74, 62), ink.line)
    for x, r in ((-0.56, 0.27), (0.04, 0.21), (0.48, 0.21)):
        pen.circle(x, 0.87 - r, r, SOOT)
        pen.circle(x, 0.87 - r, r * 0.66, HUB)
        pen.circle(x, 0.87 - r, r * 0.25, SOOT)
