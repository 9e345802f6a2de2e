"""Plants, and what is seen in the sky."""

from __future__ import annotations

import math

from ..pen import RGB, Ink, Pen
from .registry import kind
from .shapes import (
    RIM,
    blob,
    disc,
    grow,
    mark,
    petal,
    polygon,
    shade,
    star_points,
    stroke,
)

TRUNK, TRUNK_LINE = (140, 92, 54), (70, 42, 22)
STALK, STALK_LINE = (96, 176, 60), (36, 88, 32)
CLAY, CLAY_LINE = (206, 106, 66), (112, 48, 26)
SNOW, SNOW_LINE = (244, 250, 255), (120, 156, 200)
BLOSSOM, BLOSSOM_LINE = (255, 206, 226), (196, 84, 132)
DRY = (164, 124, 66)


@kind(
    "tree",
    "plants",
    natural="green",
    size=(0.88, 0.98),
    states=("summer", "spring", "autumn", "winter"),
)
def tree(pen: Pen, ink: Ink, state: str | None) -> None:
    polygon(
        pen,
        [(-0.14, 0.2), (0.14, 0.2), (0.24, 0.925), (-0.24, 0.925)],
        TRUNK,
        TRUNK_LINE,
    )
    for grown, fill in ((RIM, ink.line), (0.0, ink.main)):
        for x, y, r in (
            (-0.42, 0.04, 0.405),
            (0.42, 0.04, 0.405),
            (0, -0.42, 0.505),
            (0, 0.1, 0.4),
        ):
            pen.circle(x, y, r + grown, fill)
    if state == "spring":
        for x, y in (
            (-0.1, -0.6),
            (0.28, -0.34),
            (-0.46, -0.06),
            (0.0, 0.0),
            (0.5, 0.16),
            (-0.2, 0.3),
        ):
            pen.circle(x, y, 0.15, BLOSSOM_LINE)
            pen.circle(x, y, 0.11, BLOSSOM)
            pen.circle(x, y, 0.045, (252, 196, 40))
    elif state == "autumn":
        hues: tuple[RGB, ...] = ((236, 120, 24), (196, 40, 30), (252, 204, 60))
        spots: tuple[tuple[float, float], ...] = (
            (-0.16, -0.58),
            (0.28, -0.3),
            (-0.44, 0.0),
            (0.08, 0.06),
            (0.56, 0.1),
            (-0.18, 0.34),
        )
        spots += ((-0.6, 0.64), (0.52, 0.6), (-0.5, 0.88), (0.64, 0.88), (0.3, 0.86))
        for i, (x, y) in enumerate(spots):
            pen.polygon(
                [
                    (x - 0.15, y + 0.02),
                    (x, y - 0.1),
                    (x + 0.15, y - 0.02),
                    (x, y + 0.1),
                ],
                hues[i % 3],
            )
    elif state == "winter":
        cap = [
            (-0.46, -0.52),
            (-0.34, -0.78),
            (0, -0.93),
            (0.34, -0.78),
            (0.46, -0.52),
            (0.3, -0.58),
            (0.14, -0.44),
        ]
        blob(pen, [*cap, (-0.04, -0.58), (-0.22, -0.42), (-0.34, -0.56)], SNOW, SNOW_LINE)
        for side in (-1, 1):
            pen.blob(
                [
                    (side * x, y)
                    for x, y in (
                        (0.8, -0.02),
                        (0.68, -0.24),
                        (0.48, -0.28),
                        (0.58, -0.1),
                    )
                ],
                SNOW,
            )
        blob(
            pen,
            [
                (-0.76, 0.89),
                (-0.4, 0.79),
                (0, 0.75),
                (0.4, 0.79),
                (0.76, 0.89),
                (0, 0.92),
            ],
            SNOW,
            SNOW_LINE,
        )
    else:
        for x, y in ((-0.3, -0.5), (-0.52, 0.06), (0.14, -0.06)):
            pen.arc(x, y, 0.16, 0.14, 180, 300, 0.07, shade(ink))


