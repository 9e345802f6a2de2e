"""Vectors in the place of a T5's: a diffusion pipeline paints from them, and the inspector says what it sees.

The last judge of `align_report.py`, and the one that counts: nothing that was aligned has met this painter. By itself
it says what the painter can do at most, from its own T5's vectors of right captions, with one or several guidance
weights; and before that, what the inspector finds in the pictures as they are drawn, and in what the pipeline's
autoencoder leaves of them, which nothing that is painted can surpass:

    python -m reverie.training.drawn_report --pipeline FLUX --guidance 2 3 4 --out runs/oracle
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..atelier.draw import draw
from ..atelier.episodes import Episode, benchmark, episode
from ..atelier.inspector import Inspector
from ..atelier.language import canonical, demand_of
from ..benchmarks.atelier_cobsat import check, look_closely
from ..canvas import Conditions
from ..models.t5 import encode_text, load_t5
from ..models.thinkdiff import Condition
from .align import Words
from .janus import stack
from .recipes import shipped
from .vlm_report import TASKS, share


class Drawing:
    """Paints rows of vectors, each from a seed of its own: the number of its row."""

    def __init__(
        self, pipeline: str | Path, inspector: str | Path, together: int = 8, device: str = "cpu", workers: int = 0
    ):
        """pipeline: a folder of diffusers that reads through a T5; inspector: a folder of weights; together: so many
        rows of one length are painted at once; workers: so many processes take the second look at pictures, 0: this
        one."""
        from ..generators.thinkdiff import ThinkDiffPainter
        from ..models.diffusion_checkpoint import load_pipeline, read_index

        index = read_index(Path(pipeline))
        if index is None:
            raise ValueError(f"{pipeline} holds no diffusion pipeline; give a folder with a model_index.json.")
        own = {name: index["_reverie"][name] for name in ("guidance", "steps", "height", "width", "limit")
               if name in index.get("_reverie", {})}  # fmt: skip
        self.rows: list[Tensor] = []
        self.texts: list[str] = []
        loaded = load_pipeline(Path(pipeline), device=device, dtype=torch.float32)
        self.painter = ThinkDiffPainter(loaded, self._condition, together=together, **own)
        self.inspector, self.workers = Inspector.load(inspector), workers

    @cached_property
    def lookers(self) -> ProcessPoolExecutor:
        # Not forked: this process may hold a GPU.
        return ProcessPoolExecutor(self.workers, get_context("spawn"))

    def paint(self, vectors: Tensor, mask: Tensor) -> list[Image.Image]:
        """(B, L, D) and 0/1 (B, L) to B pictures; padding is left out, as the painter knows no mask."""
        return self.paint_rows([row[real.bool()] for row, real in zip(vectors, mask, strict=True)])

    def paint_rows(self, rows: Sequence[Tensor], texts: Sequence[str] = (), batch: int = 256) -> list[Image.Image]:
        """Rows of vectors (L, D) to pictures. texts: whose pooled vectors go with them; none: the empty text."""
        self.rows, self.texts = list(rows), list(texts) or [""] * len(rows)
        # Rows of one length go through the painter together, so like goes beside like.
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        pictures: dict[int, Image.Image] = {}
        for first in range(0, len(order), batch):
            numbers = order[first : first + batch]
            # Every row is a context of its own, so that the painter asks for its condition.
            asked = Conditions(("",) * len(numbers), contexts=tuple((str(number),) for number in numbers))
            canvas = self.painter.advance(self.painter.start(asked, numbers))
            shown = self.painter.preview(canvas)
            pictures |= {number: Image.fromarray(pixels) for number, pixels in zip(numbers, shown, strict=True)}
        return [pictures[number] for number in range(len(rows))]

    def __call__(self, vectors: Tensor, mask: Tensor, episodes: Sequence[Episode]) -> list[tuple[bool, bool]]:
        """(object right, detail right) of what is painted for each episode."""
        return self.judge(self.paint(vectors, mask), episodes)

    def judge(self, pictures: Sequence[Image.Image], episodes: Sequence[Episode]) -> list[tuple[bool, bool]]:
        """The same of pictures that are there."""
        sightings = self.inspector.look(pictures)
        each = self.lookers.map if self.workers else map
        return list(each(shown_right, episodes, pictures, sightings))

    @torch.no_grad()
    def left(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """What the autoencoder leaves of pictures of the painter's size."""
        vae, found = self.painter.pipeline.vae, []
        for picture in pictures:
            pixels = stack([picture]).to(vae.device, vae.dtype) / 127.5 - 1
            latents = vae.encode(pixels).latent_dist.mode()
            found += self.painter.pipeline.image_processor.postprocess(vae.decode(latents).sample)
        return found

    def _condition(self, context: Sequence[Any], prompt: str) -> Condition:
        number = int(context[0])
        return Condition(self.rows[number][None], self.texts[number])


