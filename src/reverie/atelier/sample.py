"""Drawing lots: random demands of the kinds that benchmarks ask for, and scenes that meet a demand.

`random_demand` never leaves the training side of the held-out splits (`language.held_out_*`); `compose` gives any
demand a picture. Together they make endless pairs of words and pictures with exact truth.
"""

from __future__ import annotations

import random
from dataclasses import replace

from .kinds import KINDS
from .language import Clause, Demand, held_out_colour, held_out_count, held_out_pair
from .layout import arrange
from .scene import ACTIONS, BACKGROUNDS, COLOURS, SIZES, STYLES, TEXTURES, Scene, Thing

_ANIMALS = tuple(name for name, kind in KINDS.items() if kind.family == "animals")
_SIDES = ("left of", "right of", "above", "below")

# What training pictures are about, and how often. The first six are GenEval's tasks. Colours are asked for often, as
# there are ten times as many coloured kinds as kinds.
THEMES = {
    "single": 6, "two": 10, "count": 14, "colour": 18, "position": 12, "colour_attr": 22, "state": 8, "action": 4,
    "texture": 3, "size": 1, "contain": 2, "many": 1,
}  # fmt: skip


def random_demand(rng: random.Random, theme: str | None = None) -> Demand:
    """A demand of the given theme (a key of `THEMES`, by its weight if left out), some with a background or style."""
    theme = theme or rng.choices(list(THEMES), list(THEMES.values()))[0]
    while True:
        clauses = _THEMES[theme](rng)
        if allowed(clauses):
            break
    background = rng.choice(BACKGROUNDS[1:]) if rng.random() < 0.14 else "plain"
    style = rng.choice(STYLES[1:]) if rng.random() < 0.04 else "plain"
    return Demand(clauses, (), background, style)


def allowed(clauses: tuple[Clause, ...]) -> bool:
    """Whether nothing in these clauses is kept back for benchmarks."""
    kinds = [clause.kind for clause in clauses]
    pairs = [(a, b) for i, a in enumerate(kinds) for b in kinds[i + 1 :]]
    return not (
        any(held_out_pair(a, b) for a, b in pairs)
        or any(clause.colour and held_out_colour(clause.colour, clause.kind) for clause in clauses)
        or any(held_out_count(clause.count, clause.kind) for clause in clauses)
    )


def _kind(rng: random.Random) -> str:
    return rng.choice(list(KINDS))


def _colour(rng: random.Random) -> str:
    return rng.choice(list(COLOURS))


def _two(rng: random.Random) -> tuple[str, str]:
    a, b = rng.sample(list(KINDS), 2)
    return a, b


def _stateful(rng: random.Random) -> Clause:
    kind = rng.choice([k for k in KINDS.values() if k.states])
    return Clause(kind.name, 1, state=rng.choice(kind.states))


def _position(rng: random.Random, coloured: float) -> tuple[Clause, ...]:
    a, b = _two(rng)
    tint = rng.random() < coloured
    first = Clause(a, 1, _colour(rng) if tint else None)
    return first, Clause(b, 1, _colour(rng) if tint else None, (rng.choice(_SIDES), 0))


def _contained(rng: random.Random) -> tuple[Clause, ...]:
    relation = rng.choice(("inside", "on"))
    outer = rng.choice(("box", "bag", "house", "cup", "chair", "book", "hat", "cake", "castle", "car"))
    inner = _kind(rng)
    while inner == outer:
        inner = _kind(rng)
    return Clause(outer), Clause(inner, 1, None, (relation, 0))


def _many(rng: random.Random) -> tuple[Clause, ...]:
    kinds = rng.sample(list(KINDS), 2)
    counts = rng.choice(((1, 2), (2, 1), (2, 2), (3, 1), (1, 3), (4, 1), (1, 4), (5, 1), (3, 3), (2, 3)))
    return tuple(Clause(kind, count) for kind, count in zip(kinds, counts, strict=True))


