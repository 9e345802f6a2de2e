"""Plans (think, choose, look back), their presets, and the loop that runs them over any generator.

`run` is the whole program: it thinks, starts the canvas, advances it in pieces, and finishes, and says so in events.
It knows no generator and no model by name. Think-then-generate follows arXiv 2601.10332.
"""

from __future__ import annotations

import difflib
import math
import time
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from reverie.events import Event, Finished, Preview, Spent, Started, Thought
from reverie.look_back import Bench, deliberate
from reverie.schedule import check_regions
from reverie.thinkers import Answer, Thinker

if TYPE_CHECKING:
    from PIL.Image import Image

    from reverie.canvas import Canvas, Conditions, Work
    from reverie.canvas import Generator as GeneratorOfImages
    from reverie.inputs import Inputs
    from reverie.relay import Relay, Told

WORDS = {
    "think": ("never", "before", "during", "after"),
    "choose": ("first", "orm", "prm", "parm"),
    "rules": ("greedy", "official"),
    "assess": ("first", "every"),
    "correct": ("see", "words", "again"),
    "keep": ("last", "best"),
}
"""Those that each axis of a plan knows."""
PYTHON = "python:"
"""Begins the names of judges that exist in Python only."""


@dataclass(frozen=True)
class Plan:
    """How an image is reasoned about and order. Raises ValueError for what makes no sense or does not exist yet."""

    think: str = "never"
    """When to reason in words: `never`; `before` painting (the thought rewrites the prompt; with several `regions`
    there is a thought about each); `during` it (a thought before each region, a critique after it); `after` it
    (a critique of the whole picture)."""
    choose: str = "first"
    """Which candidate is kept: `first` takes the only one; `orm` the best finished one; `prm` goes on from the best
    continuation at every look; `parm` stops hopeless ones on the way and takes the best of the others."""
    candidates: int = 1
    """How many images compete for each one that is kept."""
    reflect: int = 0
    """Rounds of looking back and painting again: at most so many for each region, or for the whole image."""
    guidance: float | None = None
    """Classifier-free guidance weight; None takes the model's own, 1 switches guidance off."""
    temperature: float | None = None
    """Of the image tokens; None takes the model's own, 0 always paints the likeliest."""
    thought_tokens: int = 256
    """The longest thought, in tokens."""
    judge: str | None = None
    """Who chooses, looks back, or criticises regions: a name, hub id or folder; None takes the model's own eyes."""
    judge_steps: int = 18
    """At how many points of the way `prm` and `parm` look."""
    judge_from: int | None = None
    """The first of these looks at which `parm` asks whether the picture is clear; None takes the first at which the
    judge ever says so, as far as its checkpoint knows."""
    assess: str = "first"
    """Whether `parm` asks about the potential of a path at its `first` clear look, or at `every` one."""
    rules: str = "greedy"
    """How answers are read: `greedy`, or `official` as the published code samples them."""
    correct: str = "see"
    """How a painter looks back: it can `see` the flawed picture and the reason, is told the reason in `words`, or just
    tries `again`."""
    keep: str = "last"
    """What stays if no attempt satisfies the judge: the `last` round of looking back (attempt at a region), or the
    `best` by its score."""
    regions: int | None = None
    """Parts of the image with a thought each; None takes 3 when thinking `during` painting, otherwise 1."""
    schedule: str = "uniform"
    """How high the regions are: `uniform`, heights from the top such as `2:1:1`, or `adaptive` (the model proposes)."""
    threshold: float = 90.0
    """A region stays if its critique scores at least this, of 100; a judge's is P(yes) in percent."""
    keep_prompt: bool = False
    """Whether the rewritten prompt follows the typed one instead of taking its place (T2I-R1)."""
    eyes: str | None = None
    """Who looks at given pictures for a painter that only reads words: a name, hub id or folder; None takes its own, or
    gives it the pictures themselves where it takes them."""
    thinker: str | None = None
    """Who reasons `before` painting in the model's place: a name, hub id, folder or openai:MODEL@URL."""
    official: bool = False
    """Whether thinking `during` painting follows the authors' script to the letter, its oddities included."""

    def __post_init__(self) -> None:
        for name, words in WORDS.items():
            if getattr(self, name) not in words:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be one of {', '.join(words)}.")
        numbers = (("candidates", 1, 1024), ("reflect", 0, 64), ("thought_tokens", 1, 8192))
        for name, least, most in (*numbers, ("judge_steps", 1, 4096), ("judge_from", 1, 4096)):
            value = getattr(self, name)
            if value is None and name == "judge_from":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"{name}={value!r}: must be a whole number between {least} and {most}.")
        check_regions(self)
        if self.candidates > 1 and self.choose == "first":
            raise ValueError(
                f"candidates={self.candidates}: nobody chooses among them; add choose=orm, prm or parm, "
                f"or ask for several images."
            )
        for name in ("judge", "eyes", "thinker"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value.strip()):
                raise ValueError(f"{name}={value!r}: must be the name, hub id or folder of a model.")
        if self.thinker is not None and (self.think != "before" or self.interleaved):
            raise ValueError(f"thinker={self.thinker!r} reasons before painting; add think=before, or leave it out.")
        if self.judge is not None and not self.judges:
            raise ValueError(f"judge={self.judge!r} has nothing to judge; add choose=orm, prm or parm, or reflect.")
        if self.judge_from is not None and self.judge_from > self.judge_steps:
            raise ValueError(f"judge_from={self.judge_from}: there are only {self.judge_steps} looks (judge_steps).")
        for name in ("guidance", "temperature"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise ValueError(f"{name}={value!r}: must be a number of at least 0.")

    @property
    def interleaved(self) -> bool:
        """Whether thoughts are about parts of the picture, or look at it."""
        return self.think in ("during", "after") or self.regions != 1

    @property
    def judges(self) -> bool:
        """Whether a judge is needed; who thinks while or after painting is its own, unless another is named."""
        return self.choose != "first" or (self.reflect > 0 and (not self.interleaved or self.judge is not None))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Plan:
        unknown = set(record) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(
                f"A plan has no field {sorted(unknown)[0]!r}; it has {', '.join(f.name for f in fields(cls))}."
            )
        return cls(**record)


PARM: dict[str, Any] = {"choose": "parm", "candidates": 20}
PRESETS: dict[str, dict[str, Any]] = {
    "direct": {},
    "t2g": {"think": "before"},
    "t2i-r1": {"think": "before", "keep_prompt": True},
    "twig": {"think": "during", "regions": 3, "reflect": 1},
    "parm": PARM,
    "parm++": PARM | {"reflect": 3},
    "thinkdiff": {},  # what thinks is the model, about the context that it is given
}


def make_plan(preset: str | None = None, **chosen: Any) -> Plan:
    """The plan of a preset (`direct` if None), with the fields that are given and not None put in its place."""
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}{did_you_mean(preset, PRESETS)}; there are {', '.join(PRESETS)}.")
    return Plan.from_json(
        PRESETS[preset or "direct"] | {name: value for name, value in chosen.items() if value is not None}
    )