@kind("flower", "plants", natural="pink", size=(0.69, 0.98))
def flower(pen: Pen, ink: Ink, state: str | None) -> None:
    stroke(pen, [(0, 0.1), (0, 0.88)], 0.09, STALK, STALK_LINE)
    petal(pen, 0.02, 0.9, -34, 0.66, 0.32, STALK, STALK_LINE)
    petal(pen, -0.02, 0.9, 214, 0.66, 0.32, STALK, STALK_LINE)
    turns = [math.radians(60 * i - 90) for i in range(6)]
    for r, fill in ((0.3, ink.line), (0.245, ink.main)):
        for t in turns:
            pen.circle(0.45 * math.cos(t), -0.24 + 0.44 * math.sin(t), r, fill)
    yellow = ink.main[0] > 230 and ink.main[2] < 80
    disc(
        pen,
        0,
        -0.24,
        0.27,
        0.27,
        (140, 82, 40) if yellow else (255, 208, 48),
        (92, 48, 16),
    )


@kind("cactus", "plants", natural="green", size=(0.8, 0.98), plural="cacti")
def cactus(pen: Pen, ink: Ink, state: str | None) -> None:
    for g, fill in ((RIM, ink.line), (0.0, ink.main)):
        pen.line(
            [(-0.6, -0.28), (-0.6, 0.2), (-0.54, 0.32), (-0.2, 0.34)],
            0.29 + 2 * g,
            fill,
        )
        pen.line([(0.6, -0.46), (0.6, -0.02), (0.54, 0.1), (0.2, 0.12)], 0.29 + 2 * g, fill)
        pen.rect(-0.28 - g, -0.72 - g, 0.28 + g, 0.925 + g, fill, 0.28 + g)
        pen.rect(-0.28 - g, 0.5, 0.28 + g, 0.925 + g, fill)
    for x, y in (
        (-0.1, -0.4),
        (0.1, -0.12),
        (-0.1, 0.16),
        (0.1, 0.44),
        (-0.1, 0.7),
        (-0.6, -0.1),
        (0.6, -0.26),
    ):
        pen.line([(x, y - 0.07), (x, y + 0.07)], 0.06, mark(ink))
    for x, y in ((-0.14, -0.78), (0.14, -0.78), (0, -0.86)):
        pen.circle(x, y, 0.12, (236, 76, 136))
    pen.circle(0, -0.76, 0.09, (255, 214, 60))


@kind("leaf", "plants", natural="green", size=(0.95, 0.95), plural="leaves")
def leaf(pen: Pen, ink: Ink, state: str | None) -> None:
    stroke(pen, [(-0.85, 0.85), (-0.5, 0.5)], 0.09, ink.main, ink.line)
    half = ((-0.6, 0.6), (-0.68, 0.1), (-0.5, -0.36), (-0.04, -0.68), (0.44, -0.78))
    body = [*half, (0.865, -0.865), *((-y, -x) for x, y in half[:0:-1])]
    blob(pen, body, ink.main, ink.line)
    vein = mark(ink)
    pen.line([(-0.6, 0.6), (0.62, -0.62)], 0.07, vein)
    for at in (-0.26, 0.04, 0.32):
        pen.line([(at - 0.06, -at - 0.36), (at, -at), (at + 0.36, -at + 0.06)], 0.055, vein)


def _pot(pen: Pen) -> None:
    polygon(
        pen,
        [(-0.32, 0.64), (0.32, 0.64), (0.23, 0.925), (-0.23, 0.925)],
        CLAY,
        CLAY_LINE,
    )
    pen.rect(-0.42, 0.48, 0.42, 0.7, CLAY_LINE, 0.08)
    pen.rect(-0.365, 0.535, 0.365, 0.645, CLAY, 0.04)