_THEMES = {
    "single": lambda rng: (Clause(_kind(rng)),),
    "two": lambda rng: tuple(Clause(kind) for kind in _two(rng)),
    "count": lambda rng: (
        Clause(_kind(rng), rng.choice((2, 2, 3, 3, 4, 4, 5, 6)), _colour(rng) if rng.random() < 0.35 else None),
    ),
    "colour": lambda rng: (Clause(_kind(rng), 1, _colour(rng)),),
    "position": lambda rng: _position(rng, 0.35),
    "colour_attr": lambda rng: tuple(Clause(kind, 1, _colour(rng)) for kind in _two(rng)),
    "state": lambda rng: (_stateful(rng),),
    "action": lambda rng: (Clause(rng.choice(_ANIMALS), 1, action=rng.choice(ACTIONS)),),
    "texture": lambda rng: (
        Clause(_kind(rng), 1, _colour(rng) if rng.random() < 0.5 else None, texture=rng.choice(TEXTURES[1:])),
    ),
    "size": lambda rng: (Clause(_kind(rng), 1, size=rng.choice(("small", "large"))),),
    "contain": _contained,
    "many": _many,
}  # fmt: skip


def compose(demand: Demand, rng: random.Random, loose: bool = False) -> Scene:
    """A scene that shows exactly what a demand includes; at most six things, tidy unless `loose` (see layout.Play).

    Who has no colour gets its natural one. A position is met where the demand is two single things.
    """
    things = [_thing(clause) for clause in demand.include for _ in range(clause.count)]
    if not 1 <= len(things) <= 6:
        raise ValueError(f"a picture of the Atelier holds 1 to 6 things, but this one asks for {len(things)}")
    position = demand.include[1].position if len(demand.include) == 2 else None
    if position and len(things) == 2:
        inner_first = arrange([things[1], things[0]], rng, position[0], loose)
        # `arrange` puts a container first already; otherwise keep the order in which the things were named
        placed = inner_first if position[0] in ("inside", "on") else inner_first[::-1]
    else:
        placed = arrange(things, rng, loose=loose)
    return Scene(tuple(placed), demand.background, demand.style)


def _thing(clause: Clause) -> Thing:
    size = SIZES[clause.size] if clause.size else SIZES["medium"]
    return Thing(
        clause.kind, clause.colour, scale=size, texture=clause.texture, action=clause.action, state=clause.state
    )


def spoil(demand: Demand, rng: random.Random) -> tuple[Demand, str]:
    """A demand that differs in one respect, and which: "kind", "colour", "count", "position", "missing" or "extra".

    Negatives for alignment questions, critiques and rewards.
    """
    clauses = list(demand.include)
    index = rng.randrange(len(clauses))
    clause = clauses[index]
    ways = ["kind"]
    if clause.colour:
        ways += ["colour", "colour"]
    if clause.count > 1 or len(clauses) == 1:
        ways.append("count")
    if clause.position and clause.position[0] in _SIDES:
        ways += ["position", "position"]
    if len(clauses) > 1 and not any(c.position for c in clauses):
        ways.append("missing")
    way = rng.choice(ways)
    if way == "kind":
        taken = {c.kind for c in clauses}
        kind = rng.choice([k for k in KINDS if k not in taken])
        clauses[index] = Clause(kind, clause.count, clause.colour, clause.position, clause.texture, clause.size)
    elif way == "colour":
        clauses[index] = replace(clause, colour=rng.choice([c for c in COLOURS if c != clause.colour]))
    elif way == "count":
        room = 6 - sum(c.count for c in clauses) + clause.count
        other = [n for n in range(1, room + 1) if n != clause.count]
        clauses[index] = replace(clause, count=rng.choice(other))
    elif way == "position":
        assert clause.position
        opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
        clauses[index] = replace(clause, position=(opposite[clause.position[0]], clause.position[1]))
    else:
        clauses.pop(index)
    return replace(demand, include=tuple(clauses)), way
