"""What can be said of a picture in the words of `atelier-geneval`, true or nearly: what judges learn to tell apart.

A claim is one of the six tasks, made of what the picture holds; a false one differs in a kind, a colour, a number, a
side, or in who has which colour. Whether it holds is decided by the benchmark's own rule, so what was seen may come
from a drawn scene or from the inspector. No claim is one that a benchmark asks (`language.held_out_*`).

    claim(sighting, random.Random(0), holds=False)     # Claim("a photo of a red cat and a blue dog", (True, False))
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from .draw import colour_of
from .inspector import Seen, Sighting
from .kinds import KINDS
from .language import canonical, held_out_colour
from .language_parse import Clause, Demand
from .sample import allowed
from .scene import COLOURS, Scene

HEADS = ("a photo of", "a picture of")
SIDES = ("left of", "right of", "above", "below")
TASKS: Mapping[str, float] = {
    "single_object": 2, "two_object": 3, "counting": 4, "colors": 4, "position": 4, "color_attr": 5,
}  # fmt: skip
TRIES = 24
Clauses = tuple[Clause, ...]


@dataclass(frozen=True)
class Claim:
    """text: a prompt. steps: for each of its parts, in the order in which they are read, whether all up to it holds;
    the last is the verdict. ends: where each part ends in the text."""

    text: str
    steps: tuple[bool, ...]
    ends: tuple[int, ...]
    named: tuple[tuple[str, str | None], ...] = ()
    """Kind and colour of what each part adds."""

    @property
    def holds(self) -> bool:
        return self.steps[-1]


def seen_in(scene: Scene) -> Sighting:
    """A drawn scene as an inspector that misses nothing sees it."""
    told = ({**asdict(thing), "colour": colour_of(thing)} for thing in scene.things)
    return Sighting(tuple(Seen(**thing, score=1.0) for thing in told), scene.background, scene.style)


def true_of(clauses: Clauses, sighting: Sighting) -> bool:
    """The benchmark's verdict on a picture for which these clauses were asked."""
    from ..benchmarks import geneval
    from ..benchmarks.atelier_geneval import RULE

    counted = len(clauses) == 1 and clauses[0].count > 1
    exclude = (replace(clauses[0], count=clauses[0].count + 1),) if counted else ()
    plain = Demand(clauses, exclude).to_record()
    record = {"tag": "counting" if counted else "", "include": plain["include"], "exclude": plain["exclude"]}
    boxes, colours = sighting.to_detections()
    return geneval.judge(record, boxes, lambda name, ranks: [str(colours[name][i]) for i in ranks], RULE).correct


def said_of(clauses: Clauses, sighting: Sighting, head: str) -> Claim:
    """Clauses as a prompt, with the verdict after each of them in the order of the words."""
    text = f"{head} {canonical(Demand(clauses))}"
    if len(clauses) == 1:
        return Claim(text, (true_of(clauses, sighting),), (len(text),), ((clauses[0].kind, clauses[0].colour),))
    placed = clauses[1].position is not None
    first = (
        (replace(clauses[1], position=None),) if placed else clauses[:1]
    )  # "a dog left of a cat": the second is read first
    part = f"{head} {canonical(Demand(first))}"
    named = tuple((clause.kind, clause.colour) for clause in (clauses[::-1] if placed else clauses))
    return Claim(text, (true_of(first, sighting), true_of(clauses, sighting)), (len(part), len(text)), named)


def claim(sighting: Sighting, rng: random.Random, holds: bool, tasks: Mapping[str, float] | None = None) -> Claim:
    """A claim that holds or not, of any task for which there is one; one that does not where nothing holds."""
    tasks = tasks or TASKS
    for _ in range(TRIES):
        task = rng.choices(list(tasks), list(tasks.values()))[0]
        clauses = _TRUE[task](sighting, rng)
        if clauses and not holds:
            clauses = spoilt(clauses, sighting, rng)
        if clauses and allowed(clauses) and true_of(clauses, sighting) == holds:
            return said_of(clauses, sighting, rng.choice(HEADS))
    one = rng.choice(sighting.objects) if holds and sighting.objects else None
    return said_of((Clause(one.kind) if one else _stranger(sighting, rng),), sighting, rng.choice(HEADS))


