"""Endless edits that need thought: a picture, an instruction, the picture afterwards, and the reasoning between them.

The four families are those of RISEBench (Zhao et al. 2025, arXiv:2504.02826): temporal (what time does to a thing),
causal (what an event does to it), spatial (where things are to stand) and logical (all, none, as many, and so on).
An edit changes what its instruction asks for and nothing else: what is not touched keeps its place to the last digit.
Neither picture shows what `language.held_out_*` keep for benchmarks; those that do are the split `held-out`.

    edit(random.Random(0))             # any family
    edit(random.Random(0), "causal")
    edit(random.Random(0), "causal", "held-out")
"""

from __future__ import annotations

import functools
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from .kinds import KINDS
from .language import held_out_colour, held_out_count, held_out_pair
from .language_parse import COUNTS
from .layout import arrange
from .scene import COLOURS, SIZES, Scene, Thing

FAMILIES = ("temporal", "causal", "spatial", "logical")
BYSTANDER = 0.4  # the share of changes of state with a second thing, which is to stay as it is


@dataclass(frozen=True)
class Edit:
    """family: one of `FAMILIES`; before, after: the pictures; instruction: what to do; reasoning: one sentence that
    leads from the instruction to what is then seen."""

    family: str
    before: Scene
    instruction: str
    after: Scene
    reasoning: str


Drawn = tuple[Scene, str, Scene, str]  # before, instruction, after, reasoning


def edit(rng: random.Random, family: str | None = None, split: str = "train") -> Edit:
    """Draw one edit; ValueError for an unknown family. split: `train`, or `held-out`, of which at least one picture
    shows a pair of kinds, a colour of a kind or a number of a kind that training never shows."""
    family = family or rng.choice(FAMILIES)
    if family not in _MAKERS:
        raise ValueError(f"There is no family {family!r} of edits: use one of {', '.join(FAMILIES)}.")
    while True:
        before, instruction, after, reasoning = rng.choice(_MAKERS[family])(rng)
        if (fair(before) and fair(after)) == (split == "train"):
            return Edit(family, before, instruction, after, reasoning)


def fair(scene: Scene) -> bool:
    """Whether a scene keeps to the training side: no held-out pair of kinds, colour of a kind or number of a kind."""
    counts = Counter(thing.kind for thing in scene.things)
    kinds = list(counts)
    return not (
        any(held_out_pair(a, b) for i, a in enumerate(kinds) for b in kinds[i + 1 :])
        or any(thing.colour and held_out_colour(thing.colour, thing.kind) for thing in scene.things)
        or any(held_out_count(count, kind) for kind, count in counts.items())
    )


# ------------------------------------------------------------------------------------- temporal and causal


@functools.cache
def changes(family: str) -> tuple[dict[str, Any], ...]:
    """What time or events do to things of state, from `data/changes.jsonl`: each with family, kind, the states before
    and after, instructions and reasoning."""
    text = resources.files(__package__).joinpath("data/changes.jsonl").read_text(encoding="ascii")
    rows = [json.loads(line) for line in text.splitlines()]
    return tuple(row for row in rows if row["family"] == family)


# What happens to an animal, what it does then, and why.
_EVENTS = (
    ("The {} is very tired.", "sleep", "Who is tired sleeps, so the {} is sleeping."),
    ("The {} is hungry and finds food.", "eat", "Who is hungry eats, so the {} is eating."),
    ("The {} falls into deep water.", "swim", "In water one has to swim, so the {} is swimming."),
    ("The {} is very sad.", "cry", "Who is sad cries, so the {} is crying."),
    ("The {} is late for the bus.", "run", "Who is late runs, so the {} is running."),
    ("The {} joins a choir.", "sing", "In a choir one sings, so the {} is singing."),
    ("The {} gets a book as a present.", "read", "A book is there to be read, so the {} is reading."),
)
_OUTDOORS = ("meadow", "park", "beach")  # where anything may happen: no rain on the seafloor


def _setting(thing: Thing, rng: random.Random) -> Scene:
    """A scene about a thing, which stands first in it, perhaps with a bystander and a background."""
    things = [thing]
    if rng.random() < BYSTANDER:
        things.append(Thing(rng.choice([kind for kind in KINDS if kind != thing.kind])))
    background = rng.choice(_OUTDOORS) if rng.random() < 0.15 else "plain"
    return Scene(arrange(things, rng), background)


def _first(scene: Scene, **changes: Any) -> Scene:
    return scene.with_things((replace(scene.things[0], **changes), *scene.things[1:]))


def _changed(family: str, rng: random.Random) -> Drawn:
    row = rng.choice(changes(family))
    before = _setting(Thing(row["kind"], state=row["before"]), rng)
    return before, rng.choice(row["instructions"]), _first(before, state=row["after"]), row["reasoning"]


