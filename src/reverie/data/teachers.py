"""Who writes stories: the Atelier, which knows the truth, or any VLM with any painter, as published.

The published data (arXiv 2511.16671) are GPT-4o's: sub-captions from the prompt, a picture from all of them together, a
score and a better sub-caption for each region of it, and a filter that the paper does not name. `VlmTeacher` does this
with any models: the requests are those of dialogue.yaml, partial canvases look as they do at inference, and a judge may
filter. `AtelierTeacher` writes thoughts and critiques from the scene itself, half of them about a scene that is wrong.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..canvas import Conditions
from ..choose import painted, without_cache
from ..dialogue import Story, dialogue
from ..judges import View
from ..judges.rules import passes
from ..schedule import bands
from ..vlms import VLM, Message
from .stories import Critique, Made, Told

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..canvas import Canvas
    from ..canvas import Generator as GeneratorOfImages
    from ..judges import Judge
    from .prompts import Prompt

THOUGHT_TOKENS = 128
CRITIQUE_TOKENS = 256
LITTLE_WORDS = ("a", "an", "the", "one", "of", "with", "for", "to", "me", "my", "this", "here", "is", "now", "in", "by")
"""Of heads that nobody has taught (`unheard_words`)."""


@dataclass
class AtelierTeacher:
    """Scenes of training demands. `encode`: pixels (B, 3, H, W) in [-1, 1] to codes (B, L), as the learner paints them.
    regions: of a picture, or several numbers to draw from. wrong: share of critiques about a scene that is not what was
    asked. exercises: share of demands that are as complex as those of `atelier-compbench`. unheard: share of prompts
    that stand behind words that nobody has taught; thoughts about them name the same things as ever."""

    encode: Any
    steps: int
    row: int
    regions: int | tuple[int, ...] = 3
    wrong: float = 0.5
    side: int = 96
    seed: int = 0
    exercises: float = 0.6
    unheard: float = 0.0
    name: str = "atelier"
    wording: str = "story"
    """Of the requests that its answers belong to (dialogue.yaml)."""

    def teach(self, numbers: Sequence[int]) -> list[Made | None]:
        from ..atelier.draw import draw

        told, scenes = [], []
        for number in numbers:
            record, scene, judged = self._tell(number)
            told.append(record)
            scenes += [scene, judged]
        pictures = np.stack([np.asarray(draw(scene, self.side)) for scene in scenes])
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            codes = self.encode(pixels).cpu()
        return [Made(one, codes[2 * i], codes[2 * i + 1]) for i, one in enumerate(told)]

    def draw(self, number: int) -> tuple[Told, Tensor, Tensor]:
        """The record of a story, and its picture and the judged one as pixels (3, H, W) uint8."""
        from ..atelier.draw import draw

        told, scene, judged = self._tell(number)
        first = np.asarray(draw(scene, self.side))
        second = first if judged is scene else np.asarray(draw(judged, self.side))
        return told, _pixels(first), _pixels(second)

    def _tell(self, number: int) -> tuple[Told, Any, Any]:
        from ..atelier.exercises import exercise
        from ..atelier.faults import cannot_become, score
        from ..atelier.language import canonical, say
        from ..atelier.lessons import band_words, spoiled
        from ..atelier.sample import compose

        rng = random.Random(f"stories/{self.seed}/{number}")
        demand = exercise(rng, self.exercises)
        regions = self.regions if isinstance(self.regions, int) else rng.choice(self.regions)
        prompt = say(demand, rng, rng.choice(("terse", "plain")), split="train")
        if self.unheard and rng.random() < self.unheard:
            prompt = f"{unheard_words(rng)} {canonical(demand)}"
        scene = compose(demand, rng)
        judged = spoiled(demand, rng) if rng.random() < self.wrong else scene
        ends = bands((1,) * regions, self.steps, self.row)
        shares = [0.0, *(end / self.steps for end in ends)]
        thoughts = [band_words(scene, low, high) for low, high in itertools.pairwise(shares)]
        critiques = []
        for place, (thought, share) in enumerate(zip(thoughts, shares[1:], strict=True)):
            reasons = cannot_become(demand, judged, share)
            points = float(score(demand, judged)) if reasons else 100.0
            if place < regions - 1:
                answer = f"No. {reasons[0]}" if reasons else "Yes."
            else:
                answer = f"SCORE: {score(demand, judged)}\nIMPROVED_DESCRIPTION: {canonical(demand)}"
            critiques.append(Critique(points, thought, answer))
        told = Told(f"{number:06}", prompt, ends, tuple(thoughts), tuple(critiques))
        return told, scene, judged


def unheard_words(rng: random.Random) -> str:
    """One to four words, some of them made up: "a tofi of", "momu me". Never a wording that benchmarks keep back."""
    from ..atelier.language_parse import HELD_OUT_HEADS

    while True:
        words = [
            rng.choice(LITTLE_WORDS)
            if rng.random() < 0.5
            else "".join(rng.choice("bdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(1, 3)))
            for _ in range(rng.randint(1, 4))
        ]
        if " ".join(words) not in HELD_OUT_HEADS:
            return " ".join(words)


def _pixels(picture: np.ndarray) -> Tensor:
    """(H, W, 3) to (3, H, W)."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)


