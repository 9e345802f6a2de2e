"""What keeps a scene from meeting a demand, in words and in numbers: the exact truth behind every verdict.

The rules are those of GenEval, made a little stricter. A clause is met by the things of its kind: as many as asked,
no more, each with every look that the clause names (colour, texture, size, action, state), one of them in the asked
position. A background or style is asked for unless it is plain. Things that nobody asked for do no harm.

The score is 100 times the share of checks that hold. A clause has one check for being there, one for its count, one
for each look that it names and one for its position; background and style have one each where they are asked for.
A clause that is absent fails all its checks.

    faults(demand, scene)             # ["The cat is red, not blue."]; empty if the scene meets the demand
    score(demand, scene)              # 67
    cannot_become(demand, scene, 0.5) # the same, for a picture of which only the upper half is painted
"""

from __future__ import annotations

from .draw import box, colour_of
from .kinds import KINDS
from .language import relation_of
from .language_parse import ACTION_WORDS, BACKGROUND_WORDS, COUNTS, STYLE_NOUNS, TEXTURE_WORDS, Clause, Demand
from .scene import Scene, Thing

CLEAR = 0.6  # a thing is seen if more than this share of its box's height is painted
# Kinds whose state is not simply an adjective: the verb, and the form of the state after it.
_STATE_FORMS = {
    "clock": ("shows", "{} o'clock"), "dice": ("shows", "{}"), "traffic light": ("shows", "{}"),
    "tree": ("is", "in {}"),
}  # fmt: skip


def state_of(thing: Thing) -> str | None:
    """The state that a thing is drawn in: its own, or its kind's usual one, or None if the kind has no states."""
    states = KINDS[thing.kind].states
    return thing.state or (states[0] if states else None)


def painted(thing: Thing, visible: float) -> float:
    """The share of a thing's box, 0 to 1, that lies in the upper `visible` share of the picture."""
    _, top, _, bottom = box(thing)
    return min(1.0, max(0.0, (visible - top) / (bottom - top)))


def seen(scene: Scene, visible: float) -> tuple[Thing, ...]:
    """The things of which more than `CLEAR` is painted."""
    return tuple(thing for thing in scene.things if visible >= 1 or painted(thing, visible) > CLEAR)


def faults(demand: Demand, scene: Scene) -> list[str]:
    """One sentence for everything that the scene lacks; an absent clause is named once."""
    return [reason for reason, _ in _broken(demand, scene)]


def score(demand: Demand, scene: Scene) -> int:
    """0 to 100: the rounded share of checks that hold, see above."""
    asked = sum(_checks(clause) for clause in demand.include)
    asked += (demand.background != "plain") + (demand.style != "plain")
    lost = sum(weight for _, weight in _broken(demand, scene))
    return round(100 * (asked - lost) / asked) if asked else 100


def cannot_become(demand: Demand, scene: Scene, visible: float) -> list[str]:
    """Why a picture, painted down to the share `visible`, can no longer become what is demanded; empty if it can.

    Only things that are seen count, and what is missing may still come while anything is unpainted. As pictures show
    nothing but what was asked for, a thing that nobody asked for is a reason too.
    """
    if visible >= 1:
        reasons = faults(demand, scene)
    else:
        part = scene.with_things(seen(scene, visible))
        reasons = [reason for reason, _ in _broken(demand, part, final=False)]
    kinds = {clause.kind for clause in demand.include}
    strangers = dict.fromkeys(thing.kind for thing in seen(scene, visible) if thing.kind not in kinds)
    return reasons + [f"There is {_one(kind)}." for kind in strangers]


def _checks(clause: Clause) -> int:
    looks = (clause.colour, clause.size, clause.action, clause.state, clause.position)
    return 2 + sum(look is not None for look in looks) + (clause.texture != "plain")


