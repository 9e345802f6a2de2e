"""Things about the house: cup, clock, umbrella and their like."""

from __future__ import annotations

import math

from ..pen import RGB, Ink, Pen, Point, mix
from .buildings import EDGE, GLOW, SOOT, WHITE, disc, luma, mark, slab, solid, trim
from .registry import kind

GOLD, PAPER, RED, WOOD = (240, 190, 60), (255, 252, 240), (226, 44, 44), (150, 98, 56)


@kind("cup", "household", "white", (0.95, 0.85))
def cup(pen: Pen, ink: Ink, state: str | None) -> None:
    pen.arc(0.45, 0.02, 0.37, 0.36, -100, 100, 0.26, ink.line)
    pen.arc(0.45, 0.02, 0.37, 0.36, -100, 100, 0.16, ink.main)
    body: list[Point] = [(-0.9, -0.56), (0.5, -0.56), (0.44, 0.4), (0.26, 0.8), (-0.66, 0.8), (-0.84, 0.4)]
    solid(pen, ink.line, (body, ink.main))
    pen.ellipse(-0.2, -0.56, 0.75, 0.29, ink.line)
    pen.ellipse(-0.2, -0.56, 0.7, 0.24, ink.main)
    pen.ellipse(-0.2, -0.54, 0.57, 0.16, (104, 62, 36))
    pen.line([(-0.68, -0.1), (-0.64, 0.34)], 0.09, ink.light if luma(ink) < 235 else ink.dark)


@kind("chair", "household", "brown", (0.65, 0.97))
def chair(pen: Pen, ink: Ink, state: str | None) -> None:
    for x in (-0.32, 0.32):
        slab(pen, (x - 0.06, 0.1, x + 0.06, 0.72), ink.dark, ink.line)
    for x in (-0.44, 0.44):
        slab(pen, (x - 0.08, -0.7, x + 0.08, 0.2), ink.main, ink.line)
    for x in (-0.15, 0.15):
        slab(pen, (x - 0.07, -0.7, x + 0.07, 0.1), ink.main, ink.line)
    slab(pen, (-0.54, -0.92, 0.54, -0.6), ink.main, ink.line, 0.12)
    for x in (-0.49, 0.49):
        slab(pen, (x - 0.09, 0.2, x + 0.09, 0.92), ink.main, ink.line)
    solid(pen, ink.line, ([(-0.46, 0.02), (0.46, 0.02), (0.6, 0.32), (-0.6, 0.32)], ink.main))
    pen.line([(-0.54, 0.27), (0.54, 0.27)], 0.06, mark(ink))


@kind("box", "household", "brown", (0.97, 0.87), plural="boxes")
def box(pen: Pen, ink: Ink, state: str | None) -> None:
    solid(pen, ink.line, ([(-0.5, -0.46), (0.5, -0.46), (0.62, -0.82), (-0.62, -0.82)], ink.main))
    solid(pen, ink.line, ([(-0.7, -0.06), (-0.5, -0.46), (0.5, -0.46), (0.7, -0.06)], mix(ink.dark, (0, 0, 0), 0.35)))
    for side in (-1, 1):
        flap = [(-0.7, -0.06), (-0.5, -0.46), (-0.8, -0.64), (-0.92, -0.26)]
        solid(pen, ink.line, ([(x * side, y) for x, y in flap], ink.light if luma(ink) < 235 else ink.dark))
    slab(pen, (-0.7, -0.06, 0.7, 0.82), ink.main, ink.line)
    pen.rect(-0.12, -0.06, 0.12, 0.34, trim(ink))
    pen.line([(0.3, 0.66), (0.54, 0.66)], 0.07, mark(ink))