@dataclass
class VlmTeacher:
    """`vlm` writes, `generator` paints, and `judge`, if there is one, lets pass what fits its prompt."""

    vlm: VLM
    generator: GeneratorOfImages
    prompts: Sequence[Prompt]
    wording: str = "instruct"
    regions: int = 3
    guidance: float | None = None
    judge: Judge | None = None
    seed: int = 0
    name: str = "vlm"

    @property
    def ends(self) -> tuple[int, ...]:
        """The step at which each region ends."""
        return bands((1,) * self.regions, self.generator.steps, getattr(self.generator, "row", 1))

    def teach(self, numbers: Sequence[int]) -> list[Made | None]:
        stories = [Story(dialogue(self.wording), self.prompts[number].text, self.regions) for number in numbers]
        for region in range(1, self.regions + 1):
            asked = [[Message("user", story.think(region, shown=False))] for story in stories]
            for story, answer in zip(stories, self.vlm.write_batch(asked, THOUGHT_TOKENS), strict=True):
                story.keep(story.heard(answer) or story.prompt, again=False)
        canvas = self._paint(stories, numbers)
        good = self._passed(stories, canvas)
        critiques = self._critiques(stories, canvas, [i for i, passed in enumerate(good) if passed])
        codes = self._codes(canvas)
        made: list[Made | None] = []
        for place, (number, story) in enumerate(zip(numbers, stories, strict=True)):
            if not good[place]:
                made.append(None)
                continue
            told = Told(f"{number:06}", story.prompt, self.ends, tuple(story.thoughts), critiques[place])
            made.append(Made(told, codes[place], codes[place]))
        return made

    def _paint(self, stories: Sequence[Story], numbers: Sequence[int]) -> Canvas:
        """All thoughts of a picture together, as one prompt."""
        from ..benchmarks.protocol import image_seed

        texts = []
        for story in stories:
            last = story.thoughts.pop()
            texts.append(story.painting(last, again=False))
            story.keep(last, again=False)
        seeds = [image_seed(self.seed, self.prompts[number].text, 0) for number in numbers]
        return self.generator.advance(self.generator.start(Conditions(tuple(texts), self.guidance), seeds))

    def _passed(self, stories: Sequence[Story], canvas: Canvas) -> list[bool]:
        if self.judge is None:
            return [True] * len(stories)
        pictures = painted(self.generator, canvas)
        views = [View(story.prompt, picture) for story, picture in zip(stories, pictures, strict=True)]
        return [passes(answer) for answer in self.judge.ask("orm", views)]

    def _critiques(
        self, stories: Sequence[Story], canvas: Canvas, rows: Sequence[int]
    ) -> dict[int, tuple[Critique, ...]]:
        """Of each region, looking at the canvas as it was when the region was done."""
        found: dict[int, list[Critique]] = {row: [] for row in rows}
        for number, end in enumerate(self.ends, 1):
            if not rows:
                break
            shown = self._shown(canvas, rows, end)
            asked = []
            for row, picture in zip(rows, shown, strict=True):
                known = Story(
                    stories[row].words, stories[row].prompt, self.regions, stories[row].thoughts[: number - 1]
                )
                request = known.judge(stories[row].thoughts[number - 1], number == self.regions)
                asked.append([Message("user", request, (picture,))])
            for row, answer in zip(rows, self.vlm.write_batch(asked, CRITIQUE_TOKENS), strict=True):
                thought = stories[row].thoughts[number - 1]
                read = stories[row].read(answer, thought)
                found[row].append(Critique(read.score, read.revision or thought, answer.strip()))
        return {row: tuple(critiques) for row, critiques in found.items()}

    def _shown(self, canvas: Canvas, rows: Sequence[int], end: int) -> list[Image]:
        part = without_cache(canvas).select(rows)
        return painted(self.generator, part if end == self.generator.steps else self.generator.rewind(part, end))

    def _codes(self, canvas: Canvas) -> Tensor:
        from .paths import codes_of

        return codes_of(self.generator, canvas)
