"""Vectors in the place of a T5's: a diffusion pipeline paints from them, and the inspector says what it sees.

The last judge of `align_report.py`, and the one that counts: nothing that was aligned has met this painter.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ..atelier.episode_pictures import detail_of
from ..atelier.episodes import Episode, theme_of
from ..atelier.inspector import Inspector
from ..atelier.scene import Scene
from ..canvas import Conditions
from ..models.thinkdiff import Condition


class Drawing:
    """Paints rows of vectors, each from a seed of its own: the number of its row."""

    def __init__(self, pipeline: str | Path, inspector: str | Path, together: int = 8):
        """pipeline: a folder of diffusers that reads through a T5; inspector: a folder of weights."""
        from ..generators.thinkdiff import ThinkDiffPainter
        from ..models.diffusion_checkpoint import load_pipeline, read_index

        index = read_index(Path(pipeline))
        if index is None:
            raise ValueError(f"{pipeline} holds no diffusion pipeline; give a folder with a model_index.json.")
        own = {name: index["_reverie"][name] for name in ("guidance", "steps", "height", "width", "limit")
               if name in index.get("_reverie", {})}  # fmt: skip
        self.rows: list[Tensor] = []
        self.painter = ThinkDiffPainter(load_pipeline(Path(pipeline)), self._condition, together=together, **own)
        self.inspector = Inspector.load(inspector)

    def paint(self, vectors: Tensor, mask: Tensor, batch: int = 32) -> list[Image.Image]:
        """(B, L, D) and 0/1 (B, L) to B pictures; padding is left out, as the painter knows no mask."""
        self.rows = [row[real.bool()] for row, real in zip(vectors, mask, strict=True)]
        pictures = []
        for first in range(0, len(self.rows), batch):
            numbers = range(first, min(first + batch, len(self.rows)))
            # Every row is a context of its own, so that the painter asks for its condition.
            asked = Conditions(("",) * len(numbers), contexts=tuple((str(number),) for number in numbers))
            canvas = self.painter.advance(self.painter.start(asked, list(numbers)))
            pictures += [Image.fromarray(pixels) for pixels in self.painter.preview(canvas)]
        return pictures

    def __call__(self, vectors: Tensor, mask: Tensor, episodes: Sequence[Episode]) -> list[tuple[bool, bool]]:
        """(object right, detail right) of what is painted for each episode."""
        sightings = self.inspector.look(self.paint(vectors, mask))
        return [shown_right(seen.to_scene(), one) for seen, one in zip(sightings, episodes, strict=True)]

    def _condition(self, context: Sequence[Any], prompt: str) -> Condition:
        return Condition(self.rows[int(context[0])][None])


def shown_right(scene: Scene, episode: Episode) -> tuple[bool, bool]:
    """Of the main object, which is the largest, as CoBSAT asks about it. A picture of nothing has neither."""
    if not scene.things:
        return False, False
    main = max(scene.things, key=lambda thing: thing.scale)
    theme = theme_of(episode.task)
    wanted = detail_of(episode.answer, theme)
    return main.kind == episode.answer.things[0].kind, detail_of(
        Scene((main,), scene.background, scene.style), theme
    ) == wanted
