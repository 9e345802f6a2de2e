"""Edits in plain words: what is to be seen, with nothing to work out.

`atelier.edits` asks by riddle ("The cat is very tired."); whoever paints reads plain words ("Change it to a sleeping
cat."). Spatial edits are plain as they stand. Beside those that need thought there are endless ordinary ones: another
colour, kind or background, one thing more or less.
"""

from __future__ import annotations

import random
from dataclasses import replace

from ..atelier.edits import edit, fair
from ..atelier.kinds import KINDS
from ..atelier.language import canonical, demand_of
from ..atelier.language_parse import BACKGROUND_WORDS
from ..atelier.layout import arrange
from ..atelier.sample import compose, random_demand
from ..atelier.scene import BACKGROUNDS, COLOURS, Scene, Thing

Change = tuple[Scene, str, Scene]
"""Picture before, instruction in plain words, picture afterwards."""


def plain_edit(before: Scene, after: Scene, rng: random.Random | None = None) -> str:
    """What the picture is to become. With `rng`, in one of several wordings; else the commonest."""
    shown = canonical(demand_of(after, relations=False))
    heads = ("Change it to {}.", "Change it to {}.", "Make it {}.", "{}", "Now show {}.")
    return (rng.choice(heads) if rng else heads[0]).format(shown)


def plain_change(rng: random.Random) -> Change:
    """An edit of the training side and its plain words."""
    if rng.random() < 0.5:
        return _ordinary(rng)
    one = edit(rng)
    if one.family == "spatial" and rng.random() < 0.9:
        return one.before, one.instruction, one.after
    if one.instruction.startswith(("Make all", "Double", "Halve", "Take away", "Add", "Remove")) and rng.random() < 0.3:
        return one.before, one.instruction, one.after
    return one.before, plain_edit(one.before, one.after, rng), one.after


def _ordinary(rng: random.Random) -> Change:
    """Another colour, kind or background, one thing more or less; everything else stays."""
    while True:
        demand = random_demand(rng)
        scene = compose(demand, rng)
        made = rng.choice((_coloured, _coloured, _replaced, _placed, _added, _removed))(scene, rng)
        if made is not None:
            before, words, after = made
            if fair(before) and fair(after):
                return before, words if rng.random() < 0.6 else plain_edit(before, after, rng), after


def _name(scene: Scene, thing: Thing) -> str | None:
    """How one thing is called where only one is meant; None where several are alike."""
    alike = [other for other in scene.things if other.kind == thing.kind]
    return f"the {thing.kind}" if len(alike) == 1 else None


def _swapped(scene: Scene, index: int, thing: Thing) -> Scene:
    return scene.with_things((*scene.things[:index], thing, *scene.things[index + 1 :]))


def _coloured(scene: Scene, rng: random.Random) -> Change | None:
    index = rng.randrange(len(scene.things))
    thing, colour = scene.things[index], rng.choice(list(COLOURS))
    if thing.colour == colour or scene.style == "sketch":
        return None
    if len({one.kind for one in scene.things}) == 1 and len(scene.things) > 1:
        words = f"Make all {KINDS[thing.kind].plural} {colour}."
        return scene, words, scene.with_things(replace(one, colour=colour) for one in scene.things)
    name = _name(scene, thing)
    return (
        None
        if name is None
        else (scene, f"Make {name} {colour}.", _swapped(scene, index, replace(thing, colour=colour)))
    )


def _replaced(scene: Scene, rng: random.Random) -> Change | None:
    index = rng.randrange(len(scene.things))
    thing, name = scene.things[index], _name(scene, scene.things[index])
    kind = rng.choice([kind for kind in KINDS if kind not in {one.kind for one in scene.things}])
    if name is None:
        return None
    new = Thing(kind, thing.colour, thing.x, thing.y, thing.scale, thing.texture)
    article = canonical(demand_of(Scene((Thing(kind, thing.colour, texture=thing.texture),))))
    return scene, f"Replace {name} with {article}.", _swapped(scene, index, new)


def _placed(scene: Scene, rng: random.Random) -> Change | None:
    background = rng.choice([one for one in BACKGROUNDS if one != scene.background])
    words = f"Put it {BACKGROUND_WORDS[background][0]}." if background != "plain" else "Make the background plain."
    return scene, words, replace(scene, background=background)


def _added(scene: Scene, rng: random.Random) -> Change | None:
    """The picture with the thing is drawn first, so that there is room for it."""
    made = _removed(scene, rng)
    if made is None:
        return None
    after, _, before = made
    (new,) = [thing for thing in after.things if thing not in before.things]
    return before, f"Add {canonical(demand_of(Scene((new,)), relations=False))}.", after


def _removed(scene: Scene, rng: random.Random) -> Change | None:
    if len(scene.things) < 2:
        kind = rng.choice([kind for kind in KINDS if kind != scene.things[0].kind])
        scene = scene.with_things(arrange([scene.things[0], Thing(kind)], rng))
    index = rng.randrange(len(scene.things))
    name = _name(scene, scene.things[index])
    if name is None:
        return None
    left = scene.with_things((*scene.things[:index], *scene.things[index + 1 :]))
    return scene, f"Remove {name}.", left
