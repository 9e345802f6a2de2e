"""Food: four fruits and vegetables, and four things from the kitchen."""

from __future__ import annotations

from ..pen import RGB, Ink, Pen, mix
from .registry import kind
from .shapes import blob, disc, mark, petal, polygon, shade

LEAF, LEAF_LINE = (104, 184, 58), (38, 92, 30)
STEM = (112, 70, 36)
WILTED, WILTED_LINE = (150, 116, 62), (78, 54, 26)
LIME = (184, 226, 96)
ROT, ROT_RIM, MOULD = (74, 46, 26), (120, 84, 48), (196, 188, 132)
CREAM, CREAM_LINE = (255, 244, 224), (150, 122, 92)


def _rot(pen: Pen, x: float, y: float, r: float) -> None:
    """A brown spot with a mouldy heart, so that it shows on brown and black fruit too."""
    pen.ellipse(x, y, r, r * 0.88, ROT_RIM)
    pen.ellipse(x, y, r * 0.8, r * 0.68, ROT)
    pen.ellipse(x + r * 0.1, y, r * 0.34, r * 0.28, MOULD)


@kind(
    "apple",
    "food",
    natural="red",
    size=(0.86, 0.98),
    states=("ripe", "unripe", "rotten"),
)
def apple(pen: Pen, ink: Ink, state: str | None) -> None:
    bad = state == "rotten"
    leaf, leaf_line = (WILTED, WILTED_LINE) if bad else (LEAF, LEAF_LINE)
    pen.line([(0.0, -0.4), (0.06, -0.9)], 0.15, (60, 36, 18))
    petal(pen, 0.1, -0.62, 24 if bad else -20, 0.58, 0.4, leaf, leaf_line)
    body = [
        (0, -0.42), (0.3, -0.54), (0.66, -0.42), (0.81, 0.0), (0.68, 0.52), (0.34, 0.9),
        (0, 0.82), (-0.34, 0.9), (-0.68, 0.52), (-0.81, 0.0), (-0.66, -0.42), (-0.3, -0.54),
    ]  # fmt: skip
    blob(pen, body, ink.main, ink.line)
    pen.line([(-0.15, -0.4), (0, -0.34), (0.15, -0.4)], 0.06, mark(ink))
    if bad:
        for x, y, r in ((-0.3, 0.15, 0.24), (0.38, 0.42, 0.2), (0.36, -0.16, 0.13)):
            _rot(pen, x, y, r)
    elif state == "unripe":
        cheek = [
            (0.36, -0.5),
            (0.64, -0.4),
            (0.79, 0.0),
            (0.66, 0.5),
            (0.36, 0.84),
            (0.2, 0.6),
            (0.4, 0.3),
            (0.2, -0.05),
        ]
        pen.blob(cheek, LIME)
    else:
        pen.blob(
            [(-0.62, -0.1), (-0.48, -0.34), (-0.34, -0.34), (-0.5, 0.0), (-0.54, 0.2)],
            ink.light,
        )


@kind(
    "banana",
    "food",
    natural="yellow",
    size=(0.98, 0.76),
    states=("ripe", "unripe", "rotten"),
)
def banana(pen: Pen, ink: Ink, state: str | None) -> None:
    body = [
        (0.66, -0.69), (0.9, -0.64), (0.89, -0.26), (0.72, 0.24), (0.34, 0.6), (-0.16, 0.7), (-0.62, 0.6),
        (-0.9, 0.36), (-0.87, 0.16), (-0.5, 0.14), (0.0, -0.03), (0.34, -0.28), (0.57, -0.48),
    ]  # fmt: skip
    blob(pen, body, ink.main, ink.line)
    if state == "unripe":
        pen.blob(
            [
                (0.67, -0.66),
                (0.88, -0.61),
                (0.87, -0.3),
                (0.76, 0.06),
                (0.56, -0.06),
                (0.6, -0.44),
            ],
            LIME,
        )
        pen.blob(
            [
                (-0.87, 0.2),
                (-0.56, 0.17),
                (-0.42, 0.3),
                (-0.5, 0.58),
                (-0.62, 0.57),
                (-0.88, 0.35),
            ],
            LIME,
        )
    else:
        pen.blob([(0.67, -0.66), (0.89, -0.62), (0.88, -0.46), (0.6, -0.48)], (92, 62, 34))
        pen.blob([(-0.9, 0.35), (-0.87, 0.18), (-0.74, 0.18), (-0.76, 0.46)], (92, 62, 34))
    if state == "rotten":
        for x, y, r in ((-0.4, 0.38, 0.16), (0.14, 0.34, 0.21), (0.6, -0.1, 0.15)):
            _rot(pen, x, y, r)
    else:
        pen.line([(-0.4, 0.42), (0.0, 0.38), (0.36, 0.14), (0.52, -0.1)], 0.05, shade(ink))