def _broken(demand: Demand, scene: Scene, final: bool = True) -> list[tuple[str, int]]:
    """Every reason with the number of checks that it breaks. Unless `final`, absence and too few are no reasons."""
    broken: list[tuple[str, int]] = []
    for clause in demand.include:
        things = [thing for thing in scene.things if thing.kind == clause.kind]
        wanted = sum(other.count for other in demand.include if other.kind == clause.kind)
        shared = wanted != clause.count  # two clauses of one kind: a thing may belong to the other one
        if not things:
            if final:
                broken.append((f"There {_be(clause.count)} no {_noun(clause.kind, clause.count)}.", _checks(clause)))
            continue
        if len(things) > wanted or (final and len(things) != wanted):
            amount = COUNTS[len(things)] if len(things) < len(COUNTS) else str(len(things))
            noun = _noun(clause.kind, len(things))
            broken.append((f"There {_be(len(things))} {amount} {noun}, not {COUNTS[wanted]}.", 1))
        if not shared or final:
            broken += [(reason, 1) for reason in _looks(clause, things, clause.count if shared else len(things))]
        if clause.position:
            others = [t for t in scene.things if t.kind == demand.include[clause.position[1]].kind]
            if others and not any(related(a, b, clause.position[0]) for a in things for b in others):
                broken.append((_misplaced(things[0], others[0], clause.position[0]), 1))
            elif final and not others:
                other = demand.include[clause.position[1]].kind
                broken.append((f"The {clause.kind} is not {clause.position[0]} {_one(other)}.", 1))
    if demand.background not in ("plain", scene.background):
        asked = BACKGROUND_WORDS[demand.background][0]
        here = "" if scene.background == "plain" else f"{BACKGROUND_WORDS[scene.background][0]}, "
        broken.append((f"It is {here}not {asked}.", 1))
    if demand.style not in ("plain", scene.style):
        broken.append((f"It is not {STYLE_NOUNS[demand.style][0]}.", 1))
    return broken


def _looks(clause: Clause, things: list[Thing], needed: int) -> list[str]:
    """The looks that fewer than `needed` things have, each as a sentence about the first that lacks it."""
    reasons = []
    if clause.colour:
        wrong = [colour_of(t) for t in things if colour_of(t) != clause.colour]
        if len(things) - len(wrong) < needed:
            reasons.append(_is_not(things, wrong[0], clause.colour))
    if clause.texture != "plain":
        wrong = [t.texture for t in things if t.texture != clause.texture]
        if len(things) - len(wrong) < needed:
            actual = TEXTURE_WORDS[wrong[0]][0] if wrong[0] != "plain" else None
            reasons.append(_is_not(things, actual, TEXTURE_WORDS[clause.texture][0]))
    if clause.size:
        wrong = [t.size for t in things if t.size != clause.size]
        if len(things) - len(wrong) < needed:
            reasons.append(_is_not(things, wrong[0], clause.size))
    if clause.action:
        missing = [t.action for t in things if t.action != clause.action]
        if len(things) - len(missing) < needed:
            actual = ACTION_WORDS[missing[0]] if missing[0] else None
            reasons.append(_is_not(things, actual, ACTION_WORDS[clause.action]))
    if clause.state:
        states = [state_of(t) for t in things if state_of(t) != clause.state]
        if len(things) - len(states) < needed:
            verb, form = _STATE_FORMS.get(clause.kind, ("is", "{}"))
            reasons.append(_is_not(things, form.format(states[0]), form.format(clause.state), verb))
    return reasons


def related(thing: Thing, other: Thing, relation: str) -> bool:
    """Whether `thing` stands in `relation` to `other`.

    The four sides go by the axis on which the centres lie further apart. Inside: the whole width in the other's box,
    the centre too. On: the feet near the other's top edge, the centre over its box.
    """
    if relation not in ("inside", "on"):
        return relation_of(thing, other) == relation
    x0, y0, x1, y1 = box(other)
    left, _, right, feet = box(thing)
    if relation == "inside":
        return x0 <= left and right <= x1 and y0 <= thing.y <= y1
    return x0 <= thing.x <= x1 and abs(feet - y0) <= 0.06


def _misplaced(thing: Thing, other: Thing, relation: str) -> str:
    actual = relation_of(thing, other)
    if relation in ("inside", "on") or actual in (None, relation):
        return f"The {thing.kind} is not {relation} the {other.kind}."
    return f"The {thing.kind} is {actual} the {other.kind}, not {relation} it."


def _is_not(things: list[Thing], actual: str | None, wanted: str, verb: str = "is") -> str:
    """ "The cat is red, not blue."; in the plural for several."""
    many = len(things) > 1
    noun = _noun(things[0].kind, len(things))
    verb = {"is": "are", "shows": "show"}[verb] if many else verb
    return f"The {noun} {verb} {f'{actual}, ' if actual else ''}not {wanted}."


def _be(count: int) -> str:
    return "is" if count == 1 else "are"


def _noun(kind: str, count: int) -> str:
    return kind if count == 1 else KINDS[kind].plural


def _one(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
