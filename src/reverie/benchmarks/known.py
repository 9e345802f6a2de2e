"""Pictures whose contents are known: single coloured things, drawn by the Atelier at any size, in names of COCO.

`reverie doctor` shows them to whoever is going to look at a run's images. They are drawings: a good detector may miss
some, but one that looks at them at all does far better than by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL.Image import Image

from ..atelier.draw import box, draw
from ..atelier.scene import Scene, Thing

KINDS = (
    "cat", "car", "apple", "chair", "dog", "boat", "cup", "bird", "umbrella", "bus", "banana", "clock", "cow",
    "airplane", "book", "train",
)  # fmt: skip
TEN = ("red", "blue", "green", "yellow", "purple", "orange", "pink", "brown", "black", "white")
"""Neighbours differ, so that a picture's neighbour is a wrong picture for it in both thing and colour."""
SIDE = 512


@dataclass(frozen=True)
class Known:
    """A picture of one thing."""

    kind: str
    colour: str
    scene: Scene
    side: int

    @property
    def words(self) -> str:
        return f"{'an' if self.colour[0] in 'aeiou' else 'a'} {self.colour} {self.kind}"

    @property
    def picture(self) -> Image:
        return draw(self.scene, self.side)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2 in pixels."""
        x1, y1, x2, y2 = (edge * self.side for edge in box(self.scene.things[0]))
        return x1, y1, x2, y2

    @property
    def mask(self) -> np.ndarray:
        """(side, side) bool: where the thing is, as it differs from the empty picture."""
        empty = np.asarray(draw(replace(self.scene, things=()), self.side)).astype(int)
        return np.abs(np.asarray(self.picture).astype(int) - empty).max(-1) > 8


def single_things(number: int, side: int = SIDE, kinds: Sequence[str] = KINDS) -> list[Known]:
    """So many pictures; each is followed by one of another thing in another colour, the last by the first."""
    if number < 2:
        raise ValueError(f"{number} pictures cannot be told apart: take at least 2.")
    found: list[Known] = []
    for place in range(number):
        kind, colour = kinds[place % len(kinds)], TEN[place % len(TEN)]
        if place == number - 1:  # its neighbours are the one before it and the first
            beside = (found[0], found[-1])
            kind = _other(kind, kinds, [one.kind for one in beside])
            colour = _other(colour, TEN, [one.colour for one in beside])
        found.append(Known(kind, colour, Scene((Thing(kind, colour, 0.5, 0.52, 0.56),)), side))
    return found


def _other(wish: str, choices: Sequence[str], taken: Sequence[str]) -> str:
    return next(one for one in (wish, *choices) if one not in taken)