def _stranger(sighting: Sighting, rng: random.Random) -> Clause:
    here = {thing.kind for thing in sighting.objects}
    return Clause(rng.choice([kind for kind in KINDS if kind not in here]))


def _things(sighting: Sighting, rng: random.Random, count: int) -> list[Seen]:
    """So many things of different kinds, or none."""
    kinds = list({thing.kind: None for thing in sighting.objects})
    if len(kinds) < count:
        return []
    chosen = rng.sample(kinds, count)
    return [rng.choice([thing for thing in sighting.objects if thing.kind == kind]) for kind in chosen]


def _plain(count: int) -> Callable[[Sighting, random.Random], Clauses]:
    return lambda sighting, rng: tuple(Clause(thing.kind) for thing in _things(sighting, rng, count))


def _coloured(count: int) -> Callable[[Sighting, random.Random], Clauses]:
    return lambda sighting, rng: tuple(Clause(t.kind, 1, t.colour) for t in _things(sighting, rng, count))


def _counted(sighting: Sighting, rng: random.Random) -> Clauses:
    """Of things that are several, if any."""
    numbers: dict[str, int] = {}
    for thing in sighting.objects:
        numbers[thing.kind] = numbers.get(thing.kind, 0) + 1
    found = [(kind, number) for kind, number in numbers.items() if 2 <= number <= 4]
    if found and rng.random() < 0.8:
        kind, number = rng.choice(found)
        return (Clause(kind, number),)
    return tuple(Clause(kind, rng.choice((2, 3, 4))) for kind in rng.sample(list(numbers), min(1, len(numbers))))


def _placed(sighting: Sighting, rng: random.Random) -> Clauses:
    pair = _things(sighting, rng, 2)
    if not pair:
        return ()
    sides = [side for side in SIDES if true_of(_beside(pair, side), sighting)] or SIDES
    return _beside(pair, rng.choice(sides))


def _beside(pair: list[Seen], side: str) -> Clauses:
    return Clause(pair[0].kind), Clause(pair[1].kind, position=(side, 0))


_TRUE: Mapping[str, Callable[[Sighting, random.Random], Clauses]] = {
    "single_object": _plain(1), "two_object": _plain(2), "counting": _counted, "colors": _coloured(1),
    "position": _placed, "color_attr": _coloured(2),
}  # fmt: skip


def spoilt(clauses: Clauses, sighting: Sighting, rng: random.Random) -> Clauses:
    """With one word changed, or two colours or places exchanged."""
    place = rng.randrange(len(clauses))
    one = clauses[place]
    ways: list[Any] = [lambda: replace(one, kind=_other_kind(clauses, sighting, rng))]
    if one.count > 1:
        ways += [lambda: replace(one, count=rng.choice([n for n in (2, 3, 4) if n != one.count]))] * 4
    if one.colour:
        ways += [lambda: replace(one, colour=_other_colour(one, sighting, rng))] * 3
    changed = [*clauses[:place], rng.choice(ways)(), *clauses[place + 1 :]]
    if len(clauses) == 2 and rng.random() < 0.6:
        first, second = clauses
        if second.position:
            changed = [first, replace(second, position=(rng.choice([s for s in SIDES if s != second.position[0]]), 0))]
        elif first.colour and rng.random() < 0.5:
            changed = [replace(first, colour=second.colour), replace(second, colour=first.colour)]
    return tuple(changed)


def _other_kind(clauses: Clauses, sighting: Sighting, rng: random.Random) -> str:
    """Of another thing in the picture, or any."""
    taken = {clause.kind for clause in clauses}
    here = [thing.kind for thing in sighting.objects if thing.kind not in taken]
    return rng.choice(here if here and rng.random() < 0.3 else [kind for kind in KINDS if kind not in taken])


def _other_colour(clause: Clause, sighting: Sighting, rng: random.Random) -> str | None:
    options = [c for c in COLOURS if c != clause.colour and not held_out_colour(c, clause.kind)]
    here = [thing.colour for thing in sighting.objects if thing.colour in options]
    return rng.choice(here if here and rng.random() < 0.4 else options)
