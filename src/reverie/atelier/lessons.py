"""Endless lessons in looking, thinking and judging, for the side of a model that reads and writes.

Every lesson is a question, perhaps about a (partly painted) picture, with its one true answer in a fixed, short form.
Lessons never show or name what `language.held_out_*` keep for benchmarks; riddles come from their training side.
Facts alone are all taught, as every benchmark of knowledge asks for them, only in other words.

    lesson(random.Random(0))             # any task, by the weights of TASKS
    lesson(random.Random(0), "critique")
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from .draw import box, colour_of
from .faults import cannot_become, faults, painted, score, seen, state_of
from .kinds import KINDS
from .knowledge import COMPOSED_SHARE, Riddle, Worn, riddle
from .language import PLACES, canonical, demand_of, describe, held_out_pair, relation_of, say
from .language_parse import ACTION_WORDS, BACKGROUND_WORDS, COUNTS, RELATION_WORDS, STYLE_NOUNS, Clause, Demand
from .sample import allowed, compose, random_demand, spoil
from .scene import ACTIONS, BACKGROUNDS, COLOURS, TEXTURES, Scene, Thing

ROWS = 12  # of image tokens: a picture is painted in whole rows
BANDS = 3  # the regions in which a picture is painted and thought about
RIDDLES = 0.2  # the share of critiques that ask by a riddle

TASKS: dict[str, float] = {
    "think": 26, "caption": 14, "question": 24, "alignment": 12, "judge": 8, "continue": 8, "critique": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Lesson:
    """task: a key of `TASKS`; scene: the picture, None if there is none; visible: the share of the picture, from the
    top, that is painted already (0 to 1; the rest is to be shown as unpainted)."""

    task: str
    scene: Scene | None
    question: str
    answer: str
    visible: float = 1.0


def lesson(rng: random.Random, task: str | None = None) -> Lesson:
    """Draw one lesson; ValueError for an unknown task."""
    task = task or rng.choices(list(TASKS), list(TASKS.values()))[0]
    if task not in _TASKS:
        raise ValueError(f"There is no task {task!r} among the lessons: use one of {', '.join(TASKS)}.")
    return _TASKS[task](rng)


# ---------------------------------------------------------------------------------------------- thinking


def _think(rng: random.Random) -> Lesson:
    if rng.random() < 0.5:
        asked = train_riddle(rng)
        prompt, thought, rewritten = asked.prompt, asked.thought, asked.rewritten
    else:
        demand = random_demand(rng)
        prompt = say(demand, rng, rng.choice(("terse", "plain", "plain", "rich")), split="train")
        thought, rewritten = spelled_out(demand), canonical(demand)
    return Lesson("think", None, f"Think about this picture: {prompt}", f"{thought}\nPicture: {rewritten}")


def train_riddle(rng: random.Random, worn: Worn | None = None, composed: float = COMPOSED_SHARE) -> Riddle:
    """A riddle whose composition, if it is one (`composed` of those drawn are), brings no held-out pair of kinds
    together. worn: what becomes of the wordings of its facts."""
    while True:
        drawn = riddle(rng, "train", worn, composed)
        kinds = [clause["class"] for clause in drawn.demand["include"]]
        if len(drawn.facts) == 1 or not any(held_out_pair(a, b) for i, a in enumerate(kinds) for b in kinds[i + 1 :]):
            return drawn


def spelled_out(demand: Demand) -> str:
    """A thought that names the parts of a demand one after another."""
    sentences = []
    for index, clause in enumerate(demand.include):
        verb = "It also shows" if index else "The picture shows"
        sentences.append(f"{verb} {canonical(Demand((replace(clause, position=None),)))}.")
        if clause.position:
            relation, other = RELATION_WORDS[clause.position[0]][0], demand.include[clause.position[1]]
            verb = "is" if clause.count == 1 else "are"
            sentences.append(f"The {_noun(clause)} {verb} {relation} the {_noun(other)}.")
    if demand.background != "plain":
        place = BACKGROUND_WORDS[demand.background][0]
        sentences.append("It is night." if demand.background == "night" else f"It is {place}.")
    if demand.style != "plain":
        sentences.append(f"It is {STYLE_NOUNS[demand.style][0]}.")
    return " ".join(sentences)


def _noun(clause: Clause) -> str:
    return clause.kind if clause.count == 1 else KINDS[clause.kind].plural


# ---------------------------------------------------------------------------------------------- looking


def visible_demand(rng: random.Random, theme: str | None = None) -> Demand:
    """A training demand that a picture can show in full: a pencil sketch has no colours."""
    while True:
        demand = random_demand(rng, theme)
        if demand.style != "sketch" or not any(clause.colour for clause in demand.include):
            return demand


def _caption(rng: random.Random) -> Lesson:
    scene = compose(visible_demand(rng), rng)
    if rng.random() < 0.5:
        return Lesson("caption", scene, "Describe this picture.", describe(scene, rng))
    # in reading order, which can be seen, as the order of drawing cannot
    ordered = scene.with_things(sorted(scene.things, key=lambda thing: (int(thing.y * 3), thing.x, thing.y)))
    return Lesson("caption", scene, "What is in this picture?", canonical(demand_of(ordered, relations=False)))


def _question(rng: random.Random) -> Lesson:
    while True:
        name = rng.choices(list(_QUESTIONS), [weight for _, weight, _ in _QUESTIONS.values()])[0]
        ask, _, themes = _QUESTIONS[name]
        demand = visible_demand(rng, rng.choice(themes) if themes else None)
        scene = compose(demand, rng)
        asked = ask(scene, demand, rng)
        if asked:
            return Lesson("question", scene, *asked)


Asked = tuple[str, str] | None  # question and answer, or nothing to ask about this scene


def _of_kind(scene: Scene, kind: str) -> list[Thing]:
    return [thing for thing in scene.things if thing.kind == kind]


def _stranger(scene: Scene, rng: random.Random) -> str:
    kinds = {thing.kind for thing in scene.things}
    return rng.choice([kind for kind in KINDS if kind not in kinds])


def _how_many(scene: Scene, demand: Demand, rng: random.Random) -> Asked:
    if rng.random() < 0.15:
        return "How many things are there?", COUNTS[len(scene.things)]
    kind = _stranger(scene, rng) if rng.random() < 0.12 else rng.choice(scene.things).kind
    return f"How many {KINDS[kind].plural} are there?", COUNTS[len(_of_kind(scene, kind))]


def _what_colour(scene: Scene, demand: Demand, rng: random.Random) -> Asked:
    thing = rng.choice(scene.things)
    alike = _of_kind(scene, thing.kind)
    usual = not KINDS[thing.kind].states or state_of(thing) == KINDS[thing.kind].states[0]
    # states, textures and some styles tint a thing; a rainbow has no one colour
    clear = usual and thing.texture == "plain" and scene.style in ("plain", "icon", "pixel") and thing.kind != "rainbow"
    if not clear:
        return None
    what = f"is the {thing.kind}" if len(alike) == 1 else f"are the {KINDS[thing.kind].plural}"
    return f"What colour {what}?", colour_of(thing)


def _is_there(scene: Scene, demand: Demand, rng: random.Random) -> Asked:
    thing = rng.choice(scene.things)
    kind, colour = thing.kind, thing.colour
    truth = rng.random() < 0.5
    if not truth:
        if colour and rng.random() < 0.5:
            colour = rng.choice([c for c in COLOURS if c != colour])
        else:
            kind = _stranger(scene, rng)
    clause = Clause(kind, 1, colour)
    if not allowed((clause,)):
        return None
    return f"Is there {canonical(Demand((clause,)))}?", "yes" if truth else "no"


def _where(scene: Scene, demand: Demand, rng: random.Random) -> Asked:
    thing = rng.choice(scene.things)
    if len(_of_kind(scene, thing.kind)) > 1:
        return None
    if len(scene.things) != 2:
        return f"Where in the picture is the {thing.kind}?", PLACES[int(thing.y * 3)][int(thing.x * 3)]
    other = scene.things[1] if thing is scene.things[0] else scene.things[0]
    asked = demand.include[1]
    if asked.position and asked.position[0] in ("inside", "on"):
        if thing.kind != asked.kind:
            return None
        return f"Where is the {thing.kind}?", f"{asked.position[0]} the {other.kind}"
    right, down = abs(thing.x - other.x), abs(thing.y - other.y)
    if min(right, down) > 0.6 * max(right, down):
        return None  # on a diagonal two answers are right
    return f"Where is the {thing.kind}?", f"{relation_of(thing, other)} the {other.kind}"


def _doing(scene: Scene, demand: Demand, rng: random.Random) -> Asked:
    thing = scene.things[0]
    return f"What is the {thing.kind} doing?", ACTION_WORDS[thing.action or ""]


_STATE_QUESTIONS = {
    "clock": ("What time does the clock show?", "{} o'clock"),
    "dice": ("What number does the dice show?", "{}"),
    "traffic light": ("Which lamp of the traffic light is on?", "{}"),
    "flag": ("Which flag is this?", "{}"),
    "tree": ("Which season is it?", "{}"),
    "thermometer": ("What does the thermometer show?", "{}"),
}


def _what_state(scene: Scene, demand: Demand, rng: random.Random) -> Asked:
    thing = scene.things[0]
    question, form = _STATE_QUESTIONS.get(thing.kind, (f"In what state is the {thing.kind}?", "{}"))
    state = state_of(thing)
    return question, form.format("none" if state == "off" else state)


def _background(scene: Scene, demand: Demand, rng: random.Random) -> Asked:
    if scene.background == "plain" and rng.random() < 0.85:  # most are plain
        return None
    return "What is the background?", scene.background


def _style(scene: Scene, demand: Demand, rng: random.Random) -> Asked:
    if scene.style == "plain" and rng.random() < 0.96:
        return None
    return "What is the style of this picture?", scene.style


_QUESTIONS: dict[str, tuple[Callable[[Scene, Demand, random.Random], Asked], float, tuple[str, ...]]] = {
    "count": (_how_many, 5, ("count", "count", "many", "two")),
    "colour": (_what_colour, 5, ("colour", "colour_attr", "colour_attr", "single", "count")),
    "exists": (_is_there, 4, ()),
    "where": (_where, 5, ("position", "position", "two", "contain", "single")),
    "doing": (_doing, 2, ("action",)),
    "state": (_what_state, 3, ("state",)),
    "background": (_background, 2, ()),
    "style": (_style, 0.6, ()),
    "texture": (lambda s, d, r: (f"What is the {s.things[0].kind} made of?", s.things[0].texture), 1, ("texture",)),
}


# ---------------------------------------------------------------------------------------------- judging


def _prompt(demand: Demand, rng: random.Random) -> str:
    """A training wording that can stand inside a sentence."""
    if rng.random() < 0.5:
        return canonical(demand)
    text = say(demand, rng, rng.choice(("terse", "plain")), split="train")
    if text[0].isupper() or text.startswith(("draw ", "there ", "on the ", "at the ")):
        return canonical(demand)
    return text


def spoiled(demand: Demand, rng: random.Random) -> Scene:
    """A scene of training things that breaks the demand in one respect."""
    while True:
        other = _other_look(demand, rng) if rng.random() < 0.5 else None
        other = other or spoil(demand, rng)[0]
        if not allowed(other.include):
            continue
        scene = compose(other, rng)
        if faults(demand, scene):
            return scene


def _other_look(demand: Demand, rng: random.Random) -> Demand | None:
    """The demand with another state, action, texture or background, which `spoil` leaves alone; None without any."""
    options = []
    for index, clause in enumerate(demand.include):
        states = [state for state in KINDS[clause.kind].states if state != clause.state]
        if clause.state:
            options.append((index, replace(clause, state=rng.choice(states))))
        if clause.action:
            options.append((index, replace(clause, action=rng.choice([a for a in ACTIONS if a != clause.action]))))
        if clause.texture != "plain":
            options.append((index, replace(clause, texture=rng.choice([t for t in TEXTURES if t != clause.texture]))))
    if demand.background != "plain" and (not options or rng.random() < 0.3):
        return replace(demand, background=rng.choice([b for b in BACKGROUNDS if b != demand.background]))
    if not options:
        return None
    index, clause = rng.choice(options)
    return replace(demand, include=(*demand.include[:index], clause, *demand.include[index + 1 :]))


def _alignment(rng: random.Random) -> Lesson:
    demand = visible_demand(rng)
    scene = compose(demand, rng) if rng.random() < 0.5 else spoiled(demand, rng)
    question = f"Does this picture show {_prompt(demand, rng)}?"
    return Lesson("alignment", scene, question, _verdict(faults(demand, scene)))


def _verdict(reasons: list[str]) -> str:
    return f"No. {reasons[0]}" if reasons else "Yes."


def _judge(rng: random.Random) -> Lesson:
    demand = visible_demand(rng)
    visible = rng.choice((1 / 3, 2 / 3, 1.0, rng.randint(1, ROWS - 1) / ROWS))
    if rng.random() < 0.4:
        scene = compose(demand, rng)
        answer = "Yes." if seen(scene, visible) else "No."
        return Lesson("judge", scene, "Is this picture clear enough to judge?", answer, visible)
    scene = compose(demand, rng) if rng.random() < 0.25 else spoiled(demand, rng)
    question = f"Can this picture still become {_prompt(demand, rng)}?"
    return Lesson("judge", scene, question, _verdict(cannot_become(demand, scene, visible)), visible)


def _continue(rng: random.Random) -> Lesson:
    demand = visible_demand(rng)
    scene = compose(demand, rng)
    band = rng.randrange(BANDS)
    start = "Its upper part is painted. What comes next?" if band else "Nothing is painted yet. What comes first?"
    question = f"This picture shall show {_prompt(demand, rng)}. {start}"
    return Lesson("continue", scene, question, band_words(scene, band / BANDS, (band + 1) / BANDS), band / BANDS)


def band_words(scene: Scene, low: float, high: float) -> str:
    """What is in the band of a picture between two heights (shares from the top), from left to right: "a red cat on the
    left and ..."; of what reaches further, the part. Slivers of less than a sixth of a thing go unmentioned."""
    phrases = []
    for thing in sorted(scene.things, key=lambda thing: (thing.x, thing.y)):
        share = painted(thing, high) - painted(thing, low)
        if share < 1 / 6:
            continue
        clause = Clause(thing.kind, 1, thing.colour, None, thing.texture, None, thing.action, thing.state)
        phrase = canonical(Demand((clause,)))
        if share <= 0.6:
            _, top, _, bottom = box(thing)
            above, below = low - top, bottom - high
            part = "top" if above <= 0 else "bottom" if below <= 0 else "middle"
            phrase = f"the {part} of {phrase}"
        phrases.append(f"{phrase} {PLACES[1][int(thing.x * 3)]}")
    if not phrases:
        return "only the background"
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _critique(rng: random.Random) -> Lesson:
    demand = visible_demand(rng)
    prompt = say(demand, rng, rng.choice(("terse", "plain")), split="train")
    improved = canonical(demand)
    if rng.random() < RIDDLES:
        asked = train_riddle(rng)
        known = Demand.from_record(asked.demand)
        if allowed(known.include) and not any(clause.position for clause in known.include[2:]):
            demand, prompt, improved = known, asked.prompt, asked.rewritten
    scene = compose(demand, rng) if rng.random() < 0.4 else spoiled(demand, rng)
    if rng.random() < 0.3 and score(demand, scene) < 100:  # a picture of something else altogether
        scene = compose(visible_demand(rng), rng)
    answer = f"SCORE: {score(demand, scene)}\nIMPROVED_DESCRIPTION: {improved}"
    return Lesson("critique", scene, f'Rate this picture for "{prompt}".', answer)


_TASKS: dict[str, Callable[[random.Random], Lesson]] = {
    "think": _think, "caption": _caption, "question": _question, "alignment": _alignment, "judge": _judge,
    "continue": _continue, "critique": _critique,
}  # fmt: skip
