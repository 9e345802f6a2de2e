"""Roll-outs of thinking while painting: a thought before each region, perhaps a critique after it and the region again.

TWIG-GRPO (arXiv 2511.16671): one roll-out is the whole loop, one reward of the finished picture pays every pass of it,
text and image alike. A region that its critique rejects is marked, so that `Credit` may leave it out; the published
text reinforces every pass. Requests, canvases and the texts that regions are painted from are those of inference
(during.py, dialogue.py), and all paths of a batch walk side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from ..canvas import Canvas, Conditions
from ..dialogue import Story, dialogue
from ..during import plainly
from ..schedule import bands
from ..vlms import Message
from .janus_policy import JanusPolicy
from .rollout import Path
from .tree import Segment


@dataclass
class Walk:
    """One picture on its way."""

    path: Path
    story: Story
    thought: str = ""
    picture: Image.Image | None = None
    text: str = ""
    written: list[Segment] = field(default_factory=list)

    def add(self, segment: Segment) -> None:
        self.written.append(segment)
        self.path = replace(self.path, segments=(*self.path.segments, segment))


@dataclass
class StoryWriter:
    """A `Writer` (see rollout.py). `thinker` and `artist` are one policy, or two views of one network: the questions
    and prompts of both are told here, region by region.

    rounds: how often a region may be painted again; 0 writes no critiques. threshold: the score that accepts."""

    policy: JanusPolicy
    wording: str
    regions: int = 3
    rounds: int = 0
    threshold: float = 90.0
    critique_tokens: int = 96

    def __call__(self, paths: Sequence[Path]) -> list[list[Segment]]:
        painter = self.policy.painter
        walks = [Walk(path, Story(dialogue(self.wording), path.prompt, self.regions)) for path in paths]
        self._look(walks)
        start = 0
        for number, end in enumerate(bands((1,) * self.regions, painter.steps, painter.row), 1):
            self._think(walks, number)
            self._paint(walks, end - start, again=False)
            waiting = walks
            for _ in range(self.rounds):
                waiting = self._judged(waiting, number == self.regions)
                if not waiting:
                    break
                self._paint(waiting, end - start, again=True)
            for walk in walks:
                walk.story.keep(walk.thought, again=False)
            start = end
        return [walk.written for walk in walks]

    def _think(self, walks: Sequence[Walk], number: int) -> None:
        looks = number > 1 or walks[0].story.words.look_first
        asked = {
            id(walk.path): Message(
                "user", plainly(walk.story.think(number, looks)), (walk.picture,) if looks and walk.picture else ()
            )
            for walk in walks
        }
        found = self._asking(walks, asked)
        for walk, (segment,) in zip(walks, found, strict=True):
            walk.add(segment)
            answer = self.policy.eyes.tokenizer.decode(segment.actions.tolist())
            walk.thought = walk.story.heard(answer) or walk.story.prompt

    def _paint(self, walks: Sequence[Walk], length: int, again: bool) -> None:
        texts = {id(walk.path): walk.story.painting(walk.thought, again) for walk in walks}
        artist = replace(self.policy, prompt=lambda path: texts[id(path)])
        for walk, (segment,) in zip(walks, artist.paint([walk.path for walk in walks], length), strict=True):
            walk.add(segment)
        self._look(walks)

    def _judged(self, walks: Sequence[Walk], last: bool) -> list[Walk]:
        """Writes critiques; those whose region is rejected, with what is painted instead."""
        asked = {
            id(walk.path): Message("user", plainly(walk.story.judge(walk.thought, last)), (walk.picture,))
            for walk in walks
            if walk.picture is not None
        }
        rejected = []
        for walk, (segment,) in zip(walks, self._asking(walks, asked, self.critique_tokens), strict=True):
            painted = walk.written[-1]
            walk.add(segment)
            answer = self.policy.eyes.tokenizer.decode(segment.actions.tolist()).strip()
            read = walk.story.read(answer, walk.thought)
            if read.score < self.threshold and read.revision:
                painted.rejected = True
                walk.thought = walk.story.heard(read.revision)
                rejected.append(walk)
        return rejected

    def _asking(
        self, walks: Sequence[Walk], asked: dict[int, Message], limit: int | None = None
    ) -> list[list[Segment]]:
        thinker = replace(self.policy, question=lambda path: [asked[id(path)]], limit=limit or self.policy.limit)
        return thinker.think([walk.path for walk in walks])

    def _look(self, walks: Sequence[Walk]) -> None:
        """What each canvas looks like now; previews of all at once."""
        painter = self.policy.painter
        canvas = Canvas.blank(Conditions(("",) * len(walks)), [0] * len(walks), painter.steps, painter.fill)
        for row, walk in zip(canvas.tokens, walks, strict=True):
            codes = self.policy.codes(walk.path)
            row[: len(codes)] = codes
        for walk, picture in zip(walks, painter.preview(canvas), strict=True):
            walk.picture = Image.fromarray(picture)
