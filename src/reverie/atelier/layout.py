"""Where things go: a handful of named arrangements with a little jitter, so that pictures are clear and learnable.

`arrange` turns things without a place into placed ones; `random_scene` draws from everything that the Atelier knows
and is what tokenizers and detectors are trained on.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from .kinds import KINDS
from .scene import ACTIONS, BACKGROUNDS, COLOURS, SIZES, STYLES, TEXTURES, Scene, Thing

# Centres for n equals 1 to 6, and the side that lets them stand apart.
_GRIDS: dict[int, list[tuple[list[tuple[float, float]], float]]] = {
    1: [([(0.5, 0.52)], 0.52)],
    2: [([(0.27, 0.52), (0.73, 0.52)], 0.38), ([(0.5, 0.26), (0.5, 0.75)], 0.38), ([(0.29, 0.31), (0.71, 0.71)], 0.38)],
    3: [([(0.2, 0.52), (0.5, 0.52), (0.8, 0.52)], 0.28), ([(0.27, 0.3), (0.73, 0.3), (0.5, 0.73)], 0.34)],
    4: [([(0.28, 0.28), (0.72, 0.28), (0.28, 0.74), (0.72, 0.74)], 0.34)],
    5: [([(0.23, 0.24), (0.77, 0.24), (0.5, 0.5), (0.23, 0.77), (0.77, 0.77)], 0.28)],
    6: [([(0.2, 0.31), (0.5, 0.31), (0.8, 0.31), (0.2, 0.71), (0.5, 0.71), (0.8, 0.71)], 0.27)],
}
_FACING = {"left of": (0.27, 0.73), "right of": (0.73, 0.27), "above": (0.26, 0.75), "below": (0.75, 0.26)}

# The same, tidy: centres in twelfths of the picture, which are whole image tokens. One size for one and two things, one
# for more, and within a size every centre falls on the same place of its token: a kind has few ways to be painted.
_TIDY: dict[int, list[tuple[list[tuple[float, float]], float]]] = {
    1: [([(6.5, 6.5)], 0.4)],
    2: [([(2.5, 6.5), (9.5, 6.5)], 0.4), ([(6.5, 2.5), (6.5, 9.5)], 0.4), ([(2.5, 3.5), (9.5, 8.5)], 0.4)],
    3: [([(2, 6), (6, 6), (10, 6)], 0.3), ([(3, 3), (9, 3), (6, 9)], 0.3)],
    4: [([(3, 3), (9, 3), (3, 9), (9, 9)], 0.3)],
    5: [([(2, 2), (10, 2), (6, 6), (2, 10), (10, 10)], 0.3)],
    6: [([(2, 3), (6, 3), (10, 3), (2, 9), (6, 9), (10, 9)], 0.3)],
}
_TIDY_FACING = {"left of": (2.5, 9.5), "right of": (9.5, 2.5), "above": (2.5, 9.5), "below": (9.5, 2.5)}


@dataclass(frozen=True)
class Play:
    """How freely things lie about. Loose: anywhere near their place and a little larger or smaller, for training eyes.
    Tidy: exactly there, on a grid of image tokens, so that a small painter meets the same strokes again and again."""

    rng: random.Random
    loose: bool

    def shift(self, amount: float) -> float:
        """Within +-`amount` of the picture's side."""
        return self.rng.uniform(-amount, amount) if self.loose else 0.0

    def between(self, low: float, high: float) -> float:
        return self.rng.uniform(low, high) if self.loose else (low + high) / 2


def _fit(thing: Thing, play: Play, side: float) -> float:
    """A scale near `side`, or near the size word that the thing already carries (scale set to a word's value)."""
    wish = thing.scale if thing.scale in SIZES.values() and thing.scale != SIZES["medium"] else side
    return wish * play.between(0.94, 1.06)