@kind(
    "plant",
    "plants",
    natural="green",
    size=(0.86, 0.98),
    states=("grown", "seedling", "flowering", "withered"),
)
def plant(pen: Pen, ink: Ink, state: str | None) -> None:
    if state == "seedling":
        stroke(pen, [(0, 0.5), (0, -0.36)], 0.12, ink.main, ink.line)
        for side in (-1, 1):
            shape = (
                (0.0, -0.24),
                (0.14, -0.7),
                (0.46, -0.9),
                (0.78, -0.9),
                (0.77, -0.5),
                (0.5, -0.22),
            )
            blob(pen, [(side * x, y) for x, y in shape], ink.main, ink.line)
    elif state == "withered":
        for side, top in ((1, -0.925), (-1, -0.6)):
            stem = [
                (0, 0.5),
                (0.02, top + 0.3),
                (0.14, top + 0.1),
                (0.32, top + 0.06),
                (0.46, top + 0.2),
            ]
            stroke(pen, [(side * x, y) for x, y in stem], 0.11, ink.main, ink.line)
            droop = [
                (0.44, 0.12),
                (0.74, 0.3),
                (0.805, 0.75),
                (0.64, 1.18),
                (0.34, 0.9),
                (0.24, 0.5),
            ]
            blob(pen, [(side * x, top + y) for x, y in droop], ink.main, ink.line)
            tip = [(0.76, 0.92), (0.64, 1.18), (0.36, 0.94), (0.58, 1.0)]
            pen.polygon([(side * x, top + y) for x, y in tip], DRY)
        pen.blob([(-0.84, 0.9), (-0.66, 0.8), (-0.44, 0.9), (-0.66, 0.96)], DRY)
    else:
        for angle, length in (
            (-166, 0.84),
            (-14, 0.84),
            (-136, 1.08),
            (-44, 1.08),
            (-90, 1.34),
        ):
            petal(pen, 0, 0.44, angle, length, 0.62, ink.main, ink.line)
        pen.line([(0, 0.2), (0, -0.5)], 0.05, mark(ink))
        if state == "flowering":
            for x, y in ((0, -0.66), (-0.6, -0.24), (0.6, -0.24)):
                pen.circle(x, y, 0.2, BLOSSOM_LINE)
                for t in range(5):
                    a = math.radians(72 * t - 90)
                    pen.circle(x + 0.13 * math.cos(a), y + 0.13 * math.sin(a), 0.09, BLOSSOM)
                pen.circle(x, y, 0.08, (255, 204, 40))
    _pot(pen)


@kind("sun", "sky", natural="yellow", size=(0.98, 0.98))
def sun(pen: Pen, ink: Ink, state: str | None) -> None:
    polygon(pen, star_points(12, 0.862, 0.62), ink.main, ink.line)
    pen.circle(0, 0, 0.65, ink.line)
    pen.circle(0, 0, 0.6, ink.main)
    for x in (-0.22, 0.22):
        pen.ellipse(x, -0.14, 0.08, 0.11, mark(ink))
        pen.circle(x * 1.75, 0.1, 0.1, (255, 120, 120))
    pen.arc(0, 0.06, 0.27, 0.24, 15, 165, 0.08, mark(ink))


@kind(
    "moon",
    "sky",
    natural="yellow",
    size=(0.95, 0.95),
    states=("full", "crescent", "half"),
)
def moon(pen: Pen, ink: Ink, state: str | None) -> None:
    if state == "crescent":
        outer = [math.radians(a) for a in range(0, 271, 10)]
        inner = [math.radians(a) for a in range(225, 44, -10)]
        rim = [(0.89 * math.cos(t), 0.89 * math.sin(t)) for t in outer]
        bite = [(0.4 + 0.64 * math.cos(t), -0.4 + 0.64 * math.sin(t)) for t in inner]
        polygon(pen, rim + bite, ink.main, ink.line)
        craters: tuple[tuple[float, float, float], ...] = (
            (-0.58, -0.1, 0.11),
            (-0.24, 0.56, 0.14),
        )
    elif state == "half":
        pen.pie(0.163, -0.163, 1.113, 1.113, 45, 225, ink.line)
        pen.pie(0.124, -0.124, 1.003, 1.003, 45, 225, ink.main)
        craters = ((-0.56, -0.2, 0.12), (-0.3, 0.3, 0.2), (0.24, 0.56, 0.13))
    else:
        disc(pen, 0, 0, 0.95, 0.95, ink.main, ink.line)
        craters = (
            (-0.34, -0.3, 0.23),
            (0.4, 0.1, 0.18),
            (-0.22, 0.46, 0.15),
            (0.28, -0.54, 0.11),
            (0.3, 0.6, 0.1),
        )
    for x, y, r in craters:
        pen.circle(x, y, r, shade(ink))


