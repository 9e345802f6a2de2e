"""Choosing among candidates: programs over canvases that paint several, ask a judge, and keep one.

After "verify and reinforce" (arXiv 2501.13926): best of N by an outcome reward model (`best_of`), step-level search by
a process reward model (`step_by_step`), and PARM (`prune`), which looks at each path until it is clear enough to judge,
stops those without potential, and takes the best of what is left. Unlike the published code, a path that is given up is
painted no further; if none is left, the least hopeless one goes on from where it was stopped, and becomes what it would
have been.

Nothing here knows a generator or a judge by name. Every program is a generator of events and returns what it kept, one
candidate for each image. Rows stand image by image, candidates side by side; `batch` rows are painted at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from reverie.events import Chosen, Event, Preview, Pruned, Verdict
from reverie.judges import Answer, Judge, View
from reverie.judges.rules import Rules, highest, lowest, share

if TYPE_CHECKING:
    from reverie.canvas import Canvas, Conditions, Work
    from reverie.canvas import Generator as GeneratorOfImages

Show = Callable[[float, Mapping[int, Image.Image]], Preview]
"""Makes the event that tells how much of all is done (0 to 1), and what some images look like."""


@dataclass(frozen=True)
class Search:
    """How is searched: who paints, who judges, and how often."""

    generator: GeneratorOfImages
    judge: Judge
    rules: Rules
    candidates: int
    looks: tuple[int, ...]
    """The steps at which unfinished images are looked at; the last is the end."""
    first_look: int = 1
    """The look, counted from 1, from which on clarity is asked about."""
    every: bool = False
    """Whether potential is asked about at each clear look, not only the first."""
    batch: int = 16

    @property
    def asks(self) -> bool:
        """With one candidate there is nothing to choose, and nobody is asked."""
        return self.candidates > 1 or self.rules.ask_the_last_one


@dataclass(frozen=True)
class Task:
    """What a search is about: images to paint, what is asked of them, and their places in the run."""

    conditions: Conditions
    seeds: tuple[int, ...]
    asked: tuple[str, ...]
    """The prompts that a judge is told: those of the user, whatever the painter is told."""
    images: tuple[int, ...]


@dataclass(frozen=True)
class Kept:
    """The candidate that was chosen for an image."""

    picture: Image.Image
    candidate: int
    seed: int
    left: int
    """How many were left to choose from."""
    note: str | None = None


Searching = Generator[Event, None, tuple[list[Kept], "Work"]]


def best_of(search: Search, task: Task, show: Show) -> Searching:
    """All candidates are finished; the highest score wins."""
    n = search.candidates
    whole = search.generator.start(task.conditions, task.seeds).fork(n)
    best: dict[int, Kept] = {}
    top = [-math.inf] * len(task.images)
    for done, share_of_all, rows in _parts(len(whole), search.batch):
        canvas = whole.select(rows)
        for step in search.looks:
            canvas = search.generator.advance(canvas, to=step)
            yield show(done + share_of_all * step / search.looks[-1], {})
        pictures = painted(search.generator, canvas)
        views = [View(task.asked[row // n], picture) for row, picture in zip(rows, pictures, strict=True)]
        answers = search.judge.ask("orm", views) if search.asks else [Answer(score=0.0)] * len(views)
        for place, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            image, score = row // n, search.rules.score(answer)
            if search.asks:
                yield verdict(search, task, row, "orm", answer, views[place], canvas.step)
            if image not in best or score > top[image]:
                top[image] = score
                best[image] = Kept(pictures[place], row % n, canvas.seeds[place], n)
        yield show(done + share_of_all, {task.images[i]: kept.picture for i, kept in best.items()})
    kept = [best[i] for i in range(len(task.images))]
    yield from _told(task, kept if search.asks else [])
    return kept, whole.work


def step_by_step(search: Search, task: Task, show: Show) -> Searching:
    """One path for each image: at every look it is continued in N ways, and the best continuation is kept."""
    canvas = search.generator.start(task.conditions, task.seeds)
    picked, pictures = [0] * len(canvas), list[Image.Image]()
    for number, step in enumerate(search.looks, 1):
        if not search.asks:
            canvas = search.generator.advance(canvas, to=step)
        else:
            canvas, picked, pictures = yield from _continued(search, task, canvas, step)
        yield show(number / len(search.looks), {})
    pictures = pictures or painted(search.generator, canvas)
    kept = [Kept(picture, picked[i], canvas.seeds[i], search.candidates) for i, picture in enumerate(pictures)]
    yield from _told(task, kept if search.asks else [])
    return kept, canvas.work


def _continued(
    search: Search, task: Task, canvas: Canvas, step: int
) -> Generator[Event, None, tuple[Canvas, list[int], list[Image.Image]]]:
    """All images at `step`, each in the best of N continuations, which those were, and what they show.

    The continuations of a single image may be painted a few at a time; those of several images are painted at once.
    """
    size = search.candidates if len(canvas) > 1 else min(search.candidates, search.batch)
    kept, picked, best, top = canvas, [0], list[Image.Image](), -math.inf
    for first in range(0, search.candidates, size):
        copies = min(size, search.candidates - first)
        part = search.generator.advance(canvas.fork(copies, first), to=step)
        pictures, done = painted(search.generator, part), step / search.looks[-1]
        views = [View(task.asked[row // copies], picture, done) for row, picture in enumerate(pictures)]
        scores = []
        for row, answer in enumerate(search.judge.ask("prm", views)):
            shown = row // copies * search.candidates + first + row % copies
            yield verdict(search, task, shown, "prm", answer, views[row], step)
            scores.append(search.rules.score(answer))
        starts = range(0, len(part), copies)
        winners = [start + highest(scores[start : start + copies]) for start in starts]
        if first == 0 or scores[winners[0]] > top:
            top = scores[winners[0]]
            picked, kept = [first + row % copies for row in winners], part.select(winners)
            best = [pictures[row] for row in winners]
    return kept, picked, best


@dataclass
class Path:
    """A candidate of PARM on its way."""

    row: int
    clear: int | None = None
    """The look at which it was first found clear."""
    kept: bool = False
    number: float = 0.0
    canvas: Any = None
    """Where it was stopped, or its end; without cache."""
    picture: Any = None
    """What it is at its end, once somebody has looked."""


def prune(search: Search, task: Task, show: Show) -> Searching:
    """PARM: clarity, potential, then the best of the paths that are left."""
    if not search.asks:
        return (yield from best_of(search, task, show))
    n = search.candidates
    whole = search.generator.start(task.conditions, task.seeds).fork(n)
    paths: list[Path] = []
    for done, share_of_all, rows in _parts(len(whole), search.batch):
        walk = _walk(search, task, whole.select(rows), rows)
        paths += yield from _shown(walk, show, done, 0.95 * share_of_all, search.looks)
    kept = []
    for image in range(len(task.images)):
        kept.append((yield from _best_path(search, task, paths[image * n : (image + 1) * n])))
        yield show(0.95 + 0.05 * (image + 1) / len(task.images), {task.images[image]: kept[-1].picture})
    yield from _told(task, kept)
    return kept, whole.work


def _walk(search: Search, task: Task, canvas: Canvas, rows: Sequence[int]) -> Generator[Event | int, None, list[Path]]:
    """Paints one batch of candidates and stops those that are rejected. Yields events, and each step that is done."""
    paths = [Path(row) for row in rows]
    live = list(paths)
    for number, step in enumerate(search.looks, 1):
        canvas = search.generator.advance(canvas, to=step)
        yield step
        asked = [i for i, path in enumerate(live) if search.every or path.clear is None]
        if number < search.first_look or not asked:
            continue
        yield from _assess(search, task, without_cache(canvas).select(asked), [live[i] for i in asked], number)
        dropped = [i for i in asked if live[i].clear is not None and not live[i].kept]
        if not dropped:
            continue
        n = search.candidates
        for i in dropped:
            live[i].canvas = without_cache(canvas).select([i])
        gone = [live[i].row for i in dropped]
        yield Pruned(tuple(task.images[row // n] for row in gone), step, tuple(row % n for row in gone))
        left = [i for i in range(len(live)) if i not in dropped]
        canvas, live = canvas.select(left), [live[i] for i in left]
        if not live:
            break
    for i, path in enumerate(live):
        path.canvas = without_cache(canvas).select([i])
        if path.clear is None:
            path.kept, path.number = search.rules.potential(None)
    # Together, and once: tokenizers decode a fixed number of pictures at a time, however few there are.
    unseen = [i for i, path in enumerate(live) if path.kept and path.picture is None]
    pictures = painted(search.generator, without_cache(canvas).select(unseen)) if unseen else []
    for i, picture in zip(unseen, pictures, strict=True):
        live[i].picture = picture
    return paths


def _assess(search: Search, task: Task, canvas: Canvas, paths: list[Path], number: int) -> Iterator[Event]:
    """Asks about clarity, then about the potential of what is clear; notes both in the paths."""
    done, n = canvas.step / search.looks[-1], search.candidates
    pictures = painted(search.generator, canvas)
    views = [View(task.asked[path.row // n], picture, done) for path, picture in zip(paths, pictures, strict=True)]
    if canvas.step == search.looks[-1]:
        for path, picture in zip(paths, pictures, strict=True):
            path.picture = picture
    answers = search.judge.ask("clarity", views)
    clear = [i for i, answer in enumerate(answers) if search.rules.clear(answer)]
    for i, (path, answer) in enumerate(zip(paths, answers, strict=True)):
        yield verdict(search, task, path.row, "clarity", answer, views[i], canvas.step, i in clear)
    hopes = search.judge.ask("potential", [views[i] for i in clear]) if clear else []
    for i, answer in zip(clear, hopes, strict=True):
        path = paths[i]
        path.clear = path.clear or number
        path.kept, path.number = search.rules.potential(answer)
        yield verdict(search, task, path.row, "potential", answer, views[i], canvas.step, path.kept)


def _best_path(search: Search, task: Task, paths: list[Path]) -> Generator[Event, None, Kept]:
    """The best of the survivors of one image; without any, the rejected path with the lowest number, resumed."""
    survivors = [path for path in paths if path.kept]
    if not survivors:
        path = paths[lowest([path.number for path in paths])]
        stopped = path.canvas.step
        note = f"the judge gave up all {len(paths)} candidates; the one with the best prospects is kept"
        if stopped < search.looks[-1]:
            note += f", and went on from step {stopped}"
        canvas = search.generator.advance(path.canvas)
        picture = path.picture or painted(search.generator, canvas)[0]
        return Kept(picture, path.row % search.candidates, canvas.seeds[0], 0, note)
    if len(survivors) == 1 and not search.rules.ask_the_last_one:
        path = survivors[0]
    else:
        scores: list[float] = []
        for first in range(0, len(survivors), search.batch):
            part = survivors[first : first + search.batch]
            views = [View(task.asked[path.row // search.candidates], path.picture) for path in part]
            answers = search.judge.ask("orm", views)
            for path, view, answer in zip(part, views, answers, strict=True):
                yield verdict(search, task, path.row, "orm", answer, view, search.looks[-1])
            scores += [search.rules.score(answer) for answer in answers]
        path = survivors[highest(scores)]
    return Kept(path.picture, path.row % search.candidates, path.canvas.seeds[0], len(survivors))


STRATEGIES: dict[str, Callable[[Search, Task, Show], Searching]] = {
    "first": best_of,
    "orm": best_of,
    "prm": step_by_step,
    "parm": prune,
}


# ---------------------------------------------------------------------------------------------- what they share


def look_steps(steps: int, looks: int) -> tuple[int, ...]:
    """The steps at which to look: `looks` equal pieces, fewer if there are fewer steps; the last is the end."""
    looks = min(looks, steps)
    return tuple(steps * number // looks for number in range(1, looks + 1))


def first_look(looks: Sequence[int], wanted: int | None, judge: Judge) -> int:
    """The look, from 1, from which on clarity is asked about: as wanted, or else the first at which so much is painted
    as the judge needs to say yes (`clear_from`, a share; all that a judge knows of itself)."""
    if wanted is not None:
        return min(wanted, len(looks))
    least = getattr(judge, "clear_from", 0.0)
    return next(number for number, step in enumerate(looks, 1) if step >= least * looks[-1] or step == looks[-1])


def painted(generator: GeneratorOfImages, canvas: Canvas) -> list[Image.Image]:
    return [Image.fromarray(array) for array in generator.preview(canvas)]


def without_cache(canvas: Canvas) -> Canvas:
    """The same canvas, from which parts can be taken while the cache stays with the original."""
    return replace(canvas, cache=None)


def verdict(
    search: Search,
    task: Task,
    row: int,
    question: str,
    answer: Answer,
    view: View,
    step: int,
    passed: bool | None = None,
) -> Verdict:
    """What a judge said, as an event. Numbers that are none are left out: JSON has no word for them."""
    numbers = {"score": share(answer)} | ({"yes": answer.yes, "no": answer.no} if answer.score is None else {})
    scores = {name: value for name, value in numbers.items() if math.isfinite(value)}
    scores |= {} if passed is None else {"passed": float(passed)}
    image, candidate = task.images[row // search.candidates], row % search.candidates
    return Verdict(
        image, search.judge.name, scores, answer.reason, candidate, question, step, view.picture, answer.note
    )


def _parts(rows: int, size: int) -> Iterator[tuple[float, float, list[int]]]:
    """Rows in groups of `size`: the share of all that comes before a group, its own share, the group."""
    for first in range(0, rows, size):
        group = list(range(first, min(first + size, rows)))
        yield first / rows, len(group) / rows, group


def _shown(
    walk: Generator[Event | int, None, list[Path]], show: Show, done: float, width: float, looks: Sequence[int]
) -> Generator[Event, None, list[Path]]:
    """Turns the steps that a walk reports into previews of progress."""
    while True:
        try:
            told = next(walk)
        except StopIteration as end:
            return end.value
        yield show(0.95 * done + width * told / looks[-1], {}) if isinstance(told, int) else told


def _told(task: Task, kept: Sequence[Kept]) -> Iterator[Event]:
    for image, one in zip(task.images, kept, strict=False):
        yield Chosen(image, one.candidate, one.seed, one.left, one.note)
