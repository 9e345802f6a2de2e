"""Pictures that went wrong, drawn: a picture with a fault in it, what is wrong with it, and one that is right.

What a painter learns to correct itself from, before it has painted anything. Most faults are put into the right
picture, so that everything else keeps its place, and what was right is worth looking at; the rest is another picture
altogether, as when a painter tries anew. Reasons are the sentences of `faults.py`. No picture shows what
`language.held_out_*` keep for benchmarks.

    flaw(parse("a red cat"), random.Random(0))  # Flaw(before=..., reason="The cat is blue, not red.", after=...)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from .edits import fair
from .faults import faults, state_of
from .kinds import KINDS
from .language import Demand
from .sample import compose, spoil
from .scene import ACTIONS, BACKGROUNDS, COLOURS, TEXTURES, Scene, Thing

IN_PLACE = 0.65
"""Share of faults that are put into the right picture."""
TWICE = 0.25
"""Share of these in which something else goes wrong as well."""


@dataclass(frozen=True)
class Flaw:
    before: Scene
    reason: str
    after: Scene


def flaw(demand: Demand, rng: random.Random) -> Flaw:
    """A picture that fails a demand, why, and one that meets it."""
    after = compose(demand, rng)
    while True:
        before = _worse(after, rng) if rng.random() < IN_PLACE else compose(spoil(demand, rng)[0], rng)
        reasons = faults(demand, before)
        if reasons and fair(before):
            return Flaw(before, " ".join(reasons), after)


def _worse(scene: Scene, rng: random.Random) -> Scene:
    for _ in range(2 if rng.random() < TWICE else 1):
        scene = rng.choice(_WAYS)(scene, rng)
    return scene


def _other(options: tuple[str, ...] | list[str], than: str | None, rng: random.Random) -> str:
    return rng.choice([option for option in options if option != than])


def _changed(scene: Scene, rng: random.Random, change: Callable[[Thing], Thing]) -> Scene:
    """One thing changed, or all that look like it."""
    chosen = rng.choice(scene.things)
    alike = rng.random() < 0.5
    hit = [t is chosen or (alike and (t.kind, t.colour) == (chosen.kind, chosen.colour)) for t in scene.things]
    return scene.with_things(change(t) if it else t for t, it in zip(scene.things, hit, strict=True))


def _colour(scene: Scene, rng: random.Random) -> Scene:
    colour = rng.choice(list(COLOURS))
    return _changed(scene, rng, lambda thing: replace(thing, colour=colour))


def _kind(scene: Scene, rng: random.Random) -> Scene:
    kind = rng.choice(list(KINDS))
    return _changed(scene, rng, lambda thing: replace(thing, kind=kind, state=None, action=None))


def _looks(scene: Scene, rng: random.Random) -> Scene:
    """State, action or texture; a thing that has none of them stays, and the caller draws again."""

    def change(thing: Thing) -> Thing:
        if thing.state:
            return replace(thing, state=_other(list(KINDS[thing.kind].states), state_of(thing), rng))
        if thing.action:
            return replace(thing, action=rng.choice((None, _other(ACTIONS, thing.action, rng))))
        return replace(thing, texture=_other(TEXTURES, thing.texture, rng)) if thing.texture != "plain" else thing

    return _changed(scene, rng, change)


def _missing(scene: Scene, rng: random.Random) -> Scene:
    gone = rng.randrange(len(scene.things))
    return scene.with_things(t for i, t in enumerate(scene.things) if i != gone) if len(scene.things) > 1 else scene


def _swapped(scene: Scene, rng: random.Random) -> Scene:
    if len(scene.things) < 2:
        return scene
    i, j = rng.sample(range(len(scene.things)), 2)
    things = list(scene.things)
    a, b = things[i], things[j]
    things[i], things[j] = replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y)
    return scene.with_things(things)


def _background(scene: Scene, rng: random.Random) -> Scene:
    return replace(scene, background=_other(BACKGROUNDS, scene.background, rng))


_WAYS = (_colour, _colour, _kind, _looks, _missing, _swapped, _background)