@kind("book", "household", "blue", (0.85, 0.85), ("closed", "open"))
def book(pen: Pen, ink: Ink, state: str | None) -> None:
    if state == "open":
        _open_book(pen, ink)
        return
    slab(pen, (-0.8, -0.8, 0.8, 0.8), ink.dark, ink.line, 0.1)
    pen.rect(-0.66, 0.5, 0.8, 0.74, ink.line, 0.04)
    pen.rect(-0.62, 0.55, 0.8, 0.7, PAPER)
    pen.line([(-0.6, 0.625), (0.76, 0.625)], 0.025, (190, 186, 176))
    pen.rect(-0.58, -0.8, 0.8, 0.5, ink.main, 0.08)
    pen.rect(-0.58, -0.8, -0.5, 0.5, mark(ink))
    pen.rect(-0.26, -0.5, 0.56, -0.1, mark(ink), 0.06)
    pen.rect(-0.2, -0.44, 0.5, -0.16, GOLD, 0.03)


def _open_book(pen: Pen, ink: Ink) -> None:
    left: list[Point] = [(0.0, -0.52), (-0.36, -0.8), (-0.8, -0.66), (-0.8, 0.66), (-0.36, 0.52), (0.0, 0.8)]
    right = [(-x, y) for x, y in left]
    solid(pen, ink.line, (left, ink.main), (right, ink.main))
    for side in (-1, 1):
        page = [(0.0, -0.4), (0.3, -0.6), (0.6, -0.52), (0.6, 0.4), (0.3, 0.32), (0.0, 0.52)]
        page = [(x * side, y) for x, y in page]
        pen.line([*page, page[0]], 0.06, ink.line)
        pen.polygon(page, PAPER)
        for y in (-0.26, -0.04, 0.18):
            pen.line([(0.14 * side, y), (0.46 * side, y - 0.12)], 0.06, (150, 150, 160))
    pen.line([(0.0, -0.5), (0.0, 0.76)], 0.06, ink.line)


@kind("ball", "household", "red", (0.95, 0.95))
def ball(pen: Pen, ink: Ink, state: str | None) -> None:
    disc(pen, 0.0, 0.0, 0.9, ink.main, ink.line)
    pole, bend = (-0.2, -0.36), 0.22

    def seam(angle: float) -> list[Point]:
        """From the pole to the rim, bent sideways as on a globe."""
        x, y = 0.9 * math.cos(math.radians(angle)), 0.9 * math.sin(math.radians(angle))
        mid = ((pole[0] + x) / 2 - bend * (y - pole[1]), (pole[1] + y) / 2 + bend * (x - pole[0]))

        def along(t: float, p: float, m: float, q: float) -> float:
            return (1 - t) ** 2 * p + 2 * t * (1 - t) * m + t * t * q

        return [(along(i / 6, pole[0], mid[0], x), along(i / 6, pole[1], mid[1], y)) for i in range(7)]

    for start in (-62, 40, 150):
        end = start + 52
        rim = [(0.9 * math.cos(math.radians(a)), 0.9 * math.sin(math.radians(a))) for a in range(start, end, 8)]
        pen.polygon([*seam(start), *rim, *reversed(seam(end))], trim(ink))
    disc(pen, *pole, 0.1, ink.main, mark(ink))


@kind("bag", "household", "purple", (0.88, 0.95))
def bag(pen: Pen, ink: Ink, state: str | None) -> None:
    pen.arc(0.0, -0.2, 0.44, 0.62, 180, 360, 0.26, ink.line)
    pen.arc(0.0, -0.2, 0.44, 0.62, 180, 360, 0.15, ink.main)
    body: list[Point] = [(-0.66, -0.26), (0.66, -0.26), (0.83, 0.72), (0.7, 0.9), (-0.7, 0.9), (-0.83, 0.72)]
    solid(pen, ink.line, (body, ink.main))
    pen.polygon([(-0.66, -0.26), (0.66, -0.26), (0.62, 0.06), (0.0, 0.36), (-0.62, 0.06)], ink.dark)
    pen.line([(-0.66, 0.04), (0.0, 0.37), (0.66, 0.04)], 0.06, mark(ink))
    disc(pen, 0.0, 0.34, 0.14, GOLD, ink.line)


