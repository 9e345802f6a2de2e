"""A pen for vector shapes: unit coordinates in, supersampled Pillow drawing out.

Every kind of thing is drawn in its own frame, x and y from -1 to 1 (y downward), by a function that gets a `Pen` and
an `Ink`. The pen maps the frame onto the picture. Whatever is filled with `ink.main` can later carry a texture: while
a texture is wanted the pen keeps a mask of those pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Point = tuple[float, float]


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """`share` of b in a, channel by channel; share in [0, 1]."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


@dataclass(frozen=True)
class Ink:
    """The colours a kind is painted with: the main colour, shades of it, and an outline."""

    main: RGB
    dark: RGB
    light: RGB
    line: RGB

    @classmethod
    def of(cls, main: RGB) -> Ink:
        luma = (main[0] * 3 + main[1] * 6 + main[2]) / 10
        if luma < 70:  # black: shades must go up, or details vanish
            return cls(main, (14, 14, 18), (96, 96, 106), (8, 8, 10))
        if luma > 235:  # white: shades must go down
            return cls(main, (208, 212, 220), (255, 255, 255), (120, 126, 138))
        return cls(main, mix(main, (0, 0, 0), 0.30), mix(main, (255, 255, 255), 0.45), mix(main, (0, 0, 0), 0.55))


class Pen:
    """Draws in the unit frame [-1, 1]² of a square of `side` pixels centred at (`cx`, `cy`) on `image`."""

    def __init__(self, image: Image.Image, cx: float, cy: float, side: float, mask: Image.Image | None = None):
        self.draw = ImageDraw.Draw(image)
        self.mask = ImageDraw.Draw(mask) if mask is not None else None
        self.main: RGB | None = None  # set by the caller: pixels of this colour take the texture
        self.cx, self.cy, self.half = cx, cy, side / 2

    def _at(self, points: Sequence[Point]) -> list[Point]:
        return [(self.cx + x * self.half, self.cy + y * self.half) for x, y in points]

    def _ink(self, fill: RGB) -> int:
        return 255 if fill == self.main else 0

    def polygon(self, points: Sequence[Point], fill: RGB) -> None:
        at = self._at(points)
        self.draw.polygon(at, fill=fill)
        if self.mask:
            self.mask.polygon(at, fill=self._ink(fill))

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, fill: RGB) -> None:
        (x0, y0), (x1, y1) = self._at([(cx - rx, cy - ry), (cx + rx, cy + ry)])
        self.draw.ellipse((x0, y0, x1, y1), fill=fill)
        if self.mask:
            self.mask.ellipse((x0, y0, x1, y1), fill=self._ink(fill))

    def circle(self, cx: float, cy: float, r: float, fill: RGB) -> None:
        self.ellipse(cx, cy, r, r, fill)

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: RGB, radius: float = 0.0) -> None:
        (a, b), (c, d) = self._at([(x0, y0), (x1, y1)])
        self.draw.rounded_rectangle((a, b, c, d), radius * self.half, fill=fill)
        if self.mask:
            self.mask.rounded_rectangle((a, b, c, d), radius * self.half, fill=self._ink(fill))

    def pie(self, cx: float, cy: float, rx: float, ry: float, start: float, end: float, fill: RGB) -> None:
        """A slice of an ellipse; angles in degrees, clockwise from 3 o'clock."""
        (x0, y0), (x1, y1) = self._at([(cx - rx, cy - ry), (cx + rx, cy + ry)])
        self.draw.pieslice((x0, y0, x1, y1), start, end, fill=fill)
        if self.mask:
            self.mask.pieslice((x0, y0, x1, y1), start, end, fill=self._ink(fill))

    def line(self, points: Sequence[Point], width: float, fill: RGB) -> None:
        """A stroke with round joints; width in frame units."""
        at, pixels = self._at(points), max(1, round(width * self.half))
        for draw, ink in ((self.draw, fill), (self.mask, self._ink(fill))):
            if draw is None:
                continue
            draw.line(at, fill=ink, width=pixels, joint="curve")
            r = pixels / 2
            for x, y in (at[0], at[-1]):
                draw.ellipse((x - r, y - r, x + r, y + r), fill=ink)

    def arc(
        self, cx: float, cy: float, rx: float, ry: float, start: float, end: float, width: float, fill: RGB
    ) -> None:
        """A stroke along an ellipse; angles in degrees, clockwise from 3 o'clock."""
        steps = max(6, int(abs(end - start) / 12))
        turn = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
        self.line([(cx + rx * math.cos(t), cy + ry * math.sin(t)) for t in turn], width, fill)

    def blob(self, points: Sequence[Point], fill: RGB, steps: int = 5) -> None:
        """A smooth closed curve through the points (Catmull-Rom)."""
        self.polygon(_smooth(tuple(points), steps), fill)


@lru_cache(8192)
def _smooth(points: tuple[Point, ...], steps: int) -> list[Point]:
    """Points of a Catmull-Rom curve; the same few shapes are drawn again and again."""
    n, out = len(points), []
    for i in range(n):
        p0, p1, p2, p3 = (points[(i + k) % n] for k in (-1, 0, 1, 2))
        for s in range(steps):
            t = s / steps
            a, b = t * t, t * t * t
            x, y = (
                0.5 * (2 * q + (r - p) * t + (2 * p - 5 * q + 4 * r - u) * a + (3 * q - p - 3 * r + u) * b)
                for p, q, r, u in zip(p0, p1, p2, p3, strict=True)
            )
            out.append((x, y))
    return out
