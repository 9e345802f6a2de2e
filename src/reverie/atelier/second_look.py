"""A second look at what the inspector is weak at: textures and actions, by drawing what was seen again.

The inspector finds things well and their textures badly (docs/results.md). But the Atelier can be drawn: of each thing
that was seen, every texture or action is drawn in its place, from a little smaller to a fifth larger (most things are
seen smaller than they were drawn, one of ten by 13%) and shifted by up to two pixels, and the one whose pixels lie
nearest to the picture's is taken (analysis by synthesis). The usual look is kept unless another fits clearly better.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .draw import SIDE, draw
from .kinds import KINDS
from .scene import ACTIONS, TEXTURES, Scene, Thing

if TYPE_CHECKING:
    from PIL.Image import Image

    from .inspector import Seen, Sighting

Field = Literal["texture", "action"]
VALUES: dict[str, tuple[Any, ...]] = {"texture": TEXTURES, "action": (None, *ACTIONS)}
"""The usual look first."""
SCALES = (0.95, 1.0, 1.05, 1.1, 1.15, 1.2)
SHIFT = 2
"""Pixels, of 96, by which a thing is looked for around the place where it was seen."""
BETTER = 0.97
"""Share of the usual look's error that another look may leave at most."""
REACH = {"texture": 0.5, "action": 0.75}
"""Of a thing's scale: how far from its centre pixels are compared. Props stand outside of the thing's own square."""


def look_again(
    picture: Image, sighting: Sighting, fields: Iterable[Field], kinds: Container[str], trust: float = 0.0
) -> Sighting:
    """The sighting with these fields of things of these kinds read from the pixels instead; actions of animals only.

    trust: where no look fits clearly better than the usual one, what was seen at first stands if its error is below so
    many times the usual look's. In a painting thin strokes are a few pixels off, and count twice then; in a drawing an
    error is so small that nothing wrong comes near it.
    """
    from PIL.Image import Resampling

    pixels = np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Resampling.BOX), np.float32)
    for field in fields:
        things = list(sighting.objects)
        for place, thing in enumerate(things):
            if thing.kind in kinds and (field == "texture" or KINDS[thing.kind].family == "animals"):
                things[place] = _read(pixels, sighting, thing, field, trust)
        sighting = replace(sighting, objects=tuple(things))
    return sighting


def _read(pixels: np.ndarray, sighting: Sighting, thing: Seen, field: Field, trust: float) -> Seen:
    errors = {
        value: _error(pixels, sighting, thing, replace(thing, **{field: value}), field) for value in VALUES[field]
    }
    usual, best = VALUES[field][0], min(errors, key=lambda value: errors[value])
    if errors[best] < BETTER * errors[usual]:
        return replace(thing, **{field: best})
    first = getattr(thing, field)
    return thing if errors[first] < trust * errors[usual] else replace(thing, **{field: usual})


def _error(pixels: np.ndarray, sighting: Sighting, thing: Seen, changed: Seen, field: Field) -> float:
    """The least mean square of differences around a thing, over sizes and shifts of what is drawn for it."""
    reach = REACH[field] * thing.scale
    edges = (thing.x - reach, thing.y - reach, thing.x + reach, thing.y + reach)
    x0, y0, x1, y1 = (min(max(round(edge * SIDE), SHIFT), SIDE - SHIFT) for edge in edges)
    if x0 >= x1 or y0 >= y1:
        return 0.0
    here, least = pixels[y0:y1, x0:x1], float("inf")
    for factor in SCALES:
        others = tuple(
            _plain(changed if one is thing else one, factor if one is thing else 1.0) for one in sighting.objects
        )
        drawn = np.asarray(draw(Scene(others, sighting.background, sighting.style)), np.float32)
        for down in range(-SHIFT, SHIFT + 1):
            for right in range(-SHIFT, SHIFT + 1):
                there = drawn[y0 + down : y1 + down, x0 + right : x1 + right]
                least = min(least, float(np.square(here - there).mean()))
    return least


def _plain(seen: Seen, factor: float) -> Thing:
    return Thing(seen.kind, seen.colour, seen.x, seen.y, seen.scale * factor, seen.texture, seen.action, seen.state)
