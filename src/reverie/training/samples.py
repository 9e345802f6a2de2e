"""Sample sheets of a training run: what the model makes now, to be looked at with one's own eyes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..atelier.draw import draw
from ..atelier.layout import random_scene
from ..canvas import Conditions, Generator
from .janus import stack

PROMPTS = (
    "a red cat", "three blue cats at night", "a photo of a dog", "a sheep left of an apple", "two bananas",
    "a green car and a purple house", "four clocks", "a clock at 4 o'clock", "a lit candle", "a bird above a tree",
    "a photo of a yellow chair", "a swimming fish", "five hearts", "a rocket in space", "a white lion and a black cup",
    "a wooden box", "a fried egg", "a winter tree", "a penguin on a glacier", "a dice showing 6",
    "a pink boat below a blue star", "an orange orange", "a crescent moon at night", "two books",
)  # fmt: skip


def sheet(pictures: Sequence[np.ndarray], columns: int) -> Image.Image:
    """Pictures (H, W, 3) uint8 side by side, row by row; the places that are left over stay white."""
    pictures = [*pictures, *[np.full_like(pictures[0], 255)] * (-len(pictures) % columns)]
    rows = [np.concatenate(pictures[i : i + columns], 1) for i in range(0, len(pictures), columns)]
    return Image.fromarray(np.concatenate(rows, 0))


@torch.no_grad()
def reconstructions(task: Any, step: int, folder: Path, count: int = 48) -> None:
    """Held-out scenes above what the tokenizer makes of them, and their mean squared error in [-1, 1]."""
    rng = random.Random("held-out sheet")
    drawn = stack([draw(random_scene(rng), task.config.side) for _ in range(count)]).float() / 127.5 - 1
    task.model.eval()
    painted = task.reconstruct(drawn.to(next(task.model.parameters()).device)).cpu()
    task.model.train()
    error = (painted - drawn).square().mean()
    both = [_pixels(pair) for pair in zip(drawn, painted, strict=True)]
    sheet(both, 12).save(folder / "samples.png")
    with (folder / "samples.jsonl").open("a") as log:
        log.write(f'{{"step": {step}, "mse": {error:.5f}}}\n')


def _pixels(pictures: Sequence[torch.Tensor]) -> np.ndarray:
    """Pictures (3, H, W) in [-1, 1], one above the other, as uint8."""
    column = torch.cat(list(pictures), 1).clamp(-1, 1)
    return ((column + 1) * 127.5).byte().permute(1, 2, 0).cpu().numpy()


def small_painter(pipeline: Any, sizes: Any, side: int) -> Generator:
    """A pipeline that is being trained as one that paints; sizes: its steps, guidance and limit (of a prompt)."""
    from ..generators.diffusion import DiffusionPainter

    return DiffusionPainter(
        pipeline, steps=sizes.steps, guidance=sizes.guidance, limit=sizes.limit, height=side, width=side, together=8
    )


@torch.no_grad()
def paintings(task: Any, step: int, folder: Path) -> None:
    """The fixed prompts as the model paints them now."""
    task.model.eval()
    painter = task.painter()
    canvas = painter.advance(painter.start(Conditions(PROMPTS), list(range(len(PROMPTS)))))
    sheet(painter.preview(canvas), 8).save(folder / f"samples-{step:06d}.png")
    task.model.train()