@kind("hat", "household", "black", (0.97, 0.82))
def hat(pen: Pen, ink: Ink, state: str | None) -> None:
    pen.ellipse(0.0, 0.5, 0.97, 0.32, ink.line)
    pen.ellipse(0.0, 0.5, 0.92, 0.27, ink.main)
    crown: list[Point] = [(-0.62, -0.62), (0.62, -0.62), (0.52, 0.46), (0.3, 0.56), (-0.3, 0.56), (-0.52, 0.46)]
    solid(pen, ink.line, (crown, ink.main))
    pen.polygon([(-0.55, 0.14), (0.55, 0.14), (0.52, 0.44), (0.3, 0.54), (-0.3, 0.54), (-0.52, 0.44)], trim(ink))
    pen.ellipse(0.0, -0.62, 0.67, 0.2, ink.line)
    pen.ellipse(0.0, -0.62, 0.62, 0.15, ink.light if luma(ink) < 235 else ink.dark)


@kind("clock", "household", "white", (0.95, 0.95), ("12", *(str(hour) for hour in range(1, 12))))
def clock(pen: Pen, ink: Ink, state: str | None) -> None:
    disc(pen, 0.0, 0.0, 0.9, ink.main, ink.line)
    pen.circle(0.0, 0.0, 0.64, mark(ink))
    pen.circle(0.0, 0.0, 0.6, PAPER)
    for x, y in ((0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)):
        pen.circle(x * 0.51, y * 0.51, 0.06, (150, 150, 160))
    turn = math.radians(int(state or "12") * 30)
    pen.line([(0.0, 0.0), (0.0, -0.52)], 0.07, SOOT)
    pen.line([(0.0, 0.0), (0.34 * math.sin(turn), -0.34 * math.cos(turn))], 0.18, RED)
    pen.circle(0.0, 0.0, 0.1, SOOT)


@kind("candle", "household", "white", (0.62, 0.97), ("unlit", "lit", "melted"))
def candle(pen: Pen, ink: Ink, state: str | None) -> None:
    top = {"lit": -0.3, "melted": 0.3}.get(state or "", -0.66)
    pen.ellipse(0.0, 0.79, 0.62, 0.18, ink.line)
    pen.ellipse(0.0, 0.79, 0.57, 0.13, GOLD)
    half = 0.38
    if state == "melted":
        half = 0.35
        pen.ellipse(0.0, 0.68, 0.57, 0.22, ink.line)
        pen.ellipse(0.0, 0.68, 0.52, 0.17, ink.main)
        rise = [i / 14 for i in range(15)]
        pen.line([(0.13 * math.sin(t * 8) * t, 0.1 - 1.03 * t) for t in rise], 0.08, (160, 165, 176))
    slab(pen, (-half, top, half, 0.78 if state != "melted" else 0.56), ink.main, ink.line, 0.1)
    if state == "melted":  # the stump runs into its pool without an outline between
        pen.ellipse(0.0, 0.68, 0.52, 0.14, ink.main)
    pen.ellipse(0.0, top + 0.06, half - 0.08, 0.07, ink.dark)
    drip = [(-half, top + 0.1), (0.14 - half, top + 0.1), (0.12 - half, top + 0.3), (0.05 - half, top + 0.34)]
    pen.polygon(drip, ink.dark)
    pen.line([(0.0, top + 0.05), (0.0, -0.92 if state in (None, "unlit") else top - 0.12)], 0.1, SOOT)
    if state == "lit":
        pen.blob([(0.0, -0.97), (0.2, -0.6), (0.13, -0.4), (-0.13, -0.4), (-0.2, -0.6)], (255, 140, 40))
        pen.blob([(0.0, -0.76), (0.1, -0.56), (0.0, -0.44), (-0.1, -0.56)], GLOW)


