"""What thinking while painting is trained on: demands as complex as those of `atelier-compbench`, of the training side.

T2I-CompBench has prompts for training and prompts for validation, and Thinking-while-Generating (arXiv 2511.16671) and
T2I-R1 (2505.00703) train on the former. So do we: two things with colours, textures, places, actions, numbers, or
several of these at once, and never a composition that `language.held_out_*` keeps back.
"""

from __future__ import annotations

import random

from .kinds import KINDS
from .language_parse import Clause, Demand
from .lessons import visible_demand
from .sample import allowed
from .scene import ACTIONS, COLOURS, TEXTURES

SIDES = ("left of", "right of", "above", "below")
COUNTS = (
    (1, 2),
    (2, 1),
    (2, 2),
    (1, 3),
    (3, 1),
    (2, 3),
    (3, 2),
    (1, 4),
    (4, 1),
    (3, 3),
    (2, 4),
    (4, 2),
    (1, 5),
    (5, 1),
)
SORTS = {"color": 3, "texture": 4, "spatial": 2, "non_spatial": 4, "numeracy": 3, "complex": 6}
"""Kinds of exercises and how often; textures, actions and mixtures are what the base model knows least of."""
ANIMALS = tuple(name for name, kind in KINDS.items() if kind.family == "animals")


def exercise(rng: random.Random, share: float = 0.6) -> Demand:
    """A training demand: with probability `share` of two kinds of things, as above, else one of `sample.THEMES`."""
    if rng.random() >= share:
        return visible_demand(rng)
    sort = rng.choices(list(SORTS), list(SORTS.values()))[0]
    while True:
        clauses = _clauses(sort, rng)
        if allowed(clauses):
            return Demand(clauses)


def _clauses(sort: str, rng: random.Random) -> tuple[Clause, Clause]:
    first, second = rng.sample(list(KINDS), 2)
    colours, textures = rng.sample(list(COLOURS), 2), rng.sample(TEXTURES[1:], 2)
    place = (rng.choice(SIDES), 0)
    if sort == "color":
        return Clause(first, 1, colours[0]), Clause(second, 1, colours[1])
    if sort == "texture":
        return Clause(first, 1, texture=textures[0]), Clause(second, 1, texture=textures[1])
    if sort == "spatial":
        return Clause(first), Clause(second, 1, position=place)
    if sort == "numeracy":
        counts = rng.choice(COUNTS)
        return Clause(first, counts[0]), Clause(second, counts[1])
    if sort == "complex" and rng.random() < 0.5:
        return Clause(first, 1, colours[0], texture=textures[0]), Clause(second, 1, colours[1], position=place)
    # Someone acts; with colours if it is complex, beside another actor or any other thing.
    tints = colours if sort == "complex" else (None, None)
    actor = rng.choice([name for name in ANIMALS if name != second])
    acting = Clause(actor, 1, tints[0], action=rng.choice(ACTIONS))
    texture = textures[0] if sort == "complex" else "plain"
    beside = (
        Clause(second, 1, tints[1], action=rng.choice(ACTIONS))
        if second in ANIMALS
        else Clause(second, 1, tints[1], texture=texture)
    )
    return (acting, beside) if rng.random() < 0.5 else (beside, acting)