def did_you_mean(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """', did you mean ...?' in the middle of a sentence, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def run(
    generator: GeneratorOfImages,
    thinker: Thinker | None,
    plan: Plan,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    about: Mapping[str, Any] | None = None,
    inputs: Sequence[Inputs] = (),
    relay: Relay | None = None,
    told: Mapping[int, Told] | None = None,
    thoughts: Mapping[str, Answer] | None = None,
    answers: Mapping[int, Sequence[str]] | None = None,
    bench: Bench | None = None,
    pieces: int = 12,
    previews: bool = True,
    batch: int | None = None,
) -> Generator[Event, None, None]:
    """Paints one image for each prompt and seed, and tells what happens.

    about: what every recipe says besides (model, versions).
    inputs: pictures and words beside each prompt, or nothing at all.
    relay: who puts them into words; without one the generator gets the pictures themselves.
    told: what the relay said, where that is already known, by image.
    thoughts: answers that are already known, by prompt; the thinker is not asked for them.
    answers: the same for thinking during painting: all that was answered in order, by image.
    bench: who judges, for plans that choose or look back.
    pieces: a batch is painted in so many pieces, with a `Preview` after each.
    previews: whether these hold pictures.
    batch: so many images at once; as many as there is room for if left out. Neither changes what an image becomes.
    """
    if len(prompts) != len(seeds):
        raise ValueError(f"Got {len(prompts)} prompts and {len(seeds)} seeds; give one seed for each prompt.")
    if plan.think != "never" and thinker is None:
        raise ValueError(f"think={plan.think!r} needs a model that writes, and this one only paints; use never.")
    if plan.judges and bench is None:
        raise ValueError("a plan that chooses or looks back needs a judge; give one.")
    from reverie.relay import given_to

    given = given_to(generator, relay, prompts, inputs)
    began = time.monotonic()
    judged = None if bench is None else asdict(bench.judge.work)
    yield Started(tuple(prompts), tuple(seeds), plan.to_json(), generator.steps)
    spent: Counter[str] = Counter()
    plain: Counter[str] = Counter()
    words: Sequence[Told | None] = [None] * len(prompts)
    read, beside = tuple(prompts), given
    if relay is not None:
        words = yield from relay.tell(prompts, given, told or {}, batch or 16)
        read = tuple(word.prompt if word else prompt for word, prompt in zip(words, prompts, strict=True))
        beside = tuple(replace(one, picture=None, context=()) for one in given)
    rewritten: Sequence[Answer | None] = [None] * len(prompts)
    if plan.think == "before" and not plan.interleaved and thinker is not None:
        rewritten = yield from _think(thinker, plan, read, beside, thoughts or {}, batch or 16)
    recipes = [
        _recipe(about or {}, plan, *one) for one in zip(prompts, given, words, rewritten, strict=True)
    ]  # fmt: skip
    final = tuple(answer.prompt if answer else prompt for answer, prompt in zip(rewritten, read, strict=True))
    order = Order(final, tuple(seeds), plan.guidance, beside)
    from reverie.room import rows_at_once

    batch = batch or rows_at_once(generator, order.conditions(range(min(1, len(seeds)))))
    batches = _batches(order, max(1, batch // plan.candidates))
    for number, images in enumerate(batches):
        watch = Watch(pieces, previews, number * generator.steps, len(batches) * generator.steps)
        if plan.judges and not plan.interleaved:
            assert bench is not None
            work, usual = yield from deliberate(generator, bench, plan, order, recipes, images, watch, batch)
        elif plan.interleaved and thinker is not None:
            from reverie import during

            judge = bench.judge if bench is not None else None
            work, usual = yield from during.paint(
                generator, thinker, plan, read, order, recipes, images, watch, answers or {}, judge
            )
        else:
            work, usual = yield from _paint(generator, order, recipes, images, watch)
        spent.update(asdict(work))
        plain.update(asdict(usual))
    spent.update(asdict(thinker.work) if thinker is not None else {})
    spent.update(asdict(relay.work) if relay is not None else {})
    if bench is not None and judged is not None:
        spent.update({name: count - judged[name] for name, count in asdict(bench.judge.work).items()})
    yield Spent(round(time.monotonic() - began, 3), {name: (count, plain[name]) for name, count in spent.items()})


@dataclass(frozen=True)
class Order:
    """What is finally painted from: rewritten prompts, seeds, guidance weight, and what stands beside each prompt."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    guidance: float | None
    beside: tuple[Inputs, ...]

    def conditions(self, images: Sequence[int], prompts: Sequence[str] | None = None) -> Conditions:
        """For some of the images; with other prompts if they are given."""
        from reverie.canvas import Conditions

        given = [self.beside[i] for i in images]
        pictures = tuple(() if one.picture is None else (one.picture.image,) for one in given)
        texts = [self.prompts[i] for i in images] if prompts is None else prompts
        return Conditions(tuple(texts), self.guidance, pictures, tuple(one.parts for one in given))


@dataclass(frozen=True)
class Watch:
    """How often to tell of the progress of a batch, and which part of the whole run the batch is."""

    pieces: int
    previews: bool
    before: int
    """Steps of the run before this batch."""
    steps: int
    """Steps of the whole run."""


def _batches(order: Order, size: int) -> list[range]:
    """At most `size` neighbours each; pictures of other sizes, which cannot share a canvas, begin another."""
    sizes = [None if one.picture is None else one.picture.image.size for one in order.beside]
    batches: list[range] = []
    for i in range(len(order.seeds)):
        if batches and len(batches[-1]) < size and sizes[i] == sizes[i - 1]:
            batches[-1] = range(batches[-1].start, i + 1)
        else:
            batches.append(range(i, i + 1))
    return batches


def _think(
    thinker: Thinker,
    plan: Plan,
    prompts: Sequence[str],
    beside: Sequence[Inputs],
    known: Mapping[str, Answer],
    batch: int,
) -> Generator[Event, None, list[Answer]]:
    """One thought for each different prompt (and picture): one is told as it is written, many are written together."""
    orders = list(zip(prompts, beside, strict=True))
    answers = {order: known[order[0]] for order in orders if order[0] in known}
    new = [order for order in dict.fromkeys(orders) if order not in answers]

    def seen(order: tuple[str, Inputs]) -> tuple[Any, ...]:
        return () if order[1].picture is None else (order[1].picture.image,)

    if len(new) == 1:
        writing = thinker.think(new[0][0], plan.thought_tokens, plan.keep_prompt, seen(new[0]))
        while new[0] not in answers:
            try:
                yield Thought(orders.index(new[0]), next(writing))
            except StopIteration as end:
                answers[new[0]] = end.value
    else:
        for first in range(0, len(new), batch):
            group = new[first : first + batch]
            texts, pictures = [order[0] for order in group], [seen(order) for order in group]
            written = thinker.think_batch(texts, plan.thought_tokens, plan.keep_prompt, pictures)
            answers |= zip(group, written, strict=True)
    for order in dict.fromkeys(orders):
        answer = answers[order]
        yield Thought(orders.index(order), whole=answer.thought, prompt=answer.prompt, note=answer.note)
    return [answers[order] for order in orders]


def _paint(
    generator: GeneratorOfImages, order: Order, recipes: list[dict[str, Any]], images: range, watch: Watch
) -> Generator[Event, None, tuple[Work, Work]]:
    """One batch, in pieces; returns its work and that of plain sampling. Other images are None in its previews."""
    from reverie.png import picture_hash

    def progress(step: int, shown: list[Image]) -> Preview:
        spread = (
            tuple(shown[i - images.start] if i in images else None for i in range(len(order.seeds))) if shown else ()
        )
        return Preview(watch.before + step, watch.steps, spread)

    conditions = order.conditions(images)
    canvas = generator.start(conditions, [order.seeds[i] for i in images])
    for i, answer in zip(images, _answers(generator, conditions), strict=False):
        recipes[i]["answer"] = answer
        yield Thought(i, whole=answer)
    pieces = min(watch.pieces, generator.steps)
    for step in (generator.steps * piece // pieces for piece in range(1, pieces)):
        canvas = generator.advance(canvas, to=step)
        yield progress(step, _pictures(generator, canvas) if watch.previews else [])
    canvas = generator.advance(canvas)
    finished = _pictures(generator, canvas)
    yield progress(generator.steps, finished if watch.previews else [])
    for i, picture in zip(images, finished, strict=True):
        facts = {"seed": order.seeds[i], "picture": picture_hash(picture), "size": list(picture.size)}
        yield Finished(i, picture, order.seeds[i], recipes[i] | facts)
    return canvas.work, generator.plain_work(conditions)


def _answers(generator: GeneratorOfImages, conditions: Conditions) -> list[str]:
    """What a generator that takes contexts understood of each, once the canvas is started; none of others."""
    told = getattr(generator, "answers", None) if conditions.contexts else None
    return told(conditions) if told is not None else []


def _pictures(generator: GeneratorOfImages, canvas: Canvas) -> list[Image]:
    from PIL import Image

    return [Image.fromarray(array) for array in generator.preview(canvas)]


def _recipe(
    about: Mapping[str, Any], plan: Plan, prompt: str, given: Inputs, told: Told | None, answer: Answer | None
) -> dict[str, Any]:
    recipe = {**about, "plan": plan.to_json(), "prompt": prompt}
    recipe |= {"inputs": given.to_json()} if given else {}
    recipe |= {"told": told.to_json()} if told else {}
    if answer is not None:
        recipe |= {"thought": answer.thought, "rewritten": answer.prompt}
        recipe |= {"note": answer.note} if answer.note else {}
    return recipe
