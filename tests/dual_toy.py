"""A tiny Qwen-Image in a Dual-GRPO whose optimum is known: bright pictures, and thoughts in capital letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from diffusion_toy import qwen_image

from reverie.thinkers import Wording
from reverie.training.alarms import Alarms
from reverie.training.dual_grpo import DualTask, DualTree, FlowSampling, Question, Side, dual_task
from reverie.training.grpo import GrpoConfig

WORDING = Wording("{prompt}", marker="")
"""A thought is a few bytes and announces nothing: its first line is the prompt."""

QUIET = Alarms(entropy=None, identical=None)
THINKER = Side({"letters": 1.0}, rank=4, alpha=8, inside="language_model", clip=0.2)
PAINTER = Side({"bright": 1.0}, rank=4, alpha=8, clip=1.0)


def letters(keys: Sequence[str], pictures: Sequence[Any]) -> list[float]:
    """Share of capital letters in what a picture was painted from."""
    texts = [picture.info["prompt"] for picture in pictures]
    return [sum(letter.isupper() for letter in text) / max(1, len(text)) for text in texts]


def bright(keys: Sequence[str], pictures: Sequence[Any]) -> list[float]:
    return [float(np.asarray(picture, np.float32).mean()) / 255 for picture in pictures]


def toy(
    tree: DualTree | None = None,
    flow: FlowSampling | None = None,
    thinker: Side = THINKER,
    painter: Side = PAINTER,
    prompts: int = 2,
    rewards: dict[str, Any] | None = None,
    **config: Any,
) -> DualTask:
    """Put `WORDING` into `WORDINGS` as `toy` first."""
    questions = [Question(text, text) for text in ("a cat", "a dog", "a red cup", "two birds")]
    return dual_task(
        qwen_image(),
        "toy",
        questions,
        rewards or {"letters": letters, "bright": bright},
        tree or DualTree(thoughts=3, images=2, limit=4),
        flow or FlowSampling(steps=4, guidance=1.0, height=32, width=32, level=0.7),
        thinker,
        painter,
        GrpoConfig(prompts=prompts, **config),
        QUIET,
    )