@kind("umbrella", "household", "purple", (0.97, 0.95), ("open", "closed"))
def umbrella(pen: Pen, ink: Ink, state: str | None) -> None:
    if state == "closed":
        _closed_umbrella(pen, ink)
        return
    pen.line([(0.0, -0.9), (0.0, 0.7)], 0.1, SOOT)
    pen.arc(0.19, 0.66, 0.19, 0.22, 0, 180, 0.14, WOOD)
    pen.pie(0.0, 0.14, 0.97, 0.97, 180, 360, ink.line)
    pen.pie(0.0, 0.12, 0.92, 0.9, 180, 360, ink.main)
    for x in (-0.615, 0.0, 0.615):
        pen.pie(x, 0.15, 0.31, 0.2, 180, 360, ink.line)
    for side in (-1, 1):
        pen.arc(0.0, 0.02, 0.34 * side, 0.8, 270, 352, 0.06, mark(ink))


def _closed_umbrella(pen: Pen, ink: Ink) -> None:
    """Furled and leaning, its tip at the upper right, so that it reaches across the whole frame."""
    pen.line([(0.5, -0.48), (0.92, -0.9)], 0.1, SOOT)
    pen.line([(-0.4, 0.4), (-0.62, 0.62)], 0.12, SOOT)
    pen.line([(-0.56, 0.56), (-0.82, 0.88), (-0.9, 0.76), (-0.84, 0.64)], 0.14, WOOD)
    canopy: list[Point] = [(0.76, -0.76), (0.28, 0.18), (-0.16, 0.66), (-0.3, 0.4), (-0.52, 0.42), (-0.5, 0.2)]
    canopy += [(-0.66, 0.16), (-0.18, -0.28)]
    solid(pen, ink.line, (canopy, ink.main))
    pen.line([(0.7, -0.7), (-0.28, 0.36)], 0.06, mark(ink))
    pen.line([(0.7, -0.7), (-0.02, 0.5)], 0.06, mark(ink))
    pen.line([(-0.22, -0.16), (0.16, 0.22)], 0.1, trim(ink))


def _ring(cx: float, outer: float, inner: float) -> list[Point]:
    """A ring about (cx, 0) as one closed path, out and back, so that what lies behind shows through its hole."""
    turn = [math.radians(i * 10) for i in range(37)]
    rim = [(cx + outer * math.cos(t), outer * math.sin(t)) for t in turn]
    return [*rim, *((cx + inner * math.cos(t), inner * math.sin(t)) for t in reversed(turn))]


@kind("key", "household", "yellow", (0.97, 0.5))
def key(pen: Pen, ink: Ink, state: str | None) -> None:
    shaft: list[Point] = [(-0.2, -0.11), (0.92, -0.11), (0.92, 0.45), (0.74, 0.45), (0.74, 0.11), (0.6, 0.11)]
    shaft += [(0.6, 0.36), (0.42, 0.36), (0.42, 0.11), (-0.2, 0.11)]
    pen.polygon(_ring(-0.47, 0.5, 0.18), ink.line)
    pen.line([*shaft, shaft[0]], 2 * EDGE, ink.line)
    pen.polygon(_ring(-0.47, 0.45, 0.23), ink.main)
    pen.polygon(shaft, ink.main)
    pen.arc(-0.47, 0.0, 0.34, 0.34, 190, 280, 0.07, ink.light if luma(ink) < 235 else ink.dark)
    pen.line([(0.0, -0.04), (0.84, -0.04)], 0.05, ink.light if luma(ink) < 235 else ink.dark)


@kind("bell", "household", "yellow", (0.85, 0.96))
def bell(pen: Pen, ink: Ink, state: str | None) -> None:
    pen.arc(0.0, -0.72, 0.14, 0.16, 0, 360, 0.15, ink.line)
    disc(pen, 0.0, 0.7, 0.21, ink.dark, ink.line)
    flank = [(0.26, -0.62), (0.46, -0.38), (0.54, 0.0), (0.62, 0.32), (0.8, 0.5)]
    body: list[Point] = [*flank, (0.8, 0.62), (-0.8, 0.62), *((-x, y) for x, y in reversed(flank))]
    solid(pen, ink.line, ([(-0.1, -0.68), (0.1, -0.68), *body], ink.main))
    pen.line([(-0.62, 0.38), (0.62, 0.38)], 0.07, mark(ink))
    pen.line([(-0.28, -0.4), (-0.38, 0.12)], 0.1, ink.light if luma(ink) < 235 else ink.dark)