@kind("orange", "food", natural="orange", size=(0.86, 0.96))
def orange(pen: Pen, ink: Ink, state: str | None) -> None:
    disc(pen, 0, 0.1, 0.86, 0.86, ink.main, ink.line)
    for x, y in (
        (-0.5, -0.02),
        (-0.32, 0.34),
        (-0.56, 0.4),
        (-0.16, 0.68),
        (0.54, -0.2),
        (-0.1, 0.08),
        (0.6, 0.16),
    ):
        pen.circle(x, y, 0.05, shade(ink))
    pen.circle(0.3, 0.48, 0.19, shade(ink))
    pen.circle(0.3, 0.48, 0.12, ink.main)
    pen.circle(0.3, 0.48, 0.06, mark(ink))
    petal(pen, 0, -0.55, -29, 0.72, 0.42, LEAF, LEAF_LINE)
    petal(pen, 0, -0.55, 209, 0.72, 0.42, LEAF, LEAF_LINE)
    pen.circle(0, -0.56, 0.12, STEM)


@kind("carrot", "food", natural="orange", size=(0.96, 0.96))
def carrot(pen: Pen, ink: Ink, state: str | None) -> None:
    for angle, length in ((-80, 0.62), (-10, 0.62), (-45, 0.8)):
        petal(pen, 0.3, -0.3, angle, length, 0.38, LEAF, LEAF_LINE)
    body = [
        (-0.88, 0.88),
        (-0.72, 0.46),
        (-0.44, -0.04),
        (-0.06, -0.42),
        (0.24, -0.54),
        (0.48, -0.48),
        (0.54, -0.24),
    ]
    body += [(0.42, 0.06), (0.04, 0.44), (-0.46, 0.72)]
    blob(pen, body, ink.main, ink.line)
    for x, y, reach in (
        (-0.18, -0.28, 0.2),
        (0.28, 0.14, -0.2),
        (-0.48, 0.1, 0.16),
        (-0.12, 0.5, -0.16),
    ):
        pen.line([(x, y), (x + reach, y + reach)], 0.065, shade(ink))


@kind("cheese", "food", natural="yellow", size=(0.98, 0.72), plural="cheeses")
def cheese(pen: Pen, ink: Ink, state: str | None) -> None:
    polygon(
        pen,
        [(-0.9, 0.02), (0.5, -0.64), (0.92, -0.24), (0.92, 0.66), (-0.92, 0.66)],
        ink.main,
        ink.line,
    )
    pen.polygon([(-0.9, 0.02), (0.5, -0.64), (0.6, -0.54), (-0.58, 0.02)], ink.light)
    pen.line([(-0.88, 0.04), (0.9, 0.04)], 0.055, ink.line)
    for x, y, rx, ry in (
        (-0.54, 0.36, 0.16, 0.15),
        (0.06, 0.48, 0.12, 0.11),
        (0.52, 0.32, 0.17, 0.15),
        (0.4, -0.22, 0.18, 0.09),
    ):
        pen.ellipse(x, y, rx, ry, mark(ink))
        pen.ellipse(x + 0.02, y + 0.03, rx - 0.05, ry - 0.04, shade(ink))


@kind("cake", "food", natural="pink", size=(0.9, 0.98))
def cake(pen: Pen, ink: Ink, state: str | None) -> None:
    pale = min(ink.main) > 235
    icing, edge = ((255, 190, 214), (176, 92, 124)) if pale else (CREAM, CREAM_LINE)
    for x in (-0.46, 0.0, 0.46):
        pen.rect(x - 0.1, -0.68, x + 0.1, -0.3, (50, 90, 150), 0.04)
        pen.rect(x - 0.05, -0.64, x + 0.05, -0.3, (128, 200, 246))
        pen.blob(
            [(x, -0.98), (x + 0.12, -0.78), (x, -0.66), (x - 0.12, -0.78)],
            (238, 104, 24),
        )
        pen.ellipse(x, -0.77, 0.055, 0.075, (255, 226, 80))
    pen.rect(-0.9, 0.86, 0.9, 0.98, (120, 126, 146), 0.06)
    pen.rect(-0.84, -0.43, 0.84, 0.92, ink.line, 0.14)
    pen.rect(-0.785, -0.375, 0.785, 0.865, ink.main, 0.1)
    drips = [
        (-0.78, -0.3),
        (-0.7, -0.375),
        (0.7, -0.375),
        (0.78, -0.3),
        (0.785, -0.1),
        (0.6, 0.02),
        (0.4, -0.17),
    ]
    drips += [
        (0.2, -0.04),
        (0, -0.17),
        (-0.2, 0.04),
        (-0.4, -0.17),
        (-0.6, -0.02),
        (-0.785, -0.14),
    ]
    pen.polygon([(x, y + 0.055 if y > -0.2 else y) for x, y in drips], edge)
    pen.polygon(drips, icing)
    for x in (-0.56, -0.19, 0.19, 0.56):
        pen.circle(x, 0.48, 0.08, icing)