def _clock(rng: random.Random) -> Drawn:
    hour, step = rng.randint(1, 12), rng.randint(1, 6)
    later = rng.random() < 0.7
    then = (hour + (step if later else -step) - 1) % 12 + 1
    before = _setting(Thing("clock", state=str(hour)), rng)
    hours, when = f"{COUNTS[step]} hour{'s' * (step > 1)}", "later" if later else "earlier"
    reasoning = f"It is {hour} o'clock, and {hours} {when} the clock shows {then} o'clock."
    return before, f"Show the clock {hours} {when}.", _first(before, state=str(then)), reasoning


def _season(rng: random.Random) -> Drawn:
    seasons = ("spring", "summer", "autumn", "winter")
    now, steps = rng.randrange(4), rng.randint(1, 3)
    then = seasons[(now + steps) % 4]
    before = _setting(Thing("tree", state=seasons[now]), rng)
    months = ("three", "six", "nine")[steps - 1]
    reasoning = f"It is {seasons[now]}, and {months} months later it is {then}, so the tree is in {then}."
    return before, f"Show the tree {months} months later.", _first(before, state=then), reasoning


def _sunset(rng: random.Random) -> Drawn:
    kinds = [kind.name for kind in KINDS.values() if kind.family != "sky"]
    things = [Thing(kind) for kind in rng.sample(kinds, rng.choice((1, 2)))]
    before = Scene(arrange(things, rng))
    reasoning = "After sunset it is dark, so it is night."
    return before, "Show the same place after sunset.", replace(before, background="night"), reasoning


def _event(rng: random.Random) -> Drawn:
    kind = rng.choice([kind.name for kind in KINDS.values() if kind.family == "animals"])
    instruction, action, reasoning = rng.choice(_EVENTS)
    before = _setting(Thing(kind), rng)
    return before, instruction.format(kind), _first(before, action=action), reasoning.format(kind)


# ------------------------------------------------------------------------------------------------ spatial

_NEAR, _FAR = 0.27, 0.73  # the centres of a 2 x 2 grid; things of this side stand apart in it
_SIDE = 0.38
_MOVES = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
_PLACES = {
    "to the left": (_NEAR, 0.5), "to the right": (_FAR, 0.5), "to the top": (0.5, _NEAR), "to the bottom": (0.5, _FAR),
}  # fmt: skip


def _two_kinds(rng: random.Random) -> tuple[str, str]:
    a, b = rng.sample(list(KINDS), 2)
    return a, b


def _cell(x: int, y: int) -> dict[str, Any]:
    return {"x": (_NEAR, _FAR)[x], "y": (_NEAR, _FAR)[y]}


def _move(rng: random.Random) -> Drawn:
    kind = rng.choice(list(KINDS))
    place, (x, y) = rng.choice(list(_PLACES.items()))
    before = Scene((Thing(kind, scale=_SIDE),))
    after = before.with_things((replace(before.things[0], x=x, y=y),))
    return before, f"Move the {kind} {place}.", after, f"The {kind} is in the middle and goes {place}."


def _swap(rng: random.Random) -> Drawn:
    a, b = _two_kinds(rng)
    before = Scene(arrange([Thing(a), Thing(b)], rng, rng.choice(list(_MOVES))))
    one, two = before.things
    after = before.with_things((replace(one, x=two.x, y=two.y), replace(two, x=one.x, y=one.y)))
    return before, f"Swap the {a} and the {b}.", after, f"The {a} goes where the {b} is, and the {b} where the {a} is."


def _put(rng: random.Random) -> Drawn:
    """Put the first thing on another side of the second, which stays where it is."""
    a, b = _two_kinds(rng)
    column, row = rng.randrange(2), rng.randrange(2)
    spots = {name: (column + dx, row + dy) for name, (dx, dy) in _MOVES.items()}
    free = [name for name, (x, y) in spots.items() if x in (0, 1) and y in (0, 1)]
    old, new = rng.sample(free, 2)
    stays = Thing(b, scale=_SIDE, **_cell(column, row))
    moves = Thing(a, scale=_SIDE, **_cell(*spots[old]))
    after = (replace(moves, **_cell(*spots[new])), stays)
    reasoning = f"The {a} is {old} the {b} and goes to where it is {new} the {b}."
    return Scene((moves, stays)), f"Put the {a} {new} the {b}.", Scene(after), reasoning


def _resize(rng: random.Random) -> Drawn:
    kind = rng.choice(list(KINDS))
    word, size = rng.choice((("bigger", "large"), ("smaller", "small")))
    before = Scene((Thing(kind, scale=SIZES["medium"]),))
    after = before.with_things((replace(before.things[0], scale=SIZES[size]),))
    return before, f"Make the {kind} much {word}.", after, f"The {kind} gets {word}, so it is a {size} {kind}."


# ------------------------------------------------------------------------------------------------ logical


def _plural(kind: str, count: int) -> str:
    return kind if count == 1 else KINDS[kind].plural


