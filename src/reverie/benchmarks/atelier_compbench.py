"""`atelier-compbench`: composition in the categories of T2I-CompBench(++) (arXiv:2307.06350), as far as the Atelier can
draw them and its inspector can judge them.

Color, texture, spatial, non_spatial (actions), numeracy and complex: 60 prompts each, one image of each, in the
namesake's layout. (Its shapes and depths have no counterpart here.) Every prompt brings two kinds together that
training never showed together; as in the namesake, a third of the colour prompts also ask for colours that their kinds
never had.

The rules are the namesake's with the inspector in the place of BLIP, UniDet and CLIP, and scores lie in [0, 1]:
attributes multiply over the phrases, each seen or not; a spatial score is half for both things being there and half for
the relation, and nothing without a relation; in numeracy each kind counts half for being there and half for its exact
number; an action is seen with its kind or not; complex prompts take the mean of their attributes and the rest. Textures
and actions are read by drawing (`atelier.second_look`).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..atelier.kinds import KINDS
from ..atelier.language import canonical, held_out_colour, held_out_pair
from ..atelier.language_parse import Clause, Demand
from ..atelier.scene import ACTIONS, COLOURS, TEXTURES
from ..atelier.second_look import Field, look_again
from . import compbench
from .atelier_geneval import SIDES, seen
from .atelier_wise import differences
from .compbench_rules import relation_score
from .outcome import Outcome, of_prompts, of_strata
from .protocol import Benchmark, Judgement, Row, Sample

if TYPE_CHECKING:
    from ..atelier.inspector import Seen, Sighting
    from .eyes import Inspected

NAME, VERSION, LISTS = "atelier-compbench", "v2", "v1"
"""v2: the lists of v1; textures and actions of things that were seen too small are read rightly."""
PROMPTS, IMAGES = 60, 1
TAGS = ("color", "texture", "spatial", "non_spatial", "numeracy", "complex")
COUNTS = ((1, 2), (2, 1), (2, 2), (1, 3), (3, 1), (2, 3), (3, 2), (1, 4), (4, 1), (3, 3), (2, 4), (4, 2))
RELATIONS = {
    "left of": "on the left of", "right of": "on the right of", "above": "on the top of", "below": "on the bottom of",
}  # fmt: skip
"""The Atelier's words in those of the namesake."""
_ANIMALS = frozenset(name for name, kind in KINDS.items() if kind.family == "animals")


# ---------------------------------------------------------------------------------------------------- prompts


def samples() -> tuple[Sample, ...]:
    """The prompts, the same on every machine; `record` holds the demand and, of colours, whether they are unseen."""
    rng = random.Random(f"{NAME}-{LISTS}")
    pairs = [pair for pair in itertools.combinations(sorted(KINDS), 2) if held_out_pair(*pair)]
    found = []
    for tag in TAGS:
        prompts: dict[str, dict[str, Any]] = {}
        while len(prompts) < PROMPTS:
            number = len(prompts)
            pair = rng.choice(pairs)
            clauses = _CLAUSES[tag](*(pair if rng.random() < 0.5 else pair[::-1]), rng, number)
            if clauses is None:
                continue
            demand = Demand(clauses)
            record = {"demand": demand.to_record(), "number": number}
            record |= {"unseen": _unseen(number)} if tag == "color" else {}
            prompts.setdefault(canonical(demand), record)
        found += [Sample(f"{tag}-{r['number']:06d}", prompt, tag, r, prompt) for prompt, r in prompts.items()]
    return tuple(found)


Clauses = tuple[Clause, Clause] | None


def _unseen(number: int) -> bool:
    """Every third colour prompt, as in the namesake."""
    return number % 3 == 2


def _colours(a: str, b: str, rng: random.Random, unseen: bool) -> tuple[str, str] | None:
    """Two different colours, one that each kind never had in training or one that it may have had."""
    choices = [[c for c in COLOURS if held_out_colour(c, kind) == unseen] for kind in (a, b)]
    free = [(one, other) for one in choices[0] for other in choices[1] if one != other]
    return rng.choice(free) if free else None


def _color(a: str, b: str, rng: random.Random, number: int) -> Clauses:
    colours = _colours(a, b, rng, _unseen(number))
    return None if colours is None else (Clause(a, 1, colours[0]), Clause(b, 1, colours[1]))


def _texture(a: str, b: str, rng: random.Random, number: int) -> Clauses:
    one, other = rng.sample(TEXTURES[1:], 2)
    return Clause(a, 1, texture=one), Clause(b, 1, texture=other)


def _spatial(a: str, b: str, rng: random.Random, number: int) -> Clauses:
    return Clause(a), Clause(b, 1, position=(SIDES[number % len(SIDES)], 0))


def _non_spatial(a: str, b: str, rng: random.Random, number: int) -> Clauses:
    acts: list[str | None] = [rng.choice(ACTIONS) if kind in _ANIMALS else None for kind in (a, b)]
    return None if acts == [None, None] else (Clause(a, 1, action=acts[0]), Clause(b, 1, action=acts[1]))


def _numeracy(a: str, b: str, rng: random.Random, number: int) -> Clauses:
    counts = COUNTS[number % len(COUNTS)]
    return Clause(a, counts[0]), Clause(b, counts[1])


