"""The parts that every way of reasoning is made of, measured once each on the models that would run it.

    units = measure(painter, plan, "a red cat")
    units["step"].at(12)            # what one step of twelve pictures costs

A part is measured for one row and for as many as will run together; other numbers of rows are on the line through both.
Nothing depends on what the models say but the length of a thought, which is measured too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

    from reverie.canvas import Canvas, Conditions, Generator, Work
    from reverie.judges import Judge
    from reverie.painter import Painter
    from reverie.reason import Plan
    from reverie.thinkers import Thinker


@dataclass(frozen=True)
class Cost:
    """What something costs; the last four are those of `canvas.Work`."""

    flop: float = 0.0
    moved: float = 0.0
    """Bytes, at most (see meter.py)."""
    seconds: float = 0.0
    """On the device that measured."""
    prefilled: float = 0.0
    decoded: float = 0.0
    vq_decodes: float = 0.0
    vision_encodes: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, times: float) -> Cost:
        return Cost(*(getattr(self, f.name) * times for f in fields(self)))

    def __sub__(self, other: Cost) -> Cost:
        return self + other * -1.0


@dataclass(frozen=True)
class Unit:
    """One part, by the number of rows that are computed together."""

    measured: Mapping[int, Cost]

    def at(self, rows: float) -> Cost:
        if rows <= 0:
            return Cost()
        few, many = min(self.measured), max(self.measured)
        if few == many:
            return self.measured[few] * (rows / few)
        t = (rows - few) / (many - few)
        return self.measured[few] * (1 - t) + self.measured[many] * t


@dataclass
class Rig:
    """What is measured: a painter as a generator, who thinks and who judges, and a prompt."""

    generator: Generator
    thinker: Thinker | None
    judge: Judge | None
    conditions: Conditions
    tokens: int
    """The longest thought."""
    shown: int = 0
    """Pictures that were shown so far."""

    def another(self, picture: Image) -> Image:
        """A copy that nobody has seen: eyes remember pictures."""
        fresh = picture.copy()
        self.shown += 1
        fresh.putpixel((0, 0), (self.shown % 256, self.shown // 256 % 256, 0))
        return fresh

    @classmethod
    def of(cls, painter: Painter, plan: Plan, prompt: str, judge: Any = None) -> Rig:
        from PIL import Image

        from reverie.canvas import Conditions

        context = ((Image.new("RGB", (96, 96), "gray"), "a thing"),) if painter.source.family == "thinkdiff" else ()
        return cls(
            painter.generator(plan),
            painter.thinker(plan),
            painter.bench(plan, judge).judge if plan.judges else None,
            Conditions((prompt,), plan.guidance, contexts=context),
            plan.thought_tokens,
        )

    @property
    def prompt(self) -> str:
        return self.conditions.prompts[0]


def measure(rig: Rig, plan: Plan, rows: int) -> dict[str, Unit]:
    """The parts that a plan needs, for one row and for `rows`."""
    sizes = sorted({1, rows})
    units: dict[str, Unit] = {}
    entered, stepped, shown = {}, {}, {}
    for size in sizes:
        entered[size], stepped[size], canvas = _painting(rig, size)
        shown[size] = _shown(rig, canvas)
    units |= {"enter": Unit(entered), "step": Unit(stepped), "show": Unit(shown)}
    if rig.conditions.contexts:
        alone = replace(rig, conditions=replace(rig.conditions, contexts=()))
        units["alone"] = Unit({1: _painting(alone, 1)[0]})
    picture = _picture(rig, canvas)
    if plan.think != "never" and rig.thinker is not None:
        thinker = rig.thinker
        if plan.interleaved:
            units |= _dialogue(rig, thinker, plan, picture, units["show"])
            units["reenter"] = Unit({1: _reentry(rig, units["step"].at(1))})
            if rig.judge is not None:
                units["critique"] = Unit({1: _asked(rig, "orm", picture, 1)})
        else:
            units["think"] = Unit({1: _of(lambda: thinker.think_batch([rig.prompt], rig.tokens), lambda: thinker.work)})
    if rig.judge is not None and not plan.interleaved:
        for question in _questions(plan):
            units[question] = Unit({size: _asked(rig, question, picture, size) for size in sizes})
        if plan.reflect:
            units["reflect"] = Unit({1: _reflected(rig, picture)})
    return units


def _of(do: Callable[[], object], work: Callable[[], Work]) -> Cost:
    """What `do` costs: once counted, then once timed."""
    from reverie.costs.meter import Meter

    before = replace(work())
    with Meter() as meter:
        do()
    tokens = asdict(work() - before)
    begun = time.perf_counter()
    do()
    return Cost(meter.flop, meter.moved, time.perf_counter() - begun, **tokens)


def _painting(rig: Rig, rows: int) -> tuple[Cost, Cost, Canvas]:
    """Up to the first step, a step after it, and the painted canvas."""
    begun: list[Canvas] = []
    done: list[Canvas] = []
    entered = _of(
        lambda: begun.append(rig.generator.advance(_blank(rig, rows), to=1)),
        lambda: begun[0].work if begun else _none(),
    )
    rest = _of(lambda: done.append(rig.generator.advance(begun[len(done)])), lambda: begun[0].work)
    steps = rig.generator.steps
    return entered, rest * (1 / (steps - 1)) if steps > 1 else entered, done[0]


def _shown(rig: Rig, canvas: Canvas) -> Cost:
    return _of(lambda: rig.generator.preview(canvas), lambda: canvas.work)


def _none() -> Work:
    from reverie.canvas import Work

    return Work()


def _blank(rig: Rig, rows: int) -> Canvas:
    canvas = rig.generator.start(rig.conditions, [0])
    return canvas.fork(rows) if rows > 1 else canvas


def _picture(rig: Rig, canvas: Canvas) -> Image:
    from PIL import Image

    return Image.fromarray(rig.generator.preview(canvas)[0])


def _questions(plan: Plan) -> Sequence[str]:
    return {"orm": ("orm",), "prm": ("prm",), "parm": ("clarity", "potential", "orm")}.get(plan.choose, ())


def _asked(rig: Rig, question: str, picture: Image, rows: int) -> Cost:
    from reverie.judges import View

    judge = rig.judge
    assert judge is not None
    whole = question == "orm"

    def views() -> list[View]:
        made = [View(rig.prompt, rig.another(picture), 1.0 if whole else 0.5) for _ in range(rows)]
        if question == "potential":  # asked of pictures that were found clear, which the judge may remember
            judge.ask("clarity", made)
        return made

    fresh = [views(), views()]
    return _of(lambda: judge.ask(question, fresh.pop()), lambda: judge.work)


def _reflected(rig: Rig, picture: Image) -> Cost:
    from reverie.judges import View

    judge = rig.judge
    assert judge is not None
    return _of(lambda: judge.reflect([View(rig.prompt, rig.another(picture))]), lambda: judge.work)


def _dialogue(rig: Rig, thinker: Thinker, plan: Plan, picture: Image, show: Unit) -> dict[str, Unit]:
    """What is asked while a picture is painted: a first thought, one that looks at it, and a critique; and `show` again
    as `blank` where the first thought looks at the blank canvas."""
    from reverie.during import painting_of, plainly
    from reverie.vlms import Brief, Message

    story = painting_of(rig.generator, thinker, plan, rig.prompt, 0, 0).story
    story.regions = plan.regions or 1

    def asked(texts: Sequence[str], *pictures: Image) -> Unit:
        def ask() -> None:
            shown = tuple(rig.another(one) for one in pictures)
            talks = [[Message("user", plainly(text), shown, story.words.special)] for text in texts]
            thinker.vlm.write_batch(talks, rig.tokens)

        return Unit({1: _of(ask, lambda: thinker.work)})

    first = (picture,) if story.words.look_first else ()
    found = {"think": asked([story.think(1, bool(first))], *first)} | ({"blank": show} if first else {})
    story.heard(rig.prompt)
    story.keep(rig.prompt, False)
    found["think on"] = asked([story.think(2, True)], picture) if story.regions > 1 else found["think"]
    critique = story.judge(rig.prompt, False)
    if isinstance(thinker.vlm, Brief) and story.regions > 1 and plan.judge is None:
        found["critique, think on"] = asked([critique, story.think(2, True)], picture)
    return found | {"critique": asked([critique], picture)}


def _reentry(rig: Rig, step: Cost) -> Cost:
    """A new prompt in front of what is half painted."""
    half = max(1, rig.generator.steps // 2)
    canvases = [rig.generator.advance(_blank(rig, 1), to=half) for _ in range(2)]
    other = replace(rig.conditions, prompts=(f"{rig.prompt}, seen anew",))
    made: list[Canvas] = []

    def again() -> None:
        canvas = rig.generator.recondition(canvases[len(made)], other)
        made.append(rig.generator.advance(canvas, to=min(half + 1, rig.generator.steps)))

    return _of(again, lambda: canvases[0].work) - step