@kind("cloud", "sky", natural="white", size=(0.98, 0.64))
def cloud(pen: Pen, ink: Ink, state: str | None) -> None:
    for g, fill in ((RIM, ink.line), (0.0, ink.main)):
        for x, y, r in (
            (-0.585, 0.245, 0.34),
            (0.6, 0.265, 0.32),
            (-0.2, -0.06, 0.42),
            (0.26, -0.12, 0.465),
        ):
            pen.circle(x, y, r + g, fill)
        pen.rect(-0.6, 0.1, 0.6, 0.585 + g, fill)
    pen.arc(-0.24, 0.0, 0.24, 0.24, 180, 280, 0.06, shade(ink))
    pen.arc(0.3, 0.24, 0.26, 0.22, 180, 270, 0.06, shade(ink))


@kind("snowflake", "sky", natural="white", size=(0.86, 0.98))
def snowflake(pen: Pen, ink: Ink, state: str | None) -> None:
    arms = []
    for i in range(6):
        t = math.radians(60 * i - 90)
        c, s = math.cos(t), math.sin(t)
        points = ((0, 0), (0.855, 0)), ((0.66, 0.25), (0.42, 0.0), (0.66, -0.25))
        arms += [[(u * c - v * s, u * s + v * c) for u, v in part] for part in points]
    for width, fill in ((0.25, ink.line), (0.14, ink.main)):
        for arm in arms:
            pen.line(arm, width, fill)
    pen.polygon(star_points(3, 0.2, 0.2), ink.main)


def _band(pen: Pen, outer: float, inner: float, fill: RGB, down: float = 0.0) -> None:
    """Half a ring, open downward, its feet at y = 0.5 + down (frame units)."""
    turns = [math.radians(a) for a in range(180, 361, 6)]
    arch = [(outer * math.cos(t), 0.36 + outer * math.sin(t)) for t in turns]
    back = [(inner * math.cos(t), 0.36 + inner * math.sin(t)) for t in reversed(turns)]
    foot = 0.5 + down
    pen.polygon(
        [(-outer, foot), *arch, (outer, foot), (inner, foot), *back, (-inner, foot)],
        fill,
    )


@kind("rainbow", "sky", natural="red", size=(0.98, 0.62))
def rainbow(pen: Pen, ink: Ink, state: str | None) -> None:
    _band(pen, 0.98, 0.12, ink.line, RIM)
    bands = (
        (0.925, ink.main),
        (0.65, (255, 214, 50)),
        (0.57, (70, 180, 90)),
        (0.49, (60, 140, 236)),
        (0.41, ink.main),
    )
    for (outer, fill), inner in zip(bands, (0.65, 0.57, 0.49, 0.41, 0.175), strict=True):
        _band(pen, outer, inner, fill)
    for side in (-1, 1):
        for g, fill in ((RIM, SNOW_LINE), (0.0, SNOW)):
            for x, y, r in ((0.82, 0.46, 0.1), (0.48, 0.46, 0.1), (0.65, 0.42, 0.13)):
                pen.circle(side * x, y, r + g, fill)


@kind("lightning", "sky", natural="yellow", size=(0.62, 0.98), plural="lightning bolts")
def lightning(pen: Pen, ink: Ink, state: str | None) -> None:
    bolt = [
        (-0.06, -0.925),
        (0.46, -0.925),
        (0.18, -0.2),
        (0.52, -0.2),
        (-0.28, 0.88),
        (-0.06, 0.12),
        (-0.52, 0.12),
    ]
    pen.polygon(grow(bolt, RIM), ink.line)
    pen.polygon(bolt, ink.main)