def shown_right(episode: Episode, picture: Image.Image, sighting: Any) -> tuple[bool, bool]:
    """(object, detail) as `atelier-cobsat` judges them."""
    found = check(episode, look_closely(episode, picture, sighting))
    return found.thing, found.detail


def training(task: int, count: int, shots: int = 2) -> list[Episode]:
    """So many episodes of a task that are none of the benchmark's list; they show no held-out colour of a kind."""
    rng = random.Random(f"drawn report/{task}")
    return [episode(rng, task, shots) for _ in range(count)]


def by_task(results: Sequence[tuple[bool, bool]], episodes: Sequence[Episode]) -> dict[str, Any]:
    """Shares over all results, and in each task."""
    each = [
        share([result for result, one in zip(results, episodes, strict=True) if one.task == task]) for task in TASKS
    ]
    return share(results) | {"tasks": each}


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m reverie.training.drawn_report`."""
    parser = argparse.ArgumentParser(description="What a pipeline paints from its own T5's vectors of right captions.")
    parser.add_argument("--pipeline", required=True, help="folder; its text_encoder_2 holds the T5")
    parser.add_argument("--guidance", type=float, nargs="+", help="weights; the pipeline's own if left out")
    parser.add_argument("--steps", type=int, help="the pipeline's own if left out")
    parser.add_argument("--training", action="store_true", help="answers of training episodes, for choosing settings")
    parser.add_argument("-n", type=int, default=10, help="episodes of each task")
    parser.add_argument("--inspector", help="folder of its weights; the shipped ones if left out")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--together", type=int, default=8, help="pictures at once")
    parser.add_argument("--workers", type=int, default=0, help="processes that look at pictures (default: this one)")
    parser.add_argument("--out", required=True, help="folder for oracle.json and oracle.png")
    given = parser.parse_args(arguments)
    from .samples import sheet

    folder = Path(given.pipeline)
    inspector = given.inspector or shipped("atelier-inspector")
    drawing = Drawing(folder, inspector, given.together, given.device, given.workers)
    drawing.painter.steps = given.steps or drawing.painter.steps
    words = Words(drawing.painter.pipeline.tokenizer_2, 64)
    t5, _ = load_t5(folder / "text_encoder_2")
    episodes = [
        one for task in TASKS for one in (training(task, given.n) if given.training else benchmark(task, 2, given.n))
    ]
    ids, mask = words.ids([canonical(demand_of(one.answer)) for one in episodes])
    vectors, out = encode_text(t5, ids, mask).float(), Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    truth = [draw(one.answer) for one in episodes]
    found = {
        "drawn": by_task(drawing.judge(truth, episodes), episodes),
        "autoencoder": by_task(drawing.judge(drawing.left(truth), episodes), episodes),
    }
    for name, shares in found.items():
        print(name, json.dumps(shares), flush=True)
    for weight in given.guidance or [drawing.painter.guidance]:
        drawing.painter.guidance = weight
        found[str(weight)] = by_task(drawing(vectors, mask, episodes), episodes)
        print(weight, json.dumps(found[str(weight)]), flush=True)
    (out / "oracle.json").write_text(json.dumps(found, indent=1), "utf-8")
    import numpy as np

    shown = [np.asarray(picture) for picture in drawing.paint(vectors, mask)]
    sheet(shown[: len(shown) // given.n * given.n], given.n).save(out / "oracle.png")


if __name__ == "__main__":
    main()