def arrange(
    things: list[Thing], rng: random.Random, relation: str | None = None, loose: bool = True
) -> tuple[Thing, ...]:
    """Place 1 to 6 things. With two things, `relation` says how the first stands to the second.

    A thing's scale is taken as a wish where it is exactly that of "small" or "large"; `loose`: see `Play`.
    """
    n, play = len(things), Play(rng, loose)
    if relation in ("inside", "on") and n == 2:
        return _contain(things[0], things[1], play, relation)
    if relation in _FACING and n == 2:
        a, b = _FACING[relation]
        drift, side = 0.5 + play.shift(0.05), 0.38
        if not loose:
            (a, b), drift, side = (x / 12 for x in _TIDY_FACING[relation]), 6.5 / 12, 0.4
        centres = [(a, drift), (b, drift)] if relation in ("left of", "right of") else [(drift, a), (drift, b)]
    else:
        grids = _GRIDS[n] if loose else _TIDY[n]
        centres, side = grids[0] if n == 2 and rng.random() < 0.7 else rng.choice(grids)
        if not loose:
            centres = [(x / 12, y / 12) for x, y in centres]
    amount = 0.05 if n == 1 else 0.022
    placed = []
    for thing, (x, y) in zip(things, centres, strict=True):
        scale = _fit(thing, play, side)
        room = 0.5 - scale / 2 - 0.01  # keeps the frame inside the picture
        x = 0.5 + max(-room, min(room, x + play.shift(amount) - 0.5))
        y = 0.5 + max(-room, min(room, y + play.shift(amount) - 0.5))
        placed.append(replace(thing, x=round(x, 4), y=round(y, 4), scale=round(scale, 3)))
    return tuple(placed)


def _contain(inner: Thing, outer: Thing, play: Play, relation: str) -> tuple[Thing, ...]:
    """The first thing in front of the middle of the second, or standing on its top edge. The second is drawn first."""
    if relation == "inside":
        big = replace(outer, x=0.5, y=0.53, scale=round(play.between(0.74, 0.82), 3))
        if not play.loose:
            return big, replace(inner, x=0.5, y=round(7 / 12, 4), scale=0.3)
        y = round(0.55 + play.shift(0.02), 3)
        return big, replace(inner, x=0.5, y=y, scale=round(play.between(0.26, 0.3), 3))
    big = replace(outer, x=0.5, y=0.72, scale=round(play.between(0.42, 0.46), 3))
    scale = round(play.between(0.34, 0.37), 3)
    feet = big.y - KINDS[outer.kind].height * big.scale / 2
    y = feet + 0.02 - KINDS[inner.kind].height * scale / 2
    return big, replace(inner, x=round(0.5 + play.shift(0.03), 3), y=round(y, 3), scale=scale)


def random_thing(rng: random.Random, plain: float = 0.5) -> Thing:
    """Any kind, often in its natural colour; attributes beside colour with probability 1 - `plain`."""
    kind = KINDS[rng.choice(list(KINDS))]
    colour = rng.choice(list(COLOURS)) if rng.random() < 0.65 else None
    texture, action, state = "plain", None, None
    if kind.states and rng.random() < 0.6:
        state = rng.choice(kind.states)
    if rng.random() > plain:
        if kind.family == "animals" and rng.random() < 0.6:
            action = rng.choice(ACTIONS)
        elif state is None and rng.random() < 0.6:
            texture = rng.choice(TEXTURES[1:])
    return Thing(kind.name, colour, texture=texture, action=action, state=state)


def random_scene(rng: random.Random, plain: float = 0.6) -> Scene:
    """Any scene: 1 to 6 things, sometimes all alike; `plain` is the share of plain backgrounds, styles and looks."""
    n = rng.choice((1, 1, 2, 2, 2, 3, 4, 5, 6))
    things = [random_thing(rng, plain) for _ in range(n)]
    if n > 2 and rng.random() < 0.7:
        things = [things[0]] * n
    if rng.random() < 0.15:
        things = [
            replace(thing, scale=rng.choice((SIZES["small"], SIZES["large"]))) if n < 3 else thing for thing in things
        ]
    if n == 2 and rng.random() < 0.12:
        placed = arrange(things, rng, rng.choice(("inside", "on")))
    else:
        placed = arrange(things, rng)
    background = "plain" if rng.random() < plain else rng.choice(BACKGROUNDS)
    style = "plain" if rng.random() < 0.5 + plain / 2 else rng.choice(STYLES)
    return Scene(placed, background, style)
