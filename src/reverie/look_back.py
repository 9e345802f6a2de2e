"""Looking back: a finished image is judged, and painted again by a painter that is told what was wrong with it.

PARM++ (arXiv 2501.13926, section on reflection): after the choice among candidates a judge says whether the image is
what was asked for; if not, the painter gets the prompt, the rejected image and the reason, and the whole search starts
again, for so many rounds at most. `deliberate` is the part of `reason.run` for plans that choose or look back. A
painter that cannot look at pictures is told the reason in words, and the event says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reverie.events import Event, Finished, Preview, Revised, Verdict

if TYPE_CHECKING:
    from PIL import Image

    from reverie.canvas import Generator as GeneratorOfImages
    from reverie.canvas import Work
    from reverie.choose import Kept
    from reverie.judges import Judge, Reflection
    from reverie.reason import Order, Plan, Watch


@dataclass(frozen=True)
class Bench:
    """Who judges, and how a painter is told what was wrong."""

    judge: Judge
    see: str = "{prompt}\n{reason}"
    """What a painter reads beside the flawed picture."""
    words: str = "{prompt} {reason}"
    """What it reads if it sees nothing."""
    edit: str = "{prompt}\n{reason}"
    """What a painter reads that changes the flawed picture."""
    check: Callable[[str, bool], None] = lambda prompt, seen: None
    """ValueError for a text that cannot be painted from, with or without a picture beside it."""


@dataclass
class Round:
    """An image after a round: what was kept of it, and what the judge said."""

    kept: Kept
    number: int
    said: Reflection | None = None

    def to_json(self) -> dict[str, Any]:
        said = self.said
        about = {"candidate": self.kept.candidate, "seed": self.kept.seed, "left": self.kept.left}
        return about | ({"aligned": said.aligned, "reason": said.reason} if said else {})


@dataclass
class Wish:
    """What is painted next for an image, and from what."""

    prompt: str
    seed: int
    picture: Image.Image | None = None
    note: str | None = None


def deliberate(
    generator: GeneratorOfImages,
    bench: Bench,
    plan: Plan,
    order: Order,
    recipes: Sequence[dict[str, Any]],
    images: range,
    watch: Watch,
    batch: int,
) -> Generator[Event, None, tuple[Work, Work]]:
    """Some images of a run, chosen and looked back at; returns their work and that of plain sampling."""
    from reverie.canvas import Work, copy_seed
    from reverie.choose import STRATEGIES, Search, Task, first_look, look_steps
    from reverie.judges.rules import RULES
    from reverie.png import picture_hash

    looks = look_steps(generator.steps, plan.judge_steps)
    search = Search(
        generator, bench.judge, RULES[plan.rules], plan.candidates, looks,
        first_look(looks, plan.judge_from, bench.judge), plan.assess == "every", batch,
    )  # fmt: skip
    total = Work()
    rounds: dict[int, list[Round]] = {i: [] for i in images}
    wishes = {i: Wish(order.prompts[i], order.seeds[i]) for i in images}
    # Where a picture was given, the prompt says how that one is to change, not what is to be seen.
    given = bool(order.conditions(images).pictures)
    changes = not given and getattr(generator, "edits", False) and getattr(generator, "paints", False)
    for number in range(plan.reflect + 1):
        now = list(wishes)
        prompts = tuple(wish.prompt for wish in wishes.values())
        conditions = order.conditions(now, prompts)
        if any(wish.picture for wish in wishes.values()):
            seen = tuple((wish.picture,) if wish.picture else () for wish in wishes.values())
            conditions = replace(conditions, pictures=seen)
        seeds = tuple(wish.seed for wish in wishes.values())
        task = Task(conditions, seeds, tuple(order.prompts[i] for i in now), tuple(now))
        show = _shower(watch, generator.steps, len(order.seeds), number / (plan.reflect + 1), 1 / (plan.reflect + 1))
        kept, work = yield from STRATEGIES[plan.choose](search, task, show)
        total += work
        for i, one in zip(now, kept, strict=True):
            rounds[i].append(Round(one, number))
        if not plan.reflect:
            break
        said = yield from _reflected(bench.judge, order, rounds, now, generator.steps)
        wishes = {}
        for i in [i for i, one in said.items() if not one.aligned and number < plan.reflect]:
            wishes[i] = corrected(plan.correct, bench, generator, order.prompts[i], rounds[i][-1], changes)
            wishes[i].seed = copy_seed(order.seeds[i], -number - 1, 1)  # forks count up, so these are taken by nobody
            yield Revised(i, 0, wishes[i].prompt, said[i].reason or None, wishes[i].note)
        if not wishes:
            break
    last = {i: final(plan.keep, rounds[i]) for i in images}
    shown = {i: ending.kept.picture for i, ending in last.items()}
    yield _shower(watch, generator.steps, len(order.seeds), 0.0, 1.0)(1.0, shown)
    for i, ending in last.items():
        picture = ending.kept.picture
        facts = {"seed": order.seeds[i], "picture": picture_hash(picture), "size": list(picture.size)}
        facts |= {"judge": bench.judge.name, "round": ending.number, "rounds": [r.to_json() for r in rounds[i]]}
        yield Finished(i, picture, order.seeds[i], recipes[i] | facts)
    return total, generator.plain_work(order.conditions(images))


def _reflected(
    judge: Judge, order: Order, rounds: Mapping[int, list[Round]], now: Sequence[int], steps: int
) -> Generator[Event, None, dict[int, Reflection]]:
    """Asks the judge about the latest round of some images, and notes in it what was said."""
    from reverie.judges import View

    views = [View(order.prompts[i], rounds[i][-1].kept.picture) for i in now]
    answers = dict(zip(now, judge.reflect(views), strict=True))
    for view, (i, said) in zip(views, answers.items(), strict=True):
        rounds[i][-1].said = said
        scores = {"aligned": float(said.aligned)} | ({"score": said.score} if math.isfinite(said.score) else {})
        candidate = rounds[i][-1].kept.candidate
        yield Verdict(
            i, judge.name, scores, said.reason or None, candidate, "reflection", steps, view.picture, said.note
        )
    return answers


def corrected(
    how: str, bench: Bench, generator: GeneratorOfImages, prompt: str, flawed: Round, changes: bool = False
) -> Wish:
    """What the painter is told: picture and reason, the reason alone, or nothing new; less where that is too long.
    changes: it paints the flawed picture anew instead of looking at it."""
    reason = flawed.said.reason if flawed.said else ""
    sees = how == "see" and (changes or getattr(generator, "sees", False))
    note = None if sees or how != "see" else "this painter cannot look at a picture; it is told the reason in words"
    if how == "again":
        return Wish(prompt, 0)
    asked = (bench.edit if changes else bench.see) if sees else bench.words
    text = told(asked, prompt, reason)
    picture = flawed.kept.picture if sees else None
    try:
        bench.check(text, sees)
        return Wish(text, 0, picture, note)
    except ValueError as error:
        return Wish(prompt, 0, note=f"the painter could not be told what was wrong: {error}")


def told(wording: str, prompt: str, reason: str) -> str:
    """What a painter is told: `see` or `words` of a wording, filled in."""
    return wording.replace("{reason}", reason).replace("{prompt}", prompt).strip()


def final(keep: str, rounds: Sequence[Round]) -> Round:
    """The round that is kept: the last (an image that satisfies the judge is always the last), or the best."""
    if keep == "last" or rounds[-1].said is None or rounds[-1].said.aligned:
        return rounds[-1]
    return max(rounds, key=lambda r: r.said.score if r.said and math.isfinite(r.said.score) else -math.inf)


def _shower(watch: Watch, steps: int, count: int, before: float, width: float) -> Callable[..., Preview]:
    """Makes previews: the share of a round that is done becomes steps of the whole run."""

    def show(done: float, pictures: Mapping[int, Image.Image]) -> Preview:
        step = watch.before + round(steps * min(1.0, before + width * done))
        shown = tuple(pictures.get(i) for i in range(count)) if watch.previews and pictures else ()
        return Preview(step, watch.steps, shown)

    return show