def _egg(pen: Pen, fill: RGB, grown: float = 0.0) -> None:
    pen.pie(0, 0.22, 0.71 + grown, 0.71 + grown, 0, 180, fill)
    pen.pie(0, 0.23, 0.71 + grown, 1.14 + grown, 180, 360, fill)


@kind(
    "egg",
    "food",
    natural="white",
    size=(0.765, 0.98),
    states=("whole", "fried", "hatched"),
)
def egg(pen: Pen, ink: Ink, state: str | None) -> None:
    if state == "fried":
        white = [
            (0, -0.92), (0.4, -0.76), (0.56, -0.4), (0.7, 0.0), (0.56, 0.4), (0.42, 0.82), (0.05, 0.86),
            (-0.3, 0.9), (-0.6, 0.66), (-0.58, 0.24), (-0.71, -0.16), (-0.6, -0.62), (-0.3, -0.74),
        ]  # fmt: skip
        blob(pen, white, ink.main, ink.line)
        yolk = (246, 150, 30) if ink.main[2] < 80 and ink.main[1] > 190 else (255, 206, 40)
        disc(pen, 0, 0.04, 0.4, 0.4, yolk, mix(yolk, (120, 50, 0), 0.5))
        pen.ellipse(-0.13, -0.1, 0.1, 0.08, (255, 246, 200))
        return
    pen.pie(0, 0.23, 0.765, 0.75, 0, 180, ink.line)
    pen.pie(0, 0.24, 0.765, 1.22, 180, 360, ink.line)
    pen.pie(0, 0.23, 0.71, 0.695, 0, 180, ink.main)
    pen.pie(0, 0.24, 0.71, 1.165, 180, 360, ink.main)
    if state != "hatched":
        pen.ellipse(-0.26, -0.3, 0.13, 0.22, ink.light)
        for x, y in (
            (0.28, -0.2),
            (0.42, 0.24),
            (-0.2, 0.56),
            (-0.44, 0.2),
            (0.14, 0.62),
            (0.08, 0.16),
        ):
            pen.circle(x, y, 0.06, shade(ink))
        return
    gap = [
        (-0.665, -0.28),
        (-0.45, -0.5),
        (-0.2, -0.28),
        (0.05, -0.5),
        (0.3, -0.28),
        (0.55, -0.48),
        (0.665, -0.28),
    ]
    gap += [
        (0.685, 0.14),
        (0.5, -0.02),
        (0.25, 0.22),
        (0, 0.02),
        (-0.25, 0.22),
        (-0.5, -0.02),
        (-0.685, 0.14),
    ]
    polygon(pen, gap, (255, 214, 60), (122, 84, 20))
    for x in (-0.26, 0.26):
        pen.circle(x, -0.14, 0.09, (36, 30, 30))
    pen.polygon([(-0.13, -0.1), (0.13, -0.1), (0, 0.1)], (240, 120, 30))


@kind("mushroom", "food", natural="red", size=(0.98, 0.92))
def mushroom(pen: Pen, ink: Ink, state: str | None) -> None:
    pen.rect(-0.36, -0.1, 0.36, 0.92, CREAM_LINE, 0.24)
    pen.rect(-0.305, -0.1, 0.305, 0.865, CREAM, 0.2)
    pen.pie(0, 0.2, 0.98, 1.12, 180, 360, ink.line)
    pen.rect(-0.98, 0.1, 0.98, 0.3, ink.line, 0.1)
    pen.pie(0, 0.2, 0.92, 1.06, 180, 360, ink.main)
    pen.rect(-0.92, 0.14, 0.92, 0.245, ink.main, 0.05)
    dot = (214, 132, 92) if min(ink.main) > 235 else (255, 252, 246)
    for x, y, rx, ry in (
        (0, -0.5, 0.22, 0.18),
        (-0.52, -0.12, 0.18, 0.17),
        (0.52, -0.12, 0.18, 0.17),
        (0.03, 0.04, 0.13, 0.1),
    ):
        pen.ellipse(x, y, rx, ry, dot)
    for x in (-0.13, 0.13):
        pen.ellipse(x, 0.46, 0.05, 0.07, (84, 60, 48))
    pen.arc(0, 0.54, 0.12, 0.1, 20, 160, 0.05, (84, 60, 48))
