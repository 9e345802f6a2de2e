"""What judges learn from, made from painted paths: ranking, steps, potential, reflection.

After "Can We Generate Images with CoT?" (arXiv 2501.13926), whose authors released none of it:

- `ranking` (ORM): each finished image, and whether it is right.
- `steps` (PRM): each unfinished image of one path a prompt; right if any of k completions is (hard estimate, k = 4, as
  in Math-Shepherd). The path's own end is the first of them, so k - 1 are painted. The share of right ones is kept too.
- `potential` (PARM): clarity by how far an image is painted, potential by the end of its path as the second turn behind
  a clear one, and finished images; 120 : 80 : 200 as published.
- `reflection` (PARM++): what is wrong with images that are wrong, and some that are right; 80 : 20.

Everything that is drawn here depends on the seed and the shard alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..choose import look_steps, painted, without_cache
from ..judges import View
from ..judges.rules import passes
from .records import Record, asked, save_pictures

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..canvas import Canvas
    from ..canvas import Generator as GeneratorOfImages
    from ..judges import Judge
    from ..judges.vlm import Wording
    from .paths import Label, Shard

Found = Iterator[tuple[Record, "Image | None"]]


@dataclass(frozen=True)
class VerifierData:
    """How records are drawn. looks: points of a path at which it is seen unfinished (18, as Show-o's steps)."""

    looks: int = 18
    rollouts: int = 4
    """Completions of an unfinished image, for `steps`."""
    paths: int = 1
    """Paths of each prompt whose steps are labelled."""
    clear_after: float = 11 / 18
    """An image of which more is painted than this counts as clear."""
    unclear_before: float = 10 / 18
    """One of which less is painted counts as unclear; what lies between is left out."""
    clarity: float = 0.6
    """Clarity records for each path; with `potential` and `best` 120 : 80 : 200, as published."""
    potential: float = 0.4
    best: float = 1.0
    wrong: float = 0.8
    """Share of wrong images among the reflections."""
    batch: int = 64
    seed: int = 0
    copies: int = 3
    """Damaged copies of each image, for `damaged`."""

    def __post_init__(self) -> None:
        if min(self.looks, self.rollouts, self.paths, self.batch, self.copies) < 1:
            raise ValueError("looks, rollouts, paths, batch and copies must be at least 1.")
        if not 0 < self.unclear_before <= self.clear_after < 1:
            raise ValueError(
                f"unclear_before={self.unclear_before}, clear_after={self.clear_after}: must rise between 0 and 1."
            )
        if not 0 <= self.wrong <= 1 or min(self.clarity, self.potential, self.best) < 0:
            raise ValueError("wrong is a share between 0 and 1; clarity, potential and best are at least 0.")


@dataclass(frozen=True)
class Builder:
    """Makes the records of a shard; `kind` is a key of KINDS."""

    kind: str
    generator: GeneratorOfImages
    judge: Judge
    wording: Wording
    folder: Path
    config: VerifierData

    def records(self, shard: Shard) -> list[Record]:
        return save_pictures(self.folder, KINDS[self.kind](self, shard))

    @property
    def steps(self) -> tuple[int, ...]:
        return look_steps(self.generator.steps, self.config.looks)

    def rng(self, shard: Shard) -> random.Random:
        return random.Random(f"{self.kind}/{self.config.seed}/{shard.number}")

    def finished(self, canvas: Canvas, rows: Sequence[int]) -> list[Image]:
        return painted(self.generator, without_cache(canvas).select(rows))

    def unfinished(self, canvas: Canvas, rows: Sequence[int], step: int) -> list[Image]:
        return painted(self.generator, self.generator.rewind(without_cache(canvas).select(rows), step))

    def record(
        self, shard: Shard, row: int, task: str, question: str, answer: str, step: int | None = None, **extra: object
    ) -> Record:
        """About one image of a shard, at a step or finished; `question` names a part of the wording."""
        label = shard.labels[row]
        place = f"{shard.number:06}-{row:03}"
        name = f"{place}.png" if step is None else f"{place}-{step:03}.png"
        where = {"shard": shard.number, "row": row, "step": step, "seed": label.seed}
        turns = asked(self.wording, question, label.prompt, answer)
        return Record(f"{task}-{Path(name).stem}", task, label.prompt, f"images/{name}", turns, where | extra)


def yes_no(right: bool) -> str:
    return "yes" if right else "no"


def ranking(build: Builder, shard: Shard, task: str = "orm", share: float = 1.0) -> Found:
    rows = _some(build.rng(shard), range(len(shard.labels)), share * len(shard.labels))
    for row, picture in zip(rows, build.finished(shard.canvas(), rows), strict=True):
        label = shard.labels[row]
        yield build.record(shard, row, task, "orm", yes_no(label.right), score=label.score), picture


def steps(build: Builder, shard: Shard) -> Found:
    rows = [row for row, label in enumerate(shard.labels) if label.number < build.config.paths]
    canvas = shard.canvas()
    for number, step in enumerate(build.steps, 1):
        if not rows:
            return
        ends = _ends(build, shard, canvas, rows, number, step)
        shown = build.unfinished(canvas, rows, step)
        for row, right, picture in zip(rows, ends, shown, strict=True):
            soft = sum(right) / len(right)
            yield build.record(shard, row, "prm", "prm", yes_no(any(right)), step, soft=soft), picture


def _ends(
    build: Builder, shard: Shard, canvas: Canvas, rows: Sequence[int], number: int, step: int
) -> list[list[bool]]:
    """For each row, whether its own end is right and those of completions that leave it at `step`."""
    found = [[shard.labels[row].right] for row in rows]
    others = build.config.rollouts - 1
    if step == build.steps[-1] or others == 0:
        return found
    at_once = max(1, build.config.batch // others)
    for first in range(0, len(rows), at_once):
        part = rows[first : first + at_once]
        begun = build.generator.rewind(without_cache(canvas).select(part), step)
        # Copies count from 1: copy 0 is the path itself. `forks` keeps the seeds of the looks apart.
        forked = replace(begun, forks=number).fork(others, first=1)
        pictures = painted(build.generator, build.generator.advance(forked))
        prompts = [shard.labels[row].prompt for row in part for _ in range(others)]
        answers = build.judge.ask("orm", [View(p, x) for p, x in zip(prompts, pictures, strict=True)])
        for place, answer in enumerate(answers):
            found[first + place // others].append(passes(answer))
    return found


def potential(build: Builder, shard: Shard) -> Found:
    """Clarity, potential, then best of N'."""
    config, rng, labels, canvas = build.config, build.rng(shard), shard.labels, shard.canvas()
    last = build.steps[-1]
    clear = [step for step in build.steps if config.clear_after < step / last < 1]
    muddled = [step for step in build.steps if step / last < config.unclear_before]
    if not clear or not muddled:
        raise ValueError(f"looks={config.looks}: none is clearly before and after the middle; take more looks.")
    drawn: dict[int, list[tuple[str, int]]] = {}
    count = round(config.clarity * len(labels))
    for place, row in enumerate(rng.choices(range(len(labels)), k=count)):
        drawn.setdefault(rng.choice(clear if place % 2 else muddled), []).append(("clarity", row))
    for row in rng.choices(range(len(labels)), k=round(config.potential * len(labels))):
        drawn.setdefault(rng.choice(clear), []).append(("potential", row))
    for step, wanted in sorted(drawn.items()):
        wanted = sorted(set(wanted))
        rows = sorted({row for _, row in wanted})
        pictures: dict[int, Image | None] = dict(zip(rows, build.unfinished(canvas, rows, step), strict=True))
        for task, row in wanted:
            answer = labels[row].right if task == "potential" else step in clear
            yield build.record(shard, row, task, task, yes_no(answer), step), pictures[row]
            pictures[row] = None
    yield from ranking(build, shard, share=config.best)


def reflection(build: Builder, shard: Shard) -> Found:
    rng, labels = build.rng(shard), shard.labels
    wrong = [row for row, label in enumerate(labels) if not label.right]
    right = [row for row, label in enumerate(labels) if label.right]
    share = build.config.wrong
    # As many of each as the proportion allows.
    most = min(len(wrong) / share if share else math.inf, len(right) / (1 - share) if share < 1 else math.inf)
    rows = sorted(_some(rng, wrong, share * most) + _some(rng, right, (1 - share) * most))
    pictures = build.finished(shard.canvas(), rows) if rows else []
    reasons = reasons_of(build.judge, [labels[row] for row in rows], pictures)
    for row, picture, reason in zip(rows, pictures, reasons, strict=True):
        if labels[row].right or reason:
            answer = "yes" if labels[row].right else f"no. {reason}"
            yield build.record(shard, row, "reflection", "reflection", answer), picture


def reasons_of(judge: Judge, labels: Sequence[Label], pictures: Sequence[Image]) -> list[str]:
    """What is wrong with each image: as its label says, or else as the judge says now; empty where nothing is."""
    silent = [i for i, label in enumerate(labels) if not label.right and not label.reason]
    said = judge.reflect([View(labels[i].prompt, pictures[i]) for i in silent]) if silent else []
    now = {i: one.reason for i, one in zip(silent, said, strict=True)}
    return [now.get(i, label.reason if not label.right else "") for i, label in enumerate(labels)]


def _some(rng: random.Random, rows: Sequence[int], count: float) -> list[int]:
    """`count` of the rows in their order; of a fraction of one, by chance."""
    whole = math.floor(count + rng.random()) if count != round(count) else round(count)
    return sorted(rng.sample(list(rows), min(len(rows), whole)))


KINDS: dict[str, Callable[[Builder, Shard], Found]] = {
    "ranking": ranking,
    "steps": steps,
    "potential": potential,
    "reflection": reflection,
}