def _recolour(rng: random.Random) -> Drawn:
    a, b = _two_kinds(rng)
    old, new = rng.sample(list(COLOURS), 2)
    count = rng.choice((2, 3))
    before = Scene(arrange([*[Thing(a, old)] * count, Thing(b)], rng))
    after = before.with_things(replace(t, colour=new) if t.kind == a else t for t in before.things)
    plural = KINDS[a].plural
    reasoning = f"There are {COUNTS[count]} {plural}, and all of them become {new}, but not the {b}."
    return before, f"Make all {plural} {new}.", after, reasoning


def _same_colour(rng: random.Random) -> Drawn:
    a, b = _two_kinds(rng)
    old, new = rng.sample(list(COLOURS), 2)
    before = Scene(arrange([Thing(a, old), Thing(b, new)], rng))
    reasoning = f"The {b} is {new}, so the {a} becomes {new} too."
    return before, f"Give the {a} the colour of the {b}.", _first(before, colour=new), reasoning


def _odd_one(rng: random.Random) -> Drawn:
    count = rng.choice((2, 3, 4, 5))
    if rng.random() < 0.5:
        a, b = _two_kinds(rng)
        usual, odd = Thing(a), Thing(b)
        reasoning = f"There are {COUNTS[count]} {KINDS[a].plural} and one {b}, so the {b} goes away."
    else:
        a = rng.choice(list(KINDS))
        first, second = rng.sample(list(COLOURS), 2)
        usual, odd = Thing(a, first), Thing(a, second)
        reasoning = f"The others are {first} and one {a} is {second}, so the {second} {a} goes away."
    things = [usual] * count
    things.insert(rng.randint(0, count), odd)
    before = Scene(arrange(things, rng))
    after = before.with_things(t for t in before.things if (t.kind, t.colour) != (odd.kind, odd.colour))
    return before, "Remove the one that does not belong to the others.", after, reasoning


def _double(rng: random.Random) -> Drawn:
    kind, count = rng.choice(list(KINDS)), rng.choice((1, 2, 3))
    more = Scene(arrange([Thing(kind)] * (2 * count), rng))
    less = more.with_things(more.things[:count])
    plural, few, many = KINDS[kind].plural, COUNTS[count], COUNTS[2 * count]
    if rng.random() < 0.6:
        reasoning = f"Two times {few} is {many}, so there are {many} {plural}."
        return less, f"Double the number of {plural}.", more, reasoning
    end = f"there {'is' if count == 1 else 'are'} {few} {_plural(kind, count)}"
    return more, f"Halve the number of {plural}.", less, f"Half of {many} is {few}, so {end}."


def _subtract(rng: random.Random) -> Drawn:
    kind, count = rng.choice(list(KINDS)), rng.randint(3, 6)
    gone = rng.randint(1, count - 1)
    left = count - gone
    before = Scene(arrange([Thing(kind)] * count, rng))
    reasoning = f"{COUNTS[count].capitalize()} minus {COUNTS[gone]} is {COUNTS[left]}, so {COUNTS[left]} of them stay."
    instruction = f"Take away {COUNTS[gone]} {_plural(kind, gone)}, beginning at the end."
    return before, instruction, before.with_things(before.things[:left]), reasoning


def _continue_row(rng: random.Random) -> Drawn:
    kind, top = rng.choice((("dice", 6), ("clock", 12)))
    step = rng.randint(1, 2 if kind == "dice" else 4)
    start = rng.randint(1, top - 2 * step)
    values = [start, start + step, start + 2 * step]
    row = tuple(Thing(kind, x=x, scale=0.27, state=str(n)) for x, n in zip((0.2, 0.5, 0.8), values, strict=True))
    reasoning = f"The row is {values[0]}, {values[1]}, so it goes up by {step} and next comes {values[2]}."
    return Scene(row[:2]), f"Add the {kind} that comes next in this row.", Scene(row), reasoning


def _natural_to(rng: random.Random) -> Drawn:
    """Back to the usual colour of the kind."""
    kind = rng.choice([k for k in KINDS.values() if k.family in ("animals", "food", "plants")])
    before = _setting(Thing(kind.name, rng.choice([c for c in COLOURS if c != kind.natural])), rng)
    after = before.with_things((replace(before.things[0], colour=None), *before.things[1:]))
    reasoning = f"By nature the {kind.name} here is {kind.natural}, so it becomes {kind.natural}."
    return before, f"Give the {kind.name} its natural colour.", after, reasoning


_MAKERS: dict[str, tuple[Callable[[random.Random], Drawn], ...]] = {
    "temporal": (*[lambda rng: _changed("temporal", rng)] * 3, _clock, _season, _sunset),
    "causal": (*[lambda rng: _changed("causal", rng)] * 3, _event),
    "spatial": (_move, _swap, _put, _put, _resize),
    "logical": (_recolour, _same_colour, _odd_one, _double, _subtract, _continue_row, _natural_to),
}  # fmt: skip