_PIPS = {
    "1": ((0, 0),),
    "2": ((-1, -1), (1, 1)),
    "3": ((-1, -1), (0, 0), (1, 1)),
    "4": ((-1, -1), (1, -1), (-1, 1), (1, 1)),
    "5": ((-1, -1), (1, -1), (0, 0), (-1, 1), (1, 1)),
    "6": ((-1, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (1, 1)),
}


@kind("dice", "household", "white", (0.9, 0.9), tuple(_PIPS), plural="dice")
def dice(pen: Pen, ink: Ink, state: str | None) -> None:
    slab(pen, (-0.85, -0.85, 0.85, 0.85), ink.dark, ink.line, 0.28)
    pen.rect(-0.85, -0.85, 0.77, 0.73, ink.main, 0.26)
    spots = _PIPS[state or "1"]
    for x, y in spots:
        r = 0.26 if len(spots) == 1 else 0.175
        pen.circle(x * 0.46 - 0.04, y * 0.5 - 0.06, r, SOOT if luma(ink) > 130 else WHITE)


_GREEN, _WHITE, _BLACK = (30, 150, 76), (252, 252, 252), (34, 34, 38)
# Each nation's stripes, from the pole outward where they are upright and else from the top down.
_STRIPES: dict[str, tuple[RGB, ...]] = {
    "Japan": (_WHITE,),
    "France": ((36, 70, 170), _WHITE, (226, 52, 60)),
    "Italy": (_GREEN, _WHITE, (210, 44, 56)),
    "Germany": (_BLACK, (214, 30, 40), (255, 208, 40)),
    "Ireland": (_GREEN, _WHITE, (255, 140, 40)),
    "Ukraine": ((40, 110, 210), (255, 218, 40)),
    "Poland": (_WHITE, (222, 34, 66)),
}
_UPRIGHT = ("France", "Italy", "Ireland")


@kind("flag", "household", "red", (0.95, 0.95), ("plain", *_STRIPES))
def flag(pen: Pen, ink: Ink, state: str | None) -> None:
    line = ink.line if state in (None, "plain") else (80, 84, 96)

    def patch(u0: float, u1: float, v0: float, v1: float) -> list[Point]:
        """A piece of the waving cloth; u along it and v down it, both 0 to 1."""
        steps = [u0 + (u1 - u0) * i / 6 for i in range(7)]
        edge = [(-0.72 + 1.62 * u, -0.76 + 0.1 * math.sin(u * 6.0)) for u in steps]
        return [*((x, y + v0 * 1.14) for x, y in edge), *((x, y + v1 * 1.14) for x, y in reversed(edge))]

    slab(pen, (-0.9, -0.86, -0.76, 0.9), WOOD, SOOT, 0.06)
    solid(pen, line, (patch(0, 1, 0, 1), ink.main))
    stripes = _STRIPES.get(state or "", ())
    for i, fill in enumerate(stripes):
        low, high = i / len(stripes), (i + 1) / len(stripes)
        pen.polygon(patch(low, high, 0, 1) if state in _UPRIGHT else patch(0, 1, low, high), fill)
    if state == "Japan":
        pen.circle(0.1, -0.18, 0.33, (214, 30, 54))
    disc(pen, -0.83, -0.83, 0.07, GOLD, SOOT)


@kind("thermometer", "household", "white", (0.45, 0.97), ("mild", "hot", "cold"))
def thermometer(pen: Pen, ink: Ink, state: str | None) -> None:
    fill, top = {"hot": (RED, -0.7), "cold": ((50, 120, 235), 0.3)}.get(state or "", ((250, 140, 30), -0.2))
    pen.rect(-0.37, -0.97, 0.37, 0.6, ink.line, 0.37)
    pen.circle(0.0, 0.52, 0.45, ink.line)
    pen.rect(-0.32, -0.92, 0.32, 0.6, ink.main, 0.32)
    pen.circle(0.0, 0.52, 0.4, ink.main)
    pen.rect(-0.15, -0.82, 0.11, 0.5, mark(ink), 0.13)
    pen.circle(-0.02, 0.52, 0.25, mark(ink))
    pen.rect(-0.11, -0.78, 0.07, 0.5, WHITE, 0.09)
    pen.rect(-0.11, top, 0.07, 0.5, fill)
    pen.circle(-0.02, 0.52, 0.21, fill)
    for y in (-0.6, -0.34, -0.08, 0.18):
        pen.line([(0.18, y), (0.28, y)], 0.05, mark(ink))


@kind("traffic light", "household", "black", (0.58, 0.97), ("off", "red", "yellow", "green"), plural="traffic lights")
def traffic_light(pen: Pen, ink: Ink, state: str | None) -> None:
    for y in (-0.74, -0.16, 0.42):
        solid(pen, ink.line, ([(-0.53, y), (0.53, y), (0.4, y + 0.32), (-0.4, y + 0.32)], ink.main))
    slab(pen, (-0.42, -0.92, 0.42, 0.92), ink.main, ink.line, 0.14)
    lamps = (("red", (255, 50, 44), -0.58), ("yellow", (255, 214, 40), 0.0), ("green", (50, 226, 96), 0.58))
    for name, glow, y in lamps:
        pen.circle(0.0, y, 0.26, WHITE if name == state else mark(ink))
        pen.circle(0.0, y, 0.22, glow if name == state else mix(glow, (52, 54, 62), 0.82))
        if name == state:
            pen.circle(-0.07, y - 0.08, 0.06, WHITE)


@kind("ice cube", "household", "blue", (0.9, 0.9), ("solid", "melted"), plural="ice cubes")
def ice_cube(pen: Pen, ink: Ink, state: str | None) -> None:
    pale = mix(ink.light, WHITE, 0.5) if luma(ink) < 235 else (214, 232, 246)
    if state == "melted":
        _puddle(pen, ink, pale)
        return
    a, b, c, d = (-0.85, -0.4), (-0.08, -0.85), (0.85, -0.54), (0.12, -0.12)
    e, f, g = (-0.7, 0.42), (0.08, 0.85), (0.74, 0.34)
    solid(pen, ink.line, ([a, b, c, g, f, e], ink.main))
    pen.polygon([a, b, c, d], pale)
    edges = WHITE if luma(ink) < 235 else (150, 190, 222)
    for end in (a, c, f):
        pen.line([d, end], 0.07, edges)
    pen.line([(-0.62, -0.08), (-0.55, 0.28)], 0.12, edges)
    pen.line([(-0.38, 0.06), (-0.36, 0.18)], 0.1, edges)
    pen.line([(0.34, 0.46), (0.56, 0.24)], 0.07, edges)


def _puddle(pen: Pen, ink: Ink, pale: RGB) -> None:
    """The last of the cube, small, in a wide puddle of its own water."""
    for grow, fill in ((EDGE, ink.line), (0.0, ink.main)):  # two pools that run into one another
        pen.ellipse(-0.1, 0.22, 0.75 + grow, 0.4 + grow, fill)
    for grow, fill in ((EDGE, ink.line), (0.0, ink.main)):
        pen.ellipse(0.15, 0.5, 0.7 + grow, 0.35 + grow, fill)
    pen.ellipse(-0.1, 0.22, 0.75, 0.4, ink.main)
    pen.ellipse(0.0, 0.34, 0.56, 0.24, pale)
    a, b, c, d = (-0.42, -0.6), (-0.02, -0.85), (0.44, -0.66), (0.04, -0.42)
    e, f, g = (-0.38, 0.14), (0.04, 0.38), (0.4, 0.1)
    solid(pen, ink.line, ([a, b, c, g, f, e], ink.main))
    pen.polygon([a, b, c, d], pale)
    edges = WHITE if luma(ink) < 235 else (150, 190, 222)
    for end in (a, c, f):
        pen.line([d, end], 0.07, edges)
    pen.line([(-0.26, -0.3), (-0.24, -0.06)], 0.09, edges)
    pen.arc(0.15, 0.5, 0.54, 0.23, 20, 80, 0.07, edges)
