"""The sixteen animals: each a clear silhouette and a few marks that survive at thirty pixels.

Every animal fills the half extents it declares, has a dark rim about 0.05 wide, and is mostly painted in exactly
`ink.main`. Marks are chosen against the main colour (`_mark`, `_shade`, `_pale`), so that a black zebra still has
stripes and a white cow still has patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..pen import RGB, Ink, Pen, Point, mix
from .registry import kind

RIM = 0.05  # width of the outline, in frame units
DARK: RGB = (34, 32, 40)
WHITE: RGB = (255, 255, 255)
ROSE: RGB = (240, 128, 150)
TONGUE: RGB = (232, 78, 104)
BEAK: RGB = (250, 172, 30)
CREAM: RGB = (246, 232, 200)
WING: RGB = (206, 230, 248)


def _luma(ink: Ink) -> float:
    """Brightness of the main colour, 0 to 255, with the weights of `Ink.of`."""
    return (ink.main[0] * 3 + ink.main[1] * 6 + ink.main[2]) / 10


def _mark(ink: Ink) -> RGB:
    """Stripes and patches: near black, or near white on black."""
    return (236, 236, 240) if _luma(ink) < 70 else DARK


def _shade(ink: Ink) -> RGB:
    """A second tone that shows on the main colour: darker, but lighter on black and towards rust on warm colours."""
    red, green, blue = ink.main
    if _luma(ink) < 70:
        return ink.light
    # Plain darkening turns yellow into olive.
    return mix(ink.main, (128, 36, 0), 0.45) if red > green > blue + 80 else ink.dark


def _pale(ink: Ink) -> RGB:
    """A lighter second tone that shows on the main colour; grey on white."""
    return ink.dark if _luma(ink) > 235 else ink.light


def _mirror(points: Sequence[Point]) -> list[Point]:
    return [(-x, y) for x, y in points]


def _closed(right: Sequence[Point]) -> list[Point]:
    """A symmetric outline from its right half, listed from top to bottom; points on the axis are not doubled."""
    return [*right, *((-x, y) for x, y in reversed(right) if x)]


def _inset(points: Sequence[Point], by: float = RIM * 1.3) -> list[Point]:
    """The points moved `by` towards their mean: the fill inside an outline."""
    cx, cy = sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)
    shrink = [max(0.0, 1 - by / max(by, math.hypot(x - cx, y - cy))) for x, y in points]
    return [(cx + (x - cx) * s, cy + (y - cy) * s) for (x, y), s in zip(points, shrink, strict=True)]


def _blob(pen: Pen, ink: Ink, points: Sequence[Point], fill: RGB) -> None:
    """A smooth shape with a rim."""
    pen.blob(points, ink.line)
    pen.blob(_inset(points), fill)


def _oval(pen: Pen, ink: Ink, cx: float, cy: float, rx: float, ry: float, fill: RGB) -> None:
    """An ellipse with a rim inside its radii."""
    pen.ellipse(cx, cy, rx, ry, ink.line)
    pen.ellipse(cx, cy, rx - RIM, ry - RIM, fill)


def _eye(pen: Pen, ink: Ink, x: float, y: float, r: float) -> None:
    """A dark eye with a glint, set in white where the main colour is dark."""
    if _luma(ink) < 130:
        pen.circle(x, y, r * 1.35, WHITE)
    pen.ellipse(x, y, r, r * 1.1, DARK)
    pen.circle(x + r * 0.3, y - r * 0.4, r * 0.36, WHITE)


def _eyes(pen: Pen, ink: Ink, x: float, y: float, r: float) -> None:
    _eye(pen, ink, -x, y, r)
    _eye(pen, ink, x, y, r)


def _smile(pen: Pen, y: float, r: float, colour: RGB = DARK) -> None:
    """The two small arcs under a nose at (0, y)."""
    for side in (-1, 1):
        pen.arc(side * r, y, r, r * 0.85, 0, 180, 0.05, colour)


@kind("zebra", "animals", natural="white", size=(0.66, 1.0))
def zebra(pen: Pen, ink: Ink, state: str | None) -> None:
    mark = _mark(ink)
    ear = [(0.26, -0.52), (0.36, -0.92), (0.56, -0.98), (0.66, -0.72), (0.50, -0.42)]
    for points in (ear, _mirror(ear)):
        _blob(pen, ink, points, ink.main)
        pen.blob(_inset(points, 0.18), mark)
    _blob(pen, ink, _closed([(0.0, -1.0), (0.15, -0.96), (0.19, -0.72), (0.12, -0.4)]), mark)
    head = _closed([(0.0, -0.72), (0.38, -0.62), (0.54, -0.28), (0.46, 0.20), (0.41, 0.55), (0.38, 0.88), (0.0, 1.0)])
    _blob(pen, ink, head, ink.main)
    pen.polygon([(-0.13, -0.74), (0.13, -0.74), (0.0, -0.26)], mark)
    for y, reach in ((-0.50, 0.18), (0.02, 0.14), (0.24, 0.12)):
        right = [(0.45, y - 0.09), (reach, y + 0.08), (0.42, y + 0.04)]
        pen.polygon(right, mark)
        pen.polygon(_mirror(right), mark)
    pen.blob(_closed([(0.0, 0.60), (0.27, 0.63), (0.31, 0.85), (0.0, 0.95)]), mark)
    _eyes(pen, ink, 0.28, -0.20, 0.095)
    for x in (-0.15, 0.15):
        pen.ellipse(x, 0.76, 0.05, 0.07, ink.main)


@kind("tiger", "animals", natural="orange", size=(1.0, 0.9))
def tiger(pen: Pen, ink: Ink, state: str | None) -> None:
    mark, muzzle = _mark(ink), ink.dark if _luma(ink) > 235 else WHITE
    for x in (-0.62, 0.62):
        _oval(pen, ink, x, -0.60, 0.29, 0.30, ink.main)
        pen.circle(x, -0.58, 0.14, mark)
    head = [
        (0.0, -0.76),
        (0.50, -0.68),
        (0.80, -0.28),
        (0.84, 0.10),
        (1.0, 0.42),
        (0.72, 0.56),
        (0.46, 0.82),
        (0.0, 0.9),
    ]
    _blob(pen, ink, _closed(head), ink.main)
    for x, low in ((-0.24, -0.40), (0.0, -0.24), (0.24, -0.40)):
        pen.polygon([(x - 0.09, -0.72), (x + 0.09, -0.72), (x * 0.8, low)], mark)
    for tip, y in ((0.50, -0.12), (0.50, 0.14), (0.56, 0.38)):
        right = [(0.84, y - 0.10), (tip, y + 0.02), (0.86, y + 0.06)]
        pen.polygon(right, mark)
        pen.polygon(_mirror(right), mark)
    pen.ellipse(-0.2, 0.46, 0.25, 0.25, muzzle)
    pen.ellipse(0.2, 0.46, 0.25, 0.25, muzzle)
    _eyes(pen, ink, 0.32, -0.08, 0.12)
    pen.polygon([(-0.17, 0.18), (0.17, 0.18), (0.0, 0.38)], ROSE if muzzle == WHITE else DARK)
    _smile(pen, 0.44, 0.12)


@kind("sheep", "animals", natural="white", size=(1.0, 0.92), plural="sheep")
def sheep(pen: Pen, ink: Ink, state: str | None) -> None:
    skin: RGB = (226, 200, 176) if _luma(ink) < 70 else (66, 58, 66)
    for x in (-0.42, 0.42):
        pen.rect(x - 0.11, 0.4, x + 0.11, 0.92, skin, 0.08)
    wool = [(0.70 * math.cos(t * math.pi / 5), -0.153 + 0.49 * math.sin(t * math.pi / 5)) for t in range(10)]
    for grow, fill in ((0.30, ink.line), (0.25, ink.main)):
        for x, y in wool:
            pen.circle(x, y, grow, fill)
    pen.ellipse(0.0, -0.13, 0.72, 0.5, ink.main)
    for x in (-0.42, 0.42):
        pen.ellipse(x, -0.17, 0.22, 0.11, skin)
    pen.blob(_closed([(0.0, -0.36), (0.30, -0.26), (0.29, 0.16), (0.0, 0.42)]), skin)
    for x in (-0.24, 0.0, 0.24):
        pen.circle(x, -0.36 - 0.05 * (x == 0), 0.17, ink.main)
    for x in (-0.13, 0.13):
        pen.circle(x, -0.04, 0.085, WHITE)
        pen.circle(x, -0.03, 0.05, DARK)
    pen.ellipse(0.0, 0.22, 0.09, 0.06, ROSE)


@kind("pig", "animals", natural="pink", size=(0.94, 0.92))
def pig(pen: Pen, ink: Ink, state: str | None) -> None:
    shade = _shade(ink)
    _oval(pen, ink, 0.0, 0.06, 0.94, 0.86, ink.main)
    ear = [(0.30, -0.78), (0.58, -0.905), (0.88, -0.87), (0.86, -0.50), (0.74, -0.22), (0.50, -0.46)]
    for points in (ear, _mirror(ear)):
        _blob(pen, ink, points, shade)
    _eyes(pen, ink, 0.44, -0.10, 0.11)
    _oval(pen, ink, 0.0, 0.30, 0.42, 0.31, _pale(ink))
    for x in (-0.15, 0.15):
        pen.ellipse(x, 0.30, 0.075, 0.13, ink.line)
    pen.arc(0.0, 0.62, 0.20, 0.12, 20, 160, 0.05, ink.line)


@kind("monkey", "animals", natural="brown", size=(1.0, 0.9))
def monkey(pen: Pen, ink: Ink, state: str | None) -> None:
    skin = CREAM if _luma(ink) < 200 else (236, 196, 158)
    for x in (-0.71, 0.71):
        _oval(pen, ink, x, 0.0, 0.29, 0.31, ink.main)
        pen.ellipse(x * 1.05, 0.0, 0.11, 0.14, skin)
    pen.blob([(-0.1, -0.72), (-0.12, -0.9), (0.06, -0.86), (0.24, -0.9), (0.2, -0.72)], ink.line)
    _oval(pen, ink, 0.0, 0.06, 0.74, 0.84, ink.main)
    for x in (-0.21, 0.21):
        pen.ellipse(x, -0.06, 0.205, 0.225, skin)
    pen.ellipse(0.0, 0.43, 0.43, 0.30, skin)
    for x in (-0.2, 0.2):
        pen.ellipse(x, -0.04, 0.095, 0.11, DARK)
        pen.circle(x + 0.03, -0.08, 0.035, WHITE)
    for x in (-0.07, 0.07):
        pen.circle(x, 0.25, 0.04, DARK)
    pen.arc(0.0, 0.40, 0.25, 0.18, 10, 170, 0.055, DARK)


@kind("lion", "animals", natural="yellow", size=(1.0, 1.0))
def lion(pen: Pen, ink: Ink, state: str | None) -> None:
    turns = [t * math.pi / 6 for t in range(12)]
    for grow, fill in ((0.24, ink.line), (0.19, _shade(ink))):
        for t in turns:
            pen.circle(0.76 * math.cos(t), 0.76 * math.sin(t), grow, fill)
    for x in (-0.47, 0.47):
        pen.circle(x, -0.54, 0.20, ink.main)
        pen.circle(x, -0.55, 0.09, _shade(ink))
    pen.ellipse(0.0, 0.03, 0.77, 0.75, ink.main)
    for x in (-0.17, 0.17):
        pen.ellipse(x, 0.40, 0.22, 0.20, _pale(ink))
    _eyes(pen, ink, 0.31, -0.08, 0.11)
    pen.polygon([(-0.19, 0.14), (0.19, 0.14), (0.0, 0.35)], DARK)
    _smile(pen, 0.42, 0.12)


@kind("dog", "animals", natural="brown", size=(0.96, 0.92))
def dog(pen: Pen, ink: Ink, state: str | None) -> None:
    head = [(0.0, -0.92), (0.42, -0.88), (0.66, -0.5), (0.66, 0.1), (0.52, 0.66), (0.0, 0.80)]
    _blob(pen, ink, _closed(head), ink.main)
    ear = [(0.40, -0.86), (0.66, -0.84), (0.90, -0.36), (0.95, 0.20), (0.76, 0.44), (0.58, 0.18), (0.54, -0.36)]
    for points in (ear, _mirror(ear)):
        _blob(pen, ink, points, ink.main)
    pen.blob([(-0.16, 0.52), (0.16, 0.52), (0.15, 0.84), (0.0, 0.92), (-0.15, 0.84)], TONGUE)
    pen.ellipse(0.30, -0.28, 0.23, 0.27, _shade(ink))
    for x in (-0.19, 0.19):
        pen.ellipse(x, 0.38, 0.24, 0.24, _pale(ink))
    pen.ellipse(0.0, 0.12, 0.22, 0.16, DARK)
    pen.ellipse(-0.06, 0.06, 0.07, 0.035, WHITE)
    _smile(pen, 0.42, 0.16)
    _eyes(pen, ink, 0.30, -0.26, 0.12)


@kind("cow", "animals", natural="white", size=(1.0, 0.94))
def cow(pen: Pen, ink: Ink, state: str | None) -> None:
    mark = _mark(ink)
    horn = [(0.28, -0.56), (0.46, -0.66), (0.44, -0.94), (0.66, -0.80), (0.68, -0.54), (0.48, -0.40)]
    ear = [(0.46, -0.38), (0.76, -0.50), (0.995, -0.34), (0.92, -0.06), (0.68, 0.04), (0.48, -0.10)]
    for flip in (list, _mirror):
        _blob(pen, ink, flip(horn), CREAM)
        _blob(pen, ink, flip(ear), ink.main)
    head = [(0.0, -0.70), (0.50, -0.62), (0.71, -0.20), (0.68, 0.24), (0.64, 0.60), (0.40, 0.88), (0.0, 0.94)]
    _blob(pen, ink, _closed(head), ink.main)
    pen.blob([(0.18, -0.62), (0.44, -0.55), (0.59, -0.26), (0.51, 0.01), (0.30, 0.03), (0.19, -0.24)], mark)
    pen.circle(0.34, -0.14, 0.13, WHITE)
    _eyes(pen, ink, 0.34, -0.13, 0.10)
    _oval(pen, ink, 0.0, 0.655, 0.53, 0.265, (248, 178, 178) if _luma(ink) > 215 or _luma(ink) < 150 else CREAM)
    for x in (-0.26, 0.26):
        pen.ellipse(x, 0.60, 0.075, 0.10, ink.line)


@kind("cat", "animals", natural="orange", size=(1.0, 0.92))
def cat(pen: Pen, ink: Ink, state: str | None) -> None:
    ear = [(0.14, -0.50), (0.66, -0.92), (0.76, -0.1)]
    for flip in (list, _mirror):
        pen.polygon(flip(ear), ink.line)
        pen.polygon(_inset(flip(ear), 0.10), ink.main)
        pen.polygon(_inset(flip(ear), 0.26), ROSE)
    _oval(pen, ink, 0.0, 0.20, 0.80, 0.72, ink.main)
    for x in (-0.34, 0.34):
        _oval(pen, ink, x, 0.04, 0.19, 0.20, (186, 226, 92))
        pen.ellipse(x, 0.04, 0.06, 0.14, DARK)
    pen.polygon([(-0.10, 0.30), (0.10, 0.30), (0.0, 0.42)], ROSE if _luma(ink) < 150 else (214, 70, 100))
    _smile(pen, 0.46, 0.12, _mark(ink))
    for y in (0.30, 0.46):
        for side in (-1, 1):
            pen.line([(side * 0.42, 0.40 + (y - 0.38) * 0.5), (side * 0.98, y + (y - 0.38))], 0.04, ink.line)


@kind("bird", "animals", natural="blue", size=(1.0, 0.88))
def bird(pen: Pen, ink: Ink, state: str | None) -> None:
    for x in (-0.02, 0.22):
        pen.line([(x, 0.5), (x, 0.85), (x + 0.16, 0.85)], 0.06, BEAK)
    pen.polygon([(0.7, -0.56), (1.0, -0.36), (0.7, -0.22)], BEAK)
    tail = [(-0.46, 0.20), (-0.955, -0.24), (-0.97, 0.06), (-0.88, 0.24), (-0.5, 0.46)]
    _blob(pen, ink, tail, _shade(ink))
    body = [(0.40, -0.88), (0.74, -0.72), (0.80, -0.36), (0.74, 0.14), (0.44, 0.54), (0.0, 0.64), (-0.44, 0.46)]
    _blob(pen, ink, [*body, (-0.62, 0.16), (-0.24, -0.08), (0.04, -0.46), (0.14, -0.76)], ink.main)
    pen.blob([(0.69, -0.10), (0.67, 0.14), (0.44, 0.44), (0.16, 0.54), (0.46, 0.24)], _pale(ink))
    _blob(pen, ink, [(0.28, -0.10), (0.34, 0.14), (0.06, 0.36), (-0.56, 0.34), (-0.12, 0.02)], ink.main)
    pen.line([(-0.30, 0.29), (0.04, 0.24)], 0.05, _shade(ink))
    _eye(pen, ink, 0.50, -0.52, 0.10)


@kind("fish", "animals", natural="orange", size=(1.0, 0.68), plural="fish")
def fish(pen: Pen, ink: Ink, state: str | None) -> None:
    shade = _shade(ink)
    _blob(pen, ink, [(-0.5, 0.0), (-0.98, -0.50), (-0.92, -0.2), (-0.84, 0.0), (-0.92, 0.2), (-0.98, 0.50)], shade)
    _blob(pen, ink, [(-0.24, -0.40), (-0.16, -0.67), (0.20, -0.64), (0.34, -0.36)], shade)
    _blob(pen, ink, [(-0.12, 0.40), (-0.16, 0.67), (0.10, 0.62), (0.20, 0.40)], shade)
    body = [(1.0, 0.04), (0.80, -0.32), (0.34, -0.52), (-0.18, -0.42), (-0.62, -0.06), (-0.62, 0.06)]
    _blob(pen, ink, [*body, (-0.18, 0.44), (0.34, 0.54), (0.80, 0.36)], ink.main)
    pen.arc(0.18, 0.0, 0.26, 0.40, -60, 60, 0.05, shade)
    for x, y in ((0.08, -0.14), (0.08, 0.16), (-0.2, 0.0)):
        pen.arc(x, y, 0.13, 0.12, -80, 80, 0.05, shade)
    pen.circle(0.66, -0.10, 0.14, WHITE)
    pen.circle(0.68, -0.10, 0.085, DARK)
    pen.arc(0.86, 0.14, 0.14, 0.09, 80, 190, 0.05, ink.line)


@kind("rabbit", "animals", natural="white", size=(0.68, 1.0))
def rabbit(pen: Pen, ink: Ink, state: str | None) -> None:
    ear = [(0.12, -0.10), (0.08, -0.55), (0.22, -0.95), (0.42, -0.96), (0.50, -0.55), (0.42, -0.05)]
    for flip in (list, _mirror):
        _blob(pen, ink, flip(ear), ink.main)
        pen.blob(_inset(flip(ear), 0.17), (250, 176, 192))
    _oval(pen, ink, 0.0, 0.41, 0.68, 0.59, ink.main)
    _eyes(pen, ink, 0.32, 0.26, 0.11)
    for x in (-0.46, 0.46):
        pen.ellipse(x, 0.52, 0.12, 0.08, (250, 176, 192))
    pen.ellipse(0.0, 0.44, 0.11, 0.08, ROSE)
    _smile(pen, 0.53, 0.12, _mark(ink))
    pen.rect(-0.12, 0.62, 0.12, 0.84, ink.line, 0.04)
    for x in (-0.05, 0.05):
        pen.rect(x - 0.04, 0.63, x + 0.04, 0.81, WHITE)


@kind("penguin", "animals", natural="black", size=(0.76, 1.0))
def penguin(pen: Pen, ink: Ink, state: str | None) -> None:
    for x in (-0.28, 0.28):
        pen.ellipse(x, 0.89, 0.26, 0.11, BEAK)
    flipper = [(0.40, -0.30), (0.64, -0.04), (0.77, 0.42), (0.66, 0.50), (0.46, 0.40)]
    for flip in (list, _mirror):
        _blob(pen, ink, flip(flipper), ink.main)
    body = [(0.0, -1.0), (0.38, -0.90), (0.52, -0.58), (0.54, -0.16), (0.60, 0.36), (0.50, 0.78), (0.0, 0.93)]
    _blob(pen, ink, _closed(body), ink.main)
    belly = _pale(ink) if _luma(ink) > 235 else (252, 252, 255)
    pen.blob(_closed([(0.0, -0.10), (0.23, 0.04), (0.32, 0.42), (0.22, 0.74), (0.0, 0.81)]), belly)
    for x in (-0.19, 0.19):
        pen.circle(x, -0.58, 0.13, belly)
        pen.circle(x, -0.57, 0.075, DARK)
    pen.polygon([(-0.15, -0.46), (0.15, -0.46), (0.0, -0.25)], BEAK)


@kind("bee", "animals", natural="yellow", size=(1.0, 0.84))
def bee(pen: Pen, ink: Ink, state: str | None) -> None:
    mark = _mark(ink)
    _blob(pen, ink, [(0.14, -0.04), (-0.04, -0.42), (0.0, -0.78), (0.24, -0.82), (0.30, -0.40)], WING)
    _blob(pen, ink, [(0.06, -0.04), (-0.36, -0.28), (-0.52, -0.62), (-0.30, -0.76), (-0.04, -0.46)], WING)
    pen.polygon([(-0.76, 0.14), (-1.0, 0.32), (-0.74, 0.46)], DARK)
    for x in (0.62, 0.82):
        pen.line([(x - 0.06, -0.10), (x + 0.06, -0.46)], 0.05, DARK)
        pen.circle(x + 0.06, -0.48, 0.07, DARK)
    _oval(pen, ink, 0.06, 0.23, 0.94, 0.61, ink.main)
    for x, reach in ((-0.54, 0.38), (-0.14, 0.53), (0.25, 0.53)):
        stripe = [
            (x, -reach),
            (x + 0.13, 0.01 - reach),
            (x + 0.19, 0.0),
            (x + 0.13, reach - 0.01),
            (x, reach),
            (x + 0.06, 0),
        ]
        pen.blob([(u, 0.23 + v) for u, v in stripe], mark)
    _eye(pen, ink, 0.72, 0.16, 0.10)
    pen.arc(0.72, 0.36, 0.14, 0.10, 20, 150, 0.05, mark)


@kind("butterfly", "animals", natural="purple", size=(1.0, 0.86), plural="butterflies")
def butterfly(pen: Pen, ink: Ink, state: str | None) -> None:
    upper = [(0.04, 0.0), (0.22, -0.50), (0.64, -0.84), (0.97, -0.74), (0.955, -0.24), (0.66, 0.10)]
    lower = [(0.04, 0.02), (0.50, 0.02), (0.80, 0.26), (0.76, 0.66), (0.48, 0.86), (0.22, 0.60)]
    for flip in (list, _mirror):
        _blob(pen, ink, flip(lower), ink.main)
        _blob(pen, ink, flip(upper), ink.main)
    for side in (-1, 1):
        pen.ellipse(side * 0.66, -0.46, 0.17, 0.17, _pale(ink))
        pen.ellipse(side * 0.50, 0.46, 0.13, 0.15, _pale(ink))
        pen.arc(side * 0.24, -0.52, 0.22, 0.30, 180 if side > 0 else 360, 280 if side > 0 else 260, 0.05, DARK)
    pen.ellipse(0.0, 0.06, 0.10, 0.58, DARK)
    pen.circle(0.0, -0.50, 0.14, DARK)


@kind("turtle", "animals", natural="green", size=(1.0, 0.72))
def turtle(pen: Pen, ink: Ink, state: str | None) -> None:
    skin, shade = _pale(ink), _shade(ink)
    _blob(pen, ink, [(-0.7, 0.30), (-1.0, 0.52), (-0.6, 0.54)], skin)
    for x in (-0.46, 0.24):
        pen.rect(x - 0.20, 0.2, x + 0.20, 0.72, ink.line, 0.14)
        pen.rect(x - 0.15, 0.2, x + 0.15, 0.67, skin, 0.11)
    _blob(
        pen,
        ink,
        [(0.4, 0.44), (0.48, 0.02), (0.58, -0.34), (0.82, -0.40), (0.992, -0.20), (0.94, 0.06), (0.76, 0.40)],
        skin,
    )
    shell = [(math.cos(math.radians(t)), math.sin(math.radians(t))) for t in range(180, 361, 15)]
    pen.polygon([(-0.14 + 0.81 * x, 0.40 + 1.12 * y) for x, y in shell], ink.line)
    pen.polygon([(-0.14 + 0.75 * x, 0.39 + 1.06 * y) for x, y in shell], ink.main)
    hexagon = [(-0.14 + 0.28 * math.cos(t * math.pi / 3), -0.10 + 0.26 * math.sin(t * math.pi / 3)) for t in range(6)]
    rim = [(0.48, -0.1), (0.2, 0.36), (-0.48, 0.36), (-0.76, -0.1), (-0.36, -0.55), (0.08, -0.55)]
    for corner, after, end in zip(hexagon, hexagon[1:] + hexagon[:1], rim, strict=True):
        pen.line([end, corner, after], 0.05, shade)
    pen.rect(-0.96, 0.34, 0.68, 0.46, ink.line, 0.08)
    _eye(pen, ink, 0.82, -0.18, 0.09)