def _complex(a: str, b: str, rng: random.Random, number: int) -> Clauses:
    """In turn about places and about actions, with colours, and a texture on what does not act."""
    colours, texture = _colours(a, b, rng, False), rng.choice(TEXTURES[1:])
    if colours is None:
        return None
    if number % 2 == 0:
        place = (SIDES[number // 2 % len(SIDES)], 0)
        return Clause(a, 1, colours[0], texture=texture), Clause(b, 1, colours[1], position=place)
    if (a in _ANIMALS) == (b in _ANIMALS):
        return None
    acting = rng.choice(ACTIONS)
    clauses = (
        Clause(kind, 1, colour, action=acting) if kind in _ANIMALS else Clause(kind, 1, colour, texture=texture)
        for kind, colour in zip((a, b), colours, strict=True)
    )
    return next(clauses), next(clauses)


_CLAUSES = {
    "color": _color, "texture": _texture, "spatial": _spatial, "non_spatial": _non_spatial, "numeracy": _numeracy,
    "complex": _complex,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------ rules


def judge(sample: Sample, shown: Inspected) -> Judgement:
    demand, reasons = Demand.from_record(sample.record["demand"]), list[str]()
    include = demand.include
    fields: list[Field] = ["texture"] if any(clause.texture != "plain" for clause in include) else []
    fields += ["action"] if any(clause.action for clause in include) else []
    sighting = look_again(shown.picture, shown.sighting, fields, {clause.kind for clause in include})
    if sample.tag == "numeracy":
        score = numeracy(include, sighting, reasons)
    elif sample.tag == "spatial":
        score = spatial(include, sighting, reasons)
    elif sample.tag == "complex":
        rest = spatial if any(clause.position for clause in include) else actions
        score = (attributes(include, sighting, reasons) + rest(include, sighting, reasons)) / 2
    else:
        score = (actions if sample.tag == "non_spatial" else attributes)(include, sighting, reasons)
    return Judgement(score, "\n".join(reasons), seen(sighting))


def attributes(include: Sequence[Clause], sighting: Sighting, reasons: list[str]) -> float:
    """1 if of every phrase a thing of its kind, colour and texture is seen, else 0: a product over phrases."""
    phrases = [Clause(clause.kind, 1, clause.colour, texture=clause.texture) for clause in include]
    return float(min([_there(phrase, sighting, reasons) for phrase in phrases]))


def actions(include: Sequence[Clause], sighting: Sighting, reasons: list[str]) -> float:
    """1 if every kind is seen doing what it is to do, else 0."""
    return float(min([_there(Clause(c.kind, 1, action=c.action), sighting, reasons) for c in include]))


def _there(phrase: Clause, sighting: Sighting, reasons: list[str]) -> bool:
    things = _of(phrase.kind, sighting)
    wrong = [differences(phrase, thing, sighting.style) for thing in things]
    if any(not one for one in wrong):
        return True
    nearest = f" {', '.join(min((len(one), one) for one in wrong)[1])}" if wrong else ", found none"
    reasons.append(f"expected {phrase.kind}{nearest}")
    return False


def _of(kind: str, sighting: Sighting) -> list[Seen]:
    """The things of a kind, best score first."""
    return [thing for thing in sighting.objects if thing.kind == kind]


def spatial(include: Sequence[Clause], sighting: Sighting, reasons: list[str]) -> float:
    """Half for both things being there and half for the relation of the first of each kind; 0 without a relation."""
    first, second = (next(iter(_of(clause.kind, sighting)), None) for clause in include)
    position = include[1].position
    assert position is not None
    held = relation_score(RELATIONS[position[0]], second.box, first.box) if first and second else 0.0
    if held < 1:
        found = " and ".join(thing.kind for thing in (first, second) if thing) or "neither"
        reasons.append(f"expected {include[1].kind} {position[0]} {include[0].kind}, found {found}")
    return 0.5 + 0.5 * held if held else 0.0


def numeracy(include: Sequence[Clause], sighting: Sighting, reasons: list[str]) -> float:
    """Of each kind half for being there and half for its exact number; kinds weigh alike."""
    score = 0.0
    for clause in include:
        here = len(_of(clause.kind, sighting))
        score += ((here > 0) + (here == clause.count)) / (2 * len(include))
        if here != clause.count:
            reasons.append(f"expected {clause.count} {clause.kind}, found {here}")
    return score


def outcome(rows: Sequence[Row]) -> Outcome:
    """The mean of the categories, each of them, and colours by whether their kinds had them in training."""
    unseen = {sample.id for sample in samples() if sample.record.get("unseen")}
    groups: dict[str, dict[str, list[float | None]]] = {}
    for row in rows:
        groups.setdefault(row.tag, {}).setdefault(row.cluster, []).append(row.score)
    scores = {"overall": of_strata(groups)} | {tag: of_prompts(groups[tag]) for tag in TAGS if tag in groups}
    for name, wanted in (("color, seen in training", False), ("color, never seen", True)):
        part: dict[str, list[float | None]] = {}
        for row in rows:
            if row.tag == "color" and (row.id in unseen) == wanted:
                part.setdefault(row.cluster, []).append(row.score)
        if part:
            scores[name] = of_prompts(part)
    return Outcome(NAME, scores)


def benchmark() -> Benchmark:
    def file(sample: Sample, index: int) -> str:
        return f"{sample.tag}/{compbench.file(sample, index, IMAGES)}"

    return Benchmark(
        NAME, VERSION, samples(), IMAGES, judge, file, lambda sample: None, "strata", outcome=outcome, pixels=True
    )
