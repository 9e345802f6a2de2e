"""The pictures that training episodes are made of, numbered, so that what a frozen tower sees in each is kept.

There are a few hundred pairs of detail and kind, and some variants of each (place and size differ a little). A number
names one picture for good: whoever draws it, whenever, draws the same. Held-out colours of kinds have none.
"""

from __future__ import annotations

import random
from typing import Any

from .episodes import THEMES, Episode, shown, theme_of, values
from .language import held_out_colour
from .scene import Scene


class EpisodePictures:
    """`len` pictures, numbered from 0."""

    def __init__(self, variants: int = 24):
        """variants: pictures of each pair of detail and kind."""
        if variants < 1:
            raise ValueError(f"variants={variants}: must be at least 1.")
        self.variants = variants
        self.pairs = [
            (theme, detail, kind)
            for index, theme in enumerate(THEMES)
            for detail in values(2 * index + 1)[0]
            for kind in values(2 * index + 1)[1]
            if theme != "colour" or not held_out_colour(detail, kind)
        ]
        self.places = {pair: place for place, pair in enumerate(self.pairs)}
        self.drawn: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.pairs) * self.variants

    def scene(self, number: int) -> Scene:
        place, variant = divmod(number, self.variants)
        theme, detail, kind = self.pairs[place]
        task = 2 * THEMES.index(theme) + 1  # which shows the detail and hides the kind
        return shown(task, detail, kind, random.Random(f"episode/{theme}/{detail}/{kind}/{variant}"))

    def pixels(self, number: int, side: int) -> Any:
        """(side, side, 3) uint8; drawn once and kept, always at the same side."""
        import numpy as np

        from .draw import draw

        if number not in self.drawn:
            self.drawn[number] = np.asarray(draw(self.scene(number), side))
        return self.drawn[number]

    def numbers(self, episode: Episode, rng: random.Random) -> list[int]:
        """A picture for each example of a training episode: those of its own scenes up to the place of things."""
        theme = theme_of(episode.task)
        found = []
        for _, scene in episode.examples:
            place = self.places[theme, detail_of(scene, theme), scene.things[0].kind]
            found.append(place * self.variants + rng.randrange(self.variants))
        return found


def detail_of(scene: Scene, theme: str) -> Any:
    """What a scene of one thing shows of a theme: its colour, texture, action, background or style."""
    return getattr(scene if theme in ("background", "style") else scene.things[0], theme)
