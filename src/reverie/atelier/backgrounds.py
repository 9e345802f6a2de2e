"""The thirteen places a scene can happen in, each a few shapes behind everything else.

Painted once for each (name, size) and cached: a background carries no randomness.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from PIL import Image

from .pen import RGB, Pen, mix

Painter = Callable[[Pen], None]
_PLACES: dict[str, tuple[RGB, RGB, Painter]] = {}


def _place(name: str, top: RGB, bottom: RGB) -> Callable[[Painter], Painter]:
    """Register a place: a vertical gradient from `top` to `bottom`, then whatever the function draws on it."""

    def register(paint: Painter) -> Painter:
        _PLACES[name] = (top, bottom, paint)
        return paint

    return register


@lru_cache(maxsize=64)
def background(name: str, side: int) -> Image.Image:
    """The place `name` as a square picture of `side` pixels. Shared: copy before drawing on it."""
    top, bottom, paint = _PLACES[name]
    bands = Image.new("RGB", (1, 16))
    bands.putdata([mix(top, bottom, i / 15) for i in range(16)])
    image = bands.resize((side, side), Image.Resampling.BICUBIC)
    paint(Pen(image, side / 2, side / 2, side))
    return image


@_place("plain", (228, 232, 238), (228, 232, 238))
def _plain(pen: Pen) -> None:
    """Paper: nothing on it."""


@_place("night", (16, 22, 58), (50, 58, 112))
def _night(pen: Pen) -> None:
    for x, y, r in (
        (-0.8, -0.75, 0.035), (-0.3, -0.88, 0.025), (0.25, -0.7, 0.03), (0.72, -0.85, 0.035), (-0.55, -0.4, 0.022),
        (0.5, -0.42, 0.022), (0.9, -0.3, 0.028), (-0.93, -0.15, 0.022), (0.02, -0.3, 0.02),
    ):  # fmt: skip
        pen.circle(x, y, r, (252, 246, 200))
    pen.blob([(-1.2, 0.78), (-0.5, 0.66), (0.1, 0.78), (0.7, 0.68), (1.2, 0.8), (1.2, 1.3), (-1.2, 1.3)], (24, 34, 66))


@_place("meadow", (170, 216, 246), (226, 242, 250))
def _meadow(pen: Pen) -> None:
    pen.blob([(-1.3, 0.5), (-0.5, 0.34), (0.3, 0.5), (1.3, 0.36), (1.4, 1.4), (-1.4, 1.4)], (150, 206, 110))
    pen.blob([(-1.3, 0.78), (-0.3, 0.7), (0.5, 0.62), (1.3, 0.74), (1.4, 1.4), (-1.4, 1.4)], (124, 186, 88))
    for x, y, c in ((-0.75, 0.85, (255, 255, 255)), (0.1, 0.9, (250, 210, 80)), (0.8, 0.84, (255, 255, 255))):
        pen.circle(x, y, 0.045, c)


@_place("beach", (142, 206, 244), (200, 234, 250))
def _beach(pen: Pen) -> None:
    pen.rect(-1, 0.18, 1, 0.6, (58, 150, 204))
    for x in (-0.7, 0.1, 0.75):
        pen.line([(x - 0.16, 0.34), (x + 0.16, 0.34)], 0.035, (150, 210, 236))
    pen.blob([(-1.3, 0.62), (-0.5, 0.5), (0.4, 0.62), (1.3, 0.5), (1.4, 1.4), (-1.4, 1.4)], (246, 222, 160))


@_place("desert", (252, 214, 150), (254, 236, 196))
def _desert(pen: Pen) -> None:
    pen.blob([(-1.3, 0.42), (-0.6, 0.22), (0.2, 0.5), (0.9, 0.3), (1.4, 0.44), (1.4, 1.4), (-1.4, 1.4)], (232, 178, 98))
    pen.blob([(-1.3, 0.8), (-0.4, 0.74), (0.5, 0.54), (1.4, 0.76), (1.4, 1.4), (-1.4, 1.4)], (216, 156, 78))


@_place("glacier", (190, 224, 246), (226, 242, 252))
def _glacier(pen: Pen) -> None:
    pen.polygon(
        [(-1, 0.3), (-0.7, -0.35), (-0.4, 0.05), (-0.1, -0.55), (0.3, 0.1), (0.65, -0.3), (1, 0.2), (1, 1), (-1, 1)],
        (158, 204, 234),
    )
    pen.polygon([(-0.7, -0.35), (-0.55, -0.15), (-0.82, -0.1)], (248, 252, 255))
    pen.polygon([(-0.1, -0.55), (0.06, -0.28), (-0.25, -0.25)], (248, 252, 255))
    pen.polygon([(-1, 0.55), (-0.3, 0.42), (0.3, 0.58), (1, 0.46), (1, 1), (-1, 1)], (236, 246, 252))


@_place("volcano", (120, 92, 110), (216, 140, 110))
def _volcano(pen: Pen) -> None:
    pen.polygon([(-1, 0.8), (-0.25, -0.45), (0.25, -0.45), (1, 0.8)], (86, 64, 66))
    pen.polygon(
        [(-0.25, -0.45), (0.25, -0.45), (0.2, -0.1), (0.08, -0.28), (0.0, 0.2), (-0.1, -0.2), (-0.2, 0.0)],
        (244, 96, 40),
    )
    for x, y, r in ((-0.1, -0.68, 0.16), (0.12, -0.82, 0.18)):
        pen.circle(x, y, r, (168, 158, 164))
    pen.rect(-1, 0.74, 1, 1, (66, 52, 56))


@_place("park", (184, 226, 248), (236, 246, 250))
def _park(pen: Pen) -> None:
    pen.circle(0.55, -0.2, 0.42, (216, 120, 150))  # the big wheel
    pen.circle(0.55, -0.2, 0.34, (214, 236, 248))
    for dx, dy in ((0, 1), (1, 0), (0.7, 0.7), (0.7, -0.7)):
        pen.line([(0.55 - 0.36 * dx, -0.2 - 0.36 * dy), (0.55 + 0.36 * dx, -0.2 + 0.36 * dy)], 0.04, (216, 120, 150))
    pen.polygon([(-0.95, 0.0), (-0.6, -0.4), (-0.25, 0.0)], (240, 110, 80))
    pen.rect(-0.9, 0.0, -0.3, 0.45, (252, 232, 180))
    for x in (-0.76, -0.46):
        pen.rect(x - 0.07, 0.0, x + 0.07, 0.45, (240, 150, 110))
    pen.rect(-1, 0.4, 1, 1, (150, 200, 110))


@_place("gym", (238, 226, 206), (246, 236, 220))
def _gym(pen: Pen) -> None:
    pen.rect(-1, 0.5, 1, 1, (206, 148, 88))
    pen.line([(-1, 0.52), (1, 0.52)], 0.05, (150, 98, 52))
    pen.rect(-0.95, -0.85, -0.35, -0.25, (250, 250, 250))
    pen.line([(-0.95, -0.85), (-0.35, -0.85), (-0.35, -0.25), (-0.95, -0.25), (-0.95, -0.85)], 0.05, (200, 70, 60))
    pen.line([(-0.8, -0.4), (-0.5, -0.4)], 0.07, (230, 110, 40))
    for x in (0.4, 0.62, 0.84):
        pen.line([(x, -0.9), (x, 0.3)], 0.05, (170, 130, 90))
    for y in (-0.7, -0.4, -0.1, 0.2):
        pen.line([(0.4, y), (0.84, y)], 0.04, (170, 130, 90))


@_place("waterfall", (150, 200, 190), (190, 222, 200))
def _waterfall(pen: Pen) -> None:
    pen.polygon([(-1, -0.7), (-0.45, -0.6), (-0.35, 0.6), (-1, 0.6)], (108, 120, 108))
    pen.polygon([(1, -0.7), (0.45, -0.6), (0.35, 0.6), (1, 0.6)], (108, 120, 108))
    pen.rect(-0.45, -0.6, 0.45, 0.6, (120, 194, 232))
    for x in (-0.28, -0.04, 0.2):
        pen.line([(x, -0.55), (x, 0.5)], 0.06, (226, 244, 252))
    pen.rect(-1, 0.55, 1, 1, (74, 156, 206))
    pen.ellipse(0, 0.58, 0.55, 0.1, (236, 248, 254))


@_place("space", (12, 8, 32), (34, 18, 66))
def _space(pen: Pen) -> None:
    for x, y, r in (
        (-0.85, -0.6, 0.03), (-0.2, -0.9, 0.025), (0.35, -0.55, 0.02), (-0.6, 0.3, 0.025), (0.9, 0.1, 0.03),
        (0.1, 0.85, 0.025), (-0.9, 0.85, 0.03), (0.6, 0.6, 0.02), (-0.4, -0.35, 0.018), (0.3, 0.2, 0.018),
    ):  # fmt: skip
        pen.circle(x, y, r, (255, 255, 255))
    pen.circle(0.72, -0.72, 0.24, (206, 140, 96))
    pen.ellipse(0.72, -0.72, 0.38, 0.07, (232, 196, 150))
    pen.pie(0.72, -0.72, 0.24, 0.24, 180, 360, (206, 140, 96))


@_place("cave", (44, 36, 40), (74, 60, 58))
def _cave(pen: Pen) -> None:
    pen.blob([(-0.75, 0.75), (-0.7, -0.2), (-0.2, -0.7), (0.3, -0.66), (0.72, -0.1), (0.78, 0.75)], (122, 102, 92))
    for x, h in ((-0.8, 0.5), (-0.5, 0.3), (0.15, 0.25), (0.55, 0.42), (0.85, 0.55)):
        pen.polygon([(x - 0.1, -1), (x + 0.1, -1), (x, -1 + h)], (30, 24, 28))
    pen.polygon([(-1, 0.72), (1, 0.72), (1, 1), (-1, 1)], (56, 46, 46))


@_place("seafloor", (30, 116, 176), (16, 70, 130))
def _seafloor(pen: Pen) -> None:
    pen.blob([(-1.3, 0.74), (-0.4, 0.66), (0.4, 0.76), (1.3, 0.66), (1.4, 1.4), (-1.4, 1.4)], (214, 190, 138))
    for x, h in ((-0.86, 0.5), (-0.68, 0.3), (0.82, 0.55)):
        pen.line([(x, 0.8), (x - 0.06, 0.8 - h / 2), (x + 0.05, 0.8 - h)], 0.07, (46, 140, 92))
    for x, y, r in ((-0.3, -0.75, 0.05), (-0.18, -0.5, 0.035), (0.55, -0.6, 0.06), (0.66, -0.35, 0.035)):
        pen.circle(x, y, r, (140, 200, 232))
